"""What one configured application has: its engine, made when it is first needed."""

import threading
from typing import Any

from pyramid.exceptions import ConfigurationError
from pyramid.request import Request
from pyramid.response import Response
from transaction.interfaces import TransactionError
from ZODB.DB import DB
from ZODB.POSException import ConflictError
from ZODB.POSException import ConnectionStateError

from asyncview.engine import Engine
from asyncview.engine import staging_for
from asyncview.exceptions import AsyncViewError
from asyncview.forks import ForkGuard
from asyncview.interfaces import IExecutorFactory
from asyncview.pyramid import admission
from asyncview.pyramid.access import is_tried_again
from asyncview.pyramid.documents import Documents
from asyncview.pyramid.identity import owner_of
from asyncview.pyramid.replay import PyramidFront
from asyncview.pyramid.start import Start
from asyncview.settings import Settings


class Site:
    """Hung on the registry as ``registry.asyncview``."""

    #: What makes the engine's executor; the configuration says.
    executor: IExecutorFactory

    def __init__(self, registry: Any, settings: Settings) -> None:
        self._registry = registry
        self.settings = settings
        self.front = PyramidFront(registry)
        # Made now: pyramid_zodbconn opens the database while configuring.
        self._fork = ForkGuard()
        self.documents = Documents()
        #: Whether a GET may start a job, because some view says so.
        self.starts_on_get = False
        #: Held while the stock templates are compiled, once.
        self.compiling = threading.Lock()
        self.pages_compiled = False
        self._engine: Engine | None = None
        self._lock = threading.Lock()

    @property
    def engine(self) -> Engine:
        engine = self._engine
        return engine if engine is not None else self._make()

    def _make(self) -> Engine:
        with self._lock:
            if self._engine is None:
                database = self.check_database()
                self._engine = Engine(
                    self.settings,
                    database,
                    self.front,
                    self.executor,
                    self._fork,
                    at_exit=self.close,
                )
            return self._engine

    def check_database(self) -> DB:
        """The database of the jobs; AsyncViewError if nothing has opened it."""
        databases = getattr(self._registry, "_zodb_databases", None) or {}
        # The others are reached by the connection of the first.
        for name in ("", self.settings.database or ""):
            if name not in databases:
                said = f" (asyncview.database = {name})" if name else ""
                missing = "zodbconn.uri" + (f".{name}" if name else "")
                raise AsyncViewError(
                    f"asyncview keeps its jobs in the ZODB{said}: set {missing}"
                )
        database: DB = databases[name]
        return database

    def expect_uploads(self) -> None:
        """Raise ConfigurationError where uploads would have no place."""
        if staging_for(self.settings, self.check_database()) is None:
            raise ConfigurationError(
                "uploads have no place: set asyncview.upload_dir, or give the database"
                " a blobstorage_dir"
            )

    def close(self, drain: float | None = None) -> None:
        """End jobs and pulse, then close the databases, in this order."""
        if self._fork.forked:
            # The parent's: closing it here would give up the parent's lock.
            return
        with self._lock:
            engine = self._engine
        if engine is not None:
            engine.close(drain)
        databases = getattr(self._registry, "_zodb_databases", None) or {}
        for database in databases.values():
            try:
                database.close()
            except (KeyError, ConnectionStateError, TransactionError):
                # It stops at a connection that a job which does not end has open
                # (its manager is its thread's, and is looked for in ours), or that
                # is between two transactions; and would leave the file locked.
                database.storage.close()

    def answer_trouble(
        self, request: Request, start: Start, error: Exception
    ) -> Response | None:
        """The answer where the jobs that were asked for could not be stored, perhaps.

        None where the error is not ours to answer.
        """
        if not start.asked:
            return None
        if isinstance(error, ConflictError):
            # Of two exclusive starts, say: this is the answer for the second.
            for asked in start.asked:
                if asked.key is not None:
                    return admission.twin_of(request, asked.key, owner_of(request))
            return None
        if is_tried_again(request, error):
            return None
        return admission.doubtful(request, [asked.job.id for asked in start.asked])
