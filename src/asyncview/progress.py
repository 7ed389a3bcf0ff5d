"""The progress record: the last snapshot of a job's progress, small and alone.

It is an object of its own, so that writing it once a second costs a hundred bytes,
whatever the job's request or result weigh, and conflicts with nothing.
"""

from typing import Any
from typing import NamedTuple

from persistent import Persistent
from zope.interface import implementer

from asyncview.interfaces import IProgress


class Snapshot(NamedTuple):
    """Progress as it was at one moment; numbers, text and tuples only.

    ``updated`` is in seconds since the epoch, UTC, to a tenth.  ``percent`` is kept
    only where it is not what ``current`` and ``total`` give (it never goes back within
    an attempt).
    """

    version: int = 0
    updated: float | None = None
    current: float | None = None
    total: float | None = None
    message: str = ""
    attempt: int = 1
    percent: float | None = None
    numeric: bool = False
    log: tuple[str, ...] = ()

    @property
    def share(self) -> float | None:
        """How much is done, from 0 to 100 with one decimal; None where unknown."""
        if self.percent is not None:
            return self.percent
        return percentage(self.current, self.total)


NOTHING = Snapshot()


def percentage(current: float | None, total: float | None) -> float | None:
    """From 0.0 to 100.0, one decimal; None where there is no total."""
    if current is None or not total or total < 0:
        return None
    return round(min(max(100.0 * current / total, 0.0), 100.0), 1)


def packed(snapshot: Snapshot) -> tuple[Any, ...]:
    """What a record keeps, in few bytes: they are written once a second.

    Without the defaults at the end, and the time in tenths of a second.
    """
    values: list[Any] = list(snapshot)
    while values and values[-1] == NOTHING[len(values) - 1]:
        values.pop()
    if len(values) > 1 and values[1] is not None:
        values[1] = round(values[1] * 10)
    return tuple(values)


def unpacked(values: tuple[Any, ...]) -> Snapshot:
    """The snapshot that `packed` was given."""
    snapshot = Snapshot(*values)
    if snapshot.updated is None:
        return snapshot
    return snapshot._replace(updated=snapshot.updated / 10)


@implementer(IProgress)
class Progress(Persistent):
    """See `IProgress`."""

    snapshot = NOTHING

    def __getstate__(self) -> tuple[Any, ...]:
        return (1, *packed(self.snapshot))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.snapshot = unpacked(state[1:])
