"""Processes that were forked where it does harm: at the start, and by a job."""

import logging
import os

from asyncview.exceptions import AsyncViewError

log = logging.getLogger("asyncview")


class ForkGuard:
    """Refuses a process that was forked after the database was opened."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def forked(self) -> bool:
        return os.getpid() != self._pid

    def check(self) -> None:
        """Raise AsyncViewError in a child of the process that made this."""
        if self.forked:
            raise AsyncViewError(
                "this process was forked after the database was opened, which would"
                " destroy a FileStorage; open it in the child (gunicorn: without"
                " --preload)"
            )


def leave_child(parent: int) -> None:
    """End this process if it is a child that ``parent`` has forked meanwhile.

    It has the files and the locks of its parent, and would write into its storage.
    """
    if os.getpid() != parent:
        log.critical("a child that a job has forked must end by os._exit")
        os._exit(1)
