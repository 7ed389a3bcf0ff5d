"""A named task of a session: a part of the work, with a status and counts of its own.

In plain memory, as the session: nobody is told when it changes.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from zope.interface import implementer

from asyncview.count import Count
from asyncview.count import Stopped
from asyncview.count import plain
from asyncview.count import refuse
from asyncview.exceptions import InvalidTransition
from asyncview.interfaces import ITask
from asyncview.progress import COMPLETE
from asyncview.progress import ERROR
from asyncview.progress import PENDING
from asyncview.progress import RUNNING
from asyncview.progress import TaskSnapshot
from asyncview.progress import percentage
from asyncview.said import task_id

log = logging.getLogger("asyncview.session")

#: The greatest weight, and the most seconds that a task is expected to take.
LIMIT = 1e100


@implementer(ITask)
class Task(Count):
    """See `ITask`."""

    __slots__ = (
        "_awaited",
        "_broken",
        "_expected",
        "_lock",
        "_settled",
        "_started",
        "_status",
        "_weight",
        "id",
        "name",
        "tasks",
    )

    def __init__(self, id: str) -> None:
        super().__init__()
        self.id = self.name = id
        self.tasks: dict[str, Task] | None = {}
        self._status = PENDING
        self._weight: float = 1
        self._expected: float | None = None
        self._started: float | None = None
        #: Futures that have yet to resolve; whether one of all has failed; whether
        #: they, and nobody's word, have ended the task.  They resolve in any thread.
        self._awaited: set[Future[Any]] = set()
        self._broken = False
        self._settled = False
        self._lock = threading.Lock()

    def task(
        self,
        id: str,
        name: str | None = None,
        total: float | None = None,
        weight: float | None = None,
        expected: float | None = None,
    ) -> "Task":
        """See `ITask`."""
        if self.tasks is None:
            raise ValueError(f"{self.id!r} is a task of a task, and can't have tasks")
        task = give(self.tasks, id, name, total, weight, expected)
        task.tasks = None
        if isinstance(self, Stopped):
            # It may have been stopped while this one was made.
            task.stop()
        return task

    def start(self) -> "Task":
        """See `ITask`."""
        if self._status in (COMPLETE, ERROR):
            raise InvalidTransition(self._status, RUNNING, "task")
        if self._started is None:
            self._started = time.time()
        self._status = RUNNING
        return self

    def complete(self, message: str | None = None) -> None:
        """See `ITask`."""
        if self._status == ERROR:
            raise InvalidTransition(ERROR, COMPLETE, "task")
        self._end(COMPLETE, message)

    def error(self, message: str | None = None) -> None:
        """See `ITask`."""
        self._end(ERROR, message)

    def __enter__(self) -> "Task":
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            # It goes on, and is told by who catches it.
            self._end(ERROR)
        elif self._status != ERROR and not self._awaited:
            self.complete()

    def stop(self) -> None:
        """From now on every call raises JobCancelled."""
        self.__class__ = StoppedTask
        for task in list((self.tasks or {}).values()):
            task.stop()

    # For the session

    def resume(self, last: TaskSnapshot) -> None:
        """Go on from a snapshot that another process wrote."""
        self.name = last.name or last.id
        self._status = last.status
        self._current, self._total = last.current, last.total
        self._message = last.message
        self._highest = last.percent or percentage(last.current, last.total) or 0.0
        self._weight, self._expected = last.weight, last.expected
        self._started = last.started
        for task in last.tasks:
            assert self.tasks is not None
            part = give(self.tasks, task.id)
            part.resume(task)
            part.tasks = None

    def run(self, func: Callable[..., Any], args: Any, kw: Any) -> "Result":
        """Run it now, as this task."""
        future: Future[Any] = Future()
        self._await(future)
        try:
            future.set_result(func(*args, **kw))
        except Exception as error:
            future.set_exception(error)
        except BaseException:
            self._awaited.discard(future)
            self._end(ERROR)
            raise
        self._settle(future)
        return Result(future)

    def follow(self, future: "Future[Any]") -> "Result":
        """Run for as long as ``future`` does."""
        # Asked for first: what is no future starts nothing.
        when_done = future.add_done_callback
        self._await(future)
        when_done(self._settle)
        return Result(future)

    def _await(self, future: "Future[Any]") -> None:
        """Run until this has resolved too."""
        with self._lock:
            if self._settled:
                # Those before were quicker, which is no reason to refuse this one.
                self._settled, self._status = False, RUNNING
            self.start()
            self._awaited.add(future)

    def _settle(self, future: "Future[Any]") -> None:
        try:
            error = future.exception()
        except CancelledError as cancelled:
            error = cancelled
        with self._lock:
            self._broken |= error is not None
            self._awaited.discard(future)
            # Who said that it failed knows better.
            if not self._awaited and self._status != ERROR:
                said = self._status == COMPLETE
                self._end(ERROR if self._broken else COMPLETE)
                self._settled = not said
        if isinstance(error, Exception) and not isinstance(error, CancelledError):
            # Nobody need ask for the result, and users are not shown such texts.
            log.error("the task %.40r failed", self.id, exc_info=error)

    def _end(self, status: str, message: str | None = None) -> None:
        self._status, self._settled = status, False
        if message is not None:
            self._message = plain(message)

    def look(self, now: float) -> TaskSnapshot:
        """The task as it is."""
        current, total = self._numbers()
        tasks = tuple(task.look(now) for task in list((self.tasks or {}).values()))
        status = self._status
        if status == COMPLETE and any(task.status == ERROR for task in tasks):
            # Whoever said so did not look.
            status = ERROR
        elif status == PENDING:
            status = self._seen(tasks)
            if status == RUNNING and self._started is None:
                self._started = now
        snapshot = TaskSnapshot(
            self.id,
            "" if self.name == self.id else self.name,
            status,
            current,
            total,
            plain(self._message),
            None,
            self._weight,
            self._expected,
            None if self._expected is None else self._started,
            tasks,
        )
        if status == COMPLETE:
            return snapshot
        if status == ERROR and self._expected and not tasks:
            # It stays what it was when it failed.
            last = self._highest or None
            counted = percentage(current, total)
            return snapshot._replace(percent=None if last == counted else last)
        return snapshot._replace(percent=self._forward(snapshot.share(now)))

    def _seen(self, tasks: tuple[TaskSnapshot, ...]) -> str:
        """What a task is that nobody has started: what it or its parts do."""
        states = {task.status for task in tasks}
        if states and states <= {COMPLETE, ERROR}:
            return ERROR if ERROR in states else COMPLETE
        if states - {PENDING} or self._current is not None or self._message:
            return RUNNING
        return PENDING


class StoppedTask(Stopped, Task):
    """The task of a job that was asked to stop."""

    __slots__ = ()

    task = start = complete = error = refuse


class Result:
    """What a task came to."""

    def __init__(self, future: "Future[Any]") -> None:
        self.future = future

    @property
    def result(self) -> Any:
        """The value, or raises what the work raised; waits for it if need be."""
        return self.future.result()


def give(
    tasks: dict[str, Task],
    id: str,
    name: str | None = None,
    total: float | None = None,
    weight: float | None = None,
    expected: float | None = None,
) -> Task:
    """The task with that id, made if there is none; what is given is taken over."""
    id = task_id(id)
    # Plain numbers from here on: the pulse counts with them, for all sessions at once.
    if weight is not None:
        weight = positive("weight", weight)
    if expected is not None:
        expected = positive("expected", expected)
    task = tasks.get(id)
    if task is None:
        # Of two threads that make it, both get the same.
        task = tasks.setdefault(id, Task(id))
    if name is not None:
        task.name = plain(name)
    if total is not None:
        task._total = total
    if weight is not None:
        task._weight = weight
    if expected is not None:
        task._expected = expected
    return task


def positive(what: str, given: Any) -> float:
    """As a float, finite also in sums and products; ValueError for what is none."""
    try:
        number = float(given)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(given, (str, bytes, bytearray)) or not 0 < number <= LIMIT:
        raise ValueError(f"{what} is a number above 0: {given!r}")
    return int(number) if number.is_integer() else number
