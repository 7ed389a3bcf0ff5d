"""Takes jobs away from workers: from dead ones, and from those that take too long."""

import logging
import time
from collections.abc import Callable
from collections.abc import Iterable
from typing import Any
from typing import NamedTuple

from ZODB.Connection import Connection

from asyncview.ends import give_up
from asyncview.ends import given_up
from asyncview.failure import INTERRUPTED
from asyncview.failure import describe
from asyncview.job import FAILED
from asyncview.job import RUNNING
from asyncview.progress import ERROR
from asyncview.runner import Runner
from asyncview.shard import Entry
from asyncview.store import Store
from asyncview.store import store_of
from asyncview.store import transact
from asyncview.ticket import Ticket
from asyncview.ticket import batch_of
from asyncview.title import title

log = logging.getLogger("asyncview.rescue")

#: The heartbeat of a worker that has none, and of this one where no thread has the job.
NO_LEASE = -1
OURS = -2


class Claim(NamedTuple):
    """Who runs a job; ``job_id`` is None for a worker of which only a lease is left.

    ``before`` are the claims of its batch that come before it.
    """

    job_id: str | None
    token: str
    worker: str
    before: "tuple[Claim, ...]" = ()


class Rescue:
    """Finds out which workers are dead, and ends or requeues what they ran.

    No clock is compared with another process's: a worker is dead when its counter has
    not moved for ``lease`` seconds of our own monotonic clock.
    """

    def __init__(
        self,
        runner: Runner,
        lease: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner = runner
        self._lease = lease
        self._monotonic = monotonic
        #: By claim, as a worker that was idle for long may just have begun with it:
        #: its counter, and since when that has not moved.
        self._seen: dict[str, tuple[int, float]] = {}

    def dead(self, store: Store, claims: Iterable[Claim]) -> list[Claim]:
        """Those of all ``claims`` whose workers are dead, and leases nobody needs."""
        now = self._monotonic()
        seen: dict[str, tuple[int, float]] = {}
        found = []
        claims = list(claims)
        known = {claim.worker for claim in claims} | {self._runner.worker}
        claims += [
            Claim(None, name, name) for name in store.leases if name not in known
        ]
        for claim in _last_first(claims):
            beats = self._beats(store, claim.worker)
            before = self._seen.get(claim.token, (None, now))
            seen[claim.token] = (beats, before[1] if before[0] == beats else now)
            if now - seen[claim.token][1] >= self._lease:
                found.append(claim)
        self._seen = seen
        return found

    def _beats(self, store: Store, worker: str) -> int:
        if worker == self._runner.worker:
            return OURS
        beats = store.beats(worker)
        return NO_LEASE if beats is None else beats

    def rescue(self, claim: Claim) -> str | None:
        """Take a job from a worker that is dead; None if it is not, after all."""

        def still(store: Store) -> bool:
            return self._seen[claim.token][0] == self._beats(store, claim.worker)

        def bury(connection: Connection) -> None:
            store = store_of(connection, self._runner.name)
            # One that is idle makes itself another.
            if store is not None and still(store):
                store.leases.pop(claim.worker, None)

        if claim.job_id is None:
            transact(self._runner.db, bury)
            return None
        return self._take(claim.job_id, claim, INTERRUPTED, still)

    def take(self, job_id: str, reason: str) -> str | None:
        """Take a job from a thread of this process.

        Gives its new status, None where the job was not this process's.
        """
        return self._take(job_id, None, reason, lambda store: True)

    def _take(
        self,
        id: str,
        claim: Claim | None,
        reason: str,
        still: Callable[[Store], bool],
    ) -> str | None:
        runner, failure, now = self._runner, describe(reason), self._runner.clock()
        session = runner.live.session(id)
        began = None if session is None else session.began
        orphans: list[Ticket] = []
        taken: tuple[Any, ...] = ()

        def change(connection: Connection) -> str | None:
            nonlocal taken
            while orphans:
                orphans.pop().close()
            store = store_of(connection, runner.name)
            assert store is not None
            entry = store.find(id)
            if entry is None or entry.job.state.status != RUNNING:
                return None
            state = entry.job.state
            ours = (
                state.worker == runner.worker
                if claim is None
                else (state.token == claim.token)
            )
            if not ours or not still(store):
                return None
            taken = (title(entry.job), now - (state.started or now), state.attempt)
            if claim is not None and _is_to_come(connection, store, entry, claim):
                state.give_back(failure.id)
                return state.status
            orphans.extend(runner.orphans(entry.job))
            return give_up(entry, failure, now, began)

        def stored(connection: Connection) -> str | None:
            store = store_of(connection, runner.name)
            entry = None if store is None else store.find(id)
            return None if entry is None else given_up(entry.job.state, failure)

        status = transact(runner.db, change, stored=stored)
        if status is None:
            return None
        failed = status == FAILED
        if session is not None and failed:
            session.ended(ERROR)
        runner.live.end(id)
        log.warning(
            "%s was taken from its worker after %.3f s, attempt %d: it is %s (%s%s)",
            *taken,
            status,
            reason,
            f", error id {failure.id}" if failed else "",
        )
        for ticket in orphans:
            if failed:
                runner.apart.tell(ticket, status)
            else:
                ticket.close()
        return status


def _last_first(claims: list[Claim]) -> list[Claim]:
    """Each is told who comes before it in its batch, and comes before those.

    Once the first of a batch is taken nobody can tell of the second that it has not
    begun.
    """
    batches: dict[str, list[Claim]] = {}
    ordered = []
    for claim in sorted(claims, key=lambda claim: batch_of(claim.token)[1]):
        batch, place = batch_of(claim.token)
        before = batches.setdefault(batch, [])
        ordered.append(claim._replace(before=tuple(before) if place else ()))
        before.append(claim)
    return ordered[::-1]


def _is_to_come(
    connection: Connection, store: Store, entry: Entry, claim: Claim
) -> bool:
    """Whether a job's turn has certainly not come, as one before it has not ended.

    Where that one ends just now, as the worker is alive after all, this transaction
    conflicts with its end; and who comes too late for it enters nothing, as a replay
    looks first whether the job is still its claim's.
    """
    if entry.started is not None:
        return False
    for each in claim.before:
        found = store.find(str(each.job_id))
        if found is not None:
            earlier = found.job.state
            if (earlier.status, earlier.token) == (RUNNING, each.token):
                connection.readCurrent(earlier)
                return True
    return False
