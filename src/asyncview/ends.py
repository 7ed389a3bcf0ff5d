"""How jobs end that did not end with their work: told, and recorded."""

import logging
from collections.abc import Callable

from ZODB.Connection import Connection

from asyncview.exceptions import Fenced
from asyncview.failure import ABORTED
from asyncview.failure import INTERRUPTED
from asyncview.failure import Failure
from asyncview.failure import describe
from asyncview.job import CANCELLED
from asyncview.job import COMPLETED
from asyncview.job import FAILED
from asyncview.job import QUEUED
from asyncview.job import State
from asyncview.place import Place
from asyncview.shard import Entry
from asyncview.store import transact
from asyncview.ticket import Ticket
from asyncview.ticket import Verdict

log = logging.getLogger("asyncview.job")

#: What became of a run that no state of the job says: the job is another's, or its end
#: is not in the database.
FENCED = "fenced"
UNRECORDED = "unrecorded"

#: How loud the log says that a job failed; an error where it is not here.  Who was
#: interrupted by a shutdown has been shown an error id, and asks for it.
LEVELS = {ABORTED: logging.INFO, INTERRUPTED: logging.WARNING}


class Ends:
    """Records the ends of one place's jobs."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def settle(self, ticket: Ticket, verdict: Verdict) -> str:
        """Record an end by its verdict, but one that is recorded with the work.

        Gives the job's status, or `FENCED` or `UNRECORDED`.
        """
        if verdict.status == COMPLETED:
            return COMPLETED
        if verdict.status == FENCED:
            log.warning("%s was taken away from this worker", ticket)
            return FENCED
        ticket.session.take(self._place.clock())
        failure = None
        if verdict.status == "failed":
            failure = verdict.failure or describe(verdict.reason, verdict.error)
            self._log_failure(ticket, failure)
        elif verdict.status == CANCELLED and self._place.leaving.is_set():
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
        return status

    def _end(
        self,
        connection: Connection,
        ticket: Ticket,
        verdict: Verdict,
        failure: Failure | None,
    ) -> str:
        state = ticket.state(connection)
        now, last = self._place.clock(), ticket.session.snapshot
        outcome = None
        if verdict.response is not None:
            outcome = verdict.response.store(connection)
        if verdict.status == CANCELLED and failure is not None:
            entry = self._place.entry(connection, ticket.id)
            if entry is not None and not entry.cancel:
                return give_up(entry, failure, now, ticket.session.began)
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
                return transact(
                    self._place.db, change, sleep=self._place.pause, stored=stored
                )
            except Fenced:
                return FENCED
            except Exception:
                log.exception("the end of %s can't be recorded yet", ticket)
                if self._place.closing.is_set():
                    return UNRECORDED
                self._place.pause(wait)
                wait = min(2 * wait, 5.0)

    def _log_failure(self, ticket: Ticket, failure: Failure) -> None:
        log.log(
            LEVELS.get(failure.reason, logging.ERROR),
            "%s failed (%s), error id %s, attempt %d\n%s",
            ticket,
            failure.reason,
            failure.id,
            ticket.attempt,
            failure.traceback,
        )


def give_up(
    entry: Entry, failure: Failure, now: float, began: float | None = None
) -> str:
    """End a running job as failed, or queue it again where its view allows that.

    ``began`` is when it did, for all that is known here.  Gives the new status.
    """
    state = entry.job.state
    if failure.reason == INTERRUPTED and state.restarts < entry.job.term("restartable"):
        state.requeue(entry.snapshot, failure.id)
    else:
        keep = entry.job.term("keep_request")
        last = entry.snapshot
        if last.started is None:
            last = last._replace(started=began)
        state.fail(failure, last, now, keep_request=keep)
    return state.status


def given_up(state: State, failure: Failure) -> str | None:
    """What `give_up` made of a job, if that is stored; else None."""
    if state.failure == failure:
        return FAILED
    if state.status == QUEUED and state.token == failure.id:
        return QUEUED
    return None
