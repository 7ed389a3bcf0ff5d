"""A job's messages: flashed when its owner comes to its end, once in a web session."""

import json
import logging
from collections.abc import Iterable
from typing import Any

from pyramid.interfaces import ISession
from pyramid.request import Request

from asyncview.i18n import _
from asyncview.job import COMPLETED
from asyncview.job import FAILED
from asyncview.job import Job
from asyncview.pyramid.identity import has_sessions
from asyncview.pyramid.identity import is_owner
from asyncview.pyramid.status import UNSAFE

log = logging.getLogger("asyncview.view")

#: In the web session: the jobs whose messages it has been shown, the last few.
FLASHED = "asyncview.flashed"
#: Few and short: all of a session may have to go into a cookie of 4 kB.
FLASHED_KEPT = 20
FLASHED_WIDTH = 8

#: So many bytes of the cookie are for messages: where it gets too long to be sent, the
#: result can't be looked at.
ROOM = 2000
#: And so many a message has at least: half a word says nothing.
LEAST = 50


def flash(request: Request, job: Job) -> None:
    """The job's messages, once per web session, and only in its owner's."""
    state = job.state
    said = _said(request, job)
    if (
        not (said or state.flashes)
        # Nobody looks at the answer to a HEAD.
        or request.method == "HEAD"
        or not has_sessions(request)
        or not is_owner(request, job)
    ):
        return
    session = request.session
    seen = list(session.get(FLASHED, ()))
    mark = job.id[:FLASHED_WIDTH]
    if mark in seen:
        return
    session[FLASHED] = [*seen, mark][-FLASHED_KEPT:]
    messages = list(state.flashes)
    if said:
        messages.append(("" if state.status == COMPLETED else "error", said))
    room = ROOM - _waiting(session, {queue for queue, _ in messages})
    fitting = fit(messages, room)
    if fitting != messages:
        log.warning("%.6s… has more to say than a session may hold", job.id)
    for queue, text in fitting:
        session.flash(text, queue)


def _said(request: Request, job: Job) -> Any:
    """What the view says of the job's end, or what must be said at least."""
    state = job.state
    said = job.term("success_msg" if state.status == COMPLETED else "error_msg")
    if said or state.status != FAILED or state.failure is None:
        return said
    if not (job.term("error_url") or job.term("success_url")):
        # The failure page says it.
        return None
    reference = _("Reference: ${id}", mapping={"id": state.failure.id})
    return " ".join(request.localizer.translate(each) for each in (UNSAFE, reference))


def fit(messages: Iterable[tuple[str, str]], room: int) -> list[tuple[str, str]]:
    """Those that there is room for, perhaps shortened; rather the last than the first.

    The last is what the view says of the job as a whole.
    """
    kept = []
    for queue, text in reversed(list(messages)):
        text = _shortened(text, room)
        if text:
            room -= _weight(text)
            kept.append((queue, text))
    return kept[::-1]


def _shortened(text: str, room: int) -> str:
    if _weight(text) <= room:
        return text
    if room < LEAST:
        return ""
    while _weight(f"{text}…") > room:
        # No character takes more than twelve bytes.
        text = text[: -max((_weight(text) - room) // 12, 1)]
    return f"{text}…"


def _weight(text: str) -> int:
    """Bytes that a session's cookie takes for it, before they are encoded."""
    return len(json.dumps(text)) + len(", ")


def _waiting(session: ISession, queues: Iterable[str]) -> int:
    """What the messages take that nobody has read yet."""
    return sum(
        _weight(str(text)) for name in queues for text in session.peek_flash(name)
    )
