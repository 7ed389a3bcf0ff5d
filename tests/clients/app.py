"""The application that takes the uploads, as real servers load it."""

import hashlib
import os
from pathlib import Path

from pyramid.config import Configurator
from pyramid.response import Response
from pyramid.session import SignedCookieSessionFactory

from clients.faults import Faults

#: Where uploads go.
ENDPOINT = "/files"

#: What a page loads of each client before our own script for it.
LIBRARIES = {
    "dropzone": ("node_modules/dropzone/dist/dropzone-min.js",),
    "filepond": ("node_modules/filepond/dist/filepond.js",),
    "flow": ("node_modules/@flowjs/flow.js/dist/flow.js",),
    "resumable": ("node_modules/resumablejs/resumable.js",),
    "tus": ("node_modules/tus-js-client/dist/tus.js",),
    # Comes as modules only; the script for it is bundled with it.
    "uppy": (),
}

PAGE = """<!DOCTYPE html>
<html lang="en">
<title>{client}</title>
<body data-endpoint="{endpoint}" data-token="{token}" data-query="{query}">
<input type="file">
<button>Take back</button>
<output></output>
<div></div>
{scripts}
"""


def token(request):
    """What a client without pages needs: a session, and its token."""
    return Response(request.session.get_csrf_token())


def page(request):
    """A page with one client on it."""
    client = request.matchdict["client"]
    sources = (*LIBRARIES[client], "page.js", f"{client}.js")
    html = PAGE.format(
        client=client,
        endpoint=ENDPOINT,
        token=request.session.get_csrf_token(),
        query=request.query_string,
        scripts="\n".join(
            f'<script src="/workshop/{source}"></script>' for source in sources
        ),
    )
    return Response(html)


def content(request):
    """What has arrived in an upload."""
    upload = request.asyncview.get_upload(request.params["uid"])
    with upload.open() as stream:
        digest = hashlib.sha256(stream.read()).hexdigest()
    return {"name": upload.file_name, "size": upload.total_size, "sha256": digest}


def make_app():
    config = Configurator(
        settings={
            "zodbconn.uri": "file://Data.fs?blobstorage_dir=blobs",
            "asyncview.name": "clients",
            # Some clients begin anew where an answer gets lost.
            "asyncview.upload_max_open": "1000",
        }
    )
    config.set_session_factory(SignedCookieSessionFactory("a secret"))
    config.set_default_csrf_options(require_csrf=True)
    config.include("asyncview")
    config.add_upload_endpoint(ENDPOINT)
    for view, path, options in (
        (token, "/token", {}),
        (page, "/page/{client}", {}),
        (content, "/content", {"renderer": "json"}),
    ):
        config.add_route(view.__name__, path)
        config.add_view(view, route_name=view.__name__, **options)
    config.add_static_view("workshop", os.environ["WORKSHOP"])
    return Faults(config.make_wsgi_app(), ENDPOINT, Path.cwd())
