"""The GWS protocol: numbered chunks, as a form or as a raw body, answered in JSON."""

from pyramid.request import Request
from pyramid.response import Response

from asyncview.exceptions import UploadRefused
from asyncview.pyramid.access import engine_of
from asyncview.pyramid.status import json_response
from asyncview.pyramid.uploads.incoming import body_of
from asyncview.pyramid.uploads.incoming import content_of
from asyncview.pyramid.uploads.incoming import digest_of
from asyncview.pyramid.uploads.incoming import form_of
from asyncview.pyramid.uploads.taking import take_chunk


def is_raw(request: Request) -> bool:
    """Whether the parameters are in the query, and the body is the chunk."""
    return "chunkNumber" in request.GET


def post(request: Request) -> Response:
    if is_raw(request):
        params, content = request.GET, body_of(request)
    else:
        params = form_of(request)
        if "chunkNumber" not in params:
            raise UploadRefused(400, "bad_request", "there is no chunkNumber")
        limit = engine_of(request).settings.upload_max_chunk
        content = content_of(params.get("content"), limit)
    uid = take_chunk(request, params, content, digest_of(request))
    return json_response({"uploadUid": uid})
