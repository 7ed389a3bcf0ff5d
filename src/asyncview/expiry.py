"""When finished jobs go, and how: so that nobody has to wait for it."""

import logging

from persistent import Persistent
from transaction.interfaces import TransientError
from ZODB.Connection import Connection
from ZODB.DB import DB

from asyncview.job import CANCELLED
from asyncview.job import COMPLETED
from asyncview.job import Job
from asyncview.settings import Settings
from asyncview.store import store_of
from asyncview.store import transact

log = logging.getLogger("asyncview.expiry")

#: Jobs that a sweep lets go at most, and in one transaction: few, because a FileStorage
#: makes every request wait while it stores.
EXPIRE = 200
BATCH = 5

#: When a job may go, in whole seconds since the epoch, and its id.
Expired = tuple[int, str]


def expires(job: Job, settings: Settings) -> float:
    """When a finished job may go, in seconds since the epoch."""
    keep = job.term("keep")
    if keep is None:
        ended_well = job.state.status in (COMPLETED, CANCELLED)
        keep = settings.keep if ended_well else settings.keep_failed
    return float((job.state.finished or job.created) + keep)


def expire(db: DB, name: str, expired: list[Expired]) -> None:
    """Let jobs of the application ``name`` go, in one transaction."""

    def change(connection: Connection) -> None:
        store = store_of(connection, name)
        assert store is not None
        gone: list[Persistent] = []
        for moment, id in expired:
            try:
                job = store.forget(moment, id)
                if job is not None:
                    gone += (job, job.state)
            except TransientError:
                raise
            except Exception:
                # Whatever is wrong with it, its time is over.
                log.exception("%.6s… has expired, and can't be read", id)
                store.drop(id)
                store.forget(moment, id)
        connection.transaction_manager.get().addAfterCommitHook(unload, (gone,))

    transact(db, change)
    log.info("%d finished jobs have expired", len(expired))


def unload(stored: bool, records: list[Persistent]) -> None:
    """Have a connection's cache let go of ``records``, after a commit.

    Thousands that are read once and stay for a while have Python collect all garbage
    there is, and meanwhile every thread of the process waits.
    """
    for record in records:
        record._p_deactivate()
