"""The two tweens: one keeps the request as it came, one ends the transaction.

`ingress` is outermost.  `outcome` lies under pyramid_tm and over the exception views:
on a live request it stores the jobs that views asked for; in a replay it records the
outcome with the work, commits, and says how it went.
"""

from collections.abc import Callable
from typing import Any

from pyramid.request import Request
from pyramid.response import Response
from pyramid.util import DottedNameResolver

from asyncview.exceptions import AsyncViewError
from asyncview.pyramid.attempt import Attempt
from asyncview.pyramid.start import JOB
from asyncview.pyramid.start import SAFE_METHODS
from asyncview.pyramid.start import START
from asyncview.pyramid.start import Start
from asyncview.trouble import TROUBLE

Handler = Callable[[Request], Response]


def ingress_tween_factory(handler: Handler, registry: Any) -> Handler:
    """Outermost: the request as it came, before any tween rewrote it."""
    site = registry.asyncview

    def ingress_tween(request: Request) -> Response:
        environ = request.environ
        start: Start | None = environ.get(START)
        if start is not None and start.running:
            # A replay, or a subrequest: it is part of what goes on already.
            return handler(request)
        engine = site.engine
        engine.look()
        if environ["REQUEST_METHOD"] not in SAFE_METHODS or site.starts_on_get:
            engine.prepare()
        if start is None:
            start = environ[START] = Start(engine, environ)
        else:
            start.begin(environ)
        try:
            return handler(request)
        except TROUBLE as error:
            answer = site.answer_trouble(request, start, error)
            if answer is None:
                raise
            return answer
        finally:
            start.end()

    return ingress_tween


def outcome_tween_factory(handler: Handler, registry: Any) -> Handler:
    """Under pyramid_tm and over EXCVIEW: what is to be kept, and whether."""
    site = registry.asyncview
    settings = registry.settings
    veto = settings.get("tm.commit_veto", settings.get("pyramid_tm.commit_veto"))
    veto = DottedNameResolver(None).maybe_resolve(veto) if veto else None

    def outcome_tween(request: Request) -> Response:
        start: Start = request.environ[START]
        if start.entered:
            return start.sift(handler, request)
        start.entered = True
        ticket = request.environ.get(JOB)
        if ticket is not None:
            return Attempt(site.engine, request, ticket, veto).run(handler)
        response = start.sift(handler, request)
        if start.asked:
            if request.tm.isDoomed() or (veto is not None and veto(request, response)):
                raise AsyncViewError(
                    "a job was asked for in a transaction that is doomed or vetoed;"
                    " no job was started"
                )
            start.store(request)
        return response

    return outcome_tween
