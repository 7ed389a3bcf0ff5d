"""Users who start jobs, come what may, and remember what they were told."""

import random
import threading
from collections import Counter

from chaos.app import COUNTERS

FINAL = ("completed", "failed", "cancelled")

#: What sort of job is started, how often.
KINDS = {
    "plain": 8,
    "restartable": 4,
    "slow": 4,
    "failing": 2,
    "exiting": 1,
    "big": 1,
}


class Clients:
    """Threads that POST to the server that ``choose`` gives, until `stop`.

    They end by themselves after ``limit`` jobs.  `answered` has the id of each job
    whose POST was answered, by its key.
    """

    def __init__(self, choose, number=3, limit=None, kinds=KINDS, counters=0):
        self._choose = choose
        self._kinds = kinds
        self._counters = counters
        self._limit = limit
        self._lock = threading.Lock()
        self._keys = 0
        self._stopped = threading.Event()
        self.answered = {}
        #: Final states as they were seen.
        self.seen = {}
        #: What the other POSTs got: a status, or the name of an error.
        self.refused = Counter()
        #: Answers to a look at a job that were no status document.
        self.odd = Counter()
        self._threads = [
            threading.Thread(target=self._work, args=(number,), daemon=True)
            for number in range(number)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self):
        self._stopped.set()
        self.join()

    def join(self):
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive(), "a client hangs"

    def _work(self, seed):
        dice = random.Random(seed)
        while not self._stopped.is_set():
            with self._lock:
                if self._limit is not None and self._keys >= self._limit:
                    return
                self._keys += 1
                key = f"key-{self._keys}"
            self._post(dice, key)
            if dice.random() < 0.3:
                self._look(dice)

    def _server(self):
        while not self._stopped.is_set():
            server = self._choose()
            if server is not None:
                return server
            self._stopped.wait(0.005)
        return None

    def _post(self, dice, key):
        (kind,) = dice.choices(list(self._kinds), self._kinds.values())
        fields = {"key": key, "mode": kind, "counter": []}
        if kind == "restartable":
            fields["restartable"] = 3
        if kind == "slow":
            fields["seconds"] = dice.uniform(0.05, 0.3)
        for _ in range(self._counters):
            fields["counter"].append(dice.randrange(COUNTERS))
        server = self._server()
        if server is None:
            return
        try:
            status, document = server.request("POST", "/work", fields, timeout=30)
        except OSError as error:
            self.refused[type(error).__name__] += 1
            self._stopped.wait(0.01)
            return
        if status == 202:
            self.answered[key] = document["process_id"]
        else:
            self.refused[status] += 1

    def _look(self, dice):
        """Ask for a job that is likely to have ended lately."""
        ids = list(self.answered.values())[-50:]
        server = self._server()
        if not ids or server is None:
            return
        id = dice.choice(ids)
        try:
            status, document = server.status(id)
        except OSError:
            return
        if status != 200:
            self.odd[status] += 1
        elif document["status"] in FINAL:
            self.seen.setdefault(id, document["status"])
