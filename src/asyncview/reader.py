"""A session that only reads, of whatever process: always what is so now."""

import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

from ZODB.Connection import Connection

from asyncview.job import CANCELLED
from asyncview.job import COMPLETED
from asyncview.job import FAILED
from asyncview.job import QUEUED
from asyncview.progress import COMPLETE
from asyncview.progress import ERROR
from asyncview.progress import NOTHING
from asyncview.progress import PENDING
from asyncview.progress import RUNNING
from asyncview.progress import Snapshot
from asyncview.runner import Runner
from asyncview.shard import Entry
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.told import Told
from asyncview.told import as_dict
from asyncview.told import facts_of

#: Seconds between two looks, at most, when this process ends.
CLOSING = 0.1

ENDS = {COMPLETED: COMPLETE, FAILED: ERROR, CANCELLED: ERROR}


class SessionReader(Told):
    """The progress of a job or session, to be read, by any thread.

    Each look is at the database as it is then.
    """

    def __init__(self, runner: Runner, watch: Callable[[], None], entry: Entry) -> None:
        """``watch`` has dead workers looked for."""
        job = entry.job
        self._runner = runner
        self._watch = watch
        self.id = job.id
        self.facts = facts_of(entry.job)._replace(started=entry.started)
        self._seen: tuple[str, Snapshot] = (RUNNING, NOTHING)
        self._finished: float | None = None

    def stream(self, poll_interval: float = 0.1) -> Iterator[str]:
        """See `IProgressSession`."""
        # Its end may be that its worker is found dead, by this process if need be.
        self._watch()
        return super().stream(poll_interval)

    def _tell(self) -> tuple[dict[str, Any], bool]:
        with reading(self._runner.db) as connection:
            found = self._find(connection)
            if found is not None:
                ended = found.job.state.ended
                self._finished = found.job.state.finished
                self._seen = told(found)
            else:
                # It was deleted, or has expired.
                ended = True
                status, last = self._seen
                self._seen = (COMPLETE if status == COMPLETE else ERROR, last)
        # An estimate grows until the end.
        now = self._finished or self._runner.clock()
        status, last = self._seen
        if ended and status == ERROR:
            last = last.broken_off(now)
        return as_dict(self.id, status, last, now), ended

    def _find(self, connection: Connection) -> Entry | None:
        store = store_of(connection, self._runner.name)
        return None if store is None else store.find(self.id)

    def _wait(self, seconds: float) -> None:
        if self._runner.closing.wait(seconds):
            # The end is a matter of moments, or is told by the next process.
            time.sleep(min(seconds, CLOSING))


def told(entry: Entry) -> tuple[str, Snapshot]:
    """A session's status, and what was last written of it."""
    state = entry.job.state
    if state.ended:
        return ENDS[state.status], state.progress
    last = entry.snapshot
    if entry.status == QUEUED:
        return PENDING, last
    status = last.status()
    if entry.job.view and status in (PENDING, COMPLETE):
        # A job runs until its work is committed, whatever its tasks say.
        status = RUNNING
    return status, last
