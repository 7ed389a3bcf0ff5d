"""Runs a stored request through the Pyramid application again."""

import sys
from contextlib import suppress
from io import BytesIO
from typing import Any

from pyramid.router import Router
from zope.interface import implementer

from asyncview.interfaces import IFront
from asyncview.pyramid.sessions import ReplaySession
from asyncview.pyramid.start import JOB
from asyncview.pyramid.start import SESSION
from asyncview.pyramid.start import START
from asyncview.pyramid.start import Start
from asyncview.ticket import Ticket


@implementer(IFront)
class PyramidFront:
    """See `IFront`."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry
        self.router: Router | None = None

    def replay(self, ticket: Ticket) -> None:
        """See `IFront`."""
        if self.router is None:
            # `pyramid.paster.bootstrap` and `prepare` make no application.
            self.router = Router(self._registry)
        environ = stored_environ(ticket)
        # A job may start others: they are stored and woken with its own end.
        start = Start(self._registry.asyncview.engine, environ, patient=False)
        environ[JOB], environ[START] = ticket, start
        try:
            with self.router.request_context(environ) as request:
                if ticket.brief.session is not None:
                    session = ReplaySession(ticket.brief.session)
                    request.session = environ[SESSION] = session
                tm = environ["tm.manager"] = request.tm
                # pyramid_tm steps aside: it would decide after us.
                environ["tm.active"] = True
                tm.begin()
                try:
                    self.router.invoke_request(request)
                finally:
                    if ticket.verdict is None:
                        with suppress(Exception):
                            tm.abort()
        finally:
            start.end()


def stored_environ(ticket: Ticket) -> dict[str, Any]:
    """A WSGI environ as PEP 3333 wants it, made anew for each attempt."""
    environ: dict[str, Any] = dict(ticket.brief.environ)
    body: Any = ticket.brief.body
    if isinstance(body, bytes):
        body = BytesIO(body)
    else:
        body.seek(0)
    environ.update(
        {
            "CONTENT_LENGTH": str(ticket.brief.size),
            "wsgi.version": (1, 0),
            "wsgi.input": body,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
    )
    environ.setdefault("REQUEST_METHOD", "POST")
    environ.setdefault("SCRIPT_NAME", "")
    environ.setdefault("PATH_INFO", "/")
    environ.setdefault("QUERY_STRING", "")
    environ.setdefault("SERVER_NAME", "localhost")
    environ.setdefault("SERVER_PORT", "80")
    environ.setdefault("SERVER_PROTOCOL", "HTTP/1.1")
    environ.setdefault("wsgi.url_scheme", "http")
    return environ
