"""What is kept of the response that a job made."""

import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urljoin
from urllib.parse import urlsplit

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
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def capture(request: Request, response: Response, db: DB) -> Captured:
    """Take a response apart, its body read to the end, in the caller's transaction."""
    if isinstance(response, WSGIHTTPException):
        # These make their body when they are sent.
        response.prepare(request.environ)
    status = CONTROL.sub(" ", response.status)
    app_iter = response.app_iter
    try:
        if response.status_int in (204, 304):
            body = Body()
        else:
            body = Body.collect(app_iter, db)
    finally:
        close = getattr(app_iter, "close", None)
        if close is not None:
            close()
    return Captured(status, _headers(request, response), body)


def _headers(request: Request, response: Response) -> Iterator[tuple[str, str]]:
    refused = None
    for name, value in response.headerlist:
        lower = name.lower()
        if lower in DROPPED:
            continue
        if not TOKEN.fullmatch(name) or CONTROL.search(value) or not _latin(value):
            log.warning("a result's header %.40r is no header, and is dropped", name)
            continue
        if lower == "set-cookie":
            if refused is None:
                refused = _login_cookies(request)
            if value.partition("=")[0].strip() in refused:
                log.warning("a job must not log in whoever fetches its result")
                continue
        elif lower == "location" and not value.startswith("/"):
            if not urlsplit(value).scheme:
                # It was meant from the address of the POST, not of the result.
                value = urljoin(request.path, value)
        yield str(name), str(value)


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
