"""The job record: what is known of one run, and nothing that acts.

A job is two persistent objects.  `Job` is what was said when it was started, and never
changes; `State` is where it stands, is written when it is claimed and when it ends, and
nobody else writes it.  Progress, request, outcome and the wish to cancel are kept
apart, so that none of them conflicts with another or pays for another's size: the
record for the progress is made with the job, and only the pulse writes it.
"""

import re
import secrets
from collections.abc import Mapping
from typing import Any

from persistent import Persistent
from zope.interface import implementer

from asyncview.exceptions import Fenced
from asyncview.exceptions import InvalidTransition
from asyncview.failure import Failure
from asyncview.interfaces import IJob
from asyncview.interfaces import IState
from asyncview.outcome import Outcome
from asyncview.progress import NOTHING
from asyncview.progress import Progress
from asyncview.progress import Snapshot
from asyncview.progress import packed
from asyncview.progress import unpacked
from asyncview.request import StoredRequest

QUEUED = "queued"
RUNNING = "running"
COMPLETED = "completed"
FAILED = "failed"
CANCELLED = "cancelled"
FINAL = frozenset({COMPLETED, FAILED, CANCELLED})

#: What a view says about its jobs, and what holds where it says nothing.  Only what
#: differs is kept.
TERMS: dict[str, Any] = {
    "label": "",
    "tags": (),
    "success_msg": None,
    "success_url": None,
    "error_msg": None,
    "error_url": None,
    "keep": None,
    "keep_request": False,
    "restartable": 0,
    "max_attempts": 20,
    "max_runtime": None,
    "tasks": (),
    "on_end": False,
    "uploads": (),
}


#: What an id may be; they stand in addresses.
WELL_FORMED = re.compile(r"[A-Za-z0-9_-]{1,64}")


def new_id() -> str:
    """192 random bits as 32 characters of base64url (ASVS 11.5.1 asks for 128)."""
    return secrets.token_urlsafe(24)


@implementer(IJob)
class Job(Persistent):
    """See `IJob`."""

    id = ""
    view = ""
    context: bytes | None = None
    owner: tuple[str, str] | None = None
    visitor: str | None = None
    created = 0.0
    state: "State"

    def __init__(
        self,
        id: str,
        *,
        view: str,
        context: bytes | None,
        owner: tuple[str, str] | None,
        visitor: str | None,
        created: float,
        terms: Mapping[str, Any],
        request: StoredRequest | None,
    ) -> None:
        self.id = id
        self.view = view
        self.context = context
        self.owner = owner
        self.visitor = visitor
        self.created = created
        self._terms = {n: v for n, v in terms.items() if v != TERMS[n]}
        self.state = State(request)

    def __getstate__(self) -> tuple[Any, ...]:
        return (
            1,
            self.id,
            self.view,
            self.context,
            self.owner,
            self.visitor,
            self.created,
            tuple(self._terms.items()),
            self.state,
        )

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        (
            _,
            self.id,
            self.view,
            self.context,
            self.owner,
            self.visitor,
            self.created,
            terms,
            self.state,
        ) = state
        self._terms = dict(terms)

    def term(self, name: str) -> Any:
        """What the view said; what it said in ``__run__`` counts more."""
        changed = self.state.changed
        if name in changed:
            return changed[name]
        return self._terms.get(name, TERMS[name])


#: What a state's record leaves out at its end.
BLANK: tuple[Any, ...] = (1, QUEUED, 1, None, 0, None, None, None, None, None, ())
BLANK += (None, None, 0, (), (), False, False)


@implementer(IState)
class State(Persistent):
    """See `IState`."""

    status = QUEUED
    version = 1
    worker: str | None = None
    token: str | None = None
    attempt = 0
    restarts = 0
    started: float | None = None
    finished: float | None = None
    live: Progress | None = None
    progress: Snapshot = NOTHING
    failure: Failure | None = None
    outcome: Outcome | None = None
    flashes: tuple[tuple[str, str], ...] = ()
    deleted = False
    checkpointed = False

    def __init__(self, request: StoredRequest | None) -> None:
        self.request = request
        self.changed: dict[str, Any] = {}
        # Made with the job, so that a claim writes one record and no more.
        self.live = Progress()

    def __getstate__(self) -> tuple[Any, ...]:
        values: list[Any] = [
            1,
            self.status,
            self.version,
            self.request,
            self.attempt,
            self.worker,
            self.token,
            self.started,
            self.finished,
            self.live,
            packed(self.progress),
            None if self.outcome is None else tuple(self.outcome),
            None if self.failure is None else tuple(self.failure),
            self.restarts,
            tuple(self.changed.items()),
            self.flashes,
            self.deleted,
            self.checkpointed,
        ]
        # A state is written three times, and says little the first two.
        while not values[-1]:
            values.pop()
        return tuple(values)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        (
            _,
            self.status,
            self.version,
            self.request,
            self.attempt,
            self.worker,
            self.token,
            self.started,
            self.finished,
            self.live,
            progress,
            outcome,
            failure,
            self.restarts,
            changed,
            self.flashes,
            self.deleted,
            self.checkpointed,
        ) = state + BLANK[len(state) :]
        self.progress = unpacked(progress)
        self.failure = None if failure is None else Failure(*failure)
        self.outcome = None if outcome is None else Outcome(*outcome)
        self.changed = dict(changed)

    @property
    def ended(self) -> bool:
        return self.status in FINAL

    def check(self, token: str) -> None:
        """Raise Fenced unless the job is still this claim's."""
        if self.token != token or self.status != RUNNING or self.deleted:
            raise Fenced(f"the job is {self.status} and was claimed by {self.worker}")

    def claim(self, worker: str, token: str, now: float | None) -> None:
        self._become(RUNNING, allowed=(QUEUED,))
        self.worker = worker
        self.token = token
        self.attempt += 1
        self.started = now
        if self.live is None:
            self.live = Progress()

    def give_back(self, mark: str | None = None) -> None:
        """Back into the queue, as if it had never been claimed."""
        if self.started is not None:
            raise InvalidTransition(self._shown, QUEUED)
        self._become(QUEUED, allowed=(RUNNING,))
        self.worker = None
        self.token = mark
        self.attempt -= 1

    def take_over(self, worker: str, token: str) -> None:
        """Another process goes on with what is no job."""
        self._become(RUNNING, allowed=(RUNNING,))
        self.worker = worker
        self.token = token

    def complete(
        self, outcome: Outcome | None, last: Snapshot, now: float, **facts: Any
    ) -> None:
        self._end(COMPLETED, (RUNNING,), last, now, **facts)
        self.outcome = outcome

    def fail(
        self,
        failure: Failure,
        last: Snapshot,
        now: float,
        outcome: Outcome | None = None,
        **facts: Any,
    ) -> None:
        self._end(FAILED, (QUEUED, RUNNING), last, now, **facts)
        self.failure = failure
        self.outcome = outcome

    def cancel(self, last: Snapshot, now: float, **facts: Any) -> None:
        self._end(CANCELLED, (QUEUED, RUNNING), last, now, **facts)

    def requeue(self, last: Snapshot, mark: str | None = None) -> None:
        """Back into the queue after its worker died, with a new start in mind."""
        self._become(QUEUED, allowed=(RUNNING,))
        # Progress starts afresh, and the version must not go back with it.
        self.version += last.version
        self.worker = self.started = self.live = None
        self.token = mark
        self.restarts += 1

    def delete(self) -> None:
        """Leave a tombstone: from now on every late writer conflicts with this."""
        if self.deleted or not self.ended:
            raise InvalidTransition(self._shown, "deleted")
        self.deleted = True
        self.outcome = self.request = self.failure = None
        self.progress = NOTHING
        self.changed = {}
        self.flashes = ()
        self.version += 1

    @property
    def _shown(self) -> str:
        return "deleted" if self.deleted else self.status

    def _end(
        self,
        status: str,
        allowed: tuple[str, ...],
        last: Snapshot,
        now: float,
        changed: Mapping[str, Any] | None = None,
        flashes: tuple[tuple[str, str], ...] = (),
        keep_request: bool = False,
    ) -> None:
        self._become(status, allowed)
        # Above whatever was shown while the job ran: the wish to cancel counts
        # one, and the pulse may be just writing the next progress.
        self.version += last.version + 2
        self.finished = now
        self.live = None
        if self.started is None:
            self.started = last.started
        self.progress = last._replace(started=None) if last.started else last
        self.attempt = max(self.attempt, last.attempt)
        self.changed = dict(changed or {})
        self.flashes = tuple(flashes)
        if not keep_request:
            self.request = None

    def _become(self, status: str, allowed: tuple[str, ...]) -> None:
        if self.status not in allowed or self.deleted:
            raise InvalidTransition(self._shown, status)
        self.status = status
        self.version += 1
