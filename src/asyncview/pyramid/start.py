"""What one request asks for: its jobs, on their way into its own transaction.

The view asks; the tween stores, when it has seen what became of the request.
"""

import logging
from collections.abc import Callable
from typing import Any
from typing import NamedTuple

from persistent import Persistent
from pyramid.request import Request
from pyramid_zodbconn import get_connection
from ZODB.POSException import StorageError

from asyncview import gate
from asyncview.body import Body
from asyncview.engine import Engine
from asyncview.job import Job
from asyncview.pyramid.identity import context_identity
from asyncview.request import StoredRequest
from asyncview.request import freeze
from asyncview.store import store_of
from asyncview.ticket import Brief

log = logging.getLogger("asyncview.start")

#: In the environ of a replay: its `Ticket`.  No HTTP client can set such a key.
JOB = "asyncview.job"
#: In the environ of every request: its `Start`.
START = "asyncview.start"
#: In the environ of a replay: the view whose ``__run__`` was entered.
VIEW = "asyncview.view"
#: In the environ of a replay: its copy of the session.
SESSION = "asyncview.session"

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class Asked(NamedTuple):
    """A job that a view asked for, and the request that is to be replayed."""

    job: Job
    key: str | None
    request: Request
    context: Any
    session: bytes | None
    #: What the view knows better than the environ as it came.
    changes: dict[str, str]


class Start:
    """The jobs of one request, kept in its environ over all its attempts.

    Subrequests that were made by ``request.copy()`` share it, as they share the
    transaction.  ``patient`` is False in a replay: a job must not hold up the
    starts of its process until it ends.
    """

    def __init__(
        self, engine: Engine, environ: dict[str, Any], patient: bool = True
    ) -> None:
        self.engine = engine
        self._came = dict(environ)
        self._patient = patient
        self._ids: list[tuple[str | None, str]] = []
        self.begin(environ)

    def begin(self, environ: dict[str, Any]) -> None:
        """A new attempt of the request."""
        self._environ: dict[str, Any] | None = environ
        self._began = self.engine.ids.begin()
        self._reserved: list[str] = []
        self._stored: list[tuple[str, Brief | None]] = []
        self._held = False
        self._then: dict[str, Callable[[], None]] = {}
        self.asked: list[Asked] = []
        #: How many of them are in a transaction.
        self._kept = 0
        #: Set by the outcome tween: what passes it again is a subrequest.
        self.entered = False

    @property
    def running(self) -> bool:
        return self._environ is not None

    def hold(self) -> None:
        """From here on nobody else of this process starts what has limits."""
        if self._patient and not self._held:
            self.engine.starting.acquire()
            self._held = True

    def new_id(self, key: str | None) -> str:
        """An id: the same in each attempt, or doubt at a commit makes two jobs."""
        ids = self.engine.ids
        number = len(self.asked)
        if number < len(self._ids) and self._ids[number][0] == key:
            id = self._ids[number][1]
            ids.take(id)
        else:
            id = ids.pick(self._began) if key is None else ids.pick_beside(key)
            self._ids[number:] = [(key, id)]
        self._reserved.append(id)
        return id

    def when_stored(self, id: str, action: Callable[[], None]) -> None:
        """Have something done when the request is over and its job is stored."""
        self._then[id] = action

    def sift(self, handler: Callable[[Request], Any], request: Request) -> Any:
        """Handle ``request``; what it asks for counts only if it went well."""
        before = len(self.asked)
        try:
            response = handler(request)
        except BaseException:
            del self.asked[before:]
            raise
        if response.status_int >= 400 or request.exception is not None:
            del self.asked[before:]
        return response

    def store(self, request: Request) -> None:
        """Put the jobs that are new into the transaction of ``request``."""
        wanted = self.asked[self._kept :]
        if not wanted:
            return
        self._kept = len(self.asked)
        engine = self.engine
        connection = get_connection(request, engine.settings.database)
        gate.put(request.tm.get(), connection)
        gate.check(request.tm.get(), connection)
        connection = gate.writer(request.tm.get(), connection)
        store = store_of(connection, engine.settings.name)
        if store is None:
            # It could not be made, or only after this transaction began.
            raise StorageError("there is no registry of jobs yet")
        for asked in wanted:
            job, brief = asked.job, None
            # An earlier attempt may have been stored, whatever its commit said.
            if store.find(job.id) is None:
                self._complete(asked, request, connection)
                store.add(job, asked.key)
                # Its oid is known now, and the objects are this connection's: from
                # here on the worker gets plain values.
                connection.add(job.state)
                stored = job.state.request
                assert stored is not None
                if isinstance(stored.body, bytes):
                    brief = Brief.of(job)
            # The hook itself must do next to nothing: its errors are swallowed,
            # and what it writes would poison a pooled connection.
            request.tm.get().addAfterCommitHook(self._when_stored, (job.id, brief))

    def _complete(self, asked: Asked, request: Request, connection: Any) -> None:
        context, asker = asked.context, asked.request
        if isinstance(context, Persistent) and context._p_oid is None:
            # Made in this very request: it gets its oid at a savepoint.
            request.tm.savepoint(True)
        asked.job.context = context_identity(context)
        # A subrequest never came from outside: it is what it is now.
        subrequest = asker.environ is not self._environ
        environ = freeze(asker.environ if subrequest else self._came) | asked.changes
        body, size = _stored_body(asker, connection)
        asked.job.state.request = StoredRequest(environ, body, size, asked.session)

    def _when_stored(self, success: bool, id: str, brief: Brief | None) -> None:
        if not success:
            return
        if self.running:
            self._stored.append((id, brief))
        else:
            # Something outside of Pyramid (repoze.tm) ends the transaction.
            self.engine.submit(id, brief)

    def end(self) -> None:
        """The attempt is over, and so is its transaction."""
        self._environ = None
        for id in self._reserved:
            self.engine.ids.release(id)
        if self._held:
            self.engine.starting.release()
            self._held = False
        for id, brief in self._stored:
            try:
                self._then.get(id, lambda: None)()
            except Exception:
                # The pulse sees to it later.
                log.exception("the uploads of %.6s… are not marked yet", id)
            self.engine.submit(id, brief)


def _stored_body(request: Request, connection: Any) -> tuple[Any, int]:
    """The request's body, whole; the environ's input is left at its begin."""
    if not request.is_body_readable:
        return b"", 0
    request.make_body_seekable()
    file = request.body_file_raw
    file.seek(0)
    body = Body.read(file, connection.db())
    file.seek(0)
    try:
        return body.store(connection), body.size
    finally:
        body.close()
