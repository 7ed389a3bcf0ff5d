"""Whether one more job is let in, and the answers to who asked for it."""

import logging
from typing import Any

from pyramid.httpexceptions import HTTPSeeOther
from pyramid.request import Request
from pyramid.response import Response

from asyncview.engine import Engine
from asyncview.exceptions import QueueFull
from asyncview.i18n import _
from asyncview.job import QUEUED
from asyncview.pyramid import answers
from asyncview.pyramid import errors
from asyncview.pyramid import status
from asyncview.pyramid.access import change
from asyncview.pyramid.access import engine_of
from asyncview.pyramid.access import is_api
from asyncview.pyramid.answers import json_response
from asyncview.pyramid.answers import private
from asyncview.pyramid.identity import own_url
from asyncview.pyramid.identity import subview_url
from asyncview.pyramid.identity import view_identity
from asyncview.pyramid.identity import visitor_of
from asyncview.shard import Entry
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.trouble import TROUBLE

log = logging.getLogger("asyncview.start")


def started(request: Request, entry: Entry) -> Response:
    """A job was asked for, or one is there already: where to look."""
    base = own_url(request)
    if not is_api(request):
        url = subview_url(base, "processing", entry.job.id)
        redirect = private(HTTPSeeOther(url))
        # Else it makes its page after the commit, while the job waits for the thread.
        redirect.prepare(request.environ)
        return redirect
    doc = status.document(request, entry)
    response = json_response(doc, 202)
    response.headers["Location"] = f"{doc['links']['completed']}&output_json=1"
    response.headers["Retry-After"] = answers.retry_after(request)
    return response


def doubtful(request: Request, ids: list[str]) -> Response:
    """The answer after a commit that failed: it may be stored all the same."""
    engine = engine_of(request)
    log.exception("a start could not be committed")
    try:
        with reading(engine.db) as connection:
            store = store_of(connection, engine.settings.name)
            entries = [None if store is None else store.find(id) for id in ids]
            for entry in entries:
                if entry is not None:
                    engine.submit(entry.job.id)
            first = entries[0]
            # Not where it was a subrequest that asked.
            if first is not None and first.job.view == view_identity(request):
                return started(request, first)
    except TROUBLE:
        log.exception("nor can it be said whether it was")
    return errors.unavailable(request)


def twin_of(request: Request, key: str, owner: Any) -> Response | None:
    """The answer where a job with the exclusive ``key`` is queued or running."""
    engine = engine_of(request)
    with reading(engine.db) as connection:
        store = store_of(connection, engine.settings.name)
        holder = None if store is None else store.holder(key)
        if holder is None:
            return None
        visitor = None if owner is not None else visitor_of(request)
        if (holder.job.owner, holder.job.visitor) == (owner, visitor):
            return started(request, holder)
    response = errors.wrong(
        request,
        409,
        _("Not yet"),
        _("Somebody else is doing this at the moment. Please try again later."),
    )
    response.headers["Retry-After"] = answers.retry_after(request)
    return response


def free_key(engine: Engine, key: str) -> None:
    """Have nothing that has ended stand in the way of a start with ``key``."""
    with reading(engine.db) as connection:
        store = store_of(connection, engine.settings.name)
        if store is None or not store.spent(key):
            return
    change(engine, lambda store: store.free(key))


def check_limits(request: Request, owner: Any) -> None:
    """Raise QueueFull where there are too many jobs already."""
    engine: Engine = engine_of(request)
    settings = engine.settings
    visitor = None if owner is not None else visitor_of(request)
    with reading(engine.db) as connection:
        store = store_of(connection, settings.name)
        if store is None:
            return
        if store.crowd() >= settings.max_queued:
            states = (each.status for each in store.unfinished())
            if sum(1 for state in states if state == QUEUED) >= settings.max_queued:
                raise QueueFull("there are asyncview.max_queued jobs in the queue")
        # Without a session nobody knows which of the anonymous this is.
        if settings.max_per_owner is None or owner is visitor is None:
            return
        mine = sum(
            1
            for each in store.unfinished()
            if (each.job.owner, each.job.visitor) == (owner, visitor)
            and not each.job.state.ended
            # A session that is no job takes nobody's place.
            and each.job.view
        )
        if mine >= settings.max_per_owner:
            raise QueueFull("the owner has asyncview.max_per_owner jobs", status=429)
