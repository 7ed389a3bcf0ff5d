"""A progress step, net of the loop, against tqdm's iterator.

python benchmarks/progress.py
"""

import os
import threading
import time

from harness import compare
from tqdm import tqdm

from asyncview import BaseAsyncView
from asyncview.session import ProgressSession

N = 1_000_000


def bare():
    began = time.perf_counter()
    for _ in range(N):
        pass
    return time.perf_counter() - began


def net(loop):
    """The loop's time, less that of a bare loop just before."""

    def variant():
        floor = min(bare() for _ in range(3))
        return max(loop() - floor, 1e-9)

    return variant


def with_tqdm():
    with open(os.devnull, "w") as nowhere:
        began = time.perf_counter()
        for _ in tqdm(range(N), file=nowhere):
            pass
        return time.perf_counter() - began


def sampled(session, loop):
    """A pulse looks on while the loop runs, as it does in a process with jobs."""
    done = threading.Event()

    def look():
        while not done.wait(0.5):
            session.take(time.time())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    began = time.perf_counter()
    loop()
    taken = time.perf_counter() - began
    done.set()
    thread.join()
    return taken


def track():
    session = ProgressSession("x")

    def loop():
        for _ in session.track(range(N)):
            pass

    return sampled(session, loop)


def update():
    session = ProgressSession("x")

    def loop():
        update = session.update
        for i in range(N):
            update(i)

    return sampled(session, loop)


def advance():
    session = ProgressSession("x")

    def loop():
        advance = session.advance
        for _ in range(N):
            advance()

    return sampled(session, loop)


def set_progress():
    view = BaseAsyncView(None, None)
    view.process_id = "x"
    view.progress = ProgressSession("x")

    def loop():
        set_progress = view.set_progress
        for _ in range(N):
            set_progress("x", 45.55)

    return sampled(view.progress, loop)


def task_track():
    session = ProgressSession("x")

    def loop():
        for _ in session.task("a").track(range(N)):
            pass

    return sampled(session, loop)


def task_update():
    session = ProgressSession("x")

    def loop():
        update = session.task("a").task("b").update
        for i in range(N):
            update(i)

    return sampled(session, loop)


if __name__ == "__main__":
    compare(
        "A progress step, net of the loop",
        "tqdm(range(n))",
        {
            "tqdm(range(n))": net(with_tqdm),
            "progress.track": net(track),
            "progress.update(i)": net(update),
            "progress.advance()": net(advance),
            "set_progress(id, number)": net(set_progress),
            "task.track": net(task_track),
            "task.task.update(i)": net(task_update),
        },
        goals={
            "progress.track": 0.45,
            "progress.update(i)": 0.5,
            "progress.advance()": 0.5,
            "set_progress(id, number)": 1.2,
            "task.track": 0.45,
            "task.task.update(i)": 0.5,
        },
    )
