"""The configuration: include, directives, and how a view is told what it is."""

import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from pyramid.config import PHASE3_CONFIG
from pyramid.config import Configurator
from pyramid.events import ApplicationCreated
from pyramid.events import BeforeRender
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import IDefaultCSRFOptions
from pyramid.interfaces import IResponse
from pyramid.tweens import EXCVIEW
from pyramid.viewderivers import VIEW as INNERMOST

from asyncview.exceptions import AsyncViewError
from asyncview.interfaces import IExecutorFactory
from asyncview.pyramid import errors
from asyncview.pyramid import pages
from asyncview.pyramid import progress
from asyncview.pyramid.access import check_readable
from asyncview.pyramid.answers import private
from asyncview.pyramid.checks import OUTCOME_TWEEN
from asyncview.pyramid.checks import TM_TWEEN
from asyncview.pyramid.checks import check_options
from asyncview.pyramid.checks import check_pattern
from asyncview.pyramid.checks import check_routes
from asyncview.pyramid.checks import is_async
from asyncview.pyramid.checks import put_outermost
from asyncview.pyramid.facts import FACTS
from asyncview.pyramid.facts import ViewFacts
from asyncview.pyramid.jobs import Jobs
from asyncview.pyramid.results import to_response
from asyncview.pyramid.site import Site
from asyncview.pyramid.start import JOB
from asyncview.pyramid.terms import check_class
from asyncview.pyramid.uploads.directive import add_upload_endpoint
from asyncview.pyramid.view import BaseAsyncView
from asyncview.settings import BadSetting
from asyncview.settings import Settings

#: By the names that the setting has for them; only the one that is used is imported.
EXECUTORS = {
    "threads": "asyncview.executors.threads.factory",
    "inline": "asyncview.executors.inline.factory",
}

#: After everything that an application says in its own actions.
LAST = PHASE3_CONFIG + 1000


def includeme(config: Configurator) -> None:
    """Make background views possible; brings pyramid_tm and pyramid_zodbconn."""
    config.include("pyramid_tm")
    if not hasattr(config.registry, "_zodb_databases"):
        config.include("pyramid_zodbconn")
    config.include("pyramid_chameleon")
    # Where it was given as a text it still is one.
    package = getattr(config.root_package, "__name__", config.root_package)
    try:
        settings = Settings.read(config.get_settings(), package.partition(".")[0])
    except BadSetting as error:
        raise ConfigurationError(str(error)) from None
    site = config.registry.asyncview = Site(config.registry, settings)
    site.executor = _executor(config, settings.executor)

    config.add_tween(OUTCOME_TWEEN, under=TM_TWEEN, over=EXCVIEW)
    config.action(None, lambda: put_outermost(config), order=LAST)
    config.action(None, lambda: check_routes(config), order=LAST)
    config.add_view_deriver(
        async_view, "asyncview", under="rendered_view", over=INNERMOST
    )
    config.add_translation_dirs("asyncview:locale/")
    config.add_static_view(pages.STATIC, "asyncview:static", cache_max_age=31536000)
    config.add_request_method(Jobs, "asyncview", reify=True)
    config.add_exception_view(errors.no_such_process, context=errors.INoSuchProcess)
    config.add_exception_view(errors.queue_full, context=errors.IQueueFull)
    config.add_exception_view(errors.no_such_upload, context=errors.IUploadNotFound)
    config.add_exception_view(errors.half_upload, context=errors.IUploadIncomplete)
    config.add_exception_view(errors.refused_upload, context=errors.IUploadRefused)
    config.add_subscriber(pages.supply, BeforeRender)
    config.add_subscriber(lambda event: _created(site, event), ApplicationCreated)
    config.add_directive("add_async_view", add_async_view)
    config.add_directive("add_progress_view", add_progress_view)
    config.add_directive("add_upload_endpoint", add_upload_endpoint)
    config.add_directive("set_job_executor", set_job_executor)


def close(registry: Any, drain: float | None = None) -> None:
    """End the jobs of an application in this process, then close its databases.

    Running jobs get ``drain`` seconds (the setting's if None), then are asked to
    stop, then are marked as interrupted.
    """
    registry.asyncview.close(drain)


# Directives


def add_async_view(
    config: Configurator,
    view: Any,
    name: str | None = None,
    pattern: str | None = None,
    **view_options: Any,
) -> None:
    """Register a `BaseAsyncView` and its subviews.

    By traversal under ``name``; or by URL dispatch at ``pattern``, with ``name`` as
    the route's (the pattern's if None).  ``view_options`` are those of ``add_view``;
    ``factory`` is the routes'.
    """
    view = config.maybe_dotted(view)
    if not is_async(view):
        raise ConfigurationError(f"add_async_view: {view!r} is no BaseAsyncView")
    if pattern is None:
        if not name:
            raise ConfigurationError("add_async_view needs a name or a pattern")
        config.add_view(view, name=name, **view_options)
        return
    if "route_name" in view_options:
        raise ConfigurationError("add_async_view makes the routes of a pattern itself")
    check_pattern(pattern)
    pattern = "/" + pattern.strip("/")
    route = name or pattern
    options = {
        key: view_options.pop(key) for key in ("factory",) if key in view_options
    }
    config.add_route(route, pattern, **options)
    below = f"{pattern.rstrip('/')}/*subpath"
    config.add_route(f"{route}/*subpath", below, **options)
    config.add_view(view, route_name=route, **view_options)
    config.add_view(view, route_name=f"{route}/*subpath", **view_options)


def add_progress_view(config: Configurator, path: str, **view_options: Any) -> None:
    """Serve the status documents of sessions and jobs to their owners, at ``path``.

    ``view_options`` are those of ``add_view``; ``factory`` is the route's.
    """
    options = {
        key: view_options.pop(key) for key in ("factory",) if key in view_options
    }
    config.add_route(progress.ROUTE, path, **options)
    config.add_view(progress.view, route_name=progress.ROUTE, **view_options)


def set_job_executor(config: Configurator, factory: Any) -> None:
    """Set what gets jobs to workers: an `IExecutorFactory`, or a dotted name of one."""
    site = config.registry.asyncview

    def register() -> None:
        site.executor = _executor(config, factory)

    config.action("asyncview.executor", register)


def _executor(config: Configurator, said: Any) -> IExecutorFactory:
    """What a setting or a directive names."""
    known = EXECUTORS.get(said, said) if isinstance(said, str) else said
    try:
        factory: IExecutorFactory = config.maybe_dotted(known)
    except (ImportError, ValueError) as error:
        raise ConfigurationError(
            f"asyncview.executor = {said!r}: it is none of"
            f" {', '.join(sorted(EXECUTORS))}, and can't be imported: {error}"
        ) from None
    if not callable(factory):
        raise ConfigurationError(f"asyncview.executor = {said!r} can't be called")
    return factory


# The view deriver


def async_view(view: Callable[..., Any], info: Any) -> Callable[..., Any]:
    """Tell a `BaseAsyncView` its facts, and convert what it returns."""
    cls = info.original_view
    if not is_async(cls):
        return view
    options = info.options
    check_options(cls, options)
    registry = info.registry
    try:
        # Now, where it can be known, and not at each POST.
        check_class(cls, registry.asyncview.settings.redirect_hosts)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    if cls.run_process is not BaseAsyncView.run_process:
        registry.asyncview.starts_on_get = True
    # Derivers are applied from the inside: this one comes before Pyramid's, which
    # would have caches keep pages and results that are one user's.
    options["http_cache"] = None
    renderer = options.get("renderer")
    defaults = registry.queryUtility(IDefaultCSRFOptions)
    wanted = options.get("require_csrf")
    by_default = defaults is not None and defaults.require_csrf
    facts = ViewFacts(renderer, wanted is True or (wanted is not False and by_default))

    def derived(context: Any, request: Any) -> Any:
        environ = request.environ
        if JOB not in environ:
            check_readable(request)
        before = environ.get(FACTS)
        environ[FACTS] = facts
        try:
            result = view(context, request)
        finally:
            if before is None:
                del environ[FACTS]
            else:
                environ[FACTS] = before
        answer = to_response(request, result, renderer)
        if JOB not in environ:
            # A value is made an answer by the renderer, on the request's response.
            private(answer if IResponse.providedBy(answer) else request.response)
        return answer

    return derived


async_view.options = ("attr", "wrapper", "require_csrf")  # type: ignore[attr-defined]


# When all is made


def _created(site: Site, event: ApplicationCreated) -> None:
    site.front.router = event.app
    try:
        site.check_database()
    except AsyncViewError as error:
        raise ConfigurationError(str(error)) from None
    if threading.current_thread() is threading.main_thread():
        # waitress has no handler for it, and without one nothing is drained.
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
