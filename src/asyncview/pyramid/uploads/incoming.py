"""What a request for an upload carries: whose it is, numbers, and bytes in blocks."""

import base64
import binascii
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from collections.abc import Mapping
from io import BufferedRandom
from io import BufferedReader
from io import FileIO
from typing import Any
from typing import NamedTuple

from pyramid.request import Request

from asyncview.digest import Digest
from asyncview.disk import BLOCK
from asyncview.disk import STRETCH
from asyncview.disk import Block
from asyncview.disk import Stretch
from asyncview.disk import disk_space
from asyncview.disk import length
from asyncview.exceptions import AsyncViewError
from asyncview.exceptions import UploadRefused
from asyncview.pyramid.access import engine_of
from asyncview.pyramid.identity import owner_of
from asyncview.pyramid.identity import visitor_of
from asyncview.staging import Staging
from asyncview.upload import Owner

#: In the order in which they are announced.
ALGORITHMS = ("sha1", "sha256", "sha512")

#: What a form has beside the chunk: names, numbers, boundaries.
OVERHEAD = 64 * 1024


class Counted:
    """A body of unknown length: it is not read further than it may be long."""

    def __init__(self, file: Any, limit: int) -> None:
        self._file = file
        self._read = 0
        self._limit = limit

    def read(self, size: int) -> bytes:
        block: bytes = self._file.read(size)
        self._read += len(block)
        check_length(self._read, self._limit)
        return block


class Content(NamedTuple):
    """Bytes on their way; ``size`` is None where the client did not say."""

    size: int | None
    blocks: Iterator[Block]


def staging_of(request: Request) -> Staging:
    staging = engine_of(request).staging
    if staging is None:
        raise AsyncViewError(
            "uploads have no place: set asyncview.upload_dir, or give the database a"
            " blobstorage_dir"
        )
    return staging


def uploader_of(request: Request) -> Owner:
    """Whose an upload of this request is: the user's, else the web session's."""
    user = owner_of(request)
    return user, None if user is not None else visitor_of(request, create=True)


def number(text: Any, name: str) -> int:
    """A count or a size that a client said; UploadRefused for anything else."""
    if isinstance(text, int) and not isinstance(text, bool):
        text = str(text)
    if not isinstance(text, str) or not re.fullmatch(r"[0-9]{1,19}", text):
        raise UploadRefused(400, "bad_request", f"{name} is no whole number")
    return int(text)


def body_of(request: Request) -> Content:
    """The body as it stands, whose length is limited."""
    limit = engine_of(request).settings.upload_max_chunk
    size = request.content_length
    if size is None and not request.is_body_readable:
        size = 0
    check_length(size, limit)
    return Content(size, _read(request, size, limit))


def check_length(size: int | None, limit: int) -> None:
    if size is not None and size > limit:
        raise UploadRefused(
            413, "chunk_too_large", f"a request may have {limit} bytes at most"
        )


def form_of(request: Request, limit: int | None = None) -> Any:
    """The fields of a form; the files in it are on disk, or small.

    ``limit`` is for the length, ``asyncview.upload_max_chunk`` if None.
    """
    if limit is None:
        limit = engine_of(request).settings.upload_max_chunk
    check_length(request.content_length, limit + OVERHEAD)
    if request.content_length is None and request.is_body_readable:
        request.body_file_raw = Counted(request.body_file_raw, limit + OVERHEAD)
    try:
        with disk_space():
            return request.POST
    except UploadRefused:
        raise
    except OSError as error:
        raise UploadRefused(400, "cut_short", "the body ends early") from error
    except (ValueError, DeprecationWarning):
        # The latter is how WebOb refuses a form that is not in UTF-8.
        raise UploadRefused(400, "bad_request", "the form can't be read") from None


def file_in(fields: Mapping[str, Any]) -> Any:
    """The first file of a form; None where there is none."""
    for value in fields.values():
        if hasattr(value, "file") and hasattr(value, "filename"):
            return value
    return None


def content_of(value: Any, limit: int) -> Content:
    """A chunk as a form field, a file or bytes."""
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        content = Content(len(data), iter([data] if data else []))
    else:
        file = getattr(value, "file", value)
        if not hasattr(file, "read"):
            raise UploadRefused(400, "bad_request", "there is no content")
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        content = Content(size, _blocks(file, size))
    check_length(content.size, limit)
    return content


def digest_of(request: Request) -> Digest | None:
    """What ``Upload-Checksum`` says: an algorithm and a hash in base64."""
    said = request.headers.get("Upload-Checksum")
    if said is None:
        return None
    algorithm, _, value = said.strip().partition(" ")
    try:
        digest = Digest(algorithm.lower(), base64.b64decode(value, validate=True))
    except (ValueError, binascii.Error):
        raise UploadRefused(400, "bad_request", "this is no checksum") from None
    if digest.algorithm not in ALGORITHMS:
        raise UploadRefused(400, "bad_request", f"{algorithm} is no known checksum")
    if len(digest.value) != hashlib.new(digest.algorithm).digest_size:
        raise UploadRefused(400, "bad_request", "this is no checksum")
    return digest


def _read(request: Request, size: int | None, limit: int) -> Iterator[Block]:
    if not request.is_body_readable:
        return
    file = request.body_file_raw
    if request.is_body_seekable:
        # A CSRF check may have looked for a form.
        file.seek(0)
    left = limit + 1 if size is None else size
    try:
        for block in _blocks(file, left):
            left -= length(block)
            yield block
    except OSError as error:
        raise UploadRefused(400, "cut_short", "the body ends early") from error
    if size is None:
        check_length(limit + 1 - left, limit)
    elif left:
        raise UploadRefused(400, "cut_short", "the body ends early")


def _blocks(file: Any, left: int) -> Iterator[Block]:
    """What there is from where a file stands, ``left`` bytes at most."""
    if _on_disk(file):
        # Servers have a large body there: what is copied needs not be read.
        file.flush()
        at = file.tell()
        end = min(at + left, os.fstat(file.fileno()).st_size)
        for start in range(at, end, STRETCH):
            yield Stretch(file.fileno(), start, min(STRETCH, end - start))
        return
    while left:
        block = file.read(min(BLOCK, left))
        if not block:
            return
        left -= len(block)
        yield block


def _on_disk(file: Any) -> bool:
    """Whether the descriptor of a file has the same bytes as the file itself."""
    return (
        isinstance(file, BufferedRandom | BufferedReader)
        and isinstance(file.raw, FileIO)
        and stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    )
