"""A view asks for a job: whether it may, whose it will be, and what goes into it."""

import hashlib
import logging
import time
from typing import Any

from pyramid.httpexceptions import HTTPBadRequest
from pyramid.response import Response

from asyncview.exceptions import AsyncViewError
from asyncview.job import Job
from asyncview.pyramid import admission
from asyncview.pyramid import errors
from asyncview.pyramid.access import is_tried_again
from asyncview.pyramid.facts import ViewFacts
from asyncview.pyramid.facts import facts_of
from asyncview.pyramid.facts import is_cross_site
from asyncview.pyramid.identity import context_identity
from asyncview.pyramid.identity import has_dots
from asyncview.pyramid.identity import owner_of
from asyncview.pyramid.identity import view_identity
from asyncview.pyramid.identity import visitor_of
from asyncview.pyramid.sessions import pack
from asyncview.pyramid.sessions import touch_csrf
from asyncview.pyramid.start import SAFE_METHODS
from asyncview.pyramid.start import START
from asyncview.pyramid.start import Asked
from asyncview.pyramid.start import Start
from asyncview.pyramid.uploads.handing import claim
from asyncview.pyramid.uploads.handing import confirm
from asyncview.shard import Entry
from asyncview.trouble import TROUBLE

log = logging.getLogger("asyncview.start")


def ask(view: Any, terms: dict[str, Any]) -> Response:
    """Ask for a job of ``view`` in its request's transaction; where to look for it.

    AsyncViewError where there is no such transaction, QueueFull over a limit,
    HTTPBadRequest where no link would lead to the job.
    """
    request = view.request
    facts: ViewFacts = facts_of(request)
    if not (facts.csrf or view.cross_site) and request.method not in SAFE_METHODS:
        if is_cross_site(request):
            return errors.refused(request)
    environ = request.environ
    start: Start | None = environ.get(START)
    if start is None or not (
        environ.get("tm.active") or environ.get("repoze.tm.active")
    ):
        raise AsyncViewError(
            "a job can only be started in a request that passes asyncview's"
            " tweens and has an active transaction"
        )
    if has_dots(request):
        # Pyramid's own: the page of ours for it would have such links, too.
        raise HTTPBadRequest("an address with . or .. in it starts nothing")
    owner = owner_of(request)
    key = exclusive_key(view)
    settings = start.engine.settings
    if key is not None or settings.max_per_owner is not None:
        start.hold()
    try:
        if key is not None:
            twin = admission.twin_of(request, key, owner)
            if twin is not None:
                return twin
            admission.free_key(start.engine, key)
        admission.check_limits(request, owner)
    except TROUBLE as error:
        if is_tried_again(request, error):
            raise
        log.exception("nobody can tell whether a job may start")
        return errors.unavailable(request)
    visitor = None if owner is not None else visitor_of(request, create=True)
    changes = {}
    if facts.csrf_possible(request):
        cookies = touch_csrf(request)
        if cookies is not None:
            changes["HTTP_COOKIE"] = cookies
    id = start.new_id(key)
    claimed = claim(view, id) if view.uploads else ()
    if claimed:
        terms = terms | {"uploads": claimed}
        start.when_stored(id, confirm(request, claimed, id))
    job = Job(
        id,
        view=view_identity(request),
        context=None,
        owner=owner,
        visitor=visitor,
        created=time.time(),
        terms=terms,
        request=None,
    )
    start.asked.append(Asked(job, key, request, view.context, pack(request), changes))
    return admission.started(request, Entry(job))


def exclusive_key(view: Any) -> str | None:
    """What one job at a time has; None where the view does not care."""
    exclusive = view.exclusive
    if exclusive is None or exclusive is False:
        return None
    oid = context_identity(view.context) or b""
    parts = (view_identity(view.request), oid.hex(), str(exclusive))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
