"""The first page, the examples' source and the style sheet: plain Pyramid views."""

from importlib import resources

from pyramid.httpexceptions import HTTPNotFound
from pyramid.response import FileResponse
from pyramid.response import Response
from pyramid.view import view_config

from asyncview.demo.models import Demo

SOURCES = (
    "catalogue.py",
    "fibonacci.py",
    "failing.py",
    "conflicting.py",
    "importing.py",
    "sample.py",
    "models.py",
    "index.py",
    "__init__.py",
)


@view_config(context=Demo, renderer="templates/index.pt")
def index(context, request):
    return {"catalogue": context.catalogue, "sources": SOURCES}


@view_config(name="source", context=Demo, renderer="templates/source.pt")
def source(context, request):
    """Show one of `SOURCES`."""
    name = "/".join(request.subpath)
    if name not in SOURCES:
        raise HTTPNotFound()
    text = resources.files("asyncview.demo").joinpath(name).read_text("utf-8")
    return {"name": name, "text": text}


@view_config(name="demo.css", context=Demo, http_cache=3600)
def style(context, request):
    path = resources.files("asyncview.demo").joinpath("templates/demo.css")
    return FileResponse(str(path), request, content_type="text/css")


@view_config(name="favicon.ico", context=Demo, http_cache=86400)
def favicon(context, request):
    return Response(status=204)
