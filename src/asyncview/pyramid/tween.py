"""The two tweens: one keeps the request as it came, one ends the transaction.

`ingress` is outermost.  `outcome` lies under pyramid_tm and over the exception views:
on a live request it stores the job that a view asked for; in a replay it records the
outcome with the work, commits, and says how it went.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from persistent import Persistent
from pyramid.interfaces import IResponse
from pyramid.request import Request
from pyramid.response import Response
from pyramid.util import DottedNameResolver
from pyramid_zodbconn import get_connection
from transaction import Transaction
from transaction.interfaces import NoTransaction
from ZODB.blob import Blob
from ZODB.POSException import ConflictError

from asyncview.body import Body
from asyncview.engine import Engine
from asyncview.exceptions import AsyncViewError
from asyncview.exceptions import Fenced
from asyncview.exceptions import JobCancelled
from asyncview.job import ABORTED
from asyncview.job import CANCELLED
from asyncview.job import COMPLETED
from asyncview.job import EXCEPTION
from asyncview.job import NOT_REACHED
from asyncview.job import Job
from asyncview.pyramid.capture import capture
from asyncview.pyramid.identity import context_identity
from asyncview.request import StoredRequest
from asyncview.request import freeze
from asyncview.store import store_of
from asyncview.ticket import Brief
from asyncview.ticket import Ticket
from asyncview.ticket import Verdict

log = logging.getLogger("asyncview.replay")

#: In the environ of a replay: its `Ticket`.  No HTTP client can set such a key.
JOB = "asyncview.job"
#: In the environ of a live request: its `Start`.
START = "asyncview.start"
#: In the environ of a replay: the view whose ``__run__`` was entered.
VIEW = "asyncview.view"
#: In the environ of a replay: its copy of the session.
SESSION = "asyncview.session"

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
BLOCK = 256 * 1024

Handler = Callable[[Request], Response]


class Start:
    """What one live request may start; kept in its environ over all its attempts."""

    def __init__(self, engine: Engine, environ: dict[str, Any]) -> None:
        self.engine = engine
        self.environ = environ
        self.id: str | None = None
        self.key: str | None = None
        self.begin()

    def begin(self) -> None:
        """A new attempt of the request."""
        self.began = self.engine.ids.begin()
        self.job: Job | None = None
        self.body: Any = None
        self.session: bytes | None = None
        self.context: Any = None
        self.committed: list[Callable[[], None]] = []
        self.held = False
        self.reserved: str | None = None

    def hold(self) -> None:
        """From here on nobody else of this process starts what has limits."""
        if not self.held:
            self.engine.starting.acquire()
            self.held = True

    def new_id(self, key: str | None) -> str:
        """The job's id: one for all attempts, or doubt at a commit makes two jobs."""
        ids = self.engine.ids
        if self.id is None or self.key != key:
            self.key = key
            self.id = ids.pick(self.began) if key is None else ids.pick_beside(key)
        else:
            ids.take(self.id)
        self.reserved = self.id
        return self.id

    def end(self) -> None:
        """The request's transaction is over."""
        if self.reserved is not None:
            self.engine.ids.release(self.reserved)
            self.reserved = None
        if self.held:
            self.engine.starting.release()
            self.held = False
        for action in self.committed:
            action()
        self.committed = []

    def after_commit(self, request: Request, action: Callable[[], None]) -> None:
        """Run ``action`` when the request's transaction is committed and over."""
        # The hook itself must do next to nothing: its errors are swallowed, and
        # what it writes would poison a pooled connection.
        request.tm.get().addAfterCommitHook(
            lambda success: self.committed.append(action) if success else None
        )


def ingress_tween_factory(handler: Handler, registry: Any) -> Handler:
    """Outermost: the request as it came, before any tween rewrote it."""
    site = registry.asyncview

    def ingress_tween(request: Request) -> Response:
        environ = request.environ
        if JOB in environ:
            return handler(request)
        engine = site.engine
        engine.look()
        if environ["REQUEST_METHOD"] not in SAFE_METHODS or site.starts_on_get:
            engine.prepare()
        start = environ.get(START)
        if start is None:
            start = environ[START] = Start(engine, dict(environ))
        else:
            start.begin()
        try:
            return handler(request)
        except ConflictError:
            twin = site.answer_twin(request, start)
            if twin is None:
                raise
            return twin
        finally:
            start.end()

    return ingress_tween


def outcome_tween_factory(handler: Handler, registry: Any) -> Handler:
    """Under pyramid_tm and over EXCVIEW: what is to be kept, and whether."""
    site = registry.asyncview
    settings = registry.settings
    veto = settings.get("tm.commit_veto", settings.get("pyramid_tm.commit_veto"))
    veto = DottedNameResolver(None).maybe_resolve(veto) if veto else None

    def outcome_tween(request: Request) -> Response:
        environ = request.environ
        if JOB in environ:
            return Replay(site.engine, request, environ[JOB], veto).run(handler)
        response = handler(request)
        start = environ.get(START)
        if start is not None and start.job is not None:
            if response.status_int < 400 and request.exception is None:
                store_job(request, response, start, veto)
            else:
                start.job = None
        return response

    return outcome_tween


def store_job(request: Request, response: Response, start: Start, veto: Any) -> None:
    """Put the job that was asked for into the request's own transaction."""
    engine, job = start.engine, start.job
    assert job is not None
    if request.tm.isDoomed() or (veto is not None and veto(request, response)):
        raise AsyncViewError(
            "a job was asked for in a transaction that is doomed or vetoed; no job"
            " was started"
        )
    connection = get_connection(request, engine.settings.database)
    store = store_of(connection, engine.settings.name)
    if store is None:
        raise AsyncViewError(
            "the registry of jobs was made after this transaction began; try again"
        )
    context = start.context
    if isinstance(context, Persistent) and context._p_oid is None:
        # Made in this very request: it gets its oid at a savepoint.
        request.tm.savepoint(True)
    job.context = context_identity(context)
    body, size = _stored_body(request, connection)
    job.state.request = StoredRequest(freeze(start.environ), body, size, start.session)
    store.add(job, start.key)
    # Its oid is known now, and the objects are this connection's: from here on the
    # worker gets plain values.
    connection.add(job.state)
    brief = None if isinstance(body, Blob) else Brief.of(job)
    id = job.id
    start.after_commit(request, lambda: engine.submit(id, brief))


def _stored_body(request: Request, connection: Any) -> tuple[Any, int]:
    """The request's body, whole; the environ's input is left at its begin."""
    if not request.is_body_readable:
        return b"", 0
    request.make_body_seekable()
    file = request.body_file_raw
    file.seek(0)
    body = Body.collect(iter(lambda: file.read(BLOCK), b""), connection.db())
    file.seek(0)
    try:
        return body.store(connection), body.size
    finally:
        body.close()


class Replay:
    """One attempt of a job, from under pyramid_tm."""

    def __init__(
        self, engine: Engine, request: Request, ticket: Ticket, veto: Any
    ) -> None:
        self.engine = engine
        self.request = request
        self.ticket = ticket
        self.veto = veto
        self.tm = request.tm

    def run(self, handler: Handler) -> Response:
        """Handle the request, end its transaction, leave a verdict."""
        request, ticket = self.request, self.ticket
        try:
            response = handler(request)
        except BaseException as error:
            self._raised(error, None)
        else:
            squashed = request.exception
            if squashed is not None:
                self._raised(squashed, response)
            else:
                try:
                    self._returned(response)
                except BaseException as error:
                    self._raised(error, None)
        # Session and login cookies belong to live requests.
        request.response_callbacks.clear()
        if ticket.verdict is not None and ticket.verdict.status == COMPLETED:
            self._on_end()
        return Response(status=204, headerlist=[], app_iter=())

    def _returned(self, response: Response) -> None:
        ticket = self.ticket
        if ticket.ending is not None:
            self.tm.commit()
            return
        if ticket.verdict is not None or not ticket.entered:
            self.tm.abort()
            if ticket.verdict is None:
                ticket.verdict = Verdict(
                    "failed",
                    NOT_REACHED,
                    LookupError(f"the application answered {response.status}"),
                )
            return
        self._begun()
        captured = capture(self.request, response, self.engine.db)
        try:
            if self.tm.isDoomed() or (
                self.veto is not None and self.veto(self.request, response)
            ):
                self._keep_flashes()
                self.tm.abort()
                ticket.verdict = Verdict("failed", ABORTED, None, captured)
            else:
                self._commit(captured)
        finally:
            if ticket.verdict is None or ticket.verdict.response is None:
                captured.body.close()

    def _commit(self, captured: Any) -> None:
        """Work and outcome, together."""
        connection = self.engine_connection()
        self._keep_flashes()
        ticket = self.ticket
        ticket.record(
            connection, captured.store(connection), self.engine.runner.clock()
        )
        ticket.finishing = True
        try:
            self.tm.commit()
        except BaseException as error:
            retry = self._is_transient(error)
            with suppress(Exception):
                self.tm.abort()
            # What went wrong at a commit may have been stored all the same.
            ticket.verdict = Verdict("retry" if retry else "doubt", EXCEPTION, error)
        else:
            ticket.verdict = Verdict(COMPLETED)

    def engine_connection(self) -> Any:
        return get_connection(self.request, self.engine.settings.database)

    def _raised(self, error: BaseException, response: Response | None) -> None:
        """``response`` is what an exception view made of the error, if any did."""
        ticket = self.ticket
        retry = self._is_transient(error)
        captured = None
        if not retry and IResponse.providedBy(error) and ticket.entered:
            captured = self._captured(error, response)
        self._keep_flashes()
        with suppress(Exception):
            self.tm.abort()
        if ticket.ending is not None:
            raise error
        if isinstance(error, Fenced):
            ticket.verdict = Verdict("fenced", "", error)
        elif isinstance(error, JobCancelled):
            ticket.verdict = Verdict(CANCELLED)
        elif retry:
            ticket.verdict = Verdict("retry", EXCEPTION, error)
        elif not ticket.entered:
            ticket.verdict = Verdict("failed", NOT_REACHED, error)
        elif captured is None:
            ticket.verdict = Verdict("failed", EXCEPTION, error)
        elif error.status_int < 400:  # type: ignore[attr-defined]
            ticket.verdict = Verdict("dropped", "", None, captured)
        else:
            ticket.verdict = Verdict("failed", ABORTED, error, captured)

    def _captured(self, error: Any, response: Response | None) -> Any:
        """The raised response, or the site's own page for it."""
        if response is None or (error.status_int >= 400 > response.status_int):
            # An error that a view answers by a redirect (to the login page, say)
            # is an error still.
            response = error
        try:
            return capture(self.request, response, self.engine.db)
        except Exception:
            log.exception("a raised response could not be kept")
            return None

    def _is_transient(self, error: BaseException) -> bool:
        # Before the abort: afterwards nobody knows whose error it was.
        if not isinstance(error, Exception):
            return False
        try:
            return bool(self.tm.get().isRetryableError(error))
        except NoTransaction:
            return bool(Transaction().isRetryableError(error))

    def _begun(self) -> None:
        """A transaction, also after the job ended the one that it was given."""
        try:
            self.tm.get()
        except NoTransaction:
            self.tm.begin()

    def _keep_flashes(self) -> None:
        session = self.request.environ.get(SESSION)
        if session is not None:
            self.ticket.flashes = session.flashes()

    def _on_end(self) -> None:
        view = self.request.environ.get(VIEW)
        if view is None or not self.ticket.term("on_end"):
            return
        self.tm.begin()
        try:
            view.on_end(COMPLETED)
            self.tm.commit()
        except BaseException:
            log.exception("on_end of %s raised; the job stays completed", self.ticket)
            with suppress(Exception):
                self.tm.abort()
