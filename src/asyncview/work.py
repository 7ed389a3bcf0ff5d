"""Work that an application runs for a session, in a thread of its own."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from ZODB.DB import DB

from asyncview.exceptions import AsyncViewError
from asyncview.exceptions import InvalidTransition
from asyncview.keeper import Keeper
from asyncview.progress import COMPLETE
from asyncview.progress import ERROR
from asyncview.session import ProgressSession
from asyncview.store import connected

log = logging.getLogger("asyncview.session")

#: Seconds until an end is recorded again that the storage refused.
PATIENCE = 1.0


class Workers:
    """The threads of one process that work for sessions."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._threads: set[threading.Thread] = set()

    def prepare(
        self,
        db: DB,
        session: ProgressSession,
        func: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> Callable[[bool], None]:
        """Make a thread for ``func(connection, session, *args)``.

        What it gives is called once: True starts the thread, False fails the session.
        """
        if not session.kept:
            raise AsyncViewError("only a session that is no job has work of its own")
        session.manage()
        thread = threading.Thread(
            target=self._work,
            args=(db, session, func, args),
            name=f"asyncview-{str(session.id)[:6]}",
            daemon=True,
        )

        def go(wanted: bool) -> None:
            error: BaseException = AsyncViewError("its request did not commit")
            if wanted:
                self._threads.add(thread)
                try:
                    thread.start()
                    return
                except RuntimeError as refused:
                    # Since Python 3.12 an interpreter that exits starts none.
                    self._threads.discard(thread)
                    error = refused
            self._fail(session, None, None, error)

        return go

    def _work(
        self,
        db: DB,
        session: ProgressSession,
        func: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> None:
        keeper = self._keeper
        try:
            with connected(db) as connection:
                func(connection, session, *args)
                status, message, url, error = session.wish or (COMPLETE,) + 3 * (None,)
                if status != COMPLETE:
                    connection.transaction_manager.abort()
                    self._fail(session, message, url, error)
                    return
                home = connection
                if db is not keeper.runner.db:
                    home = connection.get_connection(keeper.runner.db.database_name)
                # Work and verdict stand or fall together.
                said = keeper.changed(status, message, url)
                keeper.record(home, session, said, None)
                connection.transaction_manager.commit()
            keeper.over(session, COMPLETE)
        except BaseException as error:
            self._fail(session, None, None, error)
        finally:
            self._threads.discard(threading.current_thread())

    def _fail(
        self,
        session: ProgressSession,
        message: str | None,
        url: str | None,
        error: BaseException | None,
    ) -> None:
        """Record a failure, however long the storage takes to come back."""
        while True:
            try:
                self._keeper.end(session, ERROR, message, url, error)
                return
            except InvalidTransition:
                # The commit that raised was one, after all; or it was taken away.
                return
            except Exception:
                log.exception("the end of %.6s… can't be recorded yet", session.id)
                if self._keeper.runner.closing.wait(PATIENCE):
                    return

    def join(self, timeout: float) -> bool:
        """Wait so many seconds at most for the threads; False if some still run."""
        end = time.monotonic() + timeout
        for thread in list(self._threads):
            thread.join(max(end - time.monotonic(), 0.0))
        return not self._threads
