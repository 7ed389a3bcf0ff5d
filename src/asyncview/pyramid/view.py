"""`BaseAsyncView`: what an author subclasses."""

import functools
import logging
from typing import Any

from pyramid.request import Request
from pyramid.response import Response

from asyncview.exceptions import AsyncViewError
from asyncview.exceptions import NoSuchProcessError
from asyncview.exceptions import ProcessCancelledError
from asyncview.exceptions import ThreadDiedBeforeCompletionError
from asyncview.job import CANCELLED
from asyncview.job import COMPLETED
from asyncview.job import FAILED
from asyncview.job import Job
from asyncview.pyramid import errors
from asyncview.pyramid import pages
from asyncview.pyramid import status
from asyncview.pyramid import subviews
from asyncview.pyramid.access import find
from asyncview.pyramid.asking import ask
from asyncview.pyramid.entering import at_stake
from asyncview.pyramid.entering import run_replayed
from asyncview.pyramid.entering import ticket_of
from asyncview.pyramid.facts import NO_FACTS
from asyncview.pyramid.facts import facts_of
from asyncview.pyramid.identity import view_identity
from asyncview.pyramid.joblog import JobLog
from asyncview.pyramid.start import JOB
from asyncview.pyramid.stored import stored_response
from asyncview.pyramid.terms import terms_of
from asyncview.pyramid.uploads.handing import upload_of
from asyncview.pyramid.uploads.incoming import uploader_of
from asyncview.session import ProgressSession
from asyncview.ticket import Ticket
from asyncview.uploaded import Upload


class BaseAsyncView:
    """A view whose ``__run__`` runs in the background, in a replay of its request.

    Subclass it, move the body of ``__call__`` to ``__run__``, and register it as any
    Pyramid view; with URL dispatch under ``/name`` and ``/name/*subpath``, or by
    ``config.add_async_view``.
    """

    #: What people call the job; of the class's name if empty.
    label: str = ""
    #: Words by which jobs are found; a text is one.
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
        facts = facts_of(self.request)
        registry = getattr(self.request, "registry", None)
        stock = hasattr(registry, "asyncview")
        if facts.renderer is not None or (facts is NO_FACTS and (kw or not stock)):
            # Without a job, in quick mode or in a test, the caller takes the values.
            return kw
        response = pages.start(self.request, status.label_of(self), kw)
        # What `run_process` thought of the form.
        response.status = self.request.response.status
        return response

    def processing_page(self, process_id: str) -> Any:
        """What is shown while the job runs; also an asset spec."""
        doc = status.document(self.request, find(self, process_id))
        return pages.processing(self.request, doc)

    def on_end(self, status: str) -> None:
        """Called at most once after the job has ended, in a transaction of its own."""

    # The view

    def __call__(self, no_process: bool = False, **kw: Any) -> Any:
        """Start a job, show the first page, or answer one of the subviews."""
        request = self.request
        ticket: Ticket | None = request.environ.get(JOB)
        if ticket is not None and view_identity(request) == ticket.view:
            if not (no_process or ticket.entered or request.subpath):
                return run_replayed(self, ticket)
            answering = ticket.verdict is None and request.exception is None
            if ticket.left and answering and not (no_process or request.subpath):
                # Not by an exception view, nor by ``on_end``.
                raise AsyncViewError(
                    "this attempt has been in __run__ already: a tween or a decorator"
                    " that calls the view again would have its first page for a result"
                )
            # Once entered this address never starts or recurses.
            no_process = True
        if getattr(request, "subpath", ()) and self.process_id is None:
            check_included(request)
            return subviews.subview(self)
        if not no_process and self.run_process():
            check_included(request)
            if getattr(self.__run__, "__func__", None) is BaseAsyncView.__run__:
                # Here its author sees it, and no job is stored only to fail.
                BaseAsyncView.__run__(self)
            has_on_end = type(self).on_end is not BaseAsyncView.on_end
            return ask(self, terms_of(self) | {"on_end": has_on_end})
        if request.method not in ("GET", "HEAD", "POST") and not no_process:
            return errors.method_not_allowed(request, "GET, HEAD, POST")
        if self.uploads and not no_process:
            # Or each of the first chunks, sent at once, would be another visitor's.
            uploader_of(request)
        return pages.chosen(self, "initial_page", **kw)

    # In __run__

    @functools.cached_property
    def progress(self) -> ProgressSession:
        """The job's progress session; outside of a job one that is kept nowhere."""
        return ProgressSession(None)

    @functools.cached_property
    def log(self) -> JobLog:
        """A logger whose last lines are shown on the job's page."""
        name = f"asyncview.job.{type(self).__name__}"
        return JobLog(logging.getLogger(name), self.progress)

    def set_progress(self, process_id: str | None, percentage: float) -> None:
        """Say how much is done, from 0 to 100.

        ``process_id`` is the job's own, or None.  ValueError for what is no number
        from 0 to 100, NoSuchProcessError for another id.
        """
        if process_id is not None and process_id != self.process_id:
            raise NoSuchProcessError(process_id)
        try:
            # Floats, as most percentages are: Python is slower where the types differ.
            if 0.0 <= percentage <= 100.0:
                progress = self.progress
                progress._current = percentage
                progress._total = 100
                return
        except (TypeError, ArithmeticError):
            # The latter is what a Decimal that is no number says.
            pass
        raise ValueError(f"a percentage is a number from 0 to 100: {percentage!r}")

    def upload(self, field: str) -> Upload | None:
        """The upload that the form's ``field`` names; None where there was no file.

        ``field`` is one of `uploads`: of the id of a chunked upload, or of an ordinary
        ``<input type=file>``.
        """
        return upload_of(self, field, ticket_of(self))

    def checkpoint(self) -> None:
        """Commit what was done so far, and go on."""
        if ticket_of(self) is None:
            return
        # A stop that was asked for is noticed here as well.
        self.progress.update()
        tm = self.request.tm
        tm.commit()
        tm.begin()

    def refresh(self) -> None:
        """See the database as it is now.

        RuntimeError where the transaction has something to lose: what was written, a
        hook, or that it is doomed.
        """
        if ticket_of(self) is None:
            return
        tm = self.request.tm
        lost = at_stake(tm.get())
        if lost is not None:
            raise RuntimeError(f"refresh() would lose {lost}")
        tm.abort()
        tm.begin()

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


# Functions and not methods, because authors bring methods of their own: a port may
# well have a helper called `_run`.


def check_included(request: Request) -> None:
    """AsyncViewError where nobody has included us."""
    if not hasattr(request.registry, "asyncview"):
        raise AsyncViewError(
            'there are no background jobs without config.include("asyncview")'
        )


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
