"""What a worker takes from the queue, and what it lets go of again."""

import logging
import secrets
from collections.abc import Callable
from contextlib import suppress

from ZODB.Connection import Connection

from asyncview.exceptions import Fenced
from asyncview.failure import NOT_REACHED
from asyncview.failure import Failure
from asyncview.failure import describe
from asyncview.job import CANCELLED
from asyncview.job import QUEUED
from asyncview.job import RUNNING
from asyncview.job import Job
from asyncview.job import State
from asyncview.place import Place
from asyncview.store import reading
from asyncview.store import transact
from asyncview.ticket import Brief
from asyncview.ticket import Ticket
from asyncview.ticket import batch_of
from asyncview.ticket import token_in
from asyncview.title import title
from asyncview.trouble import TROUBLE

log = logging.getLogger("asyncview.job")

#: Handed over jobs wait in memory, with bodies of up to 64 KiB: 16 MiB at most.
BRIEFS = 256


class Claims:
    """Claims jobs for one place; ``tell`` has a view told of an end (see `Apart`)."""

    def __init__(self, place: Place, tell: Callable[[Ticket, str], None]) -> None:
        self._place = place
        self._tell = tell
        self._briefs: dict[str, Brief] = {}
        #: Batches, by job, of claims that may or may not be stored.
        self._doubtful: dict[str, set[str]] = {}

    def hand_over(self, brief: Brief) -> None:
        """Tell what a claim would have to load; the first `BRIEFS` are remembered."""
        if len(self._briefs) < BRIEFS:
            self._briefs[brief.id] = brief

    def take(self, ids: list[str], stride: int = 1) -> list[Ticket]:
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
                entry = self._place.entry(connection, id)
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
            now, ahead = self._place.clock(), batch_of(token)[1] > 0
            if again:
                state.take_over(self._place.worker, token)
                state.started = None if ahead else now
            else:
                state.claim(self._place.worker, token, None if ahead else now)
            tickets.append(
                Ticket(brief, self._place.worker, token, state.attempt, now, ahead)
            )
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
            transact(self._place.db, change, sleep=self._place.pause, stored=stored)
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
                self._place.live.begin(ticket.session)
        for id in ids:
            self._briefs.pop(id, None)
            self._doubtful.pop(id, None)
        self._cancel_all(cancelled)
        for id in broken:
            self._give_up(id)
        return tickets

    def _give_up(self, id: str) -> None:
        """End a queued job as failed whose request can't be read."""
        said: list[tuple[str, Failure]] = []

        def change(connection: Connection) -> None:
            said.clear()
            entry = self._place.entry(connection, id)
            if entry is None or entry.job.state.status != QUEUED:
                return
            try:
                Brief.of(entry.job)
            except TROUBLE:
                raise
            except Exception as error:
                failure = describe(NOT_REACHED, error)
                entry.job.state.fail(failure, entry.snapshot, self._place.clock())
                said.append((title(entry.job), failure))

        try:
            transact(self._place.db, change, sleep=self._place.pause)
        except Exception:
            # The sweep has it claimed again.
            log.exception("%.6s… could not be given up yet", id)
            return
        for name, failure in said:
            log.error("%s failed (%s), error id %s", name, failure.reason, failure.id)

    def give_back(self, tickets: list[Ticket]) -> list[str]:
        """Queue again, in one commit, what was claimed ahead and has not begun.

        Gives those that wait again: who was asked to stop is cancelled.
        """
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

        transact(self._place.db, change, sleep=self._place.pause, stored=stored)
        for ticket in tickets:
            ticket.close()
        ids = [ticket.id for ticket in tickets]
        cancelled = self._asked(ids)
        self._cancel_all(cancelled)
        return [id for id in ids if id not in cancelled]

    def _asked(self, ids: list[str]) -> list[str]:
        """Who was asked to stop by somebody who believed that they run."""
        try:
            with reading(self._place.db) as connection:
                entries = {id: self._place.entry(connection, id) for id in ids}
                return [id for id, each in entries.items() if each and each.cancel]
        except Exception:
            # Who claims them sees it.
            log.exception("it can't be read whether %d jobs are to stop", len(ids))
            return []

    def _cancel_all(self, ids: list[str]) -> None:
        for id in ids:
            try:
                self.cancel(id)
            except Exception:
                # The sweep comes back to it.
                log.exception("%.6s… could not be cancelled yet", id)

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

    def cancel(self, id: str) -> None:
        """End a queued job that was asked to stop."""
        orphans: list[Ticket] = []
        now = self._place.clock()

        def change(connection: Connection) -> str | None:
            while orphans:
                orphans.pop().close()
            entry = self._place.entry(connection, id)
            if entry is None or entry.job.state.status != QUEUED or not entry.cancel:
                return None
            orphans.extend(self._place.orphans(entry.job))
            keep = entry.job.term("keep_request")
            entry.job.state.cancel(entry.snapshot, now, keep_request=keep)
            return _cancelled(entry.job, now)

        def stored(connection: Connection) -> str | None:
            entry = self._place.entry(connection, id)
            if entry is None or entry.job.state.status != CANCELLED:
                return None
            return _cancelled(entry.job, now)

        self._briefs.pop(id, None)
        said = transact(self._place.db, change, stored=stored)
        if said is not None:
            log.info("%s", said)
            self._place.live.end(id)
        for ticket in orphans:
            self._tell(ticket, CANCELLED)


def _cancelled(job: Job, now: float) -> str | None:
    """What the log says of a job that ended at ``now``, before it began; else None."""
    if job.state.finished != now:
        return None
    waited = now - job.created
    return f"{title(job)} is cancelled after {waited:.3f} s in the queue"
