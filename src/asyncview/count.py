"""How much of how much is done, as a job says it: plain attributes, and nothing else.

Nothing here knows a database, and no step asks a clock: what is said is looked at once
in a while by somebody else.
"""

import logging
import time
from collections.abc import Iterable
from collections.abc import Iterator
from contextlib import suppress
from math import isfinite
from typing import Any
from typing import TypeVar

from asyncview import said
from asyncview.exceptions import JobCancelled
from asyncview.progress import percentage

log = logging.getLogger("asyncview.session")

T = TypeVar("T")

#: Messages are for a line on a page.
MESSAGE_WIDTH = 500


class Count:
    """What a session and each of its tasks have in common: numbers and a message."""

    __slots__ = (
        "_begun",
        "_current",
        "_highest",
        "_inner",
        "_known",
        "_message",
        "_numeric",
        "_total",
        "_tracking",
        "_warned",
    )

    def __init__(self) -> None:
        self._current: Any = None
        self._total: Any = None
        self._message = ""
        #: The last numbers that were good, to come back to.
        self._known: tuple[float | None, float | None] = (None, None)
        #: When it began to count, in seconds since the epoch, as far as that is known,
        #: and from what number.
        self._begun: tuple[float | None, float] = (None, 0)
        self._tracking = 0
        #: Set by each step of a `track` within another, to notice a wish to stop.
        self._inner = False
        self._highest = 0.0
        self._numeric = False
        self._warned = False

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
            # The pulse looks from its own thread: objects of a job are not for it.
            self._message = message if type(message) is str else plain(message)

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
        self._anew(total)
        self.update(message=message)
        return self._counted(iterable)

    def _anew(self, total: float | None) -> None:
        """Count from nothing, up to ``total``."""
        # Also where there is none: that of an earlier stage would be a lie here.
        self._current, self._total = 0, total
        # After the numbers, as who looks reads them in the other order.
        self._begun = (time.time(), 0)

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

    def as_factory(self) -> "Factory":
        """See `IProgressSession`."""
        return Factory(self)

    # For who looks

    def _numbers(self) -> tuple[float | None, float | None]:
        """Current and total, as they can be shown."""
        before, limit = self._known
        current = self._number("_current", before)
        total = self._number("_total", limit)
        if current is not None:
            current = _short(current, total)
        self._numeric |= current is not None or total is not None
        self._known = (current, total)
        return self._known

    def _counted_since(
        self, looked: float | None, now: float
    ) -> tuple[tuple[float | None, float | None], tuple[float | None, float]]:
        """The numbers, and when and where it began to count.

        ``looked`` is when the last look was, None where there was nothing to see.
        """
        # In this order: numbers of before must not be of a loop that has just begun.
        begun, before = self._begun, self._known[0]
        numbers = current, _ = self._numbers()
        # A loop has said so itself.
        if current is not None and (begun[0] or 0.0) <= (looked or 0.0):
            if before is None:
                self._begun = begun = looked, 0
            elif current < before:
                # Between two looks, and from a number that nobody knows.
                self._begun = begun = now, current
        return numbers, begun

    def _forward(self, percent: float | None) -> float | None:
        """What is to be shown in place of ``percent``: it never goes back."""
        if percent is None:
            return None
        if percent < self._highest:
            return self._highest
        self._highest = percent
        return None

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
            # Or every `advance` after a NaN would be one.  Not by `setattr`: what is
            # `Stopped` raises.
            getattr(Count, name).__set__(self, before)
        return before


class _Guarded:
    """An attribute that can't be set any more."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, count: Any, owner: type) -> Any:
        return getattr(Count, self._name).__get__(count)

    def __set__(self, count: Any, value: Any) -> None:
        raise JobCancelled()


def refuse(*args: Any, **kw: Any) -> Any:
    """A method of what was asked to stop."""
    raise JobCancelled()


class Stopped:
    """The calls of what was asked to stop: each says so.

    A count becomes such a one by a change of its class, so that those which go on pay
    nothing for the question.
    """

    __slots__ = ()

    update = advance = track = refuse

    # Reached by a `track` that began before the job was asked to stop.
    _current = _Guarded()
    _inner = _Guarded()


class Factory:
    """A factory for `asyncview.progress_loop`, of one session or task."""

    def __init__(self, count: Count) -> None:
        self._count = count

    def __call__(self, message: str | None, total: float | None) -> "Stage":
        """A new stage, ``total`` steps long; None where nobody knows."""
        self._count.update(message=message)
        self._count._anew(total)
        return Stage(self._count)


class Stage:
    """What a factory makes: ``update(i)`` and ``finish()``."""

    def __init__(self, count: Count) -> None:
        self._count = count

    def update(self, current: float) -> None:
        self._count.update(current)

    def finish(self) -> None:
        """The stage is over; the session goes on."""


def _short(current: float, total: float | None) -> float:
    """To one decimal, where that makes no difference to the percentage."""
    short = round(current, 1)
    if percentage(short, total) != percentage(current, total):
        return current
    return int(short) if short == int(short) else short


def plain(value: Any, width: int = MESSAGE_WIDTH) -> str:
    """Text as a page can show it: bounded, and without lone surrogates."""
    try:
        text = said.text(value)[:width]
    except BaseException:
        # It is a job's, and must not stop the writing of all others'.
        text = ""
    return text.encode("utf-8", "replace").decode()
