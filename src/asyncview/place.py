"""Where jobs run: one application in one process, as all who act there share it."""

import logging
import secrets
import threading
import time
from collections.abc import Callable

from ZODB.Connection import Connection
from ZODB.DB import DB

from asyncview.dispatch import Live
from asyncview.job import Job
from asyncview.shard import Entry
from asyncview.store import store_of
from asyncview.ticket import Brief
from asyncview.ticket import Ticket
from asyncview.title import title
from asyncview.trouble import TROUBLE

log = logging.getLogger("asyncview.job")


class Place:
    """A database, a name, a worker's id, a clock, and whether it all ends."""

    def __init__(
        self,
        db: DB,
        name: str,
        live: Live,
        worker: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.db = db
        self.name = name
        self.live = live
        self.worker = worker or secrets.token_urlsafe(9)
        self.clock = clock
        #: Set before running jobs are asked to stop because the process will end.
        self.leaving = threading.Event()
        #: Set when the process wants to end: nothing waits any more.
        self.closing = threading.Event()

    def pause(self, seconds: float) -> None:
        """Sleep, but for no longer than the process lives."""
        self.closing.wait(seconds)

    def entry(self, connection: Connection, id: str) -> Entry | None:
        store = store_of(connection, self.name)
        return None if store is None else store.find(id)

    def orphans(self, job: Job) -> list[Ticket]:
        """For `finish`, where a job ends that no worker of ours has: one ticket.

        No ticket where its view need not be told, or can't be any more.
        """
        if not job.term("on_end"):
            return []
        try:
            brief = Brief.of(job)
        except TROUBLE:
            raise
        except Exception:
            log.exception("on_end of %s can't be called", title(job))
            return []
        return [Ticket(brief, self.worker, "", job.state.attempt, self.clock())]
