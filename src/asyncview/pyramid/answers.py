"""What the subviews answer: processing, completed, result, events, cancel, delete."""

import re
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import BinaryIO

from pyramid.httpexceptions import HTTPNotFound
from pyramid.httpexceptions import HTTPSeeOther
from pyramid.httpexceptions import HTTPTemporaryRedirect
from pyramid.request import Request
from pyramid.response import Response
from pyramid_zodbconn import get_connection

from asyncview.body import BLOCK
from asyncview.engine import Engine
from asyncview.exceptions import NoSuchProcessError
from asyncview.exceptions import QueueFull
from asyncview.i18n import _
from asyncview.job import COMPLETED
from asyncview.job import FAILED
from asyncview.job import QUEUED
from asyncview.job import Job
from asyncview.outcome import Content
from asyncview.outcome import Outcome
from asyncview.pyramid import pages
from asyncview.pyramid import status
from asyncview.pyramid.facts import check_csrf
from asyncview.pyramid.identity import context_identity
from asyncview.pyramid.identity import has_sessions
from asyncview.pyramid.identity import is_admin
from asyncview.pyramid.identity import is_owner
from asyncview.pyramid.identity import own_url
from asyncview.pyramid.identity import view_identity
from asyncview.pyramid.identity import visitor_of
from asyncview.pyramid.status import json_response
from asyncview.pyramid.status import private
from asyncview.store import Entry
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.store import transact

WELL_FORMED = re.compile(r"[A-Za-z0-9_-]{1,64}")

#: In the web session: the jobs whose messages it has been shown, the last few.
FLASHED = "asyncview.flashed"
FLASHED_KEPT = 50


class BadProcessId(Exception):
    """The request has no process_id, or what it has can't be one."""


def engine_of(request: Request) -> Engine:
    engine: Engine = request.registry.asyncview.engine
    return engine


# Which job, and may they see it


def find(view: Any, process_id: Any) -> Entry:
    """The job with this id, of this view and context, of this caller.

    NoSuchProcessError for any other: what is not theirs does not exist.
    """
    request = view.request
    engine = engine_of(request)
    connection = get_connection(request, engine.settings.database)
    return permitted(view, store_of(connection, engine.settings.name), process_id)


def permitted(view: Any, store: Any, process_id: Any) -> Entry:
    """See `find`."""
    request, context = view.request, view.context
    entry: Entry | None = None
    if store is not None and isinstance(process_id, str):
        entry = store.find(process_id)
    if (
        entry is None
        or entry.job.view != view_identity(request)
        or entry.job.context != context_identity(context)
        or not (
            is_owner(request, entry.job)
            or is_admin(request, context, engine_of(request).settings.admin_permission)
        )
    ):
        raise NoSuchProcessError(process_id)
    return entry


def process_id_of(request: Request) -> str:
    """The request's process_id, from the query, for POSTs also from the body."""
    id = request.GET.get("process_id")
    if id is None and request.method == "POST":
        id = request.POST.get("process_id")
    if not isinstance(id, str) or not WELL_FORMED.fullmatch(id):
        raise BadProcessId()
    return id


def is_api(request: Request) -> bool:
    """Whether the caller wants documents rather than pages."""
    if "respond-async" in request.headers.get("Prefer", "").lower():
        return True
    accept = request.headers.get("Accept", "").lower()
    return "application/json" in accept and "text/html" not in accept


# Dispatch


def subview(view: Any) -> Response:
    """Answer the request for one of the view's subviews."""
    request = view.request
    name = request.subpath[0]
    answer = SUBVIEWS.get(name) if len(request.subpath) == 1 else None
    if answer is None:
        raise HTTPNotFound(request.path_info)
    methods, handler = answer
    if request.method not in methods:
        if request.method == "POST" and name in ("processing", "result"):
            # A form without an action, on a page that is shown here.
            return private(HTTPTemporaryRedirect(own_url(request)))
        return method_not_allowed(request, ", ".join(methods))
    try:
        return handler(view, process_id_of(request))
    except BadProcessId:
        message = _("The address lacks a valid process_id.")
        return wrong(request, 400, _("Bad request"), message)


def wrong(request: Request, code: int, title: Any, message: Any) -> Response:
    """An error that the caller made, as a document or as a page."""
    if is_api(request) or request.subpath[-1:] == ("completed",):
        text = request.localizer.translate(message)
        return json_response(request, {"error": text}, code)
    return pages.error(request, code, title, message, own_url(request))


def method_not_allowed(request: Request, allow: str) -> Response:
    response = wrong(
        request,
        405,
        _("Method not allowed"),
        _("This address does not answer that kind of request."),
    )
    response.headers["Allow"] = allow
    return response


def no_such_process(error: Any, request: Request) -> Response:
    """Exception view of NoSuchProcessError: one answer for all that is not there."""
    subpath = getattr(request, "subpath", ())
    if is_api(request) or subpath[-1:] in (("completed",), ("events",)):
        answer = {"completed": "ERROR", "progress": "ERROR"}
        return json_response(request, answer, 404)
    message = _("There is no such process, or it is not yours.")
    return pages.error(request, 404, _("Not found"), message, own_url(request))


def queue_full(error: QueueFull, request: Request) -> Response:
    """Exception view of QueueFull."""
    if error.status == 429:
        message = _(
            "You have as many jobs in progress as you may have. Wait for one to end,"
            " then try again."
        )
    else:
        message = _("The queue is full. Please try again in a moment.")
    response = wrong(request, error.status, _("Too many jobs"), message)
    response.headers["Retry-After"] = str(error.retry_after)
    return response


# The start


def started(request: Request, entry: Entry) -> Response:
    """A job was asked for, or one is there already: where to look."""
    base = own_url(request)
    if not is_api(request):
        return private(HTTPSeeOther(f"{base}/processing?process_id={entry.job.id}"))
    doc = status.document(request, entry, base)
    response = json_response(request, doc, 202)
    response.headers["Location"] = f"{doc['links']['completed']}&output_json=1"
    response.headers["Retry-After"] = status.retry_after(request)
    return response


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
        response = wrong(
            request,
            409,
            _("Too many jobs"),
            _("Somebody else is doing this at the moment. Please try again later."),
        )
        response.headers["Retry-After"] = status.retry_after(request)
        return response


def check_limits(engine: Engine, owner: Any) -> None:
    """Raise QueueFull where there are too many jobs already."""
    settings = engine.settings
    with reading(engine.db) as connection:
        store = store_of(connection, settings.name)
        if store is None:
            return
        if store.crowd() >= settings.max_queued:
            states = (each.job.state.status for each in store.unfinished())
            if sum(1 for state in states if state == QUEUED) >= settings.max_queued:
                raise QueueFull("there are asyncview.max_queued jobs in the queue")
        if settings.max_per_owner is not None and owner is not None:
            mine = sum(
                1
                for each in store.unfinished()
                if each.job.owner == owner and not each.job.state.ended
            )
            if mine >= settings.max_per_owner:
                raise QueueFull(
                    "the owner has asyncview.max_per_owner jobs", status=429
                )


# The subviews


def processing_answer(view: Any, process_id: str) -> Any:
    return view.processing(process_id)


def processing(view: Any, process_id: str) -> Any:
    """The page; a redirect when the job has ended, or ends within the grace."""
    request = view.request
    entry = find(view, process_id)
    if not entry.job.state.ended:
        _give_grace(engine_of(request), process_id)
        # What this request's connection sees is from before.
        engine = engine_of(request)
        with reading(engine.db) as connection:
            store = store_of(connection, engine.settings.name)
            fresh = permitted(view, store, process_id)
            if fresh.job.state.ended:
                return _go_on(request, fresh.job)
            return view._page("processing_page", process_id)
    return _go_on(request, entry.job)


def _give_grace(engine: Engine, process_id: str) -> None:
    """Wait a moment for a quick job; one request of the process at a time."""
    if not engine.settings.grace or not engine.live.grace.acquire(blocking=False):
        return
    try:
        with engine.live.watching(process_id) as ended:
            if process_id in engine.live or engine.executor.waiting(process_id):
                ended.wait(engine.settings.grace)
    finally:
        engine.live.grace.release()


def _go_on(request: Request, job: Job) -> Response:
    flash(request, job)
    url = status.next_url(job, own_url(request))
    return private(HTTPSeeOther(url))


def completed(view: Any, process_id: str) -> Response:
    """How far the job is, as text or as the status document."""
    request = view.request
    entry = find(view, process_id)
    if request.GET.get("output_json", "0").lower() in ("", "0", "false", "no"):
        response = Response(
            str(status.shown_progress(entry)),
            content_type="text/plain",
            charset="utf-8",
        )
        return private(response)
    body, etag = request.registry.asyncview.documents.get(request, entry)
    if etag in request.if_none_match:
        response = Response(status=304)
        del response.headers["Content-Type"]
    else:
        response = Response(body, content_type="application/json", charset=None)
        response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["ETag"] = f'"{etag}"'
    if not entry.job.state.ended:
        response.headers["Retry-After"] = status.retry_after(request)
    return private(response, "private, no-cache")


def events(view: Any, process_id: str) -> Response:
    """One server-sent event, and the end: EventSource comes back by itself."""
    request = view.request
    entry = find(view, process_id)
    state = entry.job.state
    version = str(status.version_of(entry))
    if state.ended and request.headers.get("Last-Event-ID") == version:
        return private(Response(status=204))
    body, _etag = request.registry.asyncview.documents.get(request, entry)
    name = state.status if state.ended else "progress"
    wait = int(status.retry_after(request)) * 1000
    text = f"retry: {wait}\nid: {version}\nevent: {name}\ndata: ".encode()
    response = Response(
        text + body + b"\n\n", content_type="text/event-stream", charset="utf-8"
    )
    response.headers["X-Accel-Buffering"] = "no"
    return private(response)


def result(view: Any, process_id: str) -> Response:
    """What the job answered, or why it has no answer."""
    request = view.request
    entry = find(view, process_id)
    job, state = entry.job, entry.job.state
    if not state.ended:
        if is_api(request):
            response = json_response(request, status.document(request, entry), 202)
            response.headers["Retry-After"] = status.retry_after(request)
            return response
        url = f"{own_url(request)}/processing?process_id={job.id}"
        return private(HTTPSeeOther(url))
    if request.method != "HEAD":
        flash(request, job)
    if state.outcome is not None:
        return stored_response(request, state.outcome)
    if is_api(request):
        code = 500 if state.status == FAILED else 410
        return json_response(request, status.document(request, entry), code)
    if state.status == FAILED:
        error = status._error(request, job)
        assert error is not None
        return pages.failed(request, job.term("label"), error)
    return pages.cancelled(request, job.term("label"), job.term("error_msg"))


def cancel(view: Any, process_id: str) -> Response:
    """Ask the job to stop; one that is queued has ended when this answers."""
    request = view.request
    refused = _demand_csrf(request)
    if refused is not None:
        return refused
    entry = find(view, process_id)
    engine = engine_of(request)
    if not entry.job.state.ended:
        # In a transaction of its own: it may meet the job's end, and the user
        # must not hear of it.
        def ask(connection: Any) -> None:
            store_of(connection, engine.settings.name).ask_cancel(process_id)

        transact(engine.db, ask)
        engine.settle_cancel(process_id)
    if not is_api(request):
        url = f"{own_url(request)}/processing?process_id={process_id}"
        return private(HTTPSeeOther(url))
    with reading(engine.db) as connection:
        fresh = permitted(view, store_of(connection, engine.settings.name), process_id)
        return json_response(request, status.document(request, fresh), 202)


def delete(view: Any, process_id: str) -> Response:
    """Forget a finished job."""
    request = view.request
    refused = _demand_csrf(request)
    if refused is not None:
        return refused
    find(view, process_id)
    engine = engine_of(request)

    def bury(connection: Any) -> bool:
        store = store_of(connection, engine.settings.name)
        entry = store.find(process_id)
        if entry is None:
            return True
        if not entry.job.state.ended:
            return False
        entry.job.state.delete()
        return True

    if not transact(engine.db, bury):
        return wrong(request, 409, _("Bad request"), _("The job has not ended yet."))
    engine.buried(process_id)
    if is_api(request):
        return private(Response(status=204))
    return private(HTTPSeeOther(own_url(request)))


def _demand_csrf(request: Request) -> Response | None:
    return None if check_csrf(request) else refuse(request)


def refuse(request: Request) -> Response:
    """The answer to a form that another site sent."""
    message = _(
        "This form was sent from another site, or it is too old. Go back, reload the"
        " page and send it again."
    )
    return wrong(request, 403, _("Refused"), message)


# Messages and results


def flash(request: Request, job: Job) -> None:
    """The job's messages, once per web session, and only in its owner's."""
    state = job.state
    said = job.term("success_msg" if state.status == COMPLETED else "error_msg")
    if not (said or state.flashes) or not has_sessions(request):
        return
    if not is_owner(request, job):
        return
    session = request.session
    seen = list(session.get(FLASHED, ()))
    if job.id in seen:
        return
    session[FLASHED] = [*seen, job.id][-FLASHED_KEPT:]
    for queue, text in state.flashes:
        session.flash(text, queue)
    if said:
        session.flash(said, "" if state.status == COMPLETED else "error")


def stored_response(request: Request, outcome: Outcome) -> Response:
    """The response that the job made."""
    body = outcome.body
    if isinstance(body, Content):
        body = body.data
    if isinstance(body, bytes):
        response = Response(
            status=outcome.status, headerlist=list(outcome.headers), app_iter=[body]
        )
        cache = "private, no-store"
    else:
        # The handle outlives the connection, and a pack.
        file = body.open("c")
        wrapper = request.environ.get("wsgi.file_wrapper")
        whole = request.method == "GET" and "HTTP_RANGE" not in request.environ
        response = Response(
            status=outcome.status,
            headerlist=list(outcome.headers),
            app_iter=wrapper(file, BLOCK) if wrapper and whole else FileRange(file),
            conditional_response=True,
        )
        response.accept_ranges = "bytes"
        if response.etag is None:
            response.etag = f"{body._p_oid.hex()}-{body._p_serial.hex()}"
        cache = "private, no-cache"
    if response.status_int not in (204, 304):
        response.content_length = outcome.size
    return private(response, cache)


class FileRange:
    """An open file as an app_iter, of which WebOb can take a part."""

    def __init__(self, file: BinaryIO, start: int = 0, stop: int | None = None) -> None:
        self._file = file
        self._start = start
        self._stop = stop

    def app_iter_range(self, start: int, stop: int | None) -> "FileRange":
        return FileRange(self._file, start, stop)

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(self._start)
        left = None if self._stop is None else self._stop - self._start
        while left is None or left > 0:
            chunk = self._file.read(BLOCK if left is None else min(BLOCK, left))
            if not chunk:
                return
            if left is not None:
                left -= len(chunk)
            yield chunk

    def close(self) -> None:
        self._file.close()


Handler = Callable[[Any, str], Any]

GET = ("GET", "HEAD")

SUBVIEWS: dict[str, tuple[tuple[str, ...], Handler]] = {
    "processing": (GET, processing_answer),
    "completed": (GET, completed),
    "result": (GET, result),
    "events": (GET, events),
    "cancel": (("POST",), cancel),
    "delete": (("POST",), delete),
}
