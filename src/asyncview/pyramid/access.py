"""Which job a request asks for, and whether its caller may see it."""

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from typing import TypeVar

from pyramid.httpexceptions import HTTPBadRequest
from pyramid.interfaces import IExecutionPolicy
from pyramid.request import Request
from pyramid.router import default_execution_policy
from pyramid_zodbconn import get_connection
from transaction.interfaces import TransientError
from ZODB.Connection import Connection

from asyncview import zeo
from asyncview.engine import Engine
from asyncview.exceptions import NoSuchProcessError
from asyncview.job import WELL_FORMED
from asyncview.pyramid.identity import context_identity
from asyncview.pyramid.identity import is_admin
from asyncview.pyramid.identity import is_owner
from asyncview.pyramid.identity import view_identity
from asyncview.shard import Entry
from asyncview.store import Store
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.store import transact

T = TypeVar("T")


class BadProcessId(Exception):
    """The request has no process_id, or what it has can't be one."""


def engine_of(request: Request) -> Engine:
    engine: Engine = request.registry.asyncview.engine
    return engine


def find(view: Any, process_id: Any) -> Entry:
    """The job with this id, of this view and context, of this caller.

    NoSuchProcessError for any other: what is not theirs does not exist.
    """
    engine, tm = engine_of(view.request), view.request.tm
    settings = engine.settings
    connection = get_connection(view.request, settings.database)
    entry = _entry(store_of(connection, settings.name), process_id)
    if entry is None:
        # Another process may have answered its POST a moment ago, and ZEO tells the
        # others later.  A page that gets a 404 asks no more.
        if not tm.get()._resources and zeo.catch_up(engine.db.storage):
            tm.abort()
            tm.begin()
            entry = _entry(store_of(connection, settings.name), process_id)
    return _permitted(view, entry, process_id)


@contextmanager
def found_now(view: Any, process_id: Any) -> Iterator[Entry]:
    """As `find`, from the database as it is now, not as when the request began."""
    engine = engine_of(view.request)
    with reading(engine.db) as connection:
        store = store_of(connection, engine.settings.name)
        yield _permitted(view, _entry(store, process_id), process_id)


def change(engine: Engine, action: Callable[[Store], T]) -> T:
    """Change the registry, in a transaction of its own.

    It may meet the job's end or the pulse, of which the user must not hear.
    """

    def run(connection: Connection) -> T:
        store = store_of(connection, engine.settings.name)
        # Whoever changes it has found something in it before.
        assert store is not None
        return action(store)

    return transact(engine.db, run)


def _entry(store: Store | None, process_id: Any) -> Entry | None:
    if store is None or not isinstance(process_id, str):
        return None
    return store.find(process_id)


def _permitted(view: Any, entry: Entry | None, process_id: Any) -> Entry:
    request, context = view.request, view.context
    if (
        entry is None
        or entry.job.view != view_identity(request)
        or entry.job.context != context_identity(context)
        or not (
            is_owner(request, entry.job)
            or is_admin(request, context, engine_of(request).settings.admin_permission)
        )
    ):
        raise NoSuchProcessError(process_id)
    return entry


def check_readable(request: Request, form: bool = False) -> None:
    """Raise HTTPBadRequest for a query, a language or a form that can't be decoded.

    Pyramid's own, without a page of ours: that would need them.
    """
    try:
        request.GET.keys()
        request.localizer  # noqa: B018 - made now, or not at all
        if form:
            request.POST.keys()
    except (ValueError, DeprecationWarning):
        # The latter is how WebOb refuses a form that is not in UTF-8.
        raise HTTPBadRequest() from None


def process_id_of(request: Request) -> str:
    """The request's process_id, from the query, for POSTs also from the body."""
    id = request.GET.get("process_id")
    if id is None and request.method == "POST":
        id = request.POST.get("process_id")
    if not isinstance(id, str) or not WELL_FORMED.fullmatch(id):
        raise BadProcessId()
    return id


def is_asked(request: Request, name: str) -> bool:
    """Whether a flag is set in the query."""
    return request.GET.get(name, "0").lower() not in ("", "0", "false", "no")


def is_tried_again(request: Request, error: Exception) -> bool:
    """Whether somebody around the application may repeat what met this error."""
    policy = request.registry.queryUtility(IExecutionPolicy)
    if not isinstance(error, TransientError):
        return False
    if policy is None or policy is default_execution_policy:
        return False
    # As pyramid_retry counts; of others nobody knows when they give up.
    attempt = request.environ.get("retry.attempt")
    attempts = request.environ.get("retry.attempts")
    return attempt is None or attempt + 1 != attempts


def is_api(request: Request) -> bool:
    """Whether the caller wants documents rather than pages."""
    if "respond-async" in request.headers.get("Prefer", "").lower():
        return True
    accept = request.headers.get("Accept", "").lower()
    return "application/json" in accept and "text/html" not in accept
