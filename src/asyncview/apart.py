"""The threads in which views are told of ends that came from elsewhere.

Who ends a job that it does not run (the pulse, a request) must not wait for ``on_end``.
"""

import logging
import threading
import time
from collections.abc import Callable

from asyncview.ticket import Ticket

log = logging.getLogger("asyncview.job")


class Apart:
    """Calls ``finish(ticket, status)``, each time in a thread of its own."""

    def __init__(self, finish: Callable[[Ticket, str], None]) -> None:
        self._finish = finish
        self._lock = threading.Lock()
        #: Each with the time, by ``time.monotonic``, until when it may run.
        self._threads: dict[threading.Thread, tuple[Ticket, float | None]] = {}
        self._lost: set[threading.Thread] = set()

    def tell(self, ticket: Ticket, status: str) -> None:
        """Have the view of a job told that it has ended; closes the ticket."""

        def run() -> None:
            self._finish(ticket, status)
            ticket.close()
            if self._drop(thread):
                log.warning("on_end of %s gave %s back after all", ticket, thread.name)

        thread = threading.Thread(target=run, name="asyncview-end", daemon=True)
        with self._lock:
            self._threads[thread] = ticket, ticket.limit(time.monotonic())
        try:
            thread.start()
        except RuntimeError:
            # Since Python 3.12 an interpreter that exits starts none.
            self._drop(thread)
            ticket.close()
            log.exception("on_end of %s could not be called", ticket)

    def _drop(self, thread: threading.Thread) -> bool:
        """Forget a thread; gives whether it was given up."""
        with self._lock:
            lost = thread in self._lost
            self._lost.discard(thread)
            del self._threads[thread]
        return lost

    @property
    def busy(self) -> bool:
        """Whether any of them has not had its time yet."""
        return len(self._threads) > len(self._lost)

    @property
    def leaked(self) -> int:
        """How many had their time, and run still."""
        return len(self._lost)

    def give_up(self, now: float) -> None:
        """Count those lost that have had their time."""
        with self._lock:
            late = [
                (thread, ticket)
                for thread, (ticket, deadline) in self._threads.items()
                if thread not in self._lost and deadline is not None and deadline <= now
            ]
            self._lost.update(thread for thread, _ in late)
        for thread, ticket in late:
            log.warning(
                "on_end of %s keeps %s; threads lost in this way: %d",
                ticket,
                thread.name,
                len(self._lost),
            )

    def join(self, timeout: float) -> None:
        """Wait so many seconds at most for those that have not had their time."""
        end = time.monotonic() + timeout
        with self._lock:
            threads = [each for each in self._threads if each not in self._lost]
        for thread in threads:
            thread.join(max(end - time.monotonic(), 0.0))
