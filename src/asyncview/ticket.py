"""One claim of a job, in plain memory: what the front needs of it, and what it says."""

from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import BinaryIO
from typing import NamedTuple

from ZODB.blob import Blob
from ZODB.Connection import Connection
from ZODB.POSException import POSKeyError

from asyncview.body import Body
from asyncview.exceptions import Fenced
from asyncview.failure import NOT_REACHED
from asyncview.failure import Failure
from asyncview.job import TERMS
from asyncview.job import Job
from asyncview.job import State
from asyncview.outcome import SMALL
from asyncview.outcome import Content
from asyncview.outcome import Outcome
from asyncview.session import ProgressSession
from asyncview.title import title
from asyncview.told import Facts


class Brief(NamedTuple):
    """What a worker is told of a job; plain values, of which no thread owns any.

    The process that took the POST may hand it over in memory, so that its worker
    need not load four records to claim one job.
    """

    id: str
    view: str
    context: bytes | None
    owner: tuple[str, str] | None
    created: float
    terms: Mapping[str, Any]
    state_oid: bytes
    environ: Mapping[str, str]
    size: int
    session: bytes | None
    body: bytes | BinaryIO

    @classmethod
    def of(cls, job: Job) -> "Brief":
        """From the records; opens the body's file where it is a blob."""
        stored = job.state.request
        assert stored is not None
        body = stored.body
        if isinstance(body, Blob):
            # The handle works after its connection is closed, and after a pack.
            body = body.open("c")
        return cls(
            job.id,
            job.view,
            job.context,
            job.owner,
            job.created,
            dict(job._terms),
            job.state._p_oid,
            dict(stored.environ),
            stored.size,
            stored.session,
            body,
        )


class Verdict:
    """How an attempt ended, as the front saw it."""

    def __init__(
        self,
        status: str,
        reason: str = "",
        error: BaseException | None = None,
        response: "Captured | None" = None,
        retry: bool = False,
    ) -> None:
        #: ``completed`` (recorded), ``dropped`` (completed, to be recorded without
        #: the work), ``failed``, ``cancelled``, ``retry``, ``doubt`` or ``fenced``.
        self.status = status
        self.reason = reason
        self.error = error
        self.response = response
        #: What is to be told of a failure, if the front has said it.
        self.failure: Failure | None = None
        #: Whether doubt may end in a new attempt, if nothing was stored.
        self.retry = retry

    def as_failed(self) -> "Verdict":
        """That of an attempt which is not tried again: failed, as it has said."""
        verdict = Verdict("failed", self.reason, self.error)
        verdict.failure = self.failure
        return verdict


class Captured:
    """A response on its way into the database."""

    def __init__(
        self, status: str, headers: Iterable[tuple[str, str]], body: Body
    ) -> None:
        self.status = status
        self.headers = tuple(headers)
        self.body = body

    def store(self, connection: Connection) -> Outcome:
        body: Any = self.body.store(connection)
        if isinstance(body, bytes) and len(body) > SMALL:
            body = Content(body)
        return Outcome(self.status, self.headers, body, self.body.size)


def batch_of(token: str | None) -> tuple[str, int]:
    """Of which batch a token is, and the place in it of its claim."""
    batch, _, place = (token or "").partition(".")
    return batch, int(place or 0)


def token_in(batch: str, place: int) -> str:
    """The other way round."""
    return f"{batch}.{place}" if place else batch


class Ticket:
    """One claim of a job, in plain memory: what the front needs, and what it says."""

    #: The verdict of the attempt; None where the front never came to one.
    verdict: Verdict | None = None
    #: Whether ``__run__`` was entered in this attempt.
    entered = False
    #: Whether it came back from there, whichever way.
    left = False
    #: What was being handled when ``__run__`` raised its error.
    occasion: BaseException | None = None
    #: Whether the job committed in the middle, in any attempt.
    checkpointed = False
    #: Set for the replay that is for ``on_end`` only.
    ending: str | None = None
    #: Set while the transaction that ends the job commits.
    finishing = False
    #: When it began to run, by ``time.monotonic``.
    begun = 0.0

    def __init__(
        self,
        brief: Brief,
        worker: str,
        token: str,
        attempt: int,
        now: float,
        ahead: bool = False,
    ) -> None:
        """``ahead``: it was claimed along with others, and comes after them."""
        self.brief = brief
        self.id = brief.id
        self.view = brief.view
        self.context = brief.context
        self.owner = brief.owner
        self.terms = brief.terms
        self.worker = worker
        self.token = token
        self.claimed = now
        self.ahead = ahead
        self.queued = now - brief.created
        self.first = attempt
        self.session = ProgressSession(self.id)
        self.renew(attempt)

    def begin(self, now: float, monotonic: float) -> None:
        """Its turn has come; ``now`` is in seconds since the epoch."""
        self.begun = monotonic
        if self.ahead:
            self.queued = now - self.brief.created
            self.session.began = now
            self.session.facts = self.session.facts._replace(started=now)

    def renew(self, attempt: int, now: float | None = None) -> None:
        """Nothing of the last attempt is left for the next.

        ``now`` is when that begins, if there was one before.
        """
        self.attempt = attempt
        self.verdict = self.occasion = None
        self.entered = self.left = False
        self.finishing = False
        self.changed: dict[str, Any] = {}
        self.flashes: tuple[tuple[str, str], ...] = ()
        # Fresh, but for the version, which a page must not see go back.
        began = self.session.began
        self.session = ProgressSession(
            self.id,
            attempt,
            self.session.snapshot,
            self.terms.get("tasks", ()),
            since=now,
        )
        self.session.began = began
        label, tags = self.term("label"), self.term("tags")
        self.session.facts = Facts(
            label, tags, self.owner, self.brief.created, began or self.claimed
        )

    def term(self, name: str) -> Any:
        if name in self.changed:
            return self.changed[name]
        return self.terms.get(name, TERMS[name])

    @property
    def deadline(self) -> float | None:
        """When, by ``time.monotonic``, the job has run for too long; None: never."""
        return self.limit(self.begun)

    def limit(self, begun: float) -> float | None:
        """When what began then has taken longer than the view allows."""
        limit = self.terms.get("max_runtime")
        return None if limit is None else begun + float(limit)

    def refuse(self, why: str) -> None:
        """Say why ``__run__`` will not be entered."""
        self.verdict = Verdict("failed", NOT_REACHED, LookupError(why))

    def state(self, connection: Connection) -> State:
        """The job's state, if it is still this claim's; else raises Fenced."""
        state = self.record_of(connection)
        state.check(self.token)
        return state

    def record_of(self, connection: Connection) -> State:
        """The job's state, whoever has it; Fenced where nobody has it any more."""
        try:
            state: State = connection.get(self.brief.state_oid)
        except POSKeyError:
            # It was taken away, has expired, and was packed away.
            raise Fenced("the job is no longer in the database") from None
        return state

    def guard(self, connection: Connection) -> None:
        """Make the transaction fail if the job is taken away before it commits."""
        connection.readCurrent(self.state(connection))

    def facts(self) -> dict[str, Any]:
        return {
            "changed": self.changed,
            "flashes": self.flashes,
            "keep_request": self.term("keep_request"),
        }

    def ended(self, connection: Connection) -> str | None:
        """The status with which this very claim has ended; None if it has not."""
        state = self.record_of(connection)
        return state.status if state.token == self.token and state.ended else None

    def record(self, connection: Connection, outcome: Outcome, now: float) -> None:
        """Record the outcome; the transaction is that of the work."""
        self.session.take(now)
        self.state(connection).complete(
            outcome, self.session.snapshot, now, **self.facts()
        )

    def close(self) -> None:
        """Close the body's file, and let go of the last attempt."""
        body = self.brief.body
        if not isinstance(body, bytes):
            body.close()
        # An error holds on to all that its frames held: request, files, objects.
        self.verdict = self.occasion = None

    def __str__(self) -> str:
        return title(self)
