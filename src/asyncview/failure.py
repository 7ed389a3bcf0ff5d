"""Why a job failed, as text; and what becomes of one that its worker gave up."""

import secrets
import traceback
from contextlib import suppress

from asyncview.job import FAILED
from asyncview.job import INTERRUPTED
from asyncview.job import QUEUED
from asyncview.job import Failure
from asyncview.job import State
from asyncview.shard import Entry

#: A traceback is for reading; the middle of a recursion is not.
TRACEBACK_WIDTH = 16_000


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


def give_up(
    entry: Entry, failure: Failure, now: float, began: float | None = None
) -> str:
    """End a running job as failed, or queue it again where its view allows that.

    ``began`` is when it did, for all that is known here.  Gives the new status.
    """
    state = entry.job.state
    if failure.reason == INTERRUPTED and state.restarts < entry.job.term("restartable"):
        state.requeue(entry.snapshot, failure.id)
    else:
        keep = entry.job.term("keep_request")
        last = entry.snapshot
        if last.started is None:
            last = last._replace(started=began)
        state.fail(failure, last, now, keep_request=keep)
    return state.status


def given_up(state: State, failure: Failure) -> str | None:
    """What `give_up` made of a job, if that is stored; else None."""
    if state.failure == failure:
        return FAILED
    if state.status == QUEUED and state.token == failure.id:
        return QUEUED
    return None
