"""`BaseAsyncView`: what an author subclasses."""

import functools
import hashlib
import inspect
import logging
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote
from urllib.parse import urlsplit

from pyramid.path import package_of
from pyramid.renderers import RendererHelper
from pyramid.request import Request
from pyramid.response import Response
from pyramid_zodbconn import get_connection

from asyncview.exceptions import AsyncViewError
from asyncview.exceptions import NoSuchProcessError
from asyncview.exceptions import ProcessCancelledError
from asyncview.exceptions import ThreadDiedBeforeCompletionError
from asyncview.job import CANCELLED
from asyncview.job import COMPLETED
from asyncview.job import FAILED
from asyncview.job import TERMS
from asyncview.job import Job
from asyncview.pyramid import errors
from asyncview.pyramid import pages
from asyncview.pyramid import starts
from asyncview.pyramid import status
from asyncview.pyramid import subviews
from asyncview.pyramid.access import find
from asyncview.pyramid.facts import ViewFacts
from asyncview.pyramid.facts import facts_of
from asyncview.pyramid.facts import is_cross_site
from asyncview.pyramid.identity import context_identity
from asyncview.pyramid.identity import owner_of
from asyncview.pyramid.identity import view_identity
from asyncview.pyramid.identity import visitor_of
from asyncview.pyramid.sessions import pack
from asyncview.pyramid.sessions import touch_csrf
from asyncview.pyramid.stored import stored_response
from asyncview.pyramid.tween import JOB
from asyncview.pyramid.tween import SAFE_METHODS
from asyncview.pyramid.tween import START
from asyncview.pyramid.tween import VIEW
from asyncview.pyramid.tween import Start
from asyncview.session import ProgressSession
from asyncview.store import Entry
from asyncview.ticket import Ticket

#: What may be said anew in ``__run__``.
RUNTIME = (
    "label",
    "tags",
    "success_msg",
    "success_url",
    "error_msg",
    "error_url",
    "keep",
)

#: What an address may have as it is; everything else no header can carry.
URL_SAFE = "%/:?#[]@!$&'()*+,;=~"

#: How often a view that is ``restartable = True`` is started again.
RESTARTS = 3


class BaseAsyncView:
    """A view whose ``__run__`` runs in the background, in a replay of its request.

    Subclass it, move the body of ``__call__`` to ``__run__``, and register it as any
    Pyramid view; with URL dispatch under ``/name`` and ``/name/*subpath``, or by
    ``config.add_async_view``.
    """

    #: What people call the job; of the class's name if empty.
    label: str = ""
    #: Words by which jobs are found.
    tags: tuple[str, ...] = ()
    #: Flashed once when the job has completed, or failed or was cancelled.
    success_msg: str | None = None
    error_msg: str | None = None
    #: Where a browser goes then; local paths, else the result.
    success_url: str | None = None
    error_url: str | None = None
    #: Seconds until the ended job expires; the settings' if None.
    keep: float | None = None
    #: Whether the stored request outlives the job.
    keep_request: bool = False
    #: Whether, or how often, to start again after the death of a worker.
    restartable: bool | int = False
    #: Entries into ``__run__`` because of conflicts.
    max_attempts: int = 20
    #: Seconds after which the job has failed; None: never.
    max_runtime: float | None = None
    #: A key that one job at a time has, within view and context.
    exclusive: Any = None
    #: Named tasks: id to name.
    tasks: dict[str, str] = {}  # noqa: RUF012 - read, never changed
    #: Form fields that carry upload ids.
    uploads: tuple[str, ...] = ()
    #: Whether other sites may POST here without a CSRF token.
    cross_site: bool = False

    #: The job's id inside ``__run__``, else None.
    process_id: str | None = None

    def __init__(self, context: Any, request: Request) -> None:
        self.context = context
        self.request = request

    # What authors override

    def __run__(self, process_id: str | None = None, *args: Any, **kwargs: Any) -> Any:
        """The work.  May return what any Pyramid view may return."""
        raise NotImplementedError(
            f"{type(self).__module__}.{type(self).__qualname__} has no __run__"
        )

    def run_process(self) -> bool:
        """Does this request start the job?"""
        return bool(self.request.method == "POST")

    def initial_page(self, **kw: Any) -> Any:
        """What a request shows that starts nothing; also an asset spec."""
        if facts_of(self.request).renderer is not None:
            return kw
        return pages.start(self.request, status.label_of(self), kw)

    def processing_page(self, process_id: str) -> Any:
        """What is shown while the job runs; also an asset spec."""
        return pages.processing(self.request, self._document(process_id))

    def on_end(self, status: str) -> None:
        """Called at most once after the job has ended, in a transaction of its own."""

    # The view

    def __call__(self, no_process: bool = False, **kw: Any) -> Any:
        """Start a job, show the first page, or answer one of the subviews."""
        request = self.request
        ticket: Ticket | None = request.environ.get(JOB)
        if ticket is not None and view_identity(request) == ticket.view:
            if not (no_process or ticket.entered or request.subpath):
                return self._replayed(ticket)
            # Once entered this address never starts or recurses.
            no_process = True
        if request.subpath and self.process_id is None:
            return subviews.subview(self)
        if not no_process and self.run_process():
            return self._start()
        if request.method not in ("GET", "HEAD", "POST") and not no_process:
            return errors.method_not_allowed(request, "GET, HEAD, POST")
        return self._page("initial_page", **kw)

    def _replayed(self, ticket: Ticket) -> Any:
        """The replay has come to where the request started the job."""
        request = self.request
        if owner_of(request) != ticket.owner:
            ticket.refuse("the request is no longer that of the job's owner")
            return Response(status=204)
        if context_identity(self.context) != ticket.context:
            ticket.refuse("the job's context was replaced by another object")
            return Response(status=204)
        ticket.entered = True
        self._ticket = ticket
        self.process_id = ticket.id
        self.progress = ticket.session
        if ticket.ending is not None:
            self.on_end(ticket.ending)
            return Response(status=204)
        request.environ[VIEW] = self
        try:
            result = self._run()
        except BaseException:
            # Its own error is the news, not what a property makes of the half
            # done work.
            try:
                ticket.changed = self._changed(ticket)
            except Exception:
                logging.getLogger("asyncview.job").exception("%s", ticket)
            raise
        ticket.changed = self._changed(ticket)
        return result

    def _run(self) -> Any:
        if takes_process_id(type(self).__run__):
            return self.__run__(process_id=self.process_id)
        return self.__run__()

    def _changed(self, ticket: Ticket) -> dict[str, Any]:
        # Plain class attributes are what they were at the POST.
        own, computed = vars(self), computed_names(type(self))
        said = [name for name in RUNTIME if name in own or name in computed]
        return {
            name: value
            for name, value in self._terms(said).items()
            if value != ticket.terms.get(name, TERMS[name])
        }

    # In __run__

    @functools.cached_property
    def progress(self) -> ProgressSession:
        """The job's progress session; outside of a job one that is kept nowhere."""
        return ProgressSession(None)

    @functools.cached_property
    def log(self) -> "JobLog":
        """A logger whose last lines are shown on the job's page."""
        name = f"asyncview.job.{type(self).__name__}"
        return JobLog(logging.getLogger(name), self.progress)

    @functools.cached_property
    def _ticket(self) -> Ticket | None:
        return None

    def set_progress(self, process_id: str | None, percentage: float) -> None:
        """Say how much is done, from 0 to 100.

        ``process_id`` is the job's own, or None.  ValueError for what is no number
        from 0 to 100, NoSuchProcessError for another id.
        """
        if process_id is not None and process_id != self.process_id:
            raise NoSuchProcessError(process_id)
        try:
            if 0 <= percentage <= 100:
                progress = self.progress
                progress._current = percentage
                progress._total = 100
                return
        except TypeError:
            pass
        raise ValueError(f"a percentage is a number from 0 to 100: {percentage!r}")

    def checkpoint(self) -> None:
        """Commit what was done so far, and go on."""
        ticket = self._ticket
        if ticket is None:
            return
        # A stop that was asked for is noticed here as well.
        self.progress.update()
        tm = self.request.tm
        ticket.guard(self._connection())
        tm.commit()
        ticket.checkpointed = True
        tm.begin().addAfterCommitHook(ticket.committed_early)

    def refresh(self) -> None:
        """See the database as it is now; RuntimeError if something was written."""
        ticket = self._ticket
        if ticket is None:
            return
        tm = self.request.tm
        if tm.get()._resources:
            raise RuntimeError("refresh() after something was written would lose it")
        tm.abort()
        tm.begin().addAfterCommitHook(ticket.committed_early)

    # About any job of this view

    def completed(self, process_id: str, output_json: bool = False) -> Any:
        """How far a job is: False, a number or True; with ``output_json`` the document.

        NoSuchProcessError, ThreadDiedBeforeCompletionError, ProcessCancelledError.
        """
        entry = find(self, process_id)
        if output_json:
            return status.document(self.request, entry)
        raise_for(entry.job)
        return status.shown_progress(entry)

    def processing(self, process_id: str) -> Any:
        """The processing page; a redirect to ``next_url`` when the job has ended."""
        return subviews.processing(self, process_id)

    def result(self, process_id: str) -> Response | None:
        """The stored response, None if the job has not ended; errors as `completed`."""
        job = find(self, process_id).job
        raise_for(job)
        outcome = job.state.outcome
        return None if outcome is None else stored_response(self.request, outcome)

    # Inside

    def _document(self, process_id: str) -> dict[str, Any]:
        return status.document(self.request, find(self, process_id))

    def _connection(self) -> Any:
        engine = self.request.registry.asyncview.engine
        return get_connection(self.request, engine.settings.database)

    def _page(self, name: str, *args: Any, **kw: Any) -> Any:
        """A page that a class names: a method, or an asset spec relative to it."""
        page = getattr(self, name)
        if callable(page):
            result = page(*args, **kw)
            if isinstance(result, (str, bytes)):
                # Asked of a page a text is one, whatever it would be as a result.
                result = pages.html(result)
            return result
        helper = RendererHelper(
            name=page,
            package=_package(type(self), name),
            registry=self.request.registry,
        )
        if args:
            kw["process_id"] = args[0]
        return helper.render_view(self.request, kw, self, self.context)

    def _terms(self, names: Any = tuple(TERMS)) -> dict[str, Any]:
        """What the view says about its jobs, as records keep it."""
        return {name: TERM_READERS.get(name, _same)(self, name) for name in names}

    def _start(self) -> Any:
        request = self.request
        facts: ViewFacts = facts_of(request)
        if not (facts.csrf or self.cross_site) and request.method not in SAFE_METHODS:
            if is_cross_site(request):
                return errors.refused(request)
        start: Start | None = request.environ.get(START)
        if start is None or (
            "tm.active" not in request.environ
            and ("repoze.tm.active" not in request.environ)
        ):
            raise AsyncViewError(
                "a job can only be started in a request that passes asyncview's"
                " tweens and has an active transaction"
            )
        if start.job is not None:
            raise AsyncViewError("this request has started a job already")
        owner = owner_of(request)
        key = self._exclusive_key()
        settings = start.engine.settings
        if key is not None or settings.max_per_owner is not None:
            start.hold()
        if key is not None:
            twin = starts.twin_of(request, key, owner)
            if twin is not None:
                return twin
            starts.free_key(start.engine, key)
        starts.check_limits(request, owner)
        visitor = None if owner is not None else visitor_of(request, create=True)
        if facts.csrf_possible(request):
            cookies = touch_csrf(request)
            if cookies is not None:
                start.environ["HTTP_COOKIE"] = cookies
        start.session = pack(request)
        start.context = self.context
        job = Job(
            start.new_id(key),
            view=view_identity(request),
            context=None,
            owner=owner,
            visitor=visitor,
            created=time.time(),
            terms=self._terms(),
            request=None,
        )
        start.job = job
        return starts.started(request, Entry(job))

    def _exclusive_key(self) -> str | None:
        exclusive = self.exclusive
        if exclusive is None:
            return None
        oid = context_identity(self.context) or b""
        parts = (view_identity(self.request), oid.hex(), str(exclusive))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def raise_for(job: Job) -> None:
    """Raise what a job ended with, if not with a result."""
    state = job.state
    if state.status == CANCELLED:
        raise ProcessCancelledError(reason=CANCELLED)
    if state.status == FAILED and state.failure is not None:
        failure = state.failure
        raise ThreadDiedBeforeCompletionError(
            failure.id, failure.reason, failure.type, failure.message
        )
    assert state.status != COMPLETED or state.outcome is not None


class JobLog(logging.LoggerAdapter):  # type: ignore[type-arg]
    """Logs as usual, and keeps the last lines with the job."""

    def __init__(self, logger: logging.Logger, session: ProgressSession) -> None:
        super().__init__(logger, {})
        self._session = session

    def log(self, level: int, msg: object, *args: Any, **kwargs: Any) -> None:
        if level >= logging.INFO:
            try:
                self._session.log(str(msg) % args if args else str(msg))
            except (TypeError, ValueError):
                self._session.log(str(msg))
        kwargs.setdefault("stacklevel", 3)
        self.logger.log(level, msg, *args, **kwargs)


@functools.cache
def takes_process_id(run: Callable[..., Any]) -> bool:
    """Whether a ``__run__`` has a parameter for it."""
    parameters = inspect.signature(run).parameters
    return "process_id" in parameters or any(
        each.kind is each.VAR_KEYWORD for each in parameters.values()
    )


@functools.cache
def computed_names(cls: type) -> frozenset[str]:
    """Of what may be said anew in ``__run__``: what is a property or the like."""
    return frozenset(
        name
        for name in RUNTIME
        if hasattr(inspect.getattr_static(cls, name), "__get__")
    )


def local_path(value: str, hosts: tuple[str, ...] = ()) -> str:
    """A path of this site, or an address of an allowed host; else ValueError."""
    if re.search(r"[\x00-\x20\x7f\\]", value) or not value.isprintable():
        raise ValueError(f"{value!r} has characters that no address has")
    sent = quote(value, URL_SAFE)
    if value.startswith("/") and not value.startswith("//"):
        return sent
    parts = urlsplit(value)
    if parts.scheme in ("http", "https") and parts.netloc in hosts:
        return sent
    raise ValueError(
        f"{value!r} is no path of this site, and asyncview.redirect_hosts does not"
        " name its host"
    )


def _package(cls: type, name: str) -> Any:
    """The package of the class that names a page, as asset specs are relative to."""
    for each in cls.__mro__:
        if name in each.__dict__:
            module = inspect.getmodule(each)
            if module is not None:
                return package_of(module)
    return None


def _same(view: Any, name: str) -> Any:
    return getattr(view, name)


def _translated(view: Any, name: str) -> str | None:
    value = getattr(view, name)
    return None if value is None else str(view.request.localizer.translate(value))


def _label(view: Any, name: str) -> str:
    return str(view.request.localizer.translate(status.label_of(view)))


def _address(view: Any, name: str) -> str | None:
    value = getattr(view, name)
    if value is None:
        return None
    hosts = view.request.registry.asyncview.engine.settings.redirect_hosts
    return local_path(str(value), hosts)


def _restarts(view: Any, name: str) -> int:
    value = view.restartable
    return RESTARTS if value is True else int(value)


def _seconds(view: Any, name: str) -> float | None:
    value = getattr(view, name)
    return None if value is None else float(value)


TERM_READERS: dict[str, Callable[[Any, str], Any]] = {
    "label": _label,
    "tags": lambda view, name: tuple(str(tag) for tag in view.tags),
    "success_msg": _translated,
    "error_msg": _translated,
    "success_url": _address,
    "error_url": _address,
    "keep": _seconds,
    "max_runtime": _seconds,
    "keep_request": lambda view, name: bool(view.keep_request),
    "restartable": _restarts,
    "max_attempts": lambda view, name: int(view.max_attempts),
    "tasks": lambda view, name: tuple(
        (str(id), str(title)) for id, title in dict(view.tasks).items()
    ),
    "on_end": lambda view, name: type(view).on_end is not BaseAsyncView.on_end,
}
