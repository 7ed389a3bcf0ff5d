"""FilePond's dialect: much like tus, but chunks are resent blindly, answers are text.

A chunk counts whole or not at all, because a client that asks where to go on takes each
chunk for done that has begun.
"""

from typing import Any

from pyramid.request import Request
from pyramid.response import Response

from asyncview.disk import in_memory
from asyncview.exceptions import UploadNotFound
from asyncview.exceptions import UploadRefused
from asyncview.pyramid.uploads.incoming import body_of
from asyncview.pyramid.uploads.incoming import form_of
from asyncview.pyramid.uploads.incoming import number
from asyncview.pyramid.uploads.taking import begin
from asyncview.pyramid.uploads.taking import take_whole
from asyncview.pyramid.uploads.tus import BYTES
from asyncview.pyramid.uploads.tus import answer
from asyncview.staged import Staged
from asyncview.upload import UNNAMED
from asyncview.upload import safe_name

#: More than any id of an upload has, in bytes.
LONG = 100


def is_create(request: Request) -> bool:
    return (
        "Upload-Length" in request.headers
        and request.content_type == "multipart/form-data"
    )


def is_patch(request: Request) -> bool:
    """Whether a PATCH without a version of tus is FilePond's: it repeats the length."""
    return "Tus-Resumable" not in request.headers and bool(
        {"Upload-Name", "Upload-Length"} & set(request.headers)
        or "patch" in request.GET
    )


def create(request: Request) -> Response:
    total = number(request.headers["Upload-Length"], "Upload-Length")
    # The name comes with the first chunk.
    with begin(request, UNNAMED, total) as staged:
        return answer(201, staged.uid)


def small(request: Request, file: Any) -> Response:
    """A file that is not worth a second request."""
    return answer(201, take_whole(request, file).uid)


def is_small(request: Request) -> bool:
    """Whether a form is FilePond's: the file's field has its metadata as well."""
    fields = form_of(request)
    return any(
        len(values) > 1 and isinstance(values[0], str) and hasattr(values[1], "file")
        for values in (fields.getall(name) for name in fields)
    )


def patch(request: Request, staged: Staged) -> Response:
    if request.content_type != BYTES:
        raise UploadRefused(415, "bad_type", f"the body must be {BYTES}")
    offset = number(request.headers.get("Upload-Offset"), "Upload-Offset")
    content = body_of(request)
    name = request.headers.get("Upload-Name")
    if name:
        # Sent as UTF-8, whatever WSGI makes of it.
        text = name.encode("latin-1").decode("utf-8", "replace")
        staged.rename(safe_name(text))
    chunks = staged.look()
    if content.size is not None and offset + content.size <= chunks.size:
        # The answer to it was lost, or it is the empty one at the end.
        return answer(204, Upload_Offset=chunks.size)
    chunks = staged.append(offset, content.size, content.blocks, whole=True)
    return answer(204, Upload_Offset=chunks.size)


def reverted(request: Request) -> str:
    """The upload that a DELETE names in its body."""
    if request.content_length is None or request.content_length > LONG:
        raise UploadNotFound()
    data = b"".join(map(in_memory, body_of(request).blocks))
    return data.decode("ascii", "replace").strip()
