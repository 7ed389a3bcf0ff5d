"""The progress record: the last snapshot of a job's progress, small and alone.

It is an object of its own, so that writing it once a second costs a hundred bytes,
whatever the job's request or result weigh, and conflicts with nothing.
"""

import math
from collections.abc import Iterable
from typing import Any
from typing import NamedTuple

from persistent import Persistent
from zope.interface import implementer

from asyncview.interfaces import IProgress

# The statuses of tasks and sessions are django-spire's.
PENDING = "pending"
RUNNING = "running"
COMPLETE = "complete"
ERROR = "error"

#: A task that is only expected to take so long never shows more before its end.
EASED = 95.0


class TaskSnapshot(NamedTuple):
    """A task as it was at one moment.

    ``expected`` is in seconds, ``started`` in seconds since the epoch, kept only where
    the percentage is to be eased from them.  ``percent`` is kept only where it is not
    what the rest gives.
    """

    id: str
    name: str = ""
    status: str = PENDING
    current: float | None = None
    total: float | None = None
    message: str = ""
    percent: float | None = None
    weight: float = 1
    expected: float | None = None
    started: float | None = None
    tasks: "tuple[TaskSnapshot, ...]" = ()

    @property
    def eased(self) -> bool:
        """Whether its own percentage comes from nothing but the time."""
        return (
            self.status == RUNNING
            and self.started is not None
            and not self.tasks
            and percentage(self.current, self.total) is None
        )

    @property
    def estimated(self) -> bool:
        return self.eased or any(task.estimated for task in self.tasks)

    @property
    def done(self) -> bool:
        """Whether it has ended, whichever way."""
        return self.status in (COMPLETE, ERROR)

    def broken_off(self, now: float) -> "TaskSnapshot":
        """As it is to be shown when its session has failed: what ran has failed too."""
        return self._replace(
            status=ERROR if self.status == RUNNING else self.status,
            percent=self.share(now),
            tasks=tuple(task.broken_off(now) for task in self.tasks),
        )

    def share(self, now: float) -> float | None:
        """How much is done, from 0 to 100; None where unknown."""
        if self.status == COMPLETE:
            return 100.0
        if self.tasks:
            share: float | None = mean(self.tasks, now)
        elif self.eased:
            share = ease(now - (self.started or now), self.expected or 1.0)
        else:
            share = percentage(self.current, self.total)
        if self.percent is None:
            return share
        return max(self.percent, share or 0.0)


class Snapshot(NamedTuple):
    """Progress as it was at one moment; numbers, text and tuples only.

    ``updated`` is in seconds since the epoch, UTC, to a tenth.  ``percent`` is kept
    only where it is not what the rest gives (it never goes back within an attempt),
    ``started`` only where the claim does not say when the job began.  ``since`` is when
    ``current`` began to be counted from ``base``; None where that was with the job.
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
    tasks: tuple[TaskSnapshot, ...] = ()
    started: float | None = None
    since: float | None = None
    base: float = 0

    @property
    def share(self) -> float | None:
        """How much was done when it was taken, as `share_at`."""
        return self.share_at(self.updated or 0.0)

    def share_at(self, now: float) -> float | None:
        """How much is done, from 0 to 100 with one decimal; None where unknown.

        ``now`` is in seconds since the epoch: what is estimated grows by itself.
        """
        if self.tasks:
            return max(self.percent or 0.0, mean(self.tasks, now))
        if self.percent is not None:
            return self.percent
        return percentage(self.current, self.total)

    @property
    def estimated(self) -> bool:
        return any(task.estimated for task in self.tasks)

    @property
    def told(self) -> bool:
        """Whether anything was said yet."""
        return (self.current, self.total, self.message, self.log) != NOTHING_TOLD

    def status(self) -> str:
        """That of a session which nobody has ended: error, complete, running, pending.

        By its tasks, if it has any.
        """
        states = {task.status for task in self.tasks}
        if ERROR in states:
            return ERROR
        if states == {COMPLETE}:
            return COMPLETE
        if states - {PENDING} or (not states and self.told):
            return RUNNING
        return PENDING

    def broken_off(self, now: float) -> "Snapshot":
        """As it is to be shown when it has failed at ``now``."""
        return self._replace(tasks=tuple(task.broken_off(now) for task in self.tasks))

    @property
    def settled(self) -> bool:
        """Whether there are tasks, and all of them have ended."""
        return bool(self.tasks) and all(task.done for task in self.tasks)


NOTHING = Snapshot()
NOTHING_TOLD = (None, None, "", ())
NO_TASK = TaskSnapshot("")
TASKS = Snapshot._fields.index("tasks")


def percentage(current: float | None, total: float | None) -> float | None:
    """From 0.0 to 100.0, one decimal; None where there is no total."""
    if current is None or not total or total < 0:
        return None
    return round(min(max(100.0 * current / total, 0.0), 100.0), 1)


def mean(tasks: Iterable[TaskSnapshot], now: float) -> float:
    """The weighted mean of what is done; nothing where that is not known."""
    done = weights = 0.0
    for task in tasks:
        done += task.weight * (task.share(now) or 0.0)
        weights += task.weight
    return round(done / weights, 1) if weights else 0.0


def ease(elapsed: float, expected: float) -> float:
    """A percentage that slows down towards `EASED`; 82 when the time is over."""
    return round(EASED * -math.expm1(-2.0 * max(elapsed, 0.0) / expected), 1)


def packed(snapshot: Snapshot) -> tuple[Any, ...]:
    """What a record keeps, in few bytes: they are written once a second.

    Without the defaults at the end, and the time in tenths of a second.
    """
    values: list[Any] = list(snapshot)
    if snapshot.tasks:
        values[TASKS] = tuple(packed_task(task) for task in snapshot.tasks)
    while values and values[-1] == NOTHING[len(values) - 1]:
        values.pop()
    if len(values) > 1 and values[1] is not None:
        values[1] = round(values[1] * 10)
    return tuple(values)


def packed_task(task: TaskSnapshot) -> tuple[Any, ...]:
    values: list[Any] = list(task)
    if values[-1]:
        values[-1] = tuple(packed_task(each) for each in values[-1])
    while len(values) > 1 and values[-1] == NO_TASK[len(values) - 1]:
        values.pop()
    return tuple(values)


def unpacked(values: tuple[Any, ...]) -> Snapshot:
    """The snapshot that `packed` was given."""
    snapshot = Snapshot(*values)
    if snapshot.updated is not None:
        snapshot = snapshot._replace(updated=snapshot.updated / 10)
    if snapshot.tasks:
        tasks = tuple(unpacked_task(each) for each in snapshot.tasks)
        snapshot = snapshot._replace(tasks=tasks)
    return snapshot


def unpacked_task(values: tuple[Any, ...]) -> TaskSnapshot:
    task = TaskSnapshot(*values)
    if not task.tasks:
        return task
    return task._replace(tasks=tuple(unpacked_task(each) for each in task.tasks))


@implementer(IProgress)
class Progress(Persistent):
    """See `IProgress`."""

    snapshot = NOTHING

    def __getstate__(self) -> tuple[Any, ...]:
        return (1, *packed(self.snapshot))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.snapshot = unpacked(state[1:])
