"""What is kept of the response that a job made."""

import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urljoin

from pyramid.httpexceptions import WSGIHTTPException
from pyramid.request import Request
from pyramid.response import Response
from pyramid.security import forget
from ZODB.DB import DB

from asyncview.body import Body
from asyncview.ticket import Captured

log = logging.getLogger("asyncview.result")

#: RFC 9110, 7.6.1, and what is the server's to say when it answers.
DROPPED = frozenset(
    """connection keep-alive proxy-authenticate proxy-authorization
    proxy-connection te trailer transfer-encoding upgrade content-length date
    server""".split()
)

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
ABSOLUTE = re.compile(r"/|[A-Za-z][A-Za-z0-9+.-]*:")
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def capture(request: Request, response: Response, db: DB) -> Captured:
    """Take a response apart, its body read to the end, in the caller's transaction.

    ValueError for a status that no server could send as the end of an answer.
    """
    if isinstance(response, WSGIHTTPException):
        # These make their body when they are sent.
        response.prepare(request.environ)
    app_iter = response.app_iter
    try:
        if not 200 <= response.status_int <= 599:
            raise ValueError(f"a result can't have the status {response.status}")
        status = _plain(response.status)
        headers = tuple(_headers(request, response))
        if response.status_int in (204, 304):
            body = Body()
        else:
            body = Body.collect(app_iter, db)
    finally:
        close = getattr(app_iter, "close", None)
        if close is not None:
            close()
    return Captured(status, headers, body)


def _headers(request: Request, response: Response) -> Iterator[tuple[str, str]]:
    refused = None
    for name, value in response.headerlist:
        if not _is_header(name, value):
            log.warning("a result's header %.40r is no header, and is dropped", name)
            continue
        lower = name.lower()
        if lower in DROPPED:
            continue
        if lower == "set-cookie":
            if refused is None:
                refused = _login_cookies(request)
            if value.partition("=")[0].strip() in refused:
                log.warning("a job must not log in whoever fetches its result")
                continue
        elif lower == "location" and not ABSOLUTE.match(value):
            # It was meant from the address of the POST, not of the result.
            value = urljoin(request.path, value)
        yield str(name), str(value)


def _is_header(name: object, value: object) -> bool:
    return (
        isinstance(name, str)
        and isinstance(value, str)
        and TOKEN.fullmatch(name) is not None
        and CONTROL.search(value) is None
        and _latin(value)
    )


def _plain(status: str) -> str:
    """A status line that can be sent."""
    return CONTROL.sub(" ", status).encode("latin-1", "replace").decode("latin-1")


def _latin(value: str) -> bool:
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


def _login_cookies(request: Request) -> set[str]:
    """The names of the cookies by which this application knows a user."""
    names = set()
    with suppress(Exception):
        for name, value in forget(request):
            if name.lower() == "set-cookie":
                names.add(value.partition("=")[0].strip())
    return names
