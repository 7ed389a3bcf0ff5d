"""POST accepted to `__run__` entered, against one commit and a pool's hand-over.

The clock starts in the first hook after the commit of the POST, for both; the request
that the POST's thread still has to end is the same for both, too.  Besides, where the
time goes: what a thread has to do between the two.

    python benchmarks/start.py
"""

import functools
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
from asyncview.claims import Claims
from asyncview.executors.threads import ThreadExecutor
from asyncview.pyramid.attempt import Attempt
from asyncview.pyramid.replay import PyramidFront
from asyncview.pyramid.start import Start

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
            wait_ended(engine, [post(app, "/noting", b"")])
            taken.append(way.end(Noting.entered))
        return statistics.median(taken)

    return variant


def configure(config):
    config.add_async_view(Noting, "noting")
    config.add_view(plain, name="plain")


def main():
    with application(configure) as (registry, app):
        engine = registry.asyncview.engine
        wait_ended(engine, [post(app)])
        pool, way = Pool(engine.db), Way()
        compare(
            f"POST accepted to __run__ entered, median of {N}",
            "one commit and a pool hand-over",
            {
                "one commit and a pool hand-over": handed_over(app),
                "a job": started(engine, app, way),
            },
            rounds=9,
            goals={"a job": 1.5},
        )
        way.show()
        pool.close()


if __name__ == "__main__":
    main()
