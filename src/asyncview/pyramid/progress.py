"""The progress view: documents, and the page, of sessions that are no view's job."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from pyramid.httpexceptions import HTTPSeeOther
from pyramid.request import Request
from pyramid.response import Response

from asyncview.exceptions import AsyncViewError
from asyncview.exceptions import NoSuchProcessError
from asyncview.i18n import _
from asyncview.job import Job
from asyncview.pyramid import answers
from asyncview.pyramid import pages
from asyncview.pyramid import status
from asyncview.pyramid.access import check_readable
from asyncview.pyramid.access import engine_of
from asyncview.pyramid.access import is_asked
from asyncview.pyramid.answers import json_response
from asyncview.pyramid.answers import private
from asyncview.pyramid.flash import flash
from asyncview.pyramid.identity import PATH_SAFE
from asyncview.pyramid.identity import is_admin
from asyncview.pyramid.identity import is_owner
from asyncview.shard import Entry
from asyncview.store import reading
from asyncview.store import store_of

#: Name of the route of the one progress view.
ROUTE = "asyncview.progress"

PARAMETER = "progress_id"


def view(request: Request) -> Response:
    """The status document of ``progress_id``; with ``page`` the page that polls it."""
    check_readable(request)
    if request.method not in ("GET", "HEAD"):
        response = json_response({"error": request.method}, 405)
        response.headers["Allow"] = "GET, HEAD"
        return response
    id = request.GET.get(PARAMETER)
    if id is None:
        lacking = _("The address lacks a valid ${name}.", mapping={"name": PARAMETER})
        text = request.localizer.translate(lacking)
        return json_response({"error": text}, 400)
    paged = is_asked(request, "page")
    with found(request, id) as entry:
        if paged and not is_asked(request, "output_json"):
            if entry is None:
                raise NoSuchProcessError(id)
            return page(request, entry)
        if entry is None:
            # Perhaps it is about to be made, under an id that was given out before.
            return json_response({"status": "unknown"})
        doc = document(request, entry)
        if paged and doc["next_url"]:
            # By way of the page, which shows the messages.
            doc["next_url"] = doc["links"]["processing"]
    body = answers.dumps(doc)
    ended = doc["finished"] is not None
    etag = answers.etag_of(body)
    return private(answers.document_response(request, body, etag, ended))


def show(request: Request, id: Any) -> Response:
    """The page of a session, in an answer of the application's own."""
    with found(request, id) as entry:
        if entry is None:
            raise NoSuchProcessError(id)
        return page(request, entry)


def page(request: Request, entry: Entry) -> Response:
    """While it runs; at its end the messages, and on to where it says."""
    doc = document(request, entry)
    if doc["next_url"]:
        flash(request, entry.job)
        return private(HTTPSeeOther(doc["next_url"]))
    if not doc["label"]:
        doc["label"] = request.localizer.translate(status.MESSAGES[doc["status"]])
    url = f"{address(request)}?progress_id={entry.job.id}&page=1&output_json=1"
    return pages.processing(request, doc, poll_url=url, can_cancel=False)


@contextmanager
def found(request: Request, id: Any) -> Iterator[Entry | None]:
    """As it is now, if it is this caller's; sessions are made while requests run."""
    engine = engine_of(request)
    with reading(engine.db) as connection:
        store = store_of(connection, engine.settings.name)
        entry = None if store is None or not isinstance(id, str) else store.find(id)
        if entry is not None and not (
            is_owner(request, entry.job)
            or is_admin(
                request,
                getattr(request, "context", None),
                engine.settings.admin_permission,
            )
        ):
            entry = None
        yield entry


def document(request: Request, entry: Entry) -> dict[str, Any]:
    """The status document, also of a job, whose addresses are its view's."""
    job = entry.job
    base = view_address(request, job) if job.view else address(request)
    return status.document(request, entry, base)


def address(request: Request) -> str:
    """The path of the progress view."""
    try:
        path: str = request.route_path(ROUTE)
    except KeyError:
        raise AsyncViewError(
            "the page of a session polls the progress view, and there is none:"
            " config.add_progress_view(path)"
        ) from None
    return path


def view_address(request: Request, job: Job) -> str:
    """The address of a job's view, by its identity."""
    root = request.environ.get("HTTP_X_VHM_ROOT", "").rstrip("/")
    return quote(request.script_name + job.view.removeprefix(root), PATH_SAFE)
