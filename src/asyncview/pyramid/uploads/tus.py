"""tus 1.0.0: creation, creation-with-upload, termination, checksum, expiration."""

import base64
import binascii
import re
from collections.abc import Iterable
from email.utils import formatdate
from typing import Any

from pyramid.request import Request
from pyramid.response import Response

from asyncview.exceptions import UploadRefused
from asyncview.pyramid.identity import own_url
from asyncview.pyramid.uploads.answers import facts_of_error
from asyncview.pyramid.uploads.incoming import ALGORITHMS
from asyncview.pyramid.uploads.incoming import body_of
from asyncview.pyramid.uploads.incoming import digest_of
from asyncview.pyramid.uploads.incoming import number
from asyncview.pyramid.uploads.incoming import staging_of
from asyncview.pyramid.uploads.taking import begin
from asyncview.pyramid.uploads.taking import first
from asyncview.staged import Staged
from asyncview.upload import UNNAMED

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,termination,checksum,expiration"
BYTES = "application/offset+octet-stream"

REASONS = {460: "460 Checksum Mismatch"}


class TusResponse(Response):
    """Its Location stays a path: that is right behind any proxy."""

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response(self.status, self.headerlist)
        body: Iterable[bytes] = self.app_iter
        return [] if environ["REQUEST_METHOD"] == "HEAD" else body


def answer(status: int, text: str = "", **headers: object) -> Response:
    """A response with what each of tus has; names of headers have ``_`` for ``-``."""
    response = TusResponse(text, content_type="text/plain", charset="utf-8")
    response.status = REASONS.get(status, status)
    response.headers["Tus-Resumable"] = VERSION
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    for name, value in headers.items():
        response.headers[name.replace("_", "-")] = str(value)
    if status == 204:
        del response.headers["Content-Type"]
    return response


def error(problem: Exception) -> Response:
    status, _, message = facts_of_error(problem)
    response = answer(status, message)
    if status == 412:
        response.headers["Tus-Version"] = VERSION
    return response


def check_version(request: Request) -> None:
    if request.headers.get("Tus-Resumable") != VERSION:
        raise UploadRefused(412, "version", f"this is a server of tus {VERSION}")


def options(request: Request) -> Response:
    return answer(
        204,
        Tus_Version=VERSION,
        Tus_Extension=EXTENSIONS,
        Tus_Max_Size=staging_of(request).max_size,
        Tus_Checksum_Algorithm=",".join(ALGORITHMS),
    )


def create(request: Request) -> Response:
    check_version(request)
    headers = request.headers
    if "Upload-Concat" in headers or "Upload-Defer-Length" in headers:
        # Clients use the first without asking for the extensions before.
        raise UploadRefused(400, "unsupported", "this extension is not supported")
    total = number(headers.get("Upload-Length"), "Upload-Length")
    metadata = headers.get("Upload-Metadata", "")
    names = parse_metadata(metadata)
    content, digest = body_of(request), digest_of(request)
    with_data = content.size != 0
    if with_data and request.content_type != BYTES:
        raise UploadRefused(415, "bad_type", f"a body must be {BYTES}")
    name = names.get("filename") or names.get("name") or UNNAMED
    with begin(request, name, total, metadata=metadata) as staged:
        # There are some already if its key came before, and the answer got lost.
        if with_data and not staged.look().received:
            first(
                request,
                staged,
                lambda: staged.append(0, content.size, content.blocks, digest),
            )
        response = answer(201, Location=f"{own_url(request).rstrip('/')}/{staged.uid}")
        if with_data:
            response.headers["Upload-Offset"] = str(staged.look().size)
        return expiring(request, staged, response)


def head(request: Request, staged: Staged) -> Response:
    # What it says must be what the next PATCH may begin with.
    chunks = staged.take_over()
    response = answer(
        200, Upload_Offset=chunks.received, Upload_Length=staged.manifest.total_size
    )
    if staged.manifest.metadata:
        response.headers["Upload-Metadata"] = staged.manifest.metadata
    return expiring(request, staged, response)


def patch(request: Request, staged: Staged) -> Response:
    check_version(request)
    if request.content_type != BYTES:
        raise UploadRefused(415, "bad_type", f"the body must be {BYTES}")
    offset = number(request.headers.get("Upload-Offset"), "Upload-Offset")
    content, digest = body_of(request), digest_of(request)
    chunks = staged.append(offset, content.size, content.blocks, digest)
    return expiring(request, staged, answer(204, Upload_Offset=chunks.size))


def expiring(request: Request, staged: Staged, response: Response) -> Response:
    """With the date on which an unfinished upload expires."""
    if not staged.look().complete:
        when = staging_of(request).expires(staged)
        response.headers["Upload-Expires"] = formatdate(when, usegmt=True)
    return response


def parse_metadata(text: str) -> dict[str, str]:
    """Keys and decoded values; a value may be missing, and so may all."""
    found: dict[str, str] = {}
    if not re.fullmatch(r"[\x20-\x7e]{0,4096}", text):
        raise UploadRefused(400, "bad_request", "Upload-Metadata can't be read")
    # tuspy sends the header even if there is nothing to say.
    for pair in text.split(",") if text.strip() else ():
        key, _, value = pair.strip().partition(" ")
        if not key or key in found:
            raise UploadRefused(400, "bad_request", "keys must be there, and once")
        try:
            found[key] = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, ValueError):
            raise UploadRefused(
                400, "bad_request", "Upload-Metadata can't be read"
            ) from None
    return found
