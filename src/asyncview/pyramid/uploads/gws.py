"""The GWS protocol: numbered chunks, as a form or as a raw body, answered in JSON."""

from collections.abc import Mapping
from typing import Any

from pyramid.request import Request
from pyramid.response import Response

from asyncview.pyramid.access import engine_of
from asyncview.pyramid.answers import json_response
from asyncview.pyramid.uploads.incoming import body_of
from asyncview.pyramid.uploads.incoming import content_of
from asyncview.pyramid.uploads.incoming import digest_of
from asyncview.pyramid.uploads.taking import take_chunk


def is_raw(asked: Mapping[str, Any]) -> bool:
    """Whether a query has the parameters, so that the body is the chunk."""
    return "chunkNumber" in asked


def post(request: Request, params: Mapping[str, Any]) -> Response:
    """A chunk; ``params`` are the query or the form."""
    if params is request.GET:
        content = body_of(request)
    else:
        limit = engine_of(request).settings.upload_max_chunk
        content = content_of(params.get("content"), limit)
    uid = take_chunk(request, params, content, digest_of(request))
    return json_response({"uploadUid": uid})
