"""One attempt of a job, from under pyramid_tm: how it went, and its one commit."""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from typing import TypeVar

from pyramid.httpexceptions import HTTPNotFound
from pyramid.interfaces import IResponse
from pyramid.request import Request
from pyramid.response import Response
from pyramid_zodbconn import get_connection
from transaction.interfaces import NoTransaction
from transaction.interfaces import TransientError
from ZODB.POSException import ConflictError

from asyncview import gate
from asyncview.engine import Engine
from asyncview.exceptions import AsyncViewError
from asyncview.exceptions import Fenced
from asyncview.exceptions import JobCancelled
from asyncview.failure import ABORTED
from asyncview.failure import EXCEPTION
from asyncview.failure import NOT_REACHED
from asyncview.failure import describe
from asyncview.forks import leave_child
from asyncview.job import CANCELLED
from asyncview.job import COMPLETED
from asyncview.job import State
from asyncview.pyramid.capture import capture
from asyncview.pyramid.start import SESSION
from asyncview.pyramid.start import START
from asyncview.pyramid.start import VIEW
from asyncview.pyramid.watch import Watch
from asyncview.pyramid.watch import sign
from asyncview.ticket import Captured
from asyncview.ticket import Ticket
from asyncview.ticket import Verdict

try:
    from pyramid_retry import IRetryableError
except ImportError:  # pragma: no cover - it is the application's to install
    IRetryableError = None

log = logging.getLogger("asyncview.replay")

Handler = Callable[[Request], Response]
Veto = Callable[[Request, Response], Any]
T = TypeVar("T")


class Attempt:
    """One attempt of a job; ends the request's transaction and leaves a verdict."""

    def __init__(
        self, engine: Engine, request: Request, ticket: Ticket, veto: Veto | None
    ) -> None:
        self.engine = engine
        self.request = request
        self.ticket = ticket
        self.veto = veto
        self.tm = request.tm
        self.connection = get_connection(request, engine.settings.database)
        self.watch = Watch(ticket, self.connection)
        self._process = os.getpid()

    def run(self, handler: Handler) -> Response:
        """Handle the request; the answer is empty, the news are on the ticket."""
        request, ticket = self.request, self.ticket
        if ticket.ending is None:
            self.tm.registerSynch(self.watch)
            try:
                self._judge(handler)
            finally:
                self._unwatch()
            if ticket.verdict is not None and ticket.verdict.status == COMPLETED:
                self._on_end()
        else:
            self._ended(handler)
        # Session and login cookies belong to live requests.
        request.response_callbacks.clear()
        return Response(status=204, headerlist=[], app_iter=())

    def _judge(self, handler: Handler) -> None:
        request = self.request
        try:
            # It may have been taken away, or given back, before its turn came.
            self.ticket.state(self.connection)
            response = self._handled(lambda: handler(request))
            if request.exception is not None:
                self._raised(request.exception, response)
            elif self.ticket.verdict is not None or not self.ticket.entered:
                self._not_reached(response)
            else:
                self._returned(response)
        except BaseException as error:
            self._raised(error, None)

    def _handled(self, call: Callable[[], T]) -> T:
        """Call what is the application's; a child that it forked ends there."""
        try:
            return call()
        finally:
            leave_child(self._process)

    def _ended(self, handler: Handler) -> None:
        """The replay is for ``on_end`` only; raises what that raised."""
        request, ticket = self.request, self.ticket
        sign(self.tm.get(), ticket)
        discard(self._handled(lambda: handler(request)))
        if request.exception is not None:
            raise request.exception
        if not ticket.entered:
            raise LookupError("the view was not reached again")
        self._commit_end()

    def _commit_end(self) -> None:
        """What ``on_end`` did, and the jobs that it asked for."""
        self._begun()
        self.request.environ[START].store(self.request)
        gate.put(self.tm.get(), self.connection)
        gate.check(self.tm.get(), self.connection)
        self.tm.commit()

    def _not_reached(self, response: Response) -> None:
        discard(response)
        self.tm.abort()
        if self.ticket.verdict is None:
            self.ticket.refuse(f"the application answered {response.status}")

    def _returned(self, response: Response) -> None:
        ticket = self.ticket
        self._begun()
        # Asked first: what it may look at is read below.
        vetoed = self.veto is not None and self.veto(self.request, response)
        captured = self._handled(
            lambda: capture(self.request, response, self.engine.db)
        )
        try:
            self._keep_flashes()
            if vetoed or self.tm.isDoomed():
                self.tm.abort()
                ticket.verdict = Verdict("failed", ABORTED, None, captured)
                return
            self.request.environ[START].store(self.request)
            gate.put(self.tm.get(), self.connection)
            connection = gate.writer(self.tm.get(), self.connection)
            outcome = captured.store(connection)
            self._unwatch()
            ticket.record(connection, outcome, self.engine.runner.clock())
            # Here rather than at the gate, where each of them is told of a failure.
            gate.check(self.tm.get(), self.connection)
            self._commit(ticket.record_of(connection))
        finally:
            if ticket.verdict is None or ticket.verdict.response is None:
                captured.body.close()

    def _commit(self, state: State) -> None:
        """Work and outcome, together."""
        self.ticket.finishing = True
        before = state._p_serial
        try:
            self.tm.commit()
            if state._p_serial == before:
                # A hook of the application's has ended the transaction, perhaps.
                raise AsyncViewError("the end of the job was not part of its commit")
        except BaseException as error:
            # Before anything else: somebody may have had a lock when it was forked.
            leave_child(self._process)
            retry = self._is_transient(error)
            with suppress(Exception):
                self.tm.abort()
            if retry and isinstance(error, ConflictError):
                self.ticket.verdict = Verdict("retry", EXCEPTION, error)
            else:
                # It may have been stored all the same: the database knows.
                self.ticket.verdict = Verdict("doubt", EXCEPTION, error, retry=retry)
        else:
            self.ticket.verdict = Verdict(COMPLETED)

    def _raised(self, error: BaseException, response: Response | None) -> None:
        """``response`` is what an exception view made of the error, if any did."""
        ticket = self.ticket
        if response is None and isinstance(error.__context__, HTTPNotFound):
            # Left there by Pyramid's search for an exception view, in the place of
            # what the log should say.
            BaseException.__setattr__(error, "__context__", ticket.occasion)
        retry = self._is_transient(error)
        if self.watch.doubtful and not isinstance(error, ConflictError):
            # A commit in the middle that may have been stored all the same.
            ticket.checkpointed = True
        captured = None
        if not retry and IResponse.providedBy(error) and ticket.entered:
            captured = self._captured(error, response)
        elif response is not None:
            discard(response)
        self._keep_flashes()
        ticket.verdict = verdict = self._verdict_on(error, retry, captured)
        if verdict.status in ("failed", "retry"):
            # Now: what it says may be in objects that the abort empties.
            verdict.failure = describe(verdict.reason, error)
        with suppress(Exception):
            self.tm.abort()

    def _verdict_on(
        self, error: Any, retry: bool, captured: Captured | None
    ) -> Verdict:
        if isinstance(error, Fenced):
            return Verdict("fenced", "", error)
        if isinstance(error, JobCancelled):
            return Verdict(CANCELLED)
        if retry:
            return Verdict("retry", EXCEPTION, error)
        if not self.ticket.entered:
            return Verdict("failed", NOT_REACHED, error)
        if captured is None:
            return Verdict("failed", EXCEPTION, error)
        if error.status_int < 400:
            return Verdict("dropped", "", None, captured)
        return Verdict("failed", ABORTED, error, captured)

    def _captured(self, error: Any, response: Response | None) -> Captured | None:
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
        if IRetryableError is not None and IRetryableError.providedBy(error):
            # The application has told pyramid_retry, and means its jobs as well.
            return True
        try:
            return bool(self.tm.get().isRetryableError(error))
        except NoTransaction:
            return isinstance(error, TransientError)

    def _unwatch(self) -> None:
        # The managers have no other way to ask, and the watch is dead by its
        # reference only when the last traceback is.
        with suppress(KeyError):
            self.tm.unregisterSynch(self.watch)

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
        self.engine.runner.part(self.ticket)
        sign(self.tm.begin(), self.ticket)
        try:
            self._handled(lambda: view.on_end(COMPLETED))
            self._commit_end()
        except BaseException:
            log.exception("on_end of %s raised; the job stays completed", self.ticket)
            with suppress(Exception):
                self.tm.abort()


def discard(response: Response) -> None:
    """Let go of a response that nobody will read."""
    close = getattr(response.app_iter, "close", None)
    if close is not None:
        close()
