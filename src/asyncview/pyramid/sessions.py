"""The web session as a job sees it: a copy, of which only flashed messages are kept."""

import logging
import pickle
import time
from typing import Any

from pyramid.csrf import get_csrf_token
from pyramid.interfaces import ISession
from pyramid.request import Request
from zope.interface import implementer

from asyncview.pyramid.identity import has_sessions

log = logging.getLogger("asyncview.session")

FLASH = "_f_"
CSRF = "_csrft_"


def pack(request: Request) -> bytes | None:
    """The session as it is now; opaque, and read by the replay alone.

    It is called in the POST after `touch_csrf`, so that a token is in it.  Flash
    queues are left out: they are the live session's to show.
    """
    if not has_sessions(request):
        return None
    session = request.session
    # One by one, so that the code of one may change before the job runs.
    values: dict[str, bytes] = {}
    for name, value in session.items():
        if isinstance(name, str) and name.startswith(FLASH):
            continue
        try:
            # There are objects that can be written and not read.
            pickle.loads(packed := pickle.dumps(value, protocol=4))
        except Exception as error:
            log.warning("a job will not see %r of its session: %s", name, error)
        else:
            values[name] = packed
    created = getattr(session, "created", None)
    created = int(created) if isinstance(created, (int, float)) else int(time.time())
    return pickle.dumps((values, created, get_csrf_token(request)), protocol=4)


def touch_csrf(request: Request) -> str | None:
    """Have a CSRF token made now: one that a job makes would be dropped.

    Gives the cookies with which the replay must come, None where they are as sent.
    """
    before = request.environ.get("HTTP_COOKIE")
    get_csrf_token(request)
    after: str | None = request.environ.get("HTTP_COOKIE")
    return after if after != before else None


@implementer(ISession)
class ReplaySession(dict[str, Any]):
    """A session that is never saved."""

    new = False

    def __init__(self, packed: bytes) -> None:
        values, self.created, self._token = pickle.loads(packed)
        super().__init__()
        for name, value in values.items():
            try:
                self[name] = pickle.loads(value)
            except Exception as error:
                log.warning("a job does not see %r of its session: %s", name, error)
        self._flashed: list[tuple[str, str]] = []

    def flashes(self) -> tuple[tuple[str, str], ...]:
        """Queue and text of what was flashed and not popped again."""
        return tuple(self._flashed)

    def invalidate(self) -> None:
        self.clear()

    def changed(self) -> None:
        """Nothing to save."""

    def flash(self, msg: Any, queue: str = "", allow_duplicate: bool = True) -> None:
        if not allow_duplicate and (queue, str(msg)) in self._flashed:
            return
        self._flashed.append((queue, str(msg)))

    def pop_flash(self, queue: str = "") -> list[str]:
        found = self.peek_flash(queue)
        self._flashed = [each for each in self._flashed if each[0] != queue]
        return found

    def peek_flash(self, queue: str = "") -> list[str]:
        return [text for name, text in self._flashed if name == queue]

    def new_csrf_token(self) -> str:
        # One that is not in the live session would be refused by it.
        return self.get_csrf_token()

    def get_csrf_token(self) -> str:
        token: str = self.get(CSRF, self._token)
        return token
