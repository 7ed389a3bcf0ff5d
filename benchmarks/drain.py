"""Queued no-op jobs drained (claim, replay, end), against two plain commits a job.

python benchmarks/drain.py            fsync as it is
python benchmarks/drain.py 0.002      seconds added to each fsync
"""

import os
import secrets
import sys
import time

from apps import Held
from apps import application
from apps import post
from apps import wait_ended
from harness import compare
from persistent import Persistent
from transaction import TransactionManager

from asyncview.engine import Engine

JOBS = 200


class Blank(Persistent):
    """As many bytes as are asked for."""

    data = b""

    def __getstate__(self):
        return self.data

    def __setstate__(self, state):
        self.data = state


def slow_down(seconds):
    fsync = os.fsync

    def slower(fd):
        fsync(fd)
        time.sleep(seconds)

    os.fsync = slower
    import ZODB.FileStorage.FileStorage

    ZODB.FileStorage.FileStorage.fsync = slower


def drained(threads):
    """Seconds to drain the queue, and the bytes a job that this appended."""
    with application(asyncview__threads=str(threads)) as (registry, app):
        engine: Engine = registry.asyncview.engine
        held = engine.executor = Held(engine.executor)
        for _ in range(JOBS):
            post(app)
        size = engine.db.storage.getSize()
        began = time.perf_counter()
        wait_ended(engine, held.release())
        taken = time.perf_counter() - began
        return taken, (engine.db.storage.getSize() - size) / JOBS


def floor(size):
    """Two plain commits of the same bytes each."""
    with application() as (registry, _app):
        db = registry.asyncview.engine.db
        tm = TransactionManager(explicit=True)
        connection = db.open(tm)
        tm.begin()
        root = connection.root()
        blanks = [Blank() for _ in range(JOBS)]
        root["blanks"] = blanks
        tm.commit()
        # What a transaction weighs by itself is there in any case.
        payload = secrets.token_bytes(max(int(size / 2) - 110, 1))
        began = time.perf_counter()
        for blank in blanks:
            for _ in range(2):
                tm.begin()
                blank.data = payload
                blank._p_changed = True
                tm.commit()
        taken = time.perf_counter() - began
        connection.close()
        return taken


def main():
    added = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0
    if added:
        slow_down(added)
    _, size = drained(1)
    print(f"a drained job appends {size:.0f} bytes (claim, end, tidying)")
    goals = (
        {"1 thread": 0.95, "4 threads": 1.1}
        if added
        else {
            "1 thread": 0.7,
            "4 threads": 0.6,
        }
    )
    compare(
        f"{JOBS} no-op jobs, fsync +{added * 1000:g} ms",
        "two plain commits a job",
        {
            "two plain commits a job": lambda: floor(size),
            "1 thread": lambda: drained(1)[0],
            "4 threads": lambda: drained(4)[0],
        },
        rounds=5,
        goals=goals,
        invert=True,
    )


if __name__ == "__main__":
    main()
