"""Jobs run when they are submitted, and have ended when that returns: for tests."""

import threading

from zope.interface import implementer

from asyncview.interfaces import IExecutor
from asyncview.runner import Runner


@implementer(IExecutor)
class InlineExecutor:
    """See `IExecutor`."""

    local = True

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._stopped = False
        self._running: set[str] = set()

    def submit(self, job_id: str) -> None:
        """See `IExecutor`."""
        if self._stopped or job_id in self._running:
            return
        # In a thread of its own all the same: the caller's has a transaction and
        # a request, and a job must see neither.
        self._running.add(job_id)
        thread = threading.Thread(
            target=self._run, args=(job_id,), name="asyncview-inline", daemon=True
        )
        try:
            thread.start()
            thread.join()
        finally:
            self._running.discard(job_id)

    def _run(self, job_id: str) -> None:
        for ticket in self._runner.claim([job_id]):
            self._runner.run(ticket)

    def withdraw(self, job_id: str) -> None:
        """See `IExecutor`."""

    def position(self, job_id: str) -> int | None:
        """See `IExecutor`."""
        return None

    def waiting(self, job_id: str) -> bool:
        """See `IExecutor`."""
        return job_id in self._running

    def queued(self) -> int:
        """See `IExecutor`."""
        return 0

    def busy(self) -> bool:
        """See `IExecutor`."""
        return bool(self._running)

    def stop(self) -> None:
        """See `IExecutor`."""
        self._stopped = True


def factory(runner: Runner, threads: int) -> InlineExecutor:
    """See `IExecutorFactory`."""
    return InlineExecutor(runner)
