"""Live progress: what a job says of itself while it runs, in plain memory.

Nothing here knows a database: the pulse looks at the sessions of its process once in
a while and writes what changed.
"""

import time
from collections import deque
from collections.abc import Callable
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any
from typing import ClassVar

from zope.interface import implementer

from asyncview.count import MESSAGE_WIDTH
from asyncview.count import Count
from asyncview.count import Stopped
from asyncview.count import plain
from asyncview.count import refuse
from asyncview.exceptions import AsyncViewError
from asyncview.exceptions import InvalidTransition
from asyncview.interfaces import IKeeper
from asyncview.interfaces import IProgressSession
from asyncview.job import COMPLETED
from asyncview.progress import COMPLETE
from asyncview.progress import ERROR
from asyncview.progress import NOTHING
from asyncview.progress import RUNNING
from asyncview.progress import Snapshot
from asyncview.shard import Entry
from asyncview.task import Result
from asyncview.task import Task
from asyncview.task import give
from asyncview.told import Facts
from asyncview.told import Told
from asyncview.told import as_dict

__all__ = ["LOG_LINES", "LOG_WIDTH", "MESSAGE_WIDTH", "ProgressSession"]

#: How many of the last log lines are kept with a job, and how much of each.
LOG_LINES = 20
LOG_WIDTH = 300

#: A count that begins within so many seconds of its job began with it.
PROMPT = 0.2


@implementer(IProgressSession)
class ProgressSession(Count, Told):
    """See `IProgressSession`."""

    __slots__ = (
        "_attempt",
        "_end",
        "_final",
        "_keeper",
        "_last",
        "_lines",
        "_looked",
        "_tasks",
        "began",
        "declared",
        "facts",
        "id",
        "managed",
        "token",
        "wish",
    )

    #: Finds who keeps the sessions of a database in this process; `standalone`, which
    #: lies above, says it.
    keeper_of: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        id: str | None = None,
        attempt: int = 1,
        last: Snapshot = NOTHING,
        tasks: Iterable[tuple[str, str]] = (),
        keeper: IKeeper | None = None,
        since: float | None = None,
    ) -> None:
        """``last`` is the last snapshot of the attempt before this one.

        ``tasks`` are pairs of id and name; ``keeper`` is None for that of a job.
        ``since`` is when the attempt began, where that was not with the job.
        """
        super().__init__()
        self.id = id
        self.facts = Facts()
        self._attempt = attempt
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self._last = last
        #: When there was a look, or nothing to see yet; None: that was with the job.
        self._looked = since
        self._tasks: dict[str, Task] = {}
        for task, name in tasks:
            give(self._tasks, task, name)
        #: Whether its tasks were all said beforehand, so that they are its end.
        self.declared = bool(self._tasks)
        self._keeper = keeper
        #: When its job began, in seconds since the epoch; None where the claim says it.
        self.began: float | None = None
        #: How it ended: complete or error; None before.
        self._end: str | None = None
        #: What was recorded as its last, and when: all there is to see after the end.
        self._final: tuple[Snapshot, float] | None = None
        #: Of the claim, where it is no job's.
        self.token = ""
        #: Whether who runs the work records the end, with the work; the end that
        #: the work itself asked for.
        self.managed = False
        self.wish: tuple[Any, ...] | None = None

    @property
    def kept(self) -> bool:
        """Whether it is in the database, and no job's."""
        return self._keeper is not None

    def manage(self) -> None:
        """From now on it ends with the work that is run for it."""
        if self._end is not None or self.managed:
            raise InvalidTransition(self._end or "at work", RUNNING, "session")
        self.managed = True

    def resume(self, last: Snapshot) -> None:
        """Go on from a snapshot that another process wrote."""
        self._known = self._current, self._total = last.current, last.total
        self._begun, self._looked = (last.since, last.base), last.updated
        self._message, self._numeric = last.message, last.numeric
        self._highest = last.share or 0.0
        self._lines.extend(last.log)
        for task in last.tasks:
            give(self._tasks, task.id).resume(task)

    @classmethod
    def create(
        cls, connection: Any, *, name: str | None = None, **terms: Any
    ) -> "ProgressSession":
        """A new one in the database of ``connection``, stored at once.

        ``name`` is the ``asyncview.name`` of the application that is to see it; if None
        that of the only one that keeps jobs there.  ``terms`` are those of
        ``request.asyncview.create_session``; ``owner`` is a userid.
        """
        session: ProgressSession = cls.keeper_of(connection.db(), name).create(**terms)
        return session

    @classmethod
    def get(cls, connection: Any, id: str, *, name: str | None = None) -> Any:
        """A read-only one, of any process; None if there is none with this id."""
        return cls.keeper_of(connection.db(), name).get(id)

    # Tasks

    def task(
        self,
        id: str,
        name: str | None = None,
        total: float | None = None,
        weight: float | None = None,
        expected: float | None = None,
    ) -> Task:
        """See `IProgressSession`."""
        task = give(self._tasks, id, name, total, weight, expected)
        if isinstance(self, Stopped):
            # It may have been stopped while this one was made.
            task.stop()
        return task

    def start(self, id: str) -> Task:
        """See `IProgressSession`."""
        return self._tasks[id].start()

    def complete(self, id: str, message: str | None = None) -> None:
        """See `IProgressSession`."""
        self._tasks[id].complete(message)

    def error(self, id: str, message: str | None = None) -> None:
        """See `IProgressSession`."""
        self._tasks[id].error(message)

    def add_sequential(
        self, id: str, func: Callable[..., Any], *args: Any, **kw: Any
    ) -> Result:
        """See `IProgressSession`."""
        return self._tasks[id].run(func, args, kw)

    def add_parallel(self, id: str, future: "Future[Any]") -> Result:
        """See `IProgressSession`."""
        return self._tasks[id].follow(future)

    # The end

    def finish(self, message: str | None = None, url: str | None = None) -> None:
        """See `IProgressSession`."""
        self._close(COMPLETE, message, url, None)

    def fail(self, error: Any, url: str | None = None) -> None:
        """See `IProgressSession`."""
        known = isinstance(error, BaseException)
        message = None if known or error is None else plain(error)
        self._close(ERROR, message, url, error if known else None)

    def _close(
        self,
        status: str,
        message: str | None,
        url: str | None,
        error: BaseException | None,
    ) -> None:
        if self.id is not None and self._keeper is None:
            raise AsyncViewError("a job's session ends with the job")
        if self._end == status and error is None and message is None:
            # Its tasks have ended it a moment ago.
            return
        ended = self._end or (self.wish and self.wish[0])
        if ended:
            raise InvalidTransition(ended, status, "session")
        if url is not None and self._keeper is not None:
            url = self._keeper.address(url)
        if message is not None:
            self._message = plain(message)
        if self.managed:
            self.wish = (status, message, url, error)
            return
        if self._keeper is not None:
            self._keeper.end(self, status, message, url, error)
        else:
            self.conclude(time.time())
        self.ended(status)

    def ended(self, status: str) -> None:
        """It is over, as the database says; the first word counts.

        What is said from now on is not shown, as nobody else will see it.
        """
        if self._end is None:
            if self._final is None:
                self._final = self._last, time.time()
            self._end = status

    def seen(self, entry: Entry | None) -> str | None:
        """How it is over here, as its record says; None where it is not.

        Another process may have it, or have taken this one for dead.
        """
        if not self.kept:
            return None
        state = None if entry is None else entry.job.state
        if state is None or state.token != self.token:
            return ERROR
        if not state.ended:
            return None
        return COMPLETE if state.status == COMPLETED else ERROR

    @property
    def settled(self) -> bool:
        """Whether its tasks, all said beforehand, have ended and so have ended it."""
        own = self.declared and not self.managed and self._keeper is not None
        return own and self._end is None and self._last.settled

    def settle(self) -> None:
        """End it as its tasks have ended."""
        status = ERROR if self._last.status() == ERROR else COMPLETE
        self._close(status, None, None, None)

    def stop(self) -> None:
        """From now on every call raises JobCancelled."""
        self.__class__ = StoppedSession
        for task in list(self._tasks.values()):
            task.stop()

    def log(self, line: object) -> None:
        """Keep a line; the last `LOG_LINES` are shown."""
        self._lines.append(plain(line, LOG_WIDTH))

    # For who looks

    @property
    def snapshot(self) -> Snapshot:
        """The last one that was taken."""
        return self._last

    def take(self, now: float) -> Snapshot | None:
        """What is to be written, or None where nothing changed since the last."""
        taken = self.look(now)
        if taken == self._last:
            return None
        self._last = taken._replace(
            version=self._last.version + 1, updated=round(now, 1)
        )
        return self._last

    def conclude(self, now: float) -> Snapshot:
        """What is to be recorded as its last."""
        self.take(now)
        last = self._last
        self._final = last, now
        return last

    def look(self, now: float) -> Snapshot:
        """What there is to see, with version and time of the last that was taken."""
        last = self._last
        (current, total), begun = self._counted_since(self._looked, now)
        since, base = self._since(begun)
        self._looked = now
        taken = Snapshot(
            version=last.version,
            updated=last.updated,
            current=current,
            total=total,
            message=plain(self._message),
            attempt=self._attempt,
            log=tuple(self._lines),
            tasks=tuple(task.look(now) for task in list(self._tasks.values())),
            started=self.began,
            since=since,
            base=base,
        )
        percent = taken.share_at(now)
        return taken._replace(
            percent=self._forward(percent),
            numeric=self._numeric and percent is None,
        )

    def _since(self, begun: tuple[float | None, float]) -> tuple[float | None, float]:
        """As it is kept of a count when and where it began."""
        since, base = begun
        started = self.began or self.facts.started or 0.0
        if since is None or (since - started < PROMPT and not base):
            return None, 0
        return round(since, 1), base

    def _tell(self) -> tuple[dict[str, Any], bool]:
        # In this order: what is said after the end is not.
        end, now = self._end, time.time()
        if end is not None and self._final is not None:
            last, now = self._final
        else:
            last = self.look(now)
        own = self.declared and not self.managed
        ended = end is not None or (own and last.settled)
        if end == ERROR:
            last = last.broken_off(now)
        return as_dict(self.id, end or last.status(), last, now), ended


class StoppedSession(Stopped, ProgressSession):
    """The session of a job that was asked to stop: each call says so."""

    __slots__ = ()

    task = start = complete = error = refuse
    add_sequential = add_parallel = refuse
