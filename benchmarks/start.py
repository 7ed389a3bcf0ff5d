"""POST accepted to `__run__` entered, against one commit and a pool's hand-over.

The clock starts in the first hook after the commit of the POST, for both; the request
that the POST's thread still has to end is the same for both, too.  Besides, where the
time goes: what a thread has to do between the two.

    python benchmarks/start.py            fsync as it is
    python benchmarks/start.py 0.002      seconds added to each fsync
"""

import functools
import queue
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from apps import application
from apps import call
from apps import environ
from apps import post
from apps import wait_ended
from drain import Blank
from drain import slow_down
from harness import compare
from pyramid.response import Response
from pyramid_zodbconn import get_connection
from transaction import TransactionManager

from asyncview import BaseAsyncView
from asyncview.claims import Claims
from asyncview.executors.threads import ThreadExecutor
from asyncview.pyramid.attempt import Attempt
from asyncview.pyramid.replay import PyramidFront
from asyncview.pyramid.start import Start

N = 60


class Noting(BaseAsyncView):
    """A job that says when it was entered."""

    label = "Noting"
    entered: queue.SimpleQueue = queue.SimpleQueue()

    def __run__(self):
        self.entered.put(time.perf_counter())
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
    """A pool of one thread, and for work one small commit of a connection it keeps."""

    done: queue.SimpleQueue = queue.SimpleQueue()

    def __init__(self, db):
        self._tm = TransactionManager(explicit=True)
        self._connection = db.open(self._tm)
        self._tm.begin()
        self._blank = self._connection.root()["blank"] = Blank()
        self._blank.data = b""
        self._tm.commit()
        self._threads = ThreadPoolExecutor(1)

    def give(self):
        self._threads.submit(self._work, time.perf_counter())

    def _work(self, began):
        self._tm.begin()
        self._blank.data = b"x" * 200
        self._blank._p_changed = True
        self._tm.commit()
        self.done.put((began, time.perf_counter()))

    def close(self):
        self._threads.shutdown()
        self._connection.close()


def plain(request):
    """Write something, and hand over when that is committed."""
    get_connection(request).root()["plain"] = time.time()
    pool = request.registry.pool
    request.tm.get().addAfterCommitHook(lambda success: pool.give())
    return Response()


#: What is noted on the way, as method and what it begins.
STEPS = (
    (Start, "_when_stored", "the rest of the request"),
    (ThreadExecutor, "submit", "a thread wakes up"),
    (Claims, "take", "the claim, which is a commit"),
    (PyramidFront, "replay", "the replay begins: environ, request, transaction"),
    (Attempt, "run", "tweens, routes, root, permissions, view"),
)


class Way:
    """When a job came to each of the `STEPS`, after each other."""

    def __init__(self):
        self.steps = []
        self.taken = {name: [] for _, _, name in STEPS}
        for cls, method, name in STEPS:
            self._note(cls, method, name)

    def _note(self, cls, method, name):
        inner = getattr(cls, method)

        @functools.wraps(inner)
        def noting(*args, **kw):
            self.steps.append((name, time.perf_counter()))
            return inner(*args, **kw)

        setattr(cls, method, noting)

    def end(self, entered):
        """Seconds from the first to the moment when the job was ``entered``."""
        began = self.steps[0][1]
        ends = [moment for _, moment in self.steps[1:]] + [entered]
        for (name, moment), end in zip(self.steps, ends, strict=True):
            self.taken[name].append(end - moment)
        self.steps.clear()
        return entered - began

    def show(self):
        print("\nOf that, in microseconds (median):")
        for name, taken in self.taken.items():
            print(f"{name:52} {statistics.median(taken) * 1e6:8.0f}")


def started(engine, app, way):
    """From the commit to the first line of `__run__`."""

    def variant():
        taken = []
        for _ in range(N):
            way.steps.clear()
            job = post(app, "/noting", b"")
            taken.append(way.end(Noting.entered.get()))
            wait_ended(engine, [job])
        return statistics.median(taken)

    return variant


def configure(config):
    config.add_async_view(Noting, "noting")
    config.add_view(plain, name="plain")


def main():
    added = float(sys.argv[1]) if len(sys.argv) > 1 else 0.0
    if added:
        slow_down(added)
    with application(configure) as (registry, app):
        engine = registry.asyncview.engine
        wait_ended(engine, [post(app)])
        registry.pool, way = Pool(engine.db), Way()
        compare(
            f"POST accepted to __run__ entered, median of {N},"
            f" fsync +{added * 1000:g} ms",
            "one commit and a pool hand-over",
            {
                "one commit and a pool hand-over": handed_over(app),
                "a job": started(engine, app, way),
            },
            rounds=9,
            goals={"a job": 1.5},
        )
        way.show()
        registry.pool.close()


if __name__ == "__main__":
    main()
