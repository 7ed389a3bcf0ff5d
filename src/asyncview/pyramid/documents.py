"""The status documents that were sent, kept for the next who asks."""

from collections import OrderedDict
from contextlib import suppress
from typing import Any

from pyramid.request import Request

from asyncview.job import QUEUED
from asyncview.pyramid.answers import dumps
from asyncview.pyramid.answers import etag_of
from asyncview.pyramid.status import document
from asyncview.pyramid.status import is_stopping
from asyncview.shard import Entry


class Documents:
    """Documents as they were sent, by the serials of the records they are of."""

    def __init__(self, size: int = 512) -> None:
        self._size = size
        self._kept: OrderedDict[Any, tuple[Any, bytes, str]] = OrderedDict()

    def get(self, request: Request, entry: Entry) -> tuple[bytes, str]:
        """The document's bytes and ETag."""
        job, state = entry.job, entry.job.state
        if entry.status == QUEUED:
            # Its place in the queue changes with other records than its own.
            body = dumps(document(request, entry))
            return body, etag_of(body)
        progress = entry.progress
        # Of the address, what the links in it are made from.
        environ = request.environ
        here = (environ.get("SCRIPT_NAME"), environ.get("PATH_INFO"))
        key = (job.id, here, request.locale_name)
        serials = (
            state._p_serial,
            None if progress is None or state.ended else progress._p_serial,
            is_stopping(entry),
        )
        kept = self._kept.get(key)
        if kept is not None and kept[0] == serials:
            # Another thread may have let it go just now.
            with suppress(KeyError):
                self._kept.move_to_end(key)
            return kept[1], kept[2]
        body = dumps(document(request, entry))
        etag = etag_of(body)
        if not state.ended and entry.snapshot.estimated:
            # It changes by itself.
            return body, etag
        self._kept[key] = (serials, body, etag)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
        return body, etag
