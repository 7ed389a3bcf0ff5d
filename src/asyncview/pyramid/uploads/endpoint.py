"""The view of an upload endpoint: which protocol a request speaks, and who may.

One address for all of them, and below it one for each upload.
"""

from collections.abc import Callable
from typing import Any

from pyramid.interfaces import IDefaultCSRFOptions
from pyramid.request import Request
from pyramid.response import Response

from asyncview.exceptions import UploadNotFound
from asyncview.exceptions import UploadRefused
from asyncview.pyramid.answers import json_response
from asyncview.pyramid.facts import is_cross_site
from asyncview.pyramid.start import SAFE_METHODS
from asyncview.pyramid.uploads import filepond
from asyncview.pyramid.uploads import gws
from asyncview.pyramid.uploads import numbered
from asyncview.pyramid.uploads import tus
from asyncview.pyramid.uploads.answers import ERRORS
from asyncview.pyramid.uploads.answers import error_document
from asyncview.pyramid.uploads.answers import head_only
from asyncview.pyramid.uploads.answers import state_document
from asyncview.pyramid.uploads.incoming import file_in
from asyncview.pyramid.uploads.incoming import form_of
from asyncview.pyramid.uploads.incoming import staging_of
from asyncview.pyramid.uploads.incoming import uploader_of
from asyncview.pyramid.uploads.taking import take_whole
from asyncview.staged import Staged

METHODS = "GET, HEAD, POST, PATCH, DELETE, OPTIONS"


class Endpoint:
    """See the module.  ``require_csrf`` is what the view options say."""

    def __init__(self, require_csrf: bool | None, cross_site: bool) -> None:
        self._require_csrf = require_csrf
        self._cross_site = cross_site

    def __call__(self, context: Any, request: Request) -> Response:
        method = request.method
        if method == "POST":
            # Of another one nobody has asked for a token.
            method = request.headers.get("X-HTTP-Method-Override", method).upper()
        speaks_tus = method == "PATCH" or bool(
            {"Tus-Resumable", "Upload-Length"} & set(request.headers)
        )
        failed: Callable[[Exception], Response] = (
            tus.error if speaks_tus else error_document
        )
        try:
            if method not in SAFE_METHODS:
                self._check_site(request)
            self._check_query(request)
            response = self._answer(request, method)
        except ERRORS as error:
            response = failed(error)
        return head_only(response) if request.method == "HEAD" else response

    def _answer(self, request: Request, method: str) -> Response:
        uid = self._uid(request)
        if method == "OPTIONS":
            return tus.options(request)
        if method == "POST" and uid is None:
            return self._post(request)
        if method not in METHODS.split(", ") or method == "POST":
            response = error_document(UploadRefused(405, "method", "use " + METHODS))
            response.headers["Allow"] = METHODS
            return response
        dialect = numbered.dialect_of(request.GET)
        if uid is None and method == "GET" and dialect is not None:
            return numbered.answer(request, dialect, request.GET)
        uid = uid or request.GET.get("uploadUid") or request.GET.get("patch")
        if uid is None and method == "DELETE":
            uid = filepond.reverted(request)
        with staging_of(request).find(uploader_of(request), uid) as staged:
            return self._about(request, method, staged)

    @staticmethod
    def _post(request: Request) -> Response:
        """A new upload, or a chunk of one that the address does not name."""
        if filepond.is_create(request):
            return filepond.create(request)
        if "Tus-Resumable" in request.headers or "Upload-Length" in request.headers:
            return tus.create(request)
        fields = request.GET
        # resumable.js says all twice: a form is one, whatever the address has.
        if request.content_type == "multipart/form-data" or not (
            gws.is_raw(fields) or numbered.dialect_of(fields)
        ):
            fields = form_of(request)
        dialect = numbered.dialect_of(fields)
        if dialect is not None:
            return numbered.answer(request, dialect, fields)
        file = file_in(fields)
        if "chunkNumber" in fields or file is None:
            return gws.post(request, fields)
        if filepond.is_small(request):
            return filepond.small(request, file)
        # Any other form with a file in it; Dropzone sends small ones so.
        return json_response({"uploadUid": take_whole(request, file).uid})

    @staticmethod
    def _about(request: Request, method: str, staged: Staged) -> Response:
        if "Tus-Resumable" in request.headers:
            tus.check_version(request)
        if method == "GET":
            return state_document(request, staged)
        if method == "HEAD":
            return tus.head(request, staged)
        if method == "PATCH" and filepond.is_patch(request):
            return filepond.patch(request, staged)
        if method == "PATCH":
            return tus.patch(request, staged)
        staging_of(request).remove(staged)
        return tus.answer(204)

    @staticmethod
    def _uid(request: Request) -> str | None:
        """The upload that the address names."""
        subpath = tuple(getattr(request, "subpath", ()))
        if len(subpath) > 1:
            raise UploadNotFound("/".join(subpath))
        return subpath[0] if subpath else None

    @staticmethod
    def _check_query(request: Request) -> None:
        try:
            request.GET  # noqa: B018
        except UnicodeDecodeError:
            raise UploadRefused(400, "bad_request", "the query is no UTF-8") from None

    def _check_site(self, request: Request) -> None:
        """As for the start of a job: without tokens other sites are shut out."""
        wanted = self._require_csrf
        if wanted is None:
            defaults = request.registry.queryUtility(IDefaultCSRFOptions)
            wanted = defaults is not None and defaults.require_csrf
        if not (wanted or self._cross_site) and is_cross_site(request):
            raise UploadRefused(403, "cross_site", "this comes from another site")
