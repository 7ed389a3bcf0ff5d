"""A shard of the registry: the jobs in it that have not ended.

Shards merge by themselves with whatever others wrote at the same time, which no BTree
does: buckets that split or get empty are conflicts.
"""

from typing import Any
from typing import NamedTuple
from zlib import crc32

from persistent import Persistent
from ZODB.POSException import ConflictError

from asyncview.job import QUEUED
from asyncview.job import RUNNING
from asyncview.job import Job
from asyncview.job import State
from asyncview.progress import NOTHING
from asyncview.progress import Progress
from asyncview.progress import Snapshot
from asyncview.trouble import loads

SHARDS = 128


def shard_of(text: str) -> int:
    return crc32(text.encode()) % SHARDS


class Entry(NamedTuple):
    """What the registry knows of a job that has not ended.

    ``key`` is its exclusive key, and ``cancel`` whether it was asked to stop.
    """

    job: Job
    key: str | None = None
    cancel: bool = False

    @property
    def progress(self) -> Progress | None:
        """The record that the pulse writes, while the job runs, if it can be read."""
        live = self.job.state.live
        return None if live is None or not loads(live) else live

    @property
    def snapshot(self) -> Snapshot:
        """The last progress that was written while the job runs."""
        live = self.progress
        return NOTHING if live is None else live.snapshot

    @property
    def readable(self) -> bool:
        """Whether anything can be made of the job's records; loads them."""
        # What is of a class that is gone loads all the same, as something else.
        if not (isinstance(self.job, Job) and loads(self.job)):
            return False
        return isinstance(self.job.state, State) and loads(self.job.state)

    @property
    def open(self) -> bool:
        """Whether the job has not ended, as far as anybody can say."""
        return self.readable and not self.job.state.ended

    @property
    def started(self) -> float | None:
        """When it began to run, as far as that is known yet."""
        started = self.job.state.started
        return self.snapshot.started if started is None else started

    @property
    def status(self) -> str:
        """As it is to be shown: what was claimed ahead of its turn still waits."""
        status = self.job.state.status
        if status == RUNNING and self.started is None:
            return QUEUED
        return status


class Shard(Persistent):
    """Some of the jobs that have not ended, by id."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def __getstate__(self) -> tuple[Any, ...]:
        return (1, {id: _trimmed(entry) for id, entry in self.entries.items()})

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, entries = state
        self.entries = {id: Entry(*entry) for id, entry in entries.items()}

    def put(self, id: str, entry: Entry) -> None:
        self.entries[id] = entry
        self._p_changed = True

    def drop(self, id: str) -> None:
        if self.entries.pop(id, None) is not None:
            self._p_changed = True

    def _p_resolveConflict(
        self, old: tuple[Any, ...], saved: tuple[Any, ...], new: tuple[Any, ...]
    ) -> tuple[Any, ...]:
        """Three-way merge by id: what either added, dropped, freed or cancelled.

        Only two jobs with one exclusive key are a true conflict.
        """
        (_, before), (_, theirs), (_, mine) = old, saved, new
        merged = {
            id: entry for id, entry in theirs.items() if id in mine or id not in before
        }
        keys = {Entry(*entry).key for id, entry in theirs.items() if id not in before}
        for id, values in mine.items():
            entry = Entry(*values)
            if id not in before:
                if id in theirs or (entry.key is not None and entry.key in keys):
                    raise ConflictError(f"two jobs with the exclusive key {entry.key}")
                merged[id] = values
            elif id in merged:
                # A key only ever goes, a wish to cancel only ever comes.
                other = Entry(*merged[id])
                merged[id] = _trimmed(
                    Entry(
                        entry.job,
                        entry.key and other.key,
                        entry.cancel or other.cancel,
                    )
                )
        return (1, merged)


def _trimmed(entry: Entry) -> tuple[Any, ...]:
    """Without the defaults at its end."""
    size = len(entry)
    while size > 1 and not entry[size - 1]:
        size -= 1
    return tuple(entry)[:size]
