"""What a worker does with a job that it has claimed: replay, again if need be."""

import logging
import os
import random
import time
from collections.abc import Callable

from ZODB.DB import DB

from asyncview.apart import Apart
from asyncview.claims import Claims
from asyncview.dispatch import Gates
from asyncview.dispatch import Live
from asyncview.ends import FENCED
from asyncview.ends import UNRECORDED
from asyncview.ends import Ends
from asyncview.exceptions import Fenced
from asyncview.exceptions import JobCancelled
from asyncview.failure import EXCEPTION
from asyncview.failure import NOT_REACHED
from asyncview.failure import describe
from asyncview.forks import leave_child
from asyncview.interfaces import IFront
from asyncview.job import CANCELLED
from asyncview.job import COMPLETED
from asyncview.job import FINAL
from asyncview.place import Place
from asyncview.progress import COMPLETE
from asyncview.progress import ERROR
from asyncview.store import reading
from asyncview.ticket import Ticket
from asyncview.ticket import Verdict
from asyncview.title import one_line

log = logging.getLogger("asyncview.job")

#: From this attempt on a job has its context to itself (in its process).
ALONE_FROM = 3


class Runner(Place):
    """Runs jobs of one application with one front, in whatever thread calls."""

    def __init__(
        self,
        db: DB,
        name: str,
        front: IFront,
        live: Live,
        worker: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(db, name, live, worker, clock)
        self.front = front
        self.apart = Apart(self.finish)
        self.claims = Claims(self, self.apart.tell)
        self._ends = Ends(self)
        self._gates = Gates()

    def run(self, ticket: Ticket) -> str:
        """Run a claimed job to its end.  Raises nothing, whatever the job does.

        Gives its status, or `FENCED` or `UNRECORDED`.
        """
        status = UNRECORDED
        try:
            ticket.begin(self.clock(), time.monotonic())
            log.info(
                "%s starts after %.3f s, attempt %d",
                ticket,
                ticket.queued,
                ticket.attempt,
            )
            status = self._attempts(ticket)
            ticket.session.ended(COMPLETE if status == COMPLETED else ERROR)
            log.info(
                "%s is %s after %.3f s, attempt %d",
                ticket,
                status,
                time.monotonic() - ticket.begun,
                ticket.attempt,
            )
        except BaseException:
            log.exception("%s was given up: this is a defect of asyncview", ticket)
        finally:
            # In this order: who waited for the end finds nothing left behind.
            ticket.close()
            self.live.end(ticket.id)
        return status

    def _attempts(self, ticket: Ticket) -> str:
        while True:
            self.live.begin(ticket.session, ticket.deadline)
            error = self._replay(ticket)
            verdict = ticket.verdict
            if verdict is not None and error is not None:
                # By a tween, or by a callback of the application's.
                log.error(
                    "%s is %s; this was raised afterwards",
                    ticket,
                    verdict.status,
                    exc_info=error,
                )
            if verdict is None or verdict.status == "doubt":
                verdict = self._look(ticket, error)
                if verdict.status == COMPLETED and ticket.term("on_end"):
                    self.finish(ticket, COMPLETED)
            if verdict.status == "retry" and self._was_taken(ticket):
                verdict = Verdict(FENCED)
            if verdict.status == "retry":
                if self._may_retry(ticket):
                    log.info(
                        "%s is tried again after a conflict, attempt %d: %s",
                        ticket,
                        ticket.attempt,
                        _words_of(verdict.error),
                    )
                    tried = ticket.attempt - ticket.first + 1
                    self.pause(random.uniform(0, min(0.005 * 2**tried, 1.0)))
                    ticket.renew(ticket.attempt + 1, self.clock())
                    continue
                verdict = verdict.as_failed()
            status = self._ends.settle(ticket, verdict)
            told = verdict.status == COMPLETED or not ticket.term("on_end")
            if status in FINAL and not told:
                self.finish(ticket, status)
            return status

    def _was_taken(self, ticket: Ticket) -> bool:
        """Whether a conflict was with somebody who took the job away."""
        try:
            with reading(self.db) as connection:
                ticket.state(connection)
        except Fenced:
            return True
        except Exception:
            log.exception("%s: its database can't be read", ticket)
        return False

    def _may_retry(self, ticket: Ticket) -> bool:
        if ticket.checkpointed and not ticket.term("restartable"):
            return False
        return bool(ticket.attempt - ticket.first + 1 < ticket.term("max_attempts"))

    def _replay(self, ticket: Ticket) -> BaseException | None:
        alone = ticket.attempt - ticket.first + 1 >= ALONE_FROM
        with self._gates.enter(ticket.context or ticket.view, alone):
            process = os.getpid()
            try:
                self.front.replay(ticket)
            except BaseException as error:
                return error
            finally:
                leave_child(process)
        return None

    def _look(self, ticket: Ticket, error: BaseException | None) -> Verdict:
        """What the database says, where the front does not know."""
        while True:
            try:
                with reading(self.db) as connection:
                    if ticket.ended(connection) == COMPLETED:
                        return Verdict(COMPLETED)
                    ticket.state(connection)
                break
            except Fenced:
                return Verdict(FENCED)
            except Exception:
                log.exception("%s: its database can't be read", ticket)
                if self.closing.is_set():
                    break
                self.pause(1.0)
        if ticket.verdict is not None:
            error = ticket.verdict.error or error
            if isinstance(error, JobCancelled):
                return Verdict(CANCELLED)
            if ticket.verdict.retry:
                return Verdict("retry", EXCEPTION, error)
        reason = EXCEPTION if ticket.entered else NOT_REACHED
        return Verdict("failed", reason, error)

    def finish(self, ticket: Ticket, status: str) -> None:
        """Call the view's ``on_end`` in a replay of its own, at most once."""
        self.part(ticket)
        ticket.renew(ticket.attempt)
        ticket.ending, process = status, os.getpid()
        try:
            self.front.replay(ticket)
        except BaseException:
            leave_child(process)
            log.exception("on_end of %s raised; the job stays %s", ticket, status)
        leave_child(process)

    def part(self, ticket: Ticket) -> None:
        """A job has ended, and its view is told: that may take as long as the job."""
        self.live.part(ticket.id, ticket.limit(time.monotonic()))


def _words_of(error: BaseException | None) -> str:
    """What an error says, on one line."""
    return one_line(describe(EXCEPTION, error).message)
