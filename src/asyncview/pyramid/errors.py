"""What is answered where a caller, or nobody, made an error: a document or a page."""

from typing import Any

from pyramid.interfaces import IException
from pyramid.request import Request
from pyramid.response import Response
from zope.interface import classImplements

from asyncview.exceptions import NoSuchProcessError
from asyncview.exceptions import QueueFull
from asyncview.exceptions import UploadIncomplete
from asyncview.exceptions import UploadNotFound
from asyncview.exceptions import UploadRefused
from asyncview.i18n import _
from asyncview.pyramid import answers
from asyncview.pyramid import pages
from asyncview.pyramid.access import is_api
from asyncview.pyramid.answers import json_response
from asyncview.pyramid.identity import own_url
from asyncview.pyramid.uploads.answers import error_document


class INoSuchProcess(IException):
    """A `NoSuchProcessError`.

    Our exception views are registered for these and not for the classes: a view that
    the application has for the class then comes first, wherever it is included.
    """


class IQueueFull(IException):
    """A `QueueFull`."""


class IUploadNotFound(IException):
    """An `UploadNotFound`."""


class IUploadIncomplete(IException):
    """An `UploadIncomplete`."""


class IUploadRefused(IException):
    """An `UploadRefused`."""


classImplements(UploadRefused, IUploadRefused)  # type: ignore[misc]
classImplements(UploadNotFound, IUploadNotFound)  # type: ignore[misc]
classImplements(UploadIncomplete, IUploadIncomplete)  # type: ignore[misc]
classImplements(NoSuchProcessError, INoSuchProcess)  # type: ignore[misc]
classImplements(QueueFull, IQueueFull)  # type: ignore[misc]


def wants_document(request: Request) -> bool:
    """Whether an error is to be a document: to API clients, scripts and streams."""
    return is_api(request) or tuple(getattr(request, "subpath", ())) in (
        ("completed",),
        ("events",),
    )


def wrong(request: Request, code: int, title: Any, message: Any) -> Response:
    """An error that the caller made."""
    if wants_document(request):
        text = request.localizer.translate(message)
        return json_response({"error": text}, code)
    return pages.error(request, code, title, message, own_url(request))


def bad_process_id(request: Request) -> Response:
    message = _("The address lacks a valid ${name}.", mapping={"name": "process_id"})
    return wrong(request, 400, _("Bad request"), message)


def method_not_allowed(request: Request, allow: str) -> Response:
    response = wrong(
        request,
        405,
        _("Method not allowed"),
        _("This address does not answer that kind of request."),
    )
    response.headers["Allow"] = allow
    return response


def refused(request: Request) -> Response:
    """The answer to a form that another site sent."""
    message = _(
        "This form was sent from another site, or it is too old. Go back, reload the"
        " page and send it again."
    )
    return wrong(request, 403, _("Refused"), message)


def no_such_process(error: Any, request: Request) -> Response:
    """Exception view of NoSuchProcessError: one answer for all that is not there."""
    if wants_document(request):
        return json_response({"completed": "ERROR", "progress": "ERROR"}, 404)
    message = _("There is no such process, or it is not yours.")
    return pages.error(request, 404, _("Not found"), message, own_url(request))


def unavailable(request: Request) -> Response:
    """The answer where the database can't be reached or written."""
    message = _(
        "The database does not answer at the moment. Please try again in a moment."
    )
    response = wrong(request, 503, _("Not available"), message)
    response.headers["Retry-After"] = answers.retry_after(request)
    return response


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


def no_such_upload(error: Any, request: Request) -> Response:
    """Exception view of UploadNotFound."""
    message = _("There is no such upload, or it is not yours.")
    return wrong(request, 404, _("Not found"), message)


def half_upload(error: Any, request: Request) -> Response:
    """Exception view of UploadIncomplete."""
    message = _("The upload is not complete yet.")
    return wrong(request, 409, _("Not yet"), message)


def refused_upload(error: UploadRefused, request: Request) -> Response:
    """Exception view of UploadRefused: whoever sends chunks is a program."""
    return error_document(error)
