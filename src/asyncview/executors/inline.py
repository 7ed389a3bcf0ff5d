"""Jobs run when they are submitted, and have ended when that returns: for tests."""

import logging
import threading
import time

from zope.interface import implementer
from zope.interface import provider

from asyncview.interfaces import IExecutor
from asyncview.interfaces import IExecutorFactory
from asyncview.runner import Runner

log = logging.getLogger("asyncview.inline")


@implementer(IExecutor)
class InlineExecutor:
    """See `IExecutor`."""

    local = True

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._stopped = False
        self._running: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()

    def submit(self, job_id: str) -> None:
        """See `IExecutor`."""
        with self._lock:
            if self._stopped or job_id in self._running:
                return
            # In a thread of its own all the same: the caller's has a transaction and
            # a request, and a job must see neither.
            thread = threading.Thread(
                target=self._run, args=(job_id,), name="asyncview-inline", daemon=True
            )
            self._running[job_id] = thread
            thread.start()
        thread.join()

    def _run(self, job_id: str) -> None:
        try:
            for ticket in self._runner.claims.take([job_id]):
                self._runner.run(ticket)
        except BaseException:
            log.exception("%.6s… could not be claimed", job_id)
        finally:
            del self._running[job_id]

    def withdraw(self, job_id: str) -> None:
        """See `IExecutor`."""

    def position(self, job_id: str) -> int | None:
        """See `IExecutor`."""
        return None

    def ahead(self) -> list[str]:
        """See `IExecutor`.  Each is claimed alone."""
        return []

    def give_back(self, job_id: str | None = None) -> None:
        """See `IExecutor`."""

    def waiting(self, job_id: str) -> bool:
        """See `IExecutor`."""
        return job_id in self._running

    def busy(self) -> bool:
        """See `IExecutor`."""
        return bool(self._running)

    leaked = 0

    def abandon(self, job_id: str) -> None:
        """See `IExecutor`.  Each job has a thread of its own anyway."""

    def stop(self) -> None:
        """See `IExecutor`."""
        with self._lock:
            self._stopped = True

    def join(self, timeout: float) -> bool:
        """See `IExecutor`."""
        end = time.monotonic() + timeout
        for thread in list(self._running.values()):
            thread.join(max(end - time.monotonic(), 0.0))
        return not self._running


@provider(IExecutorFactory)
def factory(runner: Runner, threads: int) -> InlineExecutor:
    """See `IExecutorFactory`."""
    return InlineExecutor(runner)
