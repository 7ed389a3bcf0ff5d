"""What 10,000 kept jobs cost the others: nothing, and their expiry no poll.

One site with none and one with all of them, in turn.

    python benchmarks/many.py
"""

import gc
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from apps import Held
from apps import Nothing
from apps import application
from apps import call
from apps import environ
from apps import post
from apps import wait_ended
from harness import compare

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from kept import keep

from asyncview.expiry import BATCH
from asyncview.store import transact

KEPT = 10_000
N = 100
#: The most that they may cost, by ratio.
GOAL = 1.1
#: Milliseconds that an expiry may hold up a poll.
HELD_UP = 50


class Passing(Nothing):
    """Is not kept, so that the site which has none has none."""

    keep = 0


def configure(config):
    config.add_async_view(Passing, "passing")


class Life:
    """What becomes of jobs on one site, a step at a time."""

    def __init__(self, registry, app):
        self.app = app
        self.engine = registry.asyncview.engine
        self.held = self.engine.executor = Held(self.engine.executor)
        # It beats and sweeps when we say so.
        self.engine.pulse.start = lambda: None

    def start(self):
        for _ in range(N):
            post(self.app, "/passing")

    def end(self):
        wait_ended(self.engine, self.held.release())

    def tidy(self):
        self.engine.pulse.beat()

    def sweep(self):
        for _ in range(10):
            self.engine.pulse.sweep()

    def timed(self, *steps):
        """Seconds that the last of ``steps`` takes, after those before and between."""

        def variant():
            for step in steps[:-1]:
                step()
            began = time.perf_counter()
            steps[-1]()
            taken = time.perf_counter() - began
            # What is left is not the next round's.
            self.end()
            self.tidy()
            self.engine.pulse.sweep()
            return taken

        return variant


def polled(app, process_id):
    query = f"process_id={process_id}&output_json=1"
    return lambda: call(app, environ("/nothing/completed", query=query))


def longest_poll(poll, done):
    """Milliseconds of the slowest of many polls, until ``done`` is set."""
    longest = 0.0
    while not done.is_set():
        began = time.perf_counter()
        assert poll()[0] == "200 OK"
        longest = max(longest, time.perf_counter() - began)
    return 1000 * longest


def main():
    missed = False
    with ExitStack() as stack:
        lives = {
            name: Life(*stack.enter_context(application(configure)))
            for name in ("none kept", f"{KEPT} kept")
        }
        polls = {}
        for name, life in lives.items():
            polls[name] = polled(life.app, post(life.app))
            life.end()
            life.tidy()
        life = lives[f"{KEPT} kept"]
        for _ in range(KEPT // 1000):
            keep(life.engine.db, "bench", 1000, time.time() + 3600)
        steps = {
            f"{N} starts": lambda life, poll: (life.start,),
            f"{N} ends": lambda life, poll: (life.start, life.end),
            f"{N} polls": lambda life, poll: (lambda: [poll() for _ in range(N)],),
            "10 idle sweeps": lambda life, poll: (life.sweep,),
            # Not held to the goal: in a tree of thousands each has a leaf of its own.
            f"{N} tidied": lambda life, poll: (life.start, life.end, life.tidy),
        }
        for title, make in steps.items():
            variants = {
                name: life.timed(*make(life, polls[name]))
                for name, life in lives.items()
            }
            goals = {} if title.endswith("tidied") else {f"{KEPT} kept": GOAL}
            ratios = compare(title, "none kept", variants, rounds=15, goals=goals)
            missed |= any(ratios[name] > goal for name, goal in goals.items())

        poll, engine = polls[f"{KEPT} kept"], life.engine

        def beside(action):
            done = threading.Event()

            def run():
                try:
                    action()
                finally:
                    done.set()

            thread = threading.Thread(target=run)
            thread.start()
            longest = longest_poll(poll, done)
            thread.join()
            return longest

        def expire():
            # Those that were filed, and not the one that is polled.
            engine.runner.clock = lambda: time.time() + 2 * 3600
            for _ in range(KEPT // 200):
                engine.pulse.sweep()

        def commit():
            """As often, and nothing else: what the disk alone does to a poll."""
            for number in range(KEPT // BATCH):
                transact(engine.db, lambda c, n=number: c.root().update(n=n))

        slowest = []
        for action in (lambda: time.sleep(3), commit, expire):
            # The garbage of what was before is not the expiry's.
            gc.collect()
            slowest.append(beside(action))
        still, plain, expiring = slowest
        # A disk that stops for a moment does so for any commit.
        missed |= expiring - max(still, plain) > HELD_UP
        print(f"\nThe slowest poll beside nothing took {still:.1f} ms,")
        print(f"beside {KEPT // BATCH} plain commits {plain:.1f} ms,")
        print(f"beside the expiry of all {expiring:.1f} ms (goal: {HELD_UP} ms more)")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
