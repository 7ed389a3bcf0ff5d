"""The persistent registry: where the jobs of one application are found.

A job that has not ended stands in one of `SHARDS` small records, which merge with
whatever others wrote at the same time.  That is all a POST writes.  Jobs that have
ended are moved to BTrees by the pulse, many in one commit, so no request ever meets
a bucket that splits.
"""

import random
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextlib import contextmanager
from contextlib import suppress
from itertools import islice
from typing import Any
from typing import TypeVar

from BTrees.OOBTree import OOBTree
from BTrees.OOBTree import OOTreeSet
from persistent import Persistent
from transaction import TransactionManager
from transaction.interfaces import TransientError
from ZODB.Connection import Connection
from ZODB.DB import DB
from ZODB.POSException import StorageError
from zope.interface import implementer

from asyncview.interfaces import IStore
from asyncview.job import Job
from asyncview.shard import SHARDS
from asyncview.shard import Entry
from asyncview.shard import Shard
from asyncview.shard import shard_of
from asyncview.trouble import TROUBLE
from asyncview.trouble import loads

ROOT = "asyncview"

T = TypeVar("T")


class SmallTree(OOBTree):
    """A write costs a leaf and now and then a node, so both are small."""

    max_leaf_size = 6
    max_internal_size = 6


class SmallSet(OOTreeSet):
    """See `SmallTree`."""

    max_leaf_size = 6
    max_internal_size = 6


class Lease(Persistent):
    """The heartbeat of one process: a counter, because clocks jump."""

    beats = 0

    def __getstate__(self) -> tuple[Any, ...]:
        return (1, self.beats)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.beats = state


@implementer(IStore)
class Store(Persistent):
    """See `IStore`.

    ``finished`` are the jobs that have ended, by id; ``expiry`` holds when each may
    go, as pairs of whole seconds since the epoch and id; ``leases`` are the heartbeats
    of the processes, by worker.
    """

    def __init__(self) -> None:
        self.shards = tuple(Shard() for _ in range(SHARDS))
        self.finished = SmallTree()
        self.expiry = SmallSet()
        self.leases = OOBTree()

    def __getstate__(self) -> tuple[Any, ...]:
        return (1, self.shards, self.finished, self.expiry, self.leases)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shards, self.finished, self.expiry, self.leases = state

    def shard(self, id: str) -> Shard:
        return self.shards[shard_of(id)]

    def add(self, job: Job, key: str | None = None) -> None:
        """See `IStore`."""
        self.shard(job.id).put(job.id, Entry(job, key))

    def find(self, id: str) -> Entry | None:
        """See `IStore`."""
        entry = self._entry(id)
        if entry is None or not entry.readable or entry.job.state.deleted:
            return None
        return entry

    def _entry(self, id: str) -> Entry | None:
        shard = self.shard(id)
        entry = shard.entries.get(id) if loads(shard) else None
        if entry is None:
            job = self.finished.get(id)
            entry = None if job is None else Entry(job)
        return entry

    def may_have(self, id: str) -> bool:
        """Whether there is a job with this id, or nobody can tell."""
        if not loads(self.shard(id)):
            return True
        entry = self._entry(id)
        return entry is not None and not (entry.readable and entry.job.state.deleted)

    def knows(self, id: str) -> bool:
        """Whether the id is taken, if only by a tombstone."""
        return id in self.shard(id).entries or id in self.finished

    def items(self) -> Iterator[tuple[str, Entry]]:
        """Ids and entries of those that may not have ended; loads none of them."""
        for shard in self.shards:
            if loads(shard):
                yield from tuple(shard.entries.items())

    def unfinished(self) -> Iterator[Entry]:
        """See `IStore`."""
        # Of those that can't be read the sweep says so; nobody else need hear of it.
        return (entry for _id, entry in self.items() if entry.readable)

    def unreadable(self) -> frozenset[int]:
        """The numbers of the shards that can't be read."""
        shards = enumerate(self.shards)
        return frozenset(number for number, shard in shards if not loads(shard))

    def crowd(self) -> int:
        """How many jobs there are that may not have ended; loads none of them."""
        # Each start asks, and seldom is there one that can't be read.
        try:
            return sum(len(shard.entries) for shard in self.shards)
        except TROUBLE:
            raise
        except Exception:
            return sum(len(shard.entries) for shard in self.shards if loads(shard))

    def holder(self, key: str) -> Entry | None:
        """The job that has an exclusive key, until it has ended.

        StorageError where nobody can tell.
        """
        shard = self.shards[shard_of(key)]
        if not loads(shard):
            raise StorageError("nobody can tell who has an exclusive key")
        for entry in shard.entries.values():
            if entry.key == key and entry.open:
                return entry
        return None

    def spent(self, key: str) -> list[str]:
        """Ids of the jobs that have ended and stand here with an exclusive key."""
        entries = self.shards[shard_of(key)].entries
        return [id for id, each in entries.items() if each.key == key and not each.open]

    def free(self, key: str) -> None:
        """Take an exclusive key from the jobs that have ended.

        Or a start whose transaction began before theirs would conflict with them.
        """
        shard = self.shards[shard_of(key)]
        for id in self.spent(key):
            shard.put(id, shard.entries[id]._replace(key=None))

    def beat(self, worker: str) -> None:
        """Move the counter of a worker, on a lease that can be read."""
        lease = self.leases.get(worker)
        if lease is None or not loads(lease):
            lease = self.leases[worker] = Lease()
        lease.beats += 1

    def beats(self, worker: str) -> int | None:
        """The counter of a worker; None where it has none that can be read."""
        lease = self.leases.get(worker)
        return None if lease is None or not loads(lease) else lease.beats

    def ask_cancel(self, id: str) -> None:
        shard = self.shard(id)
        entry = shard.entries.get(id)
        if entry is not None and not entry.cancel:
            shard.put(id, entry._replace(cancel=True))

    def drop(self, id: str) -> None:
        """Forget a job whose record is lost."""
        self.shard(id).drop(id)
        self.finished.pop(id, None)

    def file(self, id: str, expires: Callable[[Job], float]) -> None:
        """Move a job that has ended to where it is kept; forget one that is deleted."""
        shard = self.shard(id)
        entry = shard.entries.get(id)
        job = self.finished.get(id) if entry is None else entry.job
        if job is None or not job.state.ended:
            return
        if job.state.deleted:
            self.finished.pop(id, None)
        elif entry is not None:
            # First what may fail: a job stands in one place or the other.
            item = (int(expires(job)), id)
            self.finished[id] = job
            self.expiry.add(item)
        shard.drop(id)

    def expired(self, now: float, limit: int = 200) -> list[tuple[int, str]]:
        """Who may go, oldest first; loads no job."""
        return list(islice(self.expiry.keys(max=(int(now), "")), limit))

    def forget(self, expires: int, id: str) -> Job | None:
        """Remove a finished job, its tombstone first; gives it if it was there."""
        job: Job | None = self.finished.get(id)
        if job is not None:
            if not job.state.deleted:
                job.state.delete()
            del self.finished[id]
        self.expiry.discard((expires, id))
        return job


def root_key(name: str) -> str:
    return f"{ROOT}:{name}"


def store_of(connection: Connection, name: str) -> Store | None:
    """The application's registry as this connection sees it."""
    store: Store | None = connection.root().get(root_key(name))
    return store


def prepare(db: DB, name: str) -> None:
    """Make the registry, in a transaction of its own."""

    def make(connection: Connection) -> None:
        if store_of(connection, name) is None:
            connection.root()[root_key(name)] = Store()

    transact(db, make)


@contextmanager
def connected(db: DB) -> Iterator[Connection]:
    """A connection with a transaction of its own, aborted where nobody commits."""
    tm = TransactionManager(explicit=True)
    connection = db.open(tm)
    try:
        tm.begin()
        yield connection
    finally:
        # What went wrong before counts more; after a commit there is nothing to abort.
        with suppress(Exception):
            tm.abort()
        connection.close()


def reading(db: DB) -> AbstractContextManager[Connection]:
    """A connection with a snapshot of now, for looking only."""
    return connected(db)


def transact(
    db: DB,
    change: Callable[[Connection], T],
    tries: int = 12,
    sleep: Callable[[float], Any] = time.sleep,
    stored: Callable[[Connection], T | None] = lambda connection: None,
) -> T:
    """Run a small change in a transaction of its own, again where others were first.

    A commit may fail and be stored all the same: ``stored`` says what ``change`` would
    have given if an earlier try was, and None if none was.  Raises what the last try
    raised.
    """
    tm = TransactionManager(explicit=True)
    connection = db.open(tm)
    try:
        for attempt in range(1, tries + 1):
            tm.begin()
            try:
                known = stored(connection) if attempt > 1 else None
                result = change(connection) if known is None else known
                tm.commit()
                return result
            except Exception as error:
                tm.abort()
                if attempt == tries or not isinstance(error, TransientError):
                    tm.begin()
                    known = stored(connection)
                    tm.abort()
                    if known is None:
                        raise
                    return known
                # Full jitter, or those who collided collide again.
                sleep(random.uniform(0, min(0.001 * 2**attempt, 0.25)))
            except BaseException:
                tm.abort()
                raise
        raise AssertionError("unreachable")  # pragma: no cover - the loop returns
    finally:
        connection.close()
