"""The progress record: the last snapshot of a job's progress, small and alone.

It is an object of its own, so that writing it once a second costs a hundred bytes,
whatever the job's request or result weigh, and conflicts with nothing.
"""

from typing import Any
from typing import NamedTuple

from persistent import Persistent


class Snapshot(NamedTuple):
    """Progress as it was at one moment; numbers, text and tuples only.

    ``updated`` is in seconds since the epoch, UTC.  ``percent`` is kept only where it
    is not what ``current`` and ``total`` give (it never goes back within an attempt).
    """

    version: int = 0
    updated: float | None = None
    current: float | None = None
    total: float | None = None
    attempt: int = 1
    message: str = ""
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
    """The snapshot without the defaults at its end: each byte is written a second."""
    values = tuple(snapshot)
    size = len(values)
    while size and values[size - 1] == NOTHING[size - 1]:
        size -= 1
    return values[:size]


class Progress(Persistent):
    """See `IProgress`."""

    snapshot = NOTHING

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def __getstate__(self) -> tuple[Any, ...]:
        return packed(self.snapshot)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.snapshot = Snapshot(*state)
