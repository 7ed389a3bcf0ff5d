"""What one configured application has: its engine, made when it is first needed."""

import threading
from typing import Any

from pyramid.request import Request
from pyramid.response import Response
from pyramid.util import DottedNameResolver

from asyncview.engine import Engine
from asyncview.exceptions import AsyncViewError
from asyncview.executors import inline
from asyncview.executors import threads
from asyncview.pyramid import answers
from asyncview.pyramid.identity import owner_of
from asyncview.pyramid.replay import PyramidFront
from asyncview.pyramid.start import Start
from asyncview.pyramid.status import Documents
from asyncview.settings import Settings

EXECUTORS = {"threads": threads.factory, "inline": inline.factory}


class Site:
    """Hung on the registry as ``registry.asyncview``."""

    def __init__(self, registry: Any, settings: Settings) -> None:
        self._registry = registry
        self.settings = settings
        self.front = PyramidFront(registry)
        self.documents = Documents()
        #: Whether a GET may start a job, because some view says so.
        self.starts_on_get = False
        #: What `set_job_executor` said.
        self.executor: Any = None
        self._engine: Engine | None = None
        self._lock = threading.Lock()

    @property
    def engine(self) -> Engine:
        engine = self._engine
        return engine if engine is not None else self._make()

    def _make(self) -> Engine:
        with self._lock:
            if self._engine is None:
                databases = getattr(self._registry, "_zodb_databases", None) or {}
                name = self.settings.database or ""
                if name not in databases:
                    missing = "zodbconn.uri" + (f".{name}" if name else "")
                    raise AsyncViewError(
                        f"asyncview keeps its jobs in the ZODB, and {missing} is not"
                        " set"
                    )
                self._engine = Engine(
                    self.settings, databases[name], self.front, self._factory()
                )
            return self._engine

    def _factory(self) -> Any:
        said = self.executor or self.settings.executor
        if callable(said):
            return said
        if said in EXECUTORS:
            return EXECUTORS[said]
        return DottedNameResolver(None).resolve(said)

    def close(self, drain: float | None = None) -> None:
        """End jobs and pulse, then close the databases, in this order."""
        with self._lock:
            engine = self._engine
        if engine is not None:
            engine.close(drain)
        databases = getattr(self._registry, "_zodb_databases", None) or {}
        for database in databases.values():
            database.close()

    def answer_twin(self, request: Request, start: Start) -> Response | None:
        """After a conflict of two exclusive starts: the answer for the second."""
        for asked in start.asked:
            if asked.key is not None:
                return answers.twin_of(request, asked.key, owner_of(request))
        return None
