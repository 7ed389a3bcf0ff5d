"""Taking in an upload, whatever its client speaks: begin, one chunk, one whole file."""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from pyramid.request import Request

from asyncview.digest import Digest
from asyncview.exceptions import UploadRefused
from asyncview.pyramid.access import engine_of
from asyncview.pyramid.uploads.incoming import Content
from asyncview.pyramid.uploads.incoming import content_of
from asyncview.pyramid.uploads.incoming import digest_of
from asyncview.pyramid.uploads.incoming import number
from asyncview.pyramid.uploads.incoming import staging_of
from asyncview.pyramid.uploads.incoming import uploader_of
from asyncview.staged import Staged
from asyncview.upload import Chunks
from asyncview.upload import safe_name


def begin(request: Request, file_name: str, total_size: int, **known: Any) -> Staged:
    """A new upload of this caller's, or the one with the same ``Idempotency-Key``."""
    known.setdefault("key", request.headers.get("Idempotency-Key") or None)
    owner = uploader_of(request)
    staged = staging_of(request).create(owner, file_name, total_size, **known)
    # From now on there is something to look after.
    engine_of(request).start()
    return staged


def first(request: Request, staged: Staged, send: Callable[[], Chunks]) -> Chunks:
    """The first bytes of a new upload; if they are refused nobody has its uid.

    One with a key stays: other requests may have joined it.
    """
    try:
        return send()
    except BaseException:
        if staged.manifest.key is None and not staged.look().received:
            staging_of(request).remove(staged)
        raise


def take_chunk(
    request: Request,
    params: Mapping[str, Any],
    content: Content,
    digest: Digest | None = None,
) -> str:
    """One chunk of the GWS protocol; gives the upload's uid.

    ``params`` are ``uploadUid``, ``fileName``, ``totalSize``, ``chunkNumber`` and
    ``chunkCount``.  Raises UploadNotFound and UploadRefused.
    """
    chunk = number(params.get("chunkNumber"), "chunkNumber")
    if content.size is None:
        raise UploadRefused(411, "length_required", "say how long the chunk is")
    size, blocks = content.size, content.blocks
    uid = params.get("uploadUid")
    if uid:
        with staging_of(request).find(uploader_of(request), uid) as staged:
            check_same(staged, params)
            staged.put(chunk, size, blocks, digest)
        return staged.uid
    name = params.get("fileName")
    if not isinstance(name, str):
        raise UploadRefused(400, "bad_request", "there is no fileName")
    total = number(params.get("totalSize"), "totalSize")
    count = number(params.get("chunkCount"), "chunkCount")
    if not count:
        if total:
            raise UploadRefused(400, "bad_count", "there must be a chunk")
        # Of an empty file there may be no chunk, or an empty one.
        with begin(request, name, total) as staged:
            return staged.uid
    with begin(request, name, total, chunk_count=count) as staged:
        check_same(staged, params)
        first(request, staged, lambda: staged.put(chunk, size, blocks, digest))
    return staged.uid


def check_same(staged: Staged, params: Mapping[str, Any]) -> None:
    """Raise UploadRefused for what is not as the first chunk said."""
    manifest = staged.manifest
    known = {
        "totalSize": manifest.total_size,
        "chunkCount": manifest.chunk_count,
    }
    for name, value in known.items():
        said = params.get(name)
        if said not in (None, "") and number(said, name) != value:
            raise UploadRefused(400, "changed", f"{name} was another one at first")
    said = params.get("fileName")
    if said not in (None, "") and safe_name(str(said)) != manifest.file_name:
        raise UploadRefused(400, "changed", "fileName was another one at first")


def take_whole(request: Request, file: Any, alone: bool = True) -> Staged:
    """A file that came in one piece in a form.

    ``alone``: the request is about this file, and so are its key and its checksum.
    """
    content = content_of(file, staging_of(request).max_size)
    assert content.size is not None
    size = content.size
    known: dict[str, Any] = {} if alone else {"limited": False, "key": None}
    known["chunk_count"] = 1 if size else None
    with begin(request, file.filename, size, **known) as staged:
        # There it is if its key came before, and the answer got lost.
        if not staged.look().complete:
            digest = digest_of(request) if alone else None
            first(request, staged, lambda: staged.put(0, size, content.blocks, digest))
    return staged


def handle_chunk(request: Request, params: Mapping[str, Any]) -> dict[str, str]:
    """One chunk for an endpoint of somebody's own; see `take_chunk`."""
    limit = engine_of(request).settings.upload_max_chunk
    content = content_of(params.get("content"), limit)
    return {"uploadUid": take_chunk(request, params, content)}
