"""The threads of this process run the jobs."""

import logging
import threading
import time
from collections import deque
from itertools import count

from zope.interface import implementer
from zope.interface import provider

from asyncview.interfaces import IExecutor
from asyncview.interfaces import IExecutorFactory
from asyncview.runner import Runner
from asyncview.ticket import Ticket

log = logging.getLogger("asyncview.threads")

#: Seconds until a claim is tried again after the storage refused it.
PATIENCE = 1.0

#: Seconds after which who waits for the threads looks which are left.
GLANCE = 0.1


@implementer(IExecutor)
class ThreadExecutor:
    """See `IExecutor`."""

    local = True

    def __init__(self, runner: Runner, threads: int) -> None:
        self._runner = runner
        self._size = threads
        self._queue: deque[str] = deque()
        self._known: set[str] = set()
        self._ready: deque[Ticket] = deque()
        self._changed = threading.Condition()
        #: Jobs that are just being claimed.
        self._claimed: list[str] = []
        self._hungry = 0
        self._working: dict[Ticket, threading.Thread] = {}
        self._lost: dict[Ticket, threading.Thread] = {}
        self._stopped = False
        self._threads: list[threading.Thread] = []
        self._numbers = count(1)

    def submit(self, job_id: str) -> None:
        """See `IExecutor`."""
        with self._changed:
            if self._stopped or job_id in self._known:
                return
            self._known.add(job_id)
            self._queue.append(job_id)
            try:
                self._reinforce()
            except BaseException:
                if not self._threads:
                    # Nobody would ever take it from here; the sweep brings it again.
                    self._queue.remove(job_id)
                    self._known.discard(job_id)
                raise
            self._changed.notify()

    def _reinforce(self) -> None:
        """Start a thread, if there is more to do than threads that wait for it."""
        # The hungry may have been woken for others already.
        meals = len(self._queue) + len(self._claimed) + len(self._ready)
        if meals <= self._hungry or len(self._threads) >= self._size:
            return
        # Daemon by our own word: a thread inherits it from the one that starts
        # it, and waitress's are.
        thread = threading.Thread(
            target=self._loop, name=f"asyncview-{next(self._numbers)}", daemon=True
        )
        thread.start()
        self._threads.append(thread)

    def withdraw(self, job_id: str) -> None:
        """See `IExecutor`."""
        with self._changed:
            if job_id in self._queue:
                self._queue.remove(job_id)
                self._known.discard(job_id)
                self._runner.live.release(job_id)

    def position(self, job_id: str) -> int | None:
        """See `IExecutor`."""
        with self._changed:
            if job_id not in self._known:
                return None
            try:
                return self._queue.index(job_id)
            except ValueError:
                # It is just being claimed.
                return 0

    def waiting(self, job_id: str) -> bool:
        """See `IExecutor`."""
        return job_id in self._known

    def busy(self) -> bool:
        """See `IExecutor`."""
        return bool(self._known or self._ready or self._working)

    @property
    def leaked(self) -> int:
        """See `IExecutor`."""
        return len(self._lost)

    def abandon(self, job_id: str) -> None:
        """See `IExecutor`."""
        with self._changed:
            ticket = next((t for t in self._working if t.id == job_id), None)
            if ticket is None:
                return
            thread = self._lost[ticket] = self._working.pop(ticket)
            self._threads.remove(thread)
            log.warning(
                "%s keeps %s; threads lost in this way: %d",
                ticket,
                thread.name,
                len(self._lost),
            )
            if not self._stopped:
                self._reinforce()

    def stop(self) -> None:
        """See `IExecutor`."""
        with self._changed:
            self._stopped = True
            self._queue.clear()
            self._known.clear()
            self._changed.notify_all()

    def join(self, timeout: float) -> bool:
        """See `IExecutor`."""
        end = time.monotonic() + timeout
        while True:
            # Looked at anew: one that is given up meanwhile is not waited for.
            alive = [each for each in list(self._threads) if each.is_alive()]
            left = end - time.monotonic()
            if not alive or left <= 0:
                return not alive
            alive[0].join(min(left, GLANCE))

    def _loop(self) -> None:
        while True:
            ticket = self._next()
            if ticket is None:
                return
            try:
                self._runner.run(ticket)
            except BaseException:
                # A thread that ends is missing for ever after.
                log.exception("%s was given up: this is a defect of asyncview", ticket)
            finally:
                with self._changed:
                    self._working.pop(ticket, None)
                    lost = self._lost.pop(ticket, None)
            if lost is not None:
                log.warning("%s gave %s back after all", ticket, lost.name)
                return

    def _next(self) -> Ticket | None:
        """A job that this thread has claimed, or None at the end.

        Threads that wait at the same time share one commit: the first claims for
        all of them.
        """
        with self._changed:
            self._hungry += 1
            try:
                while True:
                    if self._ready:
                        return self._take()
                    if self._stopped:
                        return None
                    if self._queue and not self._claimed:
                        self._claim()
                    else:
                        self._changed.wait()
            finally:
                self._hungry -= 1

    def _take(self) -> Ticket:
        ticket = self._ready.popleft()
        self._working[ticket] = threading.current_thread()
        return ticket

    def _claim(self) -> None:
        """Called with the lock, and gives it up while it commits."""
        # A thread whose job is being committed is as good as free, and its claim
        # costs nothing where there is one to share.
        ending = sum(ticket.finishing for ticket in self._working)
        wanted = max(self._hungry + ending - len(self._ready), 1)
        ids = [self._queue.popleft() for _ in range(min(wanted, len(self._queue)))]
        self._claimed = ids
        tickets: list[Ticket] = []
        failed = False
        self._changed.release()
        try:
            tickets = self._runner.claim(ids)
        except BaseException:
            log.exception("%d queued jobs could not be claimed yet", len(ids))
            self._runner.closing.wait(PATIENCE)
            failed = True
        finally:
            self._changed.acquire()
            self._claimed = []
        if failed and not self._stopped:
            self._queue.extendleft(reversed(ids))
        else:
            self._known.difference_update(ids)
            self._ready.extend(tickets)
            # In this order: who begins to watch now sees that it does not wait.
            for id in set(ids).difference(ticket.id for ticket in tickets):
                self._runner.live.release(id)
        self._changed.notify_all()


@provider(IExecutorFactory)
def factory(runner: Runner, threads: int) -> ThreadExecutor:
    """See `IExecutorFactory`."""
    return ThreadExecutor(runner, threads)
