"""Why a job failed, as text."""

import secrets
import traceback
from contextlib import suppress

# The reasons.
EXCEPTION = "exception"
INTERRUPTED = "interrupted"
TIMEOUT = "timeout"
NOT_REACHED = "not_reached"
ABORTED = "aborted"

#: A traceback is for reading; the middle of a recursion is not.
TRACEBACK_WIDTH = 16_000


class Failure(tuple[str, ...]):
    """Why a job ended without a result: reason, error id, and the exception as text."""

    __slots__ = ()

    def __new__(
        cls,
        reason: str,
        id: str,
        type: str = "",
        message: str = "",
        traceback: str = "",
    ) -> "Failure":
        return super().__new__(cls, (reason, id, type, message, traceback))

    reason = property(lambda self: self[0])
    id = property(lambda self: self[1])
    type = property(lambda self: self[2])
    message = property(lambda self: self[3])
    traceback = property(lambda self: self[4])


def describe(reason: str, error: BaseException | None = None) -> Failure:
    """A failure as text; nothing of the exception itself is kept."""
    id = secrets.token_hex(4)
    if error is None:
        return Failure(reason, id)
    # An error may raise anything when it is asked what it says.
    message = "(its message can't be shown)"
    with suppress(BaseException):
        message = str(error)
    lines = "(its traceback can't be shown)"
    with suppress(BaseException):
        lines = "".join(traceback.format_exception(error, limit=60))
    if len(lines) > TRACEBACK_WIDTH:
        half = TRACEBACK_WIDTH // 2
        lines = f"{lines[:half]}\n...\n{lines[-half:]}"
    return Failure(
        reason,
        id,
        type(error).__name__,
        _plain(message[:1000]),
        _plain(lines),
    )


def _plain(text: str) -> str:
    """Without lone surrogates, which no JSON and no page can carry."""
    return text.encode("utf-8", "replace").decode("utf-8")
