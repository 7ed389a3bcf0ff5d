"""Kills servers, again and again, while clients do not stop to ask for more."""

import random
import threading
from collections import Counter
from contextlib import suppress

from chaos.clients import Clients
from chaos.oracle import judge
from chaos.points import POINTS
from chaos.servers import wait_until

#: Threads of the servers that run what is left, in the end.
THREADS = 4

#: Seconds until a server that does not reach its point is killed all the same.
LONGEST = 4.0


class Rampage:
    """Kills the servers of a world; then `settle` gives the verdict.

    After each ``zeo_every`` of them also that of ZEO.
    """

    def __init__(self, world, servers=1, zeo=None, zeo_every=12, seed=1):
        self.world = world
        self.zeo = zeo
        self.zeo_every = zeo_every
        self.kills = 0
        self.zeo_kills = 0
        self._dice = random.Random(seed)
        # A third of them die just some time.
        self._plan = [*POINTS, *[None] * (len(POINTS) // 2)]
        self._slots = [None] * servers
        self._pause = threading.Event()
        self.clients = Clients(self._any_server)

    def _any_server(self):
        servers = [each for each in self._slots if each is not None]
        return random.choice(servers) if servers else None

    def _start(self, slot, point, **settings):
        count = self._dice.randint(1, 3)
        self._slots[slot] = self.world.start(point, count, **settings).ready()

    def _end(self, slot, point):
        server = self._slots[slot]
        if point is None:
            self._pause.wait(self._dice.uniform(0.0, 1.2))
        else:
            # What the point stands for may not happen to this one.
            with suppress(AssertionError):
                wait_until(lambda: not server.alive, "its point", LONGEST)
        self._slots[slot] = None
        server.kill()
        self.kills += 1

    def run(self, rounds):
        points = [None] * len(self._slots)
        try:
            for number in range(rounds):
                slot = number % len(self._slots)
                if self._slots[slot] is not None:
                    self._end(slot, points[slot])
                points[slot] = self._plan[number % len(self._plan)]
                self._start(slot, points[slot])
                if self.zeo is not None and (number + 1) % self.zeo_every == 0:
                    self._kill_zeo()
            for slot, point in enumerate(points):
                self._end(slot, point)
            # They do not stop before there is a server that answers.
            for slot in range(len(self._slots)):
                # Those that are killed run few at a time, so that there is a queue.
                self._start(slot, None, asyncview__threads=THREADS)
        finally:
            self.clients.stop()
        return self

    def _kill_zeo(self):
        self.zeo.end()
        self._pause.wait(self._dice.uniform(0.0, 0.3))
        self.zeo.start()
        self.zeo_kills += 1

    def settle(self, patience=60.0):
        """Wait until nothing moves any more, then look at all of it."""
        left = quiet(self.world, self._slots, patience)
        verdict = judge(self.world, self.clients)
        verdict.expect(left is None, f"for {patience} s there are still {left}")
        verdict.numbers["kills"] = self.kills
        verdict.numbers["kills of ZEO"] = self.zeo_kills
        verdict.points = Counter(each["point"] for each in self.world.points.read())
        return verdict


def quiet(world, servers, patience=60.0):
    """Wait until all has ended and is tidied up, then end the servers.

    Gives what is left when it has not become less for ``patience`` seconds: nothing, if
    all is well.
    """
    left = {}

    def becomes_less():
        status, found = servers[0].request("GET", "/rest")
        assert status == 200, found
        before = left.get("jobs")
        left.update(found)
        return is_tidy() or (before is not None and found["jobs"] < before)

    def is_tidy():
        # Leases of those that are alive may stay.
        return not left["jobs"] and left["leases"] <= len(servers)

    try:
        while not left or not is_tidy():
            wait_until(becomes_less, "less is left", patience)
    except AssertionError:
        return left
    finally:
        world.kill_all()
    return None
