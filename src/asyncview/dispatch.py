"""What a process knows of its jobs in plain memory, and whom to wake.

Nothing here is the truth: that is in the database, and a wake-up may be lost.
"""

import sys
import threading
from collections import deque
from collections.abc import Container
from collections.abc import Iterator
from contextlib import contextmanager

from asyncview.job import new_id
from asyncview.session import ProgressSession
from asyncview.shard import SHARDS
from asyncview.shard import shard_of


class Ids:
    """Hands out job ids whose shard no open transaction of this process writes.

    Shards merge, but merging needs a storage that resolves conflicts, and those
    that do not meet need no merge.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clock = 0
        self._users = [0] * SHARDS
        self._freed = [0] * SHARDS
        #: Shards that can't be read, and so take nothing.
        self.avoid: frozenset[int] = frozenset()

    def begin(self) -> int:
        """To be called before a transaction begins; hand the answer to `pick`."""
        return self._clock

    def pick(self, began: int) -> str:
        """A new id; `release` its shard when the transaction is over."""
        with self._lock:
            shards = set(range(SHARDS)) - self.avoid
            free = {
                shard
                for shard in shards
                if not self._users[shard] and self._freed[shard] <= began
            }
            # With all of them in use, the storage has to merge.
            id = _id_in(free or shards or range(SHARDS))
            self._users[shard_of(id)] += 1
            return id

    def take(self, id: str) -> None:
        """Reserve the shard of an id that was picked earlier."""
        with self._lock:
            self._users[shard_of(id)] += 1

    def pick_beside(self, key: str) -> str:
        """A new id in the shard of ``key``, where a twin is a true conflict."""
        id = _id_in((shard_of(key),))
        self.take(id)
        return id

    def release(self, id: str) -> None:
        shard = shard_of(id)
        with self._lock:
            self._users[shard] -= 1
            self._clock += 1
            self._freed[shard] = self._clock

    @contextmanager
    def using(self, ids: list[str]) -> Iterator[list[str]]:
        """Take the shards of those ``ids`` that nobody uses; the others wait."""
        with self._lock:
            free = [id for id in ids if not self._users[shard_of(id)]]
            shards = {shard_of(id) for id in free}
            for shard in shards:
                self._users[shard] += 1
        try:
            yield free
        finally:
            with self._lock:
                self._clock += 1
                for shard in shards:
                    self._users[shard] -= 1
                    self._freed[shard] = self._clock


def _id_in(shards: Container[int]) -> str:
    while True:
        id = new_id()
        if shard_of(id) in shards:
            return id


class Live:
    """The jobs that run in this process, and who waits for their end."""

    def __init__(self, switch_interval: float = 0.0) -> None:
        self.ended: deque[str] = deque()
        self.grace = threading.Lock()
        self._lock = threading.Lock()
        self._sessions: dict[str, ProgressSession] = {}
        self._deadlines: dict[str, float] = {}
        self._parting: set[str] = set()
        self._events: dict[str, list[threading.Event]] = {}
        self._switch_interval = switch_interval
        self._switched: float | None = None

    def begin(self, session: ProgressSession, deadline: float | None = None) -> None:
        """A job is this process's to run, or a new attempt of it begins.

        ``deadline`` is by ``time.monotonic``.
        """
        assert session.id is not None
        with self._lock:
            if not self._sessions and self._switch_interval:
                before = sys.getswitchinterval()
                if self._switch_interval < before:
                    self._switched = before
                    sys.setswitchinterval(self._switch_interval)
            self._sessions[session.id] = session
            if deadline is not None:
                self._deadlines[session.id] = deadline

    def part(self, id: str, deadline: float | None) -> None:
        """A job has ended; its view is told, for as long as ``deadline`` says."""
        with self._lock:
            if id in self._sessions:
                self._parting.add(id)
                self._deadlines.pop(id, None)
                if deadline is not None:
                    self._deadlines[id] = deadline

    def is_parting(self, id: str) -> bool:
        return id in self._parting

    def end(self, id: str) -> None:
        """A job has ended, or is no longer this process's."""
        with self._lock:
            self._sessions.pop(id, None)
            self._deadlines.pop(id, None)
            self._parting.discard(id)
            if not self._sessions and self._switched is not None:
                sys.setswitchinterval(self._switched)
                self._switched = None
            events = self._events.pop(id, ())
        self.ended.append(id)
        for event in events:
            event.set()

    def release(self, id: str) -> None:
        """A job that waited here will not run here: nobody need wait for its end."""
        with self._lock:
            events = () if id in self._sessions else self._events.pop(id, ())
        for event in events:
            event.set()

    def sessions(self) -> list[ProgressSession]:
        with self._lock:
            return list(self._sessions.values())

    def session(self, id: str) -> ProgressSession | None:
        return self._sessions.get(id)

    def __contains__(self, id: str) -> bool:
        return id in self._sessions

    def __len__(self) -> int:
        return len(self._sessions)

    def overdue(self, now: float) -> list[ProgressSession]:
        """The jobs that have run for longer than their views allow."""
        with self._lock:
            return [
                self._sessions[id]
                for id, deadline in self._deadlines.items()
                if deadline <= now
            ]

    @contextmanager
    def watching(self, id: str) -> Iterator[threading.Event]:
        """An event that is set when the job ends in this process."""
        event = threading.Event()
        with self._lock:
            self._events.setdefault(id, []).append(event)
        try:
            yield event
        finally:
            with self._lock:
                # After the end the list is another one, or none.
                events = self._events.get(id, [])
                if event in events:
                    events.remove(event)
                    if not events:
                        del self._events[id]


class Gates:
    """Lets a job that keeps losing conflicts have its context to itself for once.

    Only within this process, and for a bounded time: a job that works for an hour
    must not hold up another for as long.
    """

    def __init__(self, patience: float = 30.0) -> None:
        self._patience = patience
        self._changed = threading.Condition()
        self._inside: dict[object, int] = {}
        self._alone: dict[object, int] = {}

    @contextmanager
    def enter(self, key: object, alone: bool) -> Iterator[None]:
        inside, waiting = self._inside, self._alone
        with self._changed:
            if alone:
                # Newcomers wait from now on; those inside are waited for.
                waiting[key] = waiting.get(key, 0) + 1
                self._changed.wait_for(
                    lambda: not inside.get(key), timeout=self._patience
                )
            else:
                self._changed.wait_for(
                    lambda: not waiting.get(key), timeout=self._patience
                )
            inside[key] = inside.get(key, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                _decrease(inside, key)
                if alone:
                    _decrease(waiting, key)
                self._changed.notify_all()


def _decrease(counts: dict[object, int], key: object) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
