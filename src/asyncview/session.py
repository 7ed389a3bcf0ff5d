"""Live progress: what a job says of itself while it runs, in plain memory.

Nothing here knows a database or a clock: the pulse looks at the sessions of its
process once in a while and writes what changed.
"""

import logging
from collections import deque
from collections.abc import Iterable
from collections.abc import Iterator
from contextlib import suppress
from math import isfinite
from typing import Any
from typing import TypeVar

from zope.interface import implementer

from asyncview.exceptions import JobCancelled
from asyncview.interfaces import IProgressSession
from asyncview.progress import NOTHING
from asyncview.progress import Snapshot
from asyncview.progress import percentage

log = logging.getLogger("asyncview.session")

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
        "_inner",
        "_last",
        "_lines",
        "_message",
        "_numeric",
        "_total",
        "_tracking",
        "_warned",
        "id",
    )

    def __init__(
        self, id: str | None = None, attempt: int = 1, last: Snapshot = NOTHING
    ) -> None:
        """``last`` is the last snapshot of the attempt before this one."""
        self.id = id
        self._attempt = attempt
        self._current: Any = None
        self._total: Any = None
        self._message: Any = ""
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self._tracking = 0
        #: Set by each step of a `track` within another, to notice a wish to stop.
        self._inner = False
        self._highest = 0.0
        self._numeric = False
        self._warned = False
        self._last = last

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
            with suppress(TypeError):
                total = len(iterable)  # type: ignore[arg-type]
        if self._tracking:
            return self._within(iterable, message)
        # Also where there is none: that of an earlier stage would be a lie here.
        self._current, self._total = 0, total
        self.update(message=message)
        return self._counted(iterable)

    def _counted(self, iterable: Iterable[T]) -> Iterator[T]:
        self._tracking += 1
        count = 0
        try:
            for item in iterable:
                yield item
                count += 1
                self._current = count
        finally:
            self._tracking -= 1

    def _within(self, iterable: Iterable[T], message: str | None) -> Iterator[T]:
        """A `track` within another: the outer one counts, this one shows its message.

        The bar would be full after the first inner loop, and it never goes back.
        """
        before = self._message
        self.update(message=message)
        try:
            for item in iterable:
                yield item
                self._inner = True
        finally:
            self._message = before

    def stop(self) -> None:
        """From now on every call raises JobCancelled."""
        self.__class__ = StoppedSession

    def log(self, line: object) -> None:
        """Keep a line; the last `LOG_LINES` are shown."""
        self._lines.append(_text(line)[:LOG_WIDTH])

    @property
    def snapshot(self) -> Snapshot:
        """The last one that was taken."""
        return self._last

    def take(self, now: float) -> Snapshot | None:
        """What is to be written, or None where nothing changed since the last."""
        last = self._last
        current = self._number("_current", last.current)
        total = self._number("_total", last.total)
        percent = percentage(current, total)
        if current is not None:
            current = _short(current, total)
        shown = None
        if percent is not None:
            if percent < self._highest:
                shown = self._highest
            else:
                self._highest = percent
        self._numeric |= current is not None or total is not None
        taken = Snapshot(
            version=last.version,
            updated=last.updated,
            current=current,
            total=total,
            message=_text(self._message),
            attempt=self._attempt,
            percent=shown,
            numeric=self._numeric and percent is None,
            log=tuple(self._lines),
        )
        if taken == last:
            return None
        self._last = taken._replace(version=last.version + 1, updated=round(now, 1))
        return self._last

    def _number(self, name: str, before: float | None) -> float | None:
        """A number that the job gave; what is none is dropped, the one before stays."""
        given = getattr(self, name)
        if given is None:
            return None
        try:
            if isinstance(given, (str, bytes, bytearray)):
                raise TypeError("text is no number")
            number = float(given)
            if isfinite(number):
                return int(given) if number.is_integer() else number
        except BaseException as error:
            # The pulse asks, whose thread is no job's to end.
            reason: object = type(error).__name__
        else:
            reason = "it is not finite"
        if not self._warned:
            self._warned = True
            log.warning("progress %.40r is dropped: %s", given, reason)
        if getattr(self, name) is given:
            # Or every `advance` after a NaN would be one.  Not by `setattr`: a
            # `StoppedSession` raises.
            getattr(ProgressSession, name).__set__(self, before)
        return before


class _Guarded:
    """An attribute that can't be set any more."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, session: Any, owner: type) -> Any:
        return getattr(ProgressSession, self._name).__get__(session)

    def __set__(self, session: Any, value: Any) -> None:
        raise JobCancelled()


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

    # Reached by a `track` that began before the job was asked to stop.
    _current = _Guarded()
    _inner = _Guarded()


def _short(current: float, total: float | None) -> float:
    """To one decimal, where that makes no difference to the percentage."""
    short = round(current, 1)
    if percentage(short, total) != percentage(current, total):
        return current
    return int(short) if short == int(short) else short


def _text(value: Any) -> str:
    """As a page can show it: bounded, and without lone surrogates."""
    try:
        text = str(value)[:MESSAGE_WIDTH]
    except BaseException:
        # It is a job's, and must not stop the writing of all others'.
        text = ""
    return text.encode("utf-8", "replace").decode()
