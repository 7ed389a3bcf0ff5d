"""The response that a job made, given to whoever fetches it."""

from collections.abc import Iterator
from typing import BinaryIO

from pyramid.request import Request
from pyramid.response import Response

from asyncview.body import BLOCK
from asyncview.outcome import Content
from asyncview.outcome import Outcome
from asyncview.pyramid.answers import private


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
        _ignore_bad_range(request)
        # The handle outlives the connection, and a pack.
        file = body.open("c")
        wrapper = request.environ.get("wsgi.file_wrapper")
        whole = request.method == "GET" and "HTTP_RANGE" not in request.environ
        response = Response(
            status=outcome.status,
            headerlist=list(outcome.headers),
            app_iter=wrapper(file, BLOCK) if wrapper and whole else FileRange(file),
        )
        cache = "private, no-cache"
        if response.status_int == 200:
            # Ranges and validators are for what was found, not for its error page.
            response.conditional_response = True
            response.accept_ranges = "bytes"
            if response.etag is None:
                response.etag = f"{body._p_oid.hex()}-{body._p_serial.hex()}"
    if response.status_int not in (204, 304):
        response.content_length = outcome.size
    return private(response, cache)


def _ignore_bad_range(request: Request) -> None:
    """RFC 9110, 14.2, says so; WebOb stumbles over some when it answers."""
    try:
        request.range  # noqa: B018 - read for its error
    except ValueError:
        del request.environ["HTTP_RANGE"]


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
