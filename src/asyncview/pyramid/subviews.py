"""The subviews: processing, completed, result, events, cancel, delete."""

import logging
from collections.abc import Callable
from typing import Any

from pyramid.httpexceptions import HTTPNotFound
from pyramid.httpexceptions import HTTPSeeOther
from pyramid.httpexceptions import HTTPTemporaryRedirect
from pyramid.request import Request
from pyramid.response import Response

from asyncview.engine import Engine
from asyncview.i18n import _
from asyncview.job import FAILED
from asyncview.pyramid import answers
from asyncview.pyramid import errors
from asyncview.pyramid import pages
from asyncview.pyramid import status
from asyncview.pyramid.access import BadProcessId
from asyncview.pyramid.access import change
from asyncview.pyramid.access import check_readable
from asyncview.pyramid.access import engine_of
from asyncview.pyramid.access import find
from asyncview.pyramid.access import found_now
from asyncview.pyramid.access import is_api
from asyncview.pyramid.access import is_asked
from asyncview.pyramid.access import is_tried_again
from asyncview.pyramid.access import process_id_of
from asyncview.pyramid.answers import json_response
from asyncview.pyramid.answers import private
from asyncview.pyramid.facts import check_csrf
from asyncview.pyramid.flash import flash
from asyncview.pyramid.identity import own_url
from asyncview.pyramid.identity import subview_url
from asyncview.pyramid.stored import stored_response
from asyncview.store import Store
from asyncview.trouble import TROUBLE

log = logging.getLogger("asyncview.view")


def subview(view: Any) -> Any:
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
            return HTTPTemporaryRedirect(own_url(request))
        return errors.method_not_allowed(request, ", ".join(methods))
    if methods is POST:
        check_readable(request, form=True)
    try:
        process_id = process_id_of(request)
    except BadProcessId:
        return errors.bad_process_id(request)
    if methods is POST and not check_csrf(request):
        return errors.refused(request)
    try:
        return handler(view, process_id)
    except TROUBLE as error:
        if is_tried_again(request, error):
            raise
        log.exception("%s could not be answered", name)
        return errors.unavailable(request)


# While the job is there


def processing(view: Any, process_id: str) -> Any:
    """The page; a redirect when the job has ended, or ends within the grace."""
    if not find(view, process_id).job.state.ended:
        _give_grace(engine_of(view.request), process_id)
    with found_now(view, process_id) as entry:
        if entry.job.state.ended:
            flash(view.request, entry.job)
            url = status.next_url(entry.job, own_url(view.request))
            return private(HTTPSeeOther(url))
    return pages.chosen(view, "processing_page", process_id)


def _give_grace(engine: Engine, process_id: str) -> None:
    """Wait a moment for a quick job; one request of the process at a time."""
    if not engine.settings.grace or not engine.live.grace.acquire(blocking=False):
        return
    try:
        with engine.live.watching(process_id) as ended:
            # In this order: a job is live before it waits no more.
            if engine.executor.waiting(process_id) or process_id in engine.live:
                ended.wait(engine.settings.grace)
    finally:
        engine.live.grace.release()


def completed(view: Any, process_id: str) -> Response:
    """How far the job is, as text or as the status document."""
    request = view.request
    entry = find(view, process_id)
    if not is_asked(request, "output_json"):
        return Response(
            str(status.shown_progress(entry)),
            content_type="text/plain",
            charset="utf-8",
        )
    body, etag = request.registry.asyncview.documents.get(request, entry)
    return answers.document_response(request, body, etag, entry.job.state.ended)


def events(view: Any, process_id: str) -> Response:
    """One server-sent event, and the end: EventSource comes back by itself."""
    request = view.request
    entry = find(view, process_id)
    state = entry.job.state
    version = str(status.version_of(entry))
    if state.ended and request.headers.get("Last-Event-ID") == version:
        return Response(status=204)
    body, _etag = request.registry.asyncview.documents.get(request, entry)
    name = state.status if state.ended else "progress"
    wait = int(answers.retry_after(request)) * 1000
    text = f"retry: {wait}\nid: {version}\nevent: {name}\ndata: ".encode()
    response = Response(
        text + body + b"\n\n", content_type="text/event-stream", charset="utf-8"
    )
    # Or nginx keeps it until there is more.
    response.headers["X-Accel-Buffering"] = "no"
    return response


def cancel(view: Any, process_id: str) -> Response:
    """Ask the job to stop; one that is queued has ended when this answers."""
    request = view.request
    engine = engine_of(request)
    if not find(view, process_id).job.state.ended:
        change(engine, lambda store: store.ask_cancel(process_id))
        engine.settle_cancel(process_id)
    if not is_api(request):
        return _to_processing(request, process_id)
    with found_now(view, process_id) as entry:
        return json_response(status.document(request, entry), 202)


def _to_processing(request: Request, process_id: str) -> Response:
    return HTTPSeeOther(subview_url(own_url(request), "processing", process_id))


# When it has ended


def result(view: Any, process_id: str) -> Response:
    """What the job answered, or why it has no answer."""
    request = view.request
    entry = find(view, process_id)
    job, state = entry.job, entry.job.state
    if not state.ended:
        if not is_api(request):
            return _to_processing(request, process_id)
        response = json_response(status.document(request, entry), 202)
        response.headers["Retry-After"] = answers.retry_after(request)
        return response
    flash(request, job)
    if state.outcome is not None:
        return stored_response(request, state.outcome)
    doc = status.document(request, entry)
    if is_api(request):
        return json_response(doc, 500 if state.status == FAILED else 410)
    if state.status == FAILED:
        return pages.failed(
            request, doc["label"], doc["error"], kept=entry.job.state.checkpointed
        )
    return pages.cancelled(request, doc["label"], job.term("error_msg"))


def delete(view: Any, process_id: str) -> Response:
    """Forget a finished job."""
    request = view.request
    find(view, process_id)
    engine = engine_of(request)

    def bury(store: Store) -> bool:
        entry = store.find(process_id)
        if entry is None:
            return True
        if not entry.job.state.ended:
            return False
        entry.job.state.delete()
        return True

    if not change(engine, bury):
        message = _("The job has not ended yet.")
        return errors.wrong(request, 409, _("Not yet"), message)
    engine.buried(process_id)
    if is_api(request):
        return Response(status=204)
    return HTTPSeeOther(own_url(request))


GET = ("GET", "HEAD")
POST = ("POST",)

SUBVIEWS: dict[str, tuple[tuple[str, ...], Callable[[Any, str], Any]]] = {
    # By the view, as an author may have one of their own.
    "processing": (GET, lambda view, process_id: view.processing(process_id)),
    "completed": (GET, completed),
    "result": (GET, result),
    "events": (GET, events),
    "cancel": (POST, cancel),
    "delete": (POST, delete),
}
