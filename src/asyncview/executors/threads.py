"""The threads of this process run the jobs."""

import logging
import threading
import time
from collections import deque
from itertools import count

from zope.interface import implementer
from zope.interface import provider

from asyncview.ends import FENCED
from asyncview.ends import UNRECORDED
from asyncview.executors.batches import Batches
from asyncview.interfaces import IExecutor
from asyncview.interfaces import IExecutorFactory
from asyncview.runner import Runner
from asyncview.ticket import Ticket

log = logging.getLogger("asyncview.threads")

#: Seconds until a claim is tried again after the storage refused it.
PATIENCE = 1.0

#: Seconds after which who waits for the threads looks which are left.
GLANCE = 0.1

#: A thread claims so many jobs in one commit at most, while jobs take no more than so
#: many seconds: a commit weighs as much as they do.
AHEAD = 8
QUICK = 0.1


@implementer(IExecutor)
class ThreadExecutor:
    """See `IExecutor`."""

    local = True

    def __init__(self, runner: Runner, threads: int) -> None:
        self._runner = runner
        self._size = threads
        self._queue: deque[str] = deque()
        #: What waits here: in the queue, just being claimed, or claimed ahead.
        self._known: set[str] = set()
        self._batches = Batches()
        #: How many jobs a thread claims at once.
        self._stride = 1
        self._changed = threading.Condition()
        #: Jobs that are just being claimed.
        self._claimed: list[str] = []
        self._hungry = 0
        self._working: dict[Ticket, threading.Thread] = {}
        self._lost: dict[Ticket, threading.Thread] = {}
        self._stopped = False
        #: Whether something is just being given back, and when that may be tried again.
        self._returning = False
        self._patient = 0.0
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
        meals = len(self._queue) + len(self._claimed) + len(self._batches)
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
                # The database may not know yet that its turn has come.
                return 0 if job_id in self._runner.live else None
            ahead = self.ahead()
            if job_id in ahead:
                return ahead.index(job_id)
            if job_id in self._queue:
                return len(ahead) + self._queue.index(job_id)
            # It is just being claimed.
            return 0

    def waiting(self, job_id: str) -> bool:
        """See `IExecutor`."""
        return job_id in self._known

    def busy(self) -> bool:
        """See `IExecutor`."""
        return bool(self._known or self._batches or self._working)

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
            self._batches.orphan(thread)
            log.warning(
                "%s keeps %s; threads lost in this way: %d",
                ticket,
                thread.name,
                len(self._lost),
            )
            if not self._stopped:
                self._reinforce()

    def ahead(self) -> list[str]:
        """See `IExecutor`."""
        with self._changed:
            return [ticket.id for ticket in self._batches.ahead()]

    def give_back(self, job_id: str | None = None) -> None:
        """See `IExecutor`."""
        with self._changed:
            if job_id is None:
                self._put_back(self._stuck())
            else:
                # It may be among what is just being given back.
                self._changed.wait_for(lambda: self._stopped or not self._returning)
                ahead = self._batches.ahead()
                self._put_back([each for each in ahead if each.id == job_id])

    def _stuck(self) -> list[Ticket]:
        now = time.monotonic()
        if self._returning or now < self._patient:
            return []
        return self._batches.stuck(self._working, now - QUICK)

    def _put_back(self, tickets: list[Ticket]) -> None:
        """Called with the lock, and gives it up while it commits."""
        if not tickets:
            return
        taken = self._batches.take(tickets)
        tickets = [ticket for _, some in taken for ticket in some]
        gone = {ticket.id for ticket in tickets}
        queued: list[str] | None = None
        self._returning = True
        self._changed.release()
        try:
            queued = self._runner.claims.give_back(tickets)
        except BaseException:
            log.exception("%d claimed jobs could not be given back yet", len(tickets))
        finally:
            self._changed.acquire()
            self._returning = False
        if self._stopped:
            return
        if queued is None:
            self._patient = time.monotonic() + PATIENCE
            gone = {ticket.id for ticket in self._batches.restore(taken)}
        else:
            self._queue.extendleft(reversed(queued))
            gone.difference_update(queued)
        self._known.difference_update(gone)
        self._changed.notify_all()

    def stop(self) -> None:
        """See `IExecutor`."""
        with self._changed:
            self._stopped = True
            self._queue.clear()
            self._known.clear()
            self._changed.notify_all()
            self._put_back(self._batches.ahead())

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
            status = UNRECORDED
            try:
                status = self._runner.run(ticket)
            except BaseException:
                # A thread that ends is missing for ever after.
                log.exception("%s was given up: this is a defect of asyncview", ticket)
            with self._changed:
                self._working.pop(ticket, None)
                lost = self._lost.pop(ticket, None)
                self._learn(ticket, status)
            if lost is not None:
                log.warning("%s gave %s back after all", ticket, lost.name)
                return
            if ticket.ahead and status == FENCED:
                # It was given back, perhaps, by a commit that seemed to fail.
                self.submit(ticket.id)

    def _learn(self, ticket: Ticket, status: str) -> None:
        """What the end of a job says about what to do next."""
        quick = time.monotonic() - ticket.begun <= QUICK
        self._stride = min(2 * self._stride, AHEAD) if quick else 1
        if status == UNRECORDED:
            # Nobody's turn comes after it, as far as the database knows; the sweep
            # finds all of them.
            dropped = self._batches.drop(threading.current_thread())
            self._known.difference_update(each.id for each in dropped)

    def _next(self) -> Ticket | None:
        """A job that this thread has claimed, or None at the end.

        Threads that wait at the same time share one commit: the first claims for
        all of them.
        """
        with self._changed:
            thread = threading.current_thread()
            self._hungry += 1
            try:
                while True:
                    ticket = self._batches.next(thread)
                    if ticket is not None:
                        self._begin(ticket, thread)
                        return ticket
                    if self._stopped:
                        return None
                    if self._queue and not self._claimed:
                        self._claim()
                    elif self._batches.left():
                        self._changed.wait(QUICK)
                        self._put_back(self._stuck())
                    else:
                        self._changed.wait()
            finally:
                self._hungry -= 1

    def _begin(self, ticket: Ticket, thread: threading.Thread) -> None:
        """Those before it in its batch have ended, and the database knows."""
        if ticket.ahead:
            # In this order: who waits for its end finds it in one of them.
            self._runner.live.begin(ticket.session)
            self._known.discard(ticket.id)
        self._working[ticket] = thread

    def _claim(self) -> None:
        """Called with the lock, and gives it up while it commits."""
        # A thread whose job is being committed is as good as free, and its claim
        # costs nothing where there is one to share.
        ending = sum(
            ticket.finishing and not self._batches.left(thread)
            for ticket, thread in self._working.items()
        )
        wanted = max(self._hungry + ending - len(self._batches), 1)
        # Nobody takes more than a fair share of what there is.
        stride = min(self._stride, -(-len(self._queue) // self._size))
        wanted = min(wanted * stride, len(self._queue))
        ids = [self._queue.popleft() for _ in range(wanted)]
        self._claimed = ids
        tickets: list[Ticket] = []
        failed = False
        self._changed.release()
        try:
            tickets = self._runner.claims.take(ids, stride)
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
            self._batches.add(tickets)
            ahead = [ticket for ticket in tickets if ticket.ahead]
            self._known.difference_update(ids)
            if self._stopped:
                self._put_back(ahead)
            else:
                self._known.update(ticket.id for ticket in ahead)
            # In this order: who begins to watch now sees that it does not wait.
            for id in set(ids).difference(ticket.id for ticket in tickets):
                self._runner.live.release(id)
        self._changed.notify_all()


@provider(IExecutorFactory)
def factory(runner: Runner, threads: int) -> ThreadExecutor:
    """See `IExecutorFactory`."""
    return ThreadExecutor(runner, threads)
