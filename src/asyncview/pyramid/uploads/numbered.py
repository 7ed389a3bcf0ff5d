"""resumable.js, Flow.js and Dropzone: one table of what they call the same things.

Their clients name an upload themselves, and take few status codes for an end: what they
would try again for ever is answered with one that they do not.
"""

from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

from pyramid.request import Request
from pyramid.response import Response

from asyncview.exceptions import UploadRefused
from asyncview.pyramid.access import engine_of
from asyncview.pyramid.answers import json_response
from asyncview.pyramid.answers import private
from asyncview.pyramid.uploads.answers import ERRORS
from asyncview.pyramid.uploads.answers import error_document
from asyncview.pyramid.uploads.answers import facts_of_error
from asyncview.pyramid.uploads.incoming import body_of
from asyncview.pyramid.uploads.incoming import content_of
from asyncview.pyramid.uploads.incoming import digest_of
from asyncview.pyramid.uploads.incoming import file_in
from asyncview.pyramid.uploads.incoming import number
from asyncview.pyramid.uploads.incoming import staging_of
from asyncview.pyramid.uploads.incoming import uploader_of
from asyncview.pyramid.uploads.taking import begin
from asyncview.pyramid.uploads.taking import first
from asyncview.staged import Staged
from asyncview.upload import UNNAMED


class Dialect(NamedTuple):
    """The names that one client has for a chunk's facts.

    ``first`` is the number of the first chunk.  ``guessable``: the identifier is made
    of name and size, so it is no secret.  ``final`` are the status codes of errors that
    end an upload, None where all do; ``instead`` is what is answered for others.
    """

    id: str
    chunk: str
    first: int
    chunks: str
    total: str
    chunk_size: str
    name: str | None
    guessable: bool
    final: frozenset[int] | None = None
    instead: int = 400


DIALECTS = (
    Dialect(
        "resumableIdentifier",
        "resumableChunkNumber",
        1,
        "resumableTotalChunks",
        "resumableTotalSize",
        "resumableChunkSize",
        "resumableFilename",
        guessable=True,
        final=frozenset({400, 404, 415, 500, 501}),
    ),
    Dialect(
        "flowIdentifier",
        "flowChunkNumber",
        1,
        "flowTotalChunks",
        "flowTotalSize",
        "flowChunkSize",
        "flowFilename",
        guessable=True,
        final=frozenset({404, 413, 415, 500, 501}),
        instead=415,
    ),
    Dialect(
        "dzuuid",
        "dzchunkindex",
        0,
        "dztotalchunkcount",
        "dztotalfilesize",
        "dzchunksize",
        None,
        guessable=False,
    ),
)

#: Words of errors after which a client does well to try again.
PASSING = frozenset({"overtaken", "cut_short"})


def dialect_of(fields: Mapping[str, Any]) -> Dialect | None:
    for dialect in DIALECTS:
        if dialect.id in fields:
            return dialect
    return None


def answer(request: Request, dialect: Dialect, fields: Mapping[str, Any]) -> Response:
    """Take a chunk; for GET say whether it is there."""
    try:
        if request.method == "POST":
            return _post(request, dialect, fields)
        return _test(request, dialect, fields)
    except ERRORS as error:
        return _error(dialect, error)


def _error(dialect: Dialect, error: Exception) -> Response:
    status, code, _ = facts_of_error(error)
    if code in PASSING:
        response = error_document(error, 503)
        response.headers["Retry-After"] = "1"
        return response
    if dialect.final is None or status in dialect.final:
        return error_document(error)
    # Disk full is the server's fault, the rest the client's.
    return error_document(error, 500 if status == 507 else dialect.instead)


def _key(request: Request, dialect: Dialect, fields: Mapping[str, Any]) -> str:
    """What the client calls the upload: with other sizes it is another one."""
    if dialect.guessable and not any(uploader_of(request)):
        raise UploadRefused(
            400,
            "anonymous",
            "the client's identifier is no secret: this needs a user or a web session",
        )
    names = (dialect.id, dialect.chunks, dialect.total, dialect.chunk_size)
    return "\0".join(str(fields.get(name, "")) for name in names)


def _index(dialect: Dialect, fields: Mapping[str, Any]) -> int:
    return number(fields.get(dialect.chunk), dialect.chunk) - dialect.first


def _test(request: Request, dialect: Dialect, fields: Mapping[str, Any]) -> Response:
    key, index = _key(request, dialect, fields), _index(dialect, fields)
    staged = staging_of(request).find_key(uploader_of(request), key)
    if staged is not None:
        with staged:
            if index in staged.look().parts:
                return _there(staged)
    # Not 404, which is the end for some.
    return private(Response(status=204))


def _post(request: Request, dialect: Dialect, fields: Mapping[str, Any]) -> Response:
    file = file_in(fields)
    if file is None and fields is request.GET:
        content = body_of(request)
    else:
        limit = engine_of(request).settings.upload_max_chunk
        content = content_of(file, limit)
    if content.size is None:
        raise UploadRefused(411, "length_required", "say how long the chunk is")
    size, blocks = content.size, content.blocks
    named = fields.get(dialect.name) if dialect.name else None
    name = named or getattr(file, "filename", None) or UNNAMED
    index = _index(dialect, fields)
    total = number(fields.get(dialect.total), dialect.total)
    count = number(fields.get(dialect.chunks), dialect.chunks)
    with begin(
        request,
        str(name),
        total,
        chunk_count=count,
        chunk_size=number(fields.get(dialect.chunk_size), dialect.chunk_size),
        key=_key(request, dialect, fields),
    ) as staged:
        if not staged.look().complete:
            digest = digest_of(request)
            first(request, staged, lambda: staged.put(index, size, blocks, digest))
        return _there(staged)


def _there(staged: Staged) -> Response:
    return json_response({"uploadUid": staged.uid, "complete": staged.look().complete})
