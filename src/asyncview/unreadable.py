"""Records that can't be read: said once, and then passed over."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from transaction.interfaces import TransientError
from ZODB.Connection import Connection
from ZODB.DB import DB
from ZODB.POSException import POSKeyError

from asyncview.store import store_of
from asyncview.store import transact

log = logging.getLogger("asyncview.unreadable")


class Unreadable:
    """What one process has found so far.

    ``lost`` are the jobs whose records are not in the database at all.
    """

    def __init__(self) -> None:
        self.lost: set[str] = set()
        self._known: set[str] = set()

    @contextmanager
    def skipped(self, id: str, what: str = "") -> Iterator[None]:
        """One record that can't be read must not keep the others waiting.

        ``what`` it is, if not a job.
        """
        try:
            yield
        except TransientError:
            raise
        except Exception as error:
            if id not in self._known:
                self._known.add(id)
                log.exception("%s can't be read", what or f"{id[:6]}…")
            if isinstance(error, POSKeyError) and not what:
                self.lost.add(id)

    def drop_lost(self, db: DB, name: str) -> None:
        """Take them out of the registry of the application ``name``."""

        def change(connection: Connection) -> None:
            store = store_of(connection, name)
            assert store is not None
            for id in self.lost:
                store.drop(id)

        transact(db, change)
        self.lost.clear()
