"""The stock pages: what the templates are given, and where static files are."""

import inspect
from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from typing import Any

from pyramid.i18n import get_locale_name
from pyramid.path import package_of
from pyramid.renderers import RendererHelper
from pyramid.renderers import get_renderer
from pyramid.renderers import render
from pyramid.request import Request
from pyramid.response import Response

from asyncview.job import FINAL
from asyncview.pyramid.answers import private
from asyncview.pyramid.facts import csrf_field
from asyncview.pyramid.facts import csrf_names
from asyncview.pyramid.identity import own_query
from asyncview.pyramid.identity import own_url
from asyncview.pyramid.results import as_body

TEMPLATES = "asyncview.templates:"
NAMES = (
    "layout",
    "progress",
    "start",
    "processing",
    "failed",
    "cancelled",
    "error",
    "upload",
)

#: Name of the static view, and so the first segment of its URLs.
STATIC = "_asyncview"

RIGHT_TO_LEFT = frozenset({"ar", "fa", "he", "ur", "yi"})


@cache
def digest(name: str) -> str:
    """A hash of a static file's content: a new file is a new URL."""
    content = files("asyncview").joinpath("static", name).read_bytes()
    return blake2b(content, digest_size=6).hexdigest()


def static_url(request: Request) -> Callable[[str], str]:
    """``static(name)``: the path of one of our static files."""

    def static(name: str) -> str:
        path: str = request.static_path(
            f"asyncview:static/{name}", _query={"v": digest(name)}
        )
        return path

    return static


def compile_all(registry: Any) -> None:
    """Compile the stock templates, before the first page and in one thread.

    Chameleon compiles at the first rendering.  On Python 3.11 threads that do so at
    the same moment may get a SystemError ("AST constructor recursion depth mismatch").
    """
    site = registry.asyncview
    if site.pages_compiled:
        return
    with site.compiling:
        for name in NAMES:
            get_renderer(f"{TEMPLATES}{name}.pt").implementation().cook_check()
        site.pages_compiled = True


def frame(request: Request) -> dict[str, Any]:
    """What every page of ours needs; also given to the application's templates."""
    compile_all(request.registry)
    language = get_locale_name(request)
    progress = _macros("progress.pt")
    return {
        # Looked up each time, so that `override_asset` restyles all pages.
        "layout": _macros("layout.pt")["layout"],
        "progress": progress["progress"],
        "progress_macro": progress["progress"],
        "tasks_macro": progress["tasks"],
        "upload_macro": _macros("upload.pt")["upload"],
        "csrf_names": csrf_names(request),
        "static": static_url(request),
        "lang": language.replace("_", "-"),
        "dir": "rtl" if language[:2] in RIGHT_TO_LEFT else "ltr",
    }


def _macros(name: str) -> Any:
    return get_renderer(TEMPLATES + name).implementation().macros


def supply(event: Any) -> None:
    """Subscriber of BeforeRender: the frame, for templates without their own.

    Templates of the application get the two macros, and ``asyncview`` with what they
    need: ``asyncview['static']('asyncview.css')``.
    """
    name = event.get("renderer_name") or ""
    request = event.get("request")
    if not name.endswith(".pt") or request is None:
        return
    if name.startswith(TEMPLATES):
        event.update(frame(request))
        return
    values = frame(request)
    for key in ("layout", "progress", "progress_macro", "tasks_macro", "upload_macro"):
        event.setdefault(key, values[key])
    for key in ("static", "lang", "dir", "csrf_names"):
        event.setdefault(key, values[key])


def page(
    request: Request, name: str, values: dict[str, Any], status: int = 200
) -> Response:
    """A stock page as a response."""
    compile_all(request.registry)
    text = render(f"{TEMPLATES}{name}.pt", values, request)
    response = Response(
        # Some names of files have halves of surrogate pairs.
        text.encode("utf-8", "replace"),
        status=status,
        content_type="text/html",
        charset="utf-8",
    )
    # There are buttons on them, which another site must not have pressed.
    response.headers["X-Frame-Options"] = "SAMEORIGIN"
    return private(response)


def chosen(view: Any, name: str, *args: Any, **kw: Any) -> Any:
    """A page that a view names: a method, or an asset spec relative to its package."""
    named = getattr(view, name)
    request = view.request
    if callable(named):
        if args and takes_process_id(getattr(named, "__func__", named)):
            result = named(process_id=args[0], **kw)
        else:
            result = named(*args, **kw)
        if not isinstance(result, (str, bytes)):
            return result
        # Asked of a page a text is one, whatever it would be as a result.
        return as_body(request, result, "text/html")
    helper = RendererHelper(
        name=named, package=_package(view, name), registry=request.registry
    )
    if args:
        kw["process_id"] = args[0]
    return helper.render_view(request, kw, view, view.context)


@cache
def takes_process_id(func: Callable[..., Any]) -> bool:
    """Whether a ``__run__`` or the like has a parameter of this name."""
    parameters = inspect.signature(func).parameters
    return any(
        each.kind is each.VAR_KEYWORD
        or (each.name == "process_id" and each.kind is not each.POSITIONAL_ONLY)
        for each in parameters.values()
    )


def _package(view: Any, name: str) -> Any:
    """The package of the class that names a page, as asset specs are relative to."""
    cls = type(view)
    if name not in vars(view):
        cls = next(each for each in cls.__mro__ if name in vars(each))
    return package_of(inspect.getmodule(cls))


def start(request: Request, label: Any, values: dict[str, Any]) -> Response:
    """One button that starts the job."""
    name, token = csrf_field(request)
    return page(
        request,
        "start",
        {
            "label": request.localizer.translate(label),
            "message": values.get("message"),
            # As of a form without an action: what was asked for there is asked again.
            "action": own_url(request) + own_query(request),
            "csrf_name": name,
            "csrf_token": token,
        },
    )


def processing(
    request: Request,
    doc: dict[str, Any],
    poll_interval: float | None = None,
    poll_url: str | None = None,
    can_cancel: bool = True,
) -> Response:
    """What is shown while a job runs."""
    name, token = csrf_field(request)
    if poll_interval is None:
        poll_interval = request.registry.asyncview.engine.settings.poll_interval
    label, shown = doc["label"], doc["completed"]
    known = isinstance(shown, (int, float)) and not isinstance(shown, bool)
    here = doc["links"]["processing"]
    response = page(
        request,
        "processing",
        {
            "doc": doc,
            "page_title": f"({int(shown)}%) {label}" if known else label,
            "poll_url": poll_url or f"{doc['links']['completed']}&output_json=1",
            "poll_interval": poll_interval,
            "refresh": request.GET.get("refresh") != "0",
            "refresh_url": here,
            "still_url": f"{here}&refresh=0",
            "csrf_name": name,
            "csrf_token": token,
            "can_cancel": can_cancel and doc["status"] not in FINAL,
        },
    )
    return response


def failed(
    request: Request,
    label: str,
    error: dict[str, str],
    status: int = 500,
    kept: bool = False,
) -> Response:
    """The failure page: a safe message and a reference, never a traceback.

    ``kept``: what the job had committed at a checkpoint is in the database.
    """
    return page(
        request,
        "failed",
        {
            "label": label,
            "message": error["message"],
            "error_id": error["id"],
            "reason": "checkpointed" if kept else error["reason"],
            "back_url": own_url(request),
        },
        status,
    )


def cancelled(request: Request, label: str, message: str | None) -> Response:
    return page(
        request,
        "cancelled",
        {"label": label, "message": message, "back_url": own_url(request)},
        410,
    )


def error(
    request: Request, status: int, title: Any, message: Any, back_url: str | None = None
) -> Response:
    """A small page that says what is wrong."""
    translate = request.localizer.translate
    return page(
        request,
        "error",
        {
            "title": translate(title),
            "message": translate(message),
            "back_url": back_url,
        },
        status,
    )
