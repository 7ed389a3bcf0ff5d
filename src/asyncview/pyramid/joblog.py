"""A job's own log: as any logger, and its last lines are kept with the job."""

import logging
from typing import Any

from asyncview import said
from asyncview.session import ProgressSession


class JobLog(logging.LoggerAdapter):  # type: ignore[type-arg]
    """Logs as usual, and keeps the last lines with the job."""

    def __init__(self, logger: logging.Logger, session: ProgressSession) -> None:
        super().__init__(logger, {})
        self._session = session

    def log(self, level: int, msg: object, *args: Any, **kwargs: Any) -> None:
        if level >= logging.INFO:
            try:
                self._session.log(said.text(msg) % args if args else msg)
            except Exception:
                # As with any logger: what can't be formatted is no job's end.
                self._session.log(msg)
        kwargs.setdefault("stacklevel", 3)
        self.logger.log(level, msg, *args, **kwargs)
