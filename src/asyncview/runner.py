"""What a worker does with a job id: claim, replay, record."""

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from ZODB.Connection import Connection
from ZODB.DB import DB

from asyncview.apart import Apart
from asyncview.dispatch import Gates
from asyncview.dispatch import Live
from asyncview.exceptions import Fenced
from asyncview.failure import describe
from asyncview.failure import give_up
from asyncview.failure import given_up
from asyncview.interfaces import IFront
from asyncview.job import ABORTED
from asyncview.job import CANCELLED
from asyncview.job import COMPLETED
from asyncview.job import EXCEPTION
from asyncview.job import FAILED
from asyncview.job import FINAL
from asyncview.job import INTERRUPTED
from asyncview.job import NOT_REACHED
from asyncview.job import QUEUED
from asyncview.job import RUNNING
from asyncview.job import Failure
from asyncview.job import Job
from asyncview.job import State
from asyncview.job import one_line
from asyncview.job import title
from asyncview.progress import COMPLETE
from asyncview.progress import ERROR
from asyncview.shard import Entry
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.store import transact
from asyncview.ticket import Brief
from asyncview.ticket import Ticket
from asyncview.ticket import Verdict
from asyncview.ticket import batch_of
from asyncview.ticket import token_in
from asyncview.trouble import TROUBLE

log = logging.getLogger("asyncview.job")

#: From this attempt on a job has its context to itself (in its process).
ALONE_FROM = 3

#: What became of a run that no state of the job says: the job is another's, or its end
#: is not in the database.
FENCED = "fenced"
UNRECORDED = "unrecorded"

#: Handed over jobs wait in memory, with bodies of up to 64 KiB: 16 MiB at most.
BRIEFS = 256


class Runner:
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
        self.db = db
        self.name = name
        self.front = front
        self.live = live
        self.worker = worker or secrets.token_urlsafe(9)
        self.clock = clock
        #: Set before running jobs are asked to stop because the process will end.
        self.leaving = threading.Event()
        #: Set when the process wants to end: nothing waits any more.
        self.closing = threading.Event()
        self._gates = Gates()
        self.apart = Apart(self.finish)
        self._briefs: dict[str, Brief] = {}
        #: Batches, by job, of claims that may or may not be stored.
        self._doubtful: dict[str, set[str]] = {}

    # Claim

    def claim(self, ids: list[str], stride: int = 1) -> list[Ticket]:
        """Take those of the queued jobs that are still there, in one commit.

        Each ``stride`` of them are a batch, for one thread: all but its first are
        claimed ahead, to be run one after another, each when those before it have
        ended.  Raises what the commit raised, where it is not known to be stored.
        """
        tickets: list[Ticket] = []
        cancelled: list[str] = []
        broken: list[str] = []
        batches = [secrets.token_urlsafe(9) for _ in range(0, len(ids), stride)]

        def change(connection: Connection) -> list[str]:
            for ticket in tickets:
                ticket.close()
            tickets.clear()
            cancelled.clear()
            broken.clear()
            places = dict.fromkeys(batches, 0)
            for number, id in enumerate(ids):
                batch = batches[number // stride]
                try:
                    # `Rescue` reads from the token who comes before whom.
                    if one(connection, id, token_in(batch, places[batch])):
                        places[batch] += 1
                except TROUBLE:
                    raise
                except Exception:
                    # Of what the others wait for it is no part.
                    log.exception("%.6s… can't be claimed", id)
                    broken.append(id)
            return cancelled

        def one(connection: Connection, id: str, token: str) -> bool:
            brief = self._briefs.get(id)
            if brief is not None:
                # Who cancels a queued job of this process says so to its state.
                state: State = connection.get(brief.state_oid)
            else:
                entry = self._entry(connection, id)
                if entry is None:
                    return False
                state = entry.job.state
                if entry.cancel and state.status == QUEUED:
                    cancelled.append(id)
                    return False
            again = state.status == RUNNING and self._in_doubt(id, state)
            if state.status != QUEUED and not again:
                return False
            if brief is None:
                assert entry is not None
                brief = Brief.of(entry.job)
            now, ahead = self.clock(), batch_of(token)[1] > 0
            if again:
                state.take_over(self.worker, token)
                state.started = None if ahead else now
            else:
                state.claim(self.worker, token, None if ahead else now)
            tickets.append(Ticket(brief, self.worker, token, state.attempt, now, ahead))
            return True

        def stored(connection: Connection) -> list[str] | None:
            mine = [each for each in tickets if self._is_mine(each, connection)]
            if not mine:
                return None
            tickets[:] = mine
            return cancelled

        # Its connection goes back to the pool with the state in its cache, and is the
        # one that the replay gets.
        try:
            transact(self.db, change, sleep=self._pause, stored=stored)
        except BaseException:
            # It may be stored all the same, and then the next try finds this claim.
            for number, id in enumerate(ids):
                batch = batches[number // stride]
                self._doubtful.setdefault(id, set()).add(batch)
            raise
        # From here on, or the pulse could believe that there is nothing to do.
        for ticket in tickets:
            # Its time begins when it runs: it may have to wait for its thread.
            if not ticket.ahead:
                self.live.begin(ticket.session)
        for id in ids:
            self._briefs.pop(id, None)
            self._doubtful.pop(id, None)
        for id in cancelled:
            try:
                self.cancel_queued(id)
            except Exception:
                # The sweep comes back to it.
                log.exception("%.6s… could not be cancelled yet", id)
        for id in broken:
            self._give_up(id)
        return tickets

    def _entry(self, connection: Connection, id: str) -> Entry | None:
        store = store_of(connection, self.name)
        return None if store is None else store.find(id)

    def _give_up(self, id: str) -> None:
        """End a queued job as failed whose request can't be read."""
        said: list[tuple[str, Failure]] = []

        def change(connection: Connection) -> None:
            said.clear()
            entry = self._entry(connection, id)
            if entry is None or entry.job.state.status != QUEUED:
                return
            try:
                Brief.of(entry.job)
            except TROUBLE:
                raise
            except Exception as error:
                failure = describe(NOT_REACHED, error)
                entry.job.state.fail(failure, entry.snapshot, self.clock())
                said.append((title(entry.job), failure))

        try:
            transact(self.db, change, sleep=self._pause)
        except Exception:
            # The sweep has it claimed again.
            log.exception("%.6s… could not be given up yet", id)
            return
        for name, failure in said:
            log.error("%s failed (%s), error id %s", name, failure.reason, failure.id)

    def hand_over(self, brief: Brief) -> None:
        """Tell what a claim would have to load; the first `BRIEFS` are remembered."""
        if len(self._briefs) < BRIEFS:
            self._briefs[brief.id] = brief

    def orphans(self, job: Job) -> list[Ticket]:
        """For `finish`, where a job ends that no worker of ours has.

        None where it need not be told of that, or no longer can be.
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

    def give_back(self, tickets: list[Ticket]) -> None:
        """Queue again, in one commit, what was claimed ahead and has not begun."""
        mark = secrets.token_urlsafe(9)

        def change(connection: Connection) -> bool:
            for ticket in tickets:
                with suppress(Fenced):
                    ticket.state(connection).give_back(mark)
            return True

        def stored(connection: Connection) -> bool | None:
            for ticket in tickets:
                with suppress(Fenced):
                    if ticket.record_of(connection).token == mark:
                        return True
            return None

        transact(self.db, change, sleep=self._pause, stored=stored)
        for ticket in tickets:
            ticket.close()

    def _in_doubt(self, id: str, state: State) -> bool:
        """Whether an earlier claim of ours was stored, though its commit failed."""
        return batch_of(state.token)[0] in self._doubtful.get(id, ())

    @staticmethod
    def _is_mine(ticket: Ticket, connection: Connection) -> bool:
        try:
            ticket.state(connection)
        except (Fenced, LookupError):
            ticket.close()
            return False
        return True

    def cancel_queued(self, id: str) -> None:
        """End a queued job that was asked to stop."""
        orphans: list[Ticket] = []
        now = self.clock()

        def change(connection: Connection) -> str | None:
            while orphans:
                orphans.pop().close()
            entry = self._entry(connection, id)
            if entry is None or entry.job.state.status != QUEUED or not entry.cancel:
                return None
            orphans.extend(self.orphans(entry.job))
            keep = entry.job.term("keep_request")
            entry.job.state.cancel(entry.snapshot, now, keep_request=keep)
            return _cancelled(entry.job, now)

        def stored(connection: Connection) -> str | None:
            entry = self._entry(connection, id)
            if entry is None or entry.job.state.status != CANCELLED:
                return None
            return _cancelled(entry.job, now)

        self._briefs.pop(id, None)
        said = transact(self.db, change, stored=stored)
        if said is not None:
            log.info("%s", said)
            self.live.end(id)
        for ticket in orphans:
            self.apart.tell(ticket, CANCELLED)

    # Run

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
                    self._pause(random.uniform(0, min(0.005 * 2**tried, 1.0)))
                    ticket.renew(ticket.attempt + 1)
                    continue
                verdict = Verdict("failed", EXCEPTION, verdict.error)
            return self._settle(ticket, verdict)

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
            try:
                self.front.replay(ticket)
            except BaseException as error:
                return error
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
                self._pause(1.0)
        if ticket.verdict is not None:
            error = ticket.verdict.error or error
            if ticket.verdict.retry:
                return Verdict("retry", EXCEPTION, error)
        reason = EXCEPTION if ticket.entered else NOT_REACHED
        return Verdict("failed", reason, error)

    def _settle(self, ticket: Ticket, verdict: Verdict) -> str:
        if verdict.status == COMPLETED:
            return COMPLETED
        if verdict.status == FENCED:
            log.warning("%s was taken away from this worker", ticket)
            return FENCED
        ticket.session.take(self.clock())
        failure = None
        if verdict.status == "failed":
            failure = describe(verdict.reason, verdict.error)
            self._log_failure(ticket, failure)
        elif verdict.status == CANCELLED and self.leaving.is_set():
            # Not by anybody's wish, perhaps, but because the process will end.
            failure = describe(INTERRUPTED)

        def stored(connection: Connection) -> str | None:
            status = ticket.ended(connection)
            if status is None and failure is not None:
                status = given_up(ticket.record_of(connection), failure)
            return status

        try:
            status = self._record(
                ticket,
                lambda connection: self._end(connection, ticket, verdict, failure),
                stored,
            )
        finally:
            if verdict.response is not None:
                verdict.response.body.close()
        if verdict.status == CANCELLED and status == FAILED and failure is not None:
            self._log_failure(ticket, failure)
        if status in FINAL and ticket.term("on_end"):
            self.finish(ticket, status)
        return status

    def _end(
        self,
        connection: Connection,
        ticket: Ticket,
        verdict: Verdict,
        failure: Failure | None,
    ) -> str:
        state = ticket.state(connection)
        now, last = self.clock(), ticket.session.snapshot
        outcome = None
        if verdict.response is not None:
            outcome = verdict.response.store(connection)
        if verdict.status == CANCELLED and failure is not None:
            entry = self._entry(connection, ticket.id)
            if entry is not None and not entry.cancel:
                return give_up(entry, failure, now)
            failure = None
        if failure is not None:
            state.fail(failure, last, now, outcome, **ticket.facts())
        elif verdict.status == "dropped":
            assert outcome is not None
            state.complete(outcome, last, now, **ticket.facts())
        else:
            state.cancel(last, now, **ticket.facts())
        return state.status

    def _record(
        self,
        ticket: Ticket,
        change: Callable[[Connection], str],
        stored: Callable[[Connection], str | None],
    ) -> str:
        """Record an end, however long the storage takes to come back."""
        wait = 0.1
        while True:
            try:
                return transact(self.db, change, sleep=self._pause, stored=stored)
            except Fenced:
                return FENCED
            except Exception:
                log.exception("the end of %s can't be recorded yet", ticket)
                if self.closing.is_set():
                    return UNRECORDED
                self._pause(wait)
                wait = min(2 * wait, 5.0)

    def finish(self, ticket: Ticket, status: str) -> None:
        """Call the view's ``on_end`` in a replay of its own, at most once."""
        self.part(ticket)
        ticket.renew(ticket.attempt)
        ticket.ending = status
        try:
            self.front.replay(ticket)
        except BaseException:
            log.exception("on_end of %s raised; the job stays %s", ticket, status)

    def part(self, ticket: Ticket) -> None:
        """A job has ended, and its view is told: that may take as long as the job."""
        self.live.part(ticket.id, ticket.limit(time.monotonic()))

    def _log_failure(self, ticket: Ticket, failure: Failure) -> None:
        expected = failure.reason in (ABORTED, INTERRUPTED)
        log.log(
            logging.INFO if expected else logging.ERROR,
            "%s failed (%s), error id %s, attempt %d\n%s",
            ticket,
            failure.reason,
            failure.id,
            ticket.attempt,
            failure.traceback,
        )

    def _pause(self, seconds: float) -> None:
        self.closing.wait(seconds)


def _cancelled(job: Job, now: float) -> str | None:
    """What the log says of a job that ended at ``now``, before it began; else None."""
    if job.state.finished != now:
        return None
    waited = now - job.created
    return f"{title(job)} is cancelled after {waited:.3f} s in the queue"


def _words_of(error: BaseException | None) -> str:
    """What an error says, on one line."""
    return one_line(describe(EXCEPTION, error).message)
