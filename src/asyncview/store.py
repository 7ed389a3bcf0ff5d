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
from contextlib import contextmanager
from typing import Any
from typing import NamedTuple
from typing import TypeVar
from zlib import crc32

from BTrees.OOBTree import OOBTree
from BTrees.OOBTree import OOTreeSet
from persistent import Persistent
from transaction import TransactionManager
from transaction.interfaces import TransientError
from ZODB.Connection import Connection
from ZODB.DB import DB
from ZODB.POSException import ConflictError

from asyncview.job import Job
from asyncview.progress import NOTHING
from asyncview.progress import Progress
from asyncview.progress import Snapshot

SHARDS = 128
ROOT = "asyncview"

T = TypeVar("T")


class SmallTree(OOBTree):
    """A write costs a leaf, so leaves are small."""

    max_leaf_size = 8


class SmallSet(OOTreeSet):
    """See `SmallTree`."""

    max_leaf_size = 8


class Entry(NamedTuple):
    """What is known of a job that has not ended, beside the job.

    ``key`` is its exclusive key, ``cancel`` whether it was asked to stop, and
    ``progress`` is made by the first pulse that has something to say.
    """

    job: Job
    key: str | None = None
    cancel: bool = False
    progress: Progress | None = None

    @property
    def snapshot(self) -> Snapshot:
        return NOTHING if self.progress is None else self.progress.snapshot


class Shard(Persistent):
    """Some of the jobs that have not ended, by id."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {id: _trimmed(entry) for id, entry in self.entries.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.entries = {id: Entry(*entry) for id, entry in state.items()}

    def put(self, id: str, entry: Entry) -> None:
        self.entries[id] = entry
        self._p_changed = True

    def drop(self, id: str) -> None:
        if self.entries.pop(id, None) is not None:
            self._p_changed = True

    def _p_resolveConflict(
        self, old: dict[str, Any], saved: dict[str, Any], new: dict[str, Any]
    ) -> dict[str, Any]:
        """Three-way merge by id, and within an entry by field.

        Only two jobs with one exclusive key are a true conflict.
        """
        merged = {
            id: entry for id, entry in saved.items() if id in new or id not in old
        }
        keys = {Entry(*entry).key for id, entry in saved.items() if id not in old}
        for id, values in new.items():
            if id not in old:
                key = Entry(*values).key
                if id in saved or (key is not None and key in keys):
                    raise ConflictError(f"two jobs with the exclusive key {key}")
                merged[id] = values
            elif id in saved:
                mine, theirs, base = Entry(*values), Entry(*saved[id]), Entry(*old[id])
                merged[id] = _trimmed(
                    mine._replace(
                        cancel=mine.cancel or theirs.cancel,
                        # References can't be compared here, but the progress
                        # record only ever comes (or, requeued, goes).
                        progress=(
                            theirs.progress
                            if (mine.progress is None) == (base.progress is None)
                            else mine.progress
                        ),
                    )
                )
        return merged


def _trimmed(entry: Entry) -> tuple[Any, ...]:
    size = 4
    while size > 1 and not entry[size - 1]:
        size -= 1
    return tuple(entry)[:size]


class Lease(Persistent):
    """The heartbeat of one process: a counter, because clocks jump."""

    beats = 0

    def __getstate__(self) -> tuple[Any, ...]:
        return (self.beats,)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        (self.beats,) = state


class Store(Persistent):
    """See `IStore`."""

    def __init__(self) -> None:
        self.shards = tuple(Shard() for _ in range(SHARDS))
        self.finished = SmallTree()
        self.expiry = SmallSet()
        self.leases = OOBTree()

    def shard(self, id: str) -> Shard:
        return self.shards[shard_of(id)]

    def add(self, job: Job, key: str | None = None) -> None:
        self.shard(job.id).put(job.id, Entry(job, key))

    def find(self, id: str) -> Entry | None:
        """See `IStore`."""
        entry = self.shard(id).entries.get(id)
        if entry is None:
            job = self.finished.get(id)
            if job is None:
                return None
            entry = Entry(job)
        return None if entry.job.state.deleted else entry

    def unfinished(self) -> Iterator[Entry]:
        """Those that may not have ended; the state of each says whether it has."""
        for shard in self.shards:
            yield from tuple(shard.entries.values())

    def crowd(self) -> int:
        """How many jobs there are that may not have ended; loads none of them."""
        return sum(len(shard.entries) for shard in self.shards)

    def holder(self, key: str) -> Entry | None:
        """The job that has an exclusive key, until it has ended."""
        for entry in self.shards[shard_of(key)].entries.values():
            if entry.key == key and not entry.job.state.ended:
                return entry
        return None

    def spent(self, key: str) -> list[str]:
        """Ids of the jobs that have ended and stand here with an exclusive key."""
        entries = self.shards[shard_of(key)].entries
        return [
            id
            for id, each in entries.items()
            if each.key == key and each.job.state.ended
        ]

    def free(self, key: str) -> None:
        """Take an exclusive key from the jobs that have ended.

        Or a start whose transaction began before theirs would conflict with them.
        """
        shard = self.shards[shard_of(key)]
        for id in self.spent(key):
            shard.put(id, shard.entries[id]._replace(key=None))

    def ask_cancel(self, id: str) -> None:
        shard = self.shard(id)
        entry = shard.entries.get(id)
        if entry is not None and not entry.cancel:
            shard.put(id, entry._replace(cancel=True))

    def attach(self, id: str, snapshot: Snapshot) -> None:
        """Write progress: one small record, from the second time on."""
        shard = self.shard(id)
        entry = shard.entries.get(id)
        if entry is None:
            return
        if entry.progress is None:
            shard.put(id, entry._replace(progress=Progress(snapshot)))
        else:
            entry.progress.snapshot = snapshot

    def detach(self, id: str) -> None:
        """Forget the progress of an earlier start."""
        shard = self.shard(id)
        entry = shard.entries.get(id)
        if entry is not None and entry.progress is not None:
            shard.put(id, entry._replace(progress=None))

    def file(self, id: str, expires: Callable[[Job], float]) -> None:
        """Move a job that has ended to where it is kept; forget one that is deleted."""
        shard = self.shard(id)
        entry = shard.entries.get(id)
        job = self.finished.get(id) if entry is None else entry.job
        if job is None or not job.state.ended:
            return
        shard.drop(id)
        if job.state.deleted:
            self.finished.pop(id, None)
        elif entry is not None:
            self.finished[id] = job
            self.expiry.add((int(expires(job)), id))

    def expired(self, now: float, limit: int = 200) -> list[tuple[int, str]]:
        """Who may go, oldest first; loads no job."""
        found = []
        for item in self.expiry.keys(max=(int(now), "")):
            found.append(item)
            if len(found) == limit:
                break
        return found

    def forget(self, expires: int, id: str) -> None:
        """Remove a finished job, its tombstone first."""
        job = self.finished.get(id)
        if job is not None:
            if not job.state.deleted:
                job.state.delete()
            del self.finished[id]
        self.expiry.discard((expires, id))


def shard_of(text: str) -> int:
    return crc32(text.encode()) % SHARDS


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
def reading(db: DB) -> Iterator[Connection]:
    """A connection with a snapshot of now, for looking only."""
    tm = TransactionManager(explicit=True)
    connection = db.open(tm)
    try:
        tm.begin()
        yield connection
    finally:
        tm.abort()
        connection.close()


def transact(
    db: DB,
    change: Callable[[Connection], T],
    tries: int = 12,
    sleep: Callable[[float], Any] = time.sleep,
) -> T:
    """Run a small change in a transaction of its own, again where others were first.

    Raises what the last try raised.
    """
    tm = TransactionManager(explicit=True)
    connection = db.open(tm)
    try:
        for attempt in range(1, tries + 1):
            tm.begin()
            try:
                result = change(connection)
                tm.commit()
                return result
            except TransientError:
                tm.abort()
                if attempt == tries:
                    raise
                # Full jitter, or those who collided collide again.
                sleep(random.uniform(0, min(0.001 * 2**attempt, 0.25)))
            except BaseException:
                tm.abort()
                raise
        raise AssertionError("unreachable")  # pragma: no cover - the loop returns
    finally:
        connection.close()
