"""Live progress: what a job says of itself while it runs, in plain memory.

Nothing here knows a database or a clock: the pulse looks at the sessions of its
process once in a while and writes what changed.
"""

from collections import deque
from collections.abc import Iterable
from collections.abc import Iterator
from math import isfinite
from typing import Any
from typing import TypeVar

from zope.interface import implementer

from asyncview.exceptions import JobCancelled
from asyncview.interfaces import IProgressSession
from asyncview.progress import Snapshot
from asyncview.progress import percentage

T = TypeVar("T")

#: How many of the last log lines are kept with a job, and how much of each.
LOG_LINES = 20
LOG_WIDTH = 300

#: Messages are for a line on a page.
MESSAGE_WIDTH = 500


@implementer(IProgressSession)
class ProgressSession:
    """See `IProgressSession`."""

    __slots__ = (
        "_attempt",
        "_current",
        "_highest",
        "_last",
        "_lines",
        "_message",
        "_numeric",
        "_total",
        "id",
    )

    def __init__(
        self, id: str | None = None, attempt: int = 1, version: int = 0
    ) -> None:
        self.id = id
        self._attempt = attempt
        self._current: Any = None
        self._total: Any = None
        self._message: Any = ""
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self._highest = 0.0
        self._numeric = False
        # Also for a new attempt versions only grow: clients go by them.
        self._last = Snapshot(version=version, attempt=attempt)

    # These are called a million times: no clock, no lock, no I/O, and no look at a
    # flag either: `stop` changes the class instead.

    def update(
        self,
        current: float | None = None,
        total: float | None = None,
        message: str | None = None,
    ) -> None:
        """See `IProgressSession`."""
        if current is not None:
            self._current = current
        if total is not None:
            self._total = total
        if message is not None:
            self._message = message

    def advance(self, n: float = 1) -> None:
        """See `IProgressSession`."""
        try:
            self._current += n
        except TypeError:
            self._current = n

    def track(
        self,
        iterable: Iterable[T],
        total: float | None = None,
        message: str | None = None,
    ) -> Iterator[T]:
        """See `IProgressSession`."""
        if total is None:
            try:
                total = len(iterable)  # type: ignore[arg-type]
            except TypeError:
                # The total of an earlier stage would be a lie here.
                self._total = None
        self.update(0, total, message)
        return self._counted(iterable)

    def _counted(self, iterable: Iterable[T]) -> Iterator[T]:
        count = 0
        for item in iterable:
            yield item
            count += 1  # noqa: SIM113 - enumerate makes a step a tenth slower
            self._current = count

    def stop(self) -> None:
        """From now on every call raises JobCancelled."""
        self.__class__ = StoppedSession

    def log(self, line: str) -> None:
        """Keep a line; the last `LOG_LINES` are shown."""
        self._lines.append(line[:LOG_WIDTH])

    @property
    def snapshot(self) -> Snapshot:
        """The last one that was taken."""
        return self._last

    def take(self, now: float) -> Snapshot | None:
        """What is to be written, or None where nothing changed since the last."""
        last = self._last
        current = _number(self._current)
        total = _number(self._total)
        percent = percentage(current, total)
        shown = None
        if percent is not None:
            if percent < self._highest:
                shown = self._highest
            else:
                self._highest = percent
        self._numeric = self._numeric or current is not None
        taken = last._replace(
            current=current,
            total=total,
            percent=shown,
            numeric=self._numeric and percent is None,
            message=str(self._message)[:MESSAGE_WIDTH],
            log=tuple(self._lines),
        )
        if taken == last:
            return None
        self._last = taken._replace(version=last.version + 1, updated=now)
        return self._last


class StoppedSession(ProgressSession):
    """The session of a job that was asked to stop: each call says so.

    A session becomes one by a change of its class, so that those which go on pay
    nothing for the question.
    """

    __slots__ = ()

    def update(self, *args: Any, **kw: Any) -> None:
        raise JobCancelled()

    def advance(self, n: float = 1) -> None:
        raise JobCancelled()

    def track(self, *args: Any, **kw: Any) -> Iterator[Any]:
        raise JobCancelled()

    @property
    def _current(self) -> Any:
        return ProgressSession._current.__get__(self)

    @_current.setter
    def _current(self, value: Any) -> None:
        # Reached by a `track` that began before the job was asked to stop.
        raise JobCancelled()


def _number(value: Any) -> float | None:
    """As it is shown: at most one decimal, whole numbers as int, None for nonsense."""
    if value is None:
        return None
    try:
        if isinstance(value, int):
            return int(value)
        rounded = round(float(value), 1)
        if not isfinite(rounded):
            return None
        return int(rounded) if rounded.is_integer() else rounded
    except (TypeError, ValueError, OverflowError):
        return None
