"""POST accepted to `__run__` entered, against one commit and a pool's hand-over.

The clock starts when the POST's transaction has committed, for both; the request that
the POST's thread still has to end is the same for both, too.

    python benchmarks/start.py
"""

import queue
import statistics
import threading
import time

from apps import application
from apps import call
from apps import environ
from apps import post
from apps import wait_ended
from drain import Blank
from harness import compare
from pyramid.response import Response
from pyramid_zodbconn import get_connection
from transaction import TransactionManager

from asyncview import BaseAsyncView

N = 60


class Noting(BaseAsyncView):
    """A job that notes when it was entered."""

    label = "Noting"
    entered = 0.0

    def __run__(self):
        Noting.entered = time.perf_counter()
        return None


def handed_over(app):
    """A plain view's POST, whose commit hands an item to a thread that commits once."""

    def variant():
        taken = []
        for _ in range(N):
            call(app, environ("/plain", "POST"))
            began, ended = Pool.done.get()
            taken.append(ended - began)
        return statistics.median(taken)

    return variant


class Pool:
    """One thread that waits for work, which is one small commit."""

    given: queue.SimpleQueue = queue.SimpleQueue()
    done: queue.SimpleQueue = queue.SimpleQueue()

    def __init__(self, db):
        self._tm = TransactionManager(explicit=True)
        self._connection = db.open(self._tm)
        self._tm.begin()
        self._blank = self._connection.root()["blank"] = Blank()
        self._blank.data = b""
        self._tm.commit()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self):
        while began := self.given.get():
            self._tm.begin()
            self._blank.data = b"x" * 200
            self._blank._p_changed = True
            self._tm.commit()
            self.done.put((began, time.perf_counter()))

    def close(self):
        self.given.put(0)
        self._thread.join()
        self._connection.close()


def plain(request):
    """Write something, and hand over when that is committed."""
    get_connection(request).root()["plain"] = time.time()
    request.tm.get().addAfterCommitHook(
        lambda success: Pool.given.put(time.perf_counter())
    )
    return Response()


def started(engine, app):
    """From the wake-up after the commit to the first line of `__run__`."""
    began = []
    submit = engine.executor.submit

    def submitting(job_id):
        began.append(time.perf_counter())
        submit(job_id)

    engine.executor.submit = submitting

    def variant():
        taken = []
        for _ in range(N):
            wait_ended(engine, [post(app, "/noting", b"")])
            taken.append(Noting.entered - began.pop())
        return statistics.median(taken)

    return variant


def configure(config):
    config.add_async_view(Noting, "noting")
    config.add_view(plain, name="plain")


def main():
    with application(configure) as (registry, app):
        engine = registry.asyncview.engine
        wait_ended(engine, [post(app)])
        pool = Pool(engine.db)
        compare(
            f"POST accepted to __run__ entered, median of {N}",
            "one commit and a pool hand-over",
            {
                "one commit and a pool hand-over": handed_over(app),
                "a job": started(engine, app),
            },
            rounds=9,
            goals={"a job": 1.5},
        )
        pool.close()


if __name__ == "__main__":
    main()
