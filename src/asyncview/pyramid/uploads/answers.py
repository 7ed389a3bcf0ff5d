"""What is answered about an upload: its state as a document, and errors."""

from typing import Any

from pyramid.request import Request
from pyramid.response import Response

from asyncview.exceptions import UploadExpired
from asyncview.exceptions import UploadIncomplete
from asyncview.exceptions import UploadNotFound
from asyncview.exceptions import UploadRefused
from asyncview.pyramid.answers import json_response
from asyncview.staged import Staged

#: What the exceptions are in HTTP; an expired upload is known for a while.
ERRORS = (UploadNotFound, UploadIncomplete, UploadRefused)


def facts_of_error(error: Exception) -> tuple[int, str, str]:
    """Status, word and text of one of `ERRORS`."""
    if isinstance(error, UploadRefused):
        return error.status, error.code, str(error)
    if isinstance(error, UploadExpired):
        return 410, "expired", "the upload has expired"
    if isinstance(error, UploadIncomplete):
        return 409, "incomplete", "the upload is not complete"
    return 404, "not_found", "there is no such upload"


def error_document(error: Exception, status: int | None = None) -> Response:
    """The answer to a client that reads JSON; ``status`` if not the error's own."""
    own, code, message = facts_of_error(error)
    # Its own number is for tus alone.
    own = 400 if own == 460 else own
    doc: dict[str, Any] = {"code": code, "message": message}
    if status not in (None, own):
        doc["status"] = own
    return json_response({"error": doc}, status or own)


def state_document(request: Request, staged: Staged) -> Response:
    """What there is of an upload."""
    chunks, manifest = staged.look(), staged.manifest
    return json_response(
        {
            "uploadUid": manifest.uid,
            "fileName": chunks.file_name,
            "totalSize": manifest.total_size,
            "chunkCount": manifest.chunk_count,
            "chunks": sorted(chunks.parts),
            "received": chunks.received,
            "complete": chunks.complete,
        }
    )


def head_only(response: Response) -> Response:
    """For HEAD: without a Content-Length waitress sends a body after it."""
    length = response.content_length
    response.app_iter = []
    response.content_length = length or 0
    return response
