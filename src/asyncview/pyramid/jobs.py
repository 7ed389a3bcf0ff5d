"""``request.asyncview``: what one request may know and do of jobs and sessions."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from pyramid.request import Request
from pyramid.response import Response
from pyramid_zodbconn import get_connection

from asyncview import said
from asyncview.engine import Engine
from asyncview.job import Job
from asyncview.job import new_id
from asyncview.keeper import owner_key
from asyncview.pyramid import progress
from asyncview.pyramid.access import engine_of
from asyncview.pyramid.identity import is_admin
from asyncview.pyramid.identity import is_owner
from asyncview.pyramid.identity import visitor_of
from asyncview.pyramid.terms import translated
from asyncview.pyramid.uploads.incoming import staging_of
from asyncview.pyramid.uploads.incoming import uploader_of
from asyncview.pyramid.uploads.taking import handle_chunk
from asyncview.reader import SessionReader
from asyncview.session import ProgressSession
from asyncview.shard import Entry
from asyncview.store import Store
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.uploaded import Upload


class _TheUser:
    """The default owner of a session."""

    def __repr__(self) -> str:
        return "<the user>"


THE_USER = _TheUser()


class Jobs:
    """Jobs, sessions and uploads that the user of a request may see."""

    def __init__(self, request: Request) -> None:
        self._request = request

    # Sessions

    def new_id(self) -> str:
        """An id that nothing has, 32 characters of base64url."""
        return new_id()

    def create_session(
        self,
        id: str | None = None,
        label: str = "",
        owner: Any = THE_USER,
        tags: Iterable[str] = (),
        tasks: Mapping[str, str] | None = None,
        message: str = "",
        current: float | None = None,
        total: float | None = None,
        success_msg: str | None = None,
        success_url: str | None = None,
        error_msg: str | None = None,
        error_url: str | None = None,
        keep: float | None = None,
    ) -> ProgressSession:
        """A new session that is no job, stored at once, in its own transaction.

        ``owner`` is a userid, None for nobody: then whoever has the id may see it.
        ``tasks`` are names by id, ``keep`` is in seconds.  ValueError for an ``id``
        that is taken, or is none, and for an address where no browser may be sent.
        """
        request, visitor = self._request, None
        if owner is THE_USER:
            owner = request.authenticated_userid
            if owner is None:
                visitor = visitor_of(request, create=True)
        translate = request.localizer.translate
        return self._engine.keeper.create(
            id,
            label=translate(label),
            owner=owner,
            visitor=visitor,
            tags=tags,
            tasks=translated(request, tasks),
            message=translate(message),
            current=current,
            total=total,
            success_msg=None if success_msg is None else translate(success_msg),
            success_url=success_url,
            error_msg=None if error_msg is None else translate(error_msg),
            error_url=error_url,
            keep=keep,
        )

    def open_session(self, id: str) -> ProgressSession | None:
        """One that writes; None if there is none, it has ended, or is another's.

        It is taken from another process that has it, which can't say its end then.
        """
        if self._found(id) is None:
            return None
        return self._engine.keeper.open(id)

    def get_session(self, id: str) -> SessionReader | None:
        """One that reads, of a job too; None if there is none, or it is another's."""
        return self._found(id)

    def run_in_thread(
        self, session: ProgressSession, func: Callable[..., Any], *args: Any
    ) -> None:
        """Call ``func(connection, session, *args)`` in a thread of its own.

        The thread starts when the request's transaction has committed; if it does not
        the session fails.  ``connection`` is a new one of the primary database, with a
        transaction that commits together with the session's end, or aborts where
        ``func`` raises or has called ``session.fail``.
        """
        request = self._request
        go = self._engine.workers.prepare(
            request.registry._zodb_databases[""], session, func, args
        )
        environ = request.environ
        if not (environ.get("tm.active") or environ.get("repoze.tm.active")):
            go(True)
            return
        transaction = request.tm.get()
        transaction.addAfterCommitHook(go)
        transaction.addAfterAbortHook(go, (False,))

    def show_progress(self, session: Any) -> Response:
        """The processing page of a session.

        At its end it flashes the session's message, once, and goes to its
        ``success_url`` or ``error_url``.  AsyncViewError without a
        ``config.add_progress_view``.
        """
        return progress.show(self._request, session.id)

    # Jobs

    def get_job(self, id: str) -> Job | None:
        """A job of this user's (of anybody's for an admin), None if there is none.

        See `IJob`; it is for reading.
        """
        store = self._store()
        entry = store.find(id) if store is not None and isinstance(id, str) else None
        if entry is None or not entry.job.view or not self._may_see(entry):
            return None
        return entry.job

    def running(self, owner: Any = None, tag: str | None = None) -> list[SessionReader]:
        """Jobs and sessions that have not ended, newest first; read-only.

        ``owner`` is a userid, None: of everybody.  ValueError for several tags.
        """
        engine, owned = self._engine, owner_key(owner)
        tagged = None if tag is None else said.tag(tag)
        # As it is now: one that this very request has made is there.
        with reading(engine.db) as connection:
            store = store_of(connection, engine.settings.name)
            found = [
                engine.keeper.reader(entry)
                for entry in (() if store is None else store.unfinished())
                if not entry.job.state.ended
                and (owned is None or entry.job.owner == owned)
                and (tagged is None or tagged in entry.job.term("tags"))
            ]
        return sorted(found, key=lambda each: each.created or 0.0, reverse=True)

    @property
    def _engine(self) -> Engine:
        return engine_of(self._request)

    def handle_chunk(self, params: Mapping[str, Any]) -> dict[str, str]:
        """Take in one chunk of the GWS protocol, for an endpoint of one's own.

        ``params`` are ``uploadUid`` (empty on the first), ``fileName``, ``totalSize``,
        ``chunkNumber``, ``chunkCount`` and ``content``: bytes, a file, or what a form
        has of one.  Gives ``{"uploadUid": ...}``, the answer.
        """
        return handle_chunk(self._request, params)

    def get_upload(self, uid: str) -> Upload:
        """A whole upload of this user's; UploadNotFound, UploadIncomplete.

        Any number of times, also at the same time.
        """
        request = self._request
        with staging_of(request).find(uploader_of(request), uid) as staged:
            return Upload(staged, lambda: get_connection(request))

    def _store(self) -> Store | None:
        settings = self._engine.settings
        connection = get_connection(self._request, settings.database)
        return store_of(connection, settings.name)

    def _found(self, id: Any) -> SessionReader | None:
        """As it is now: a session is there before the request's snapshot knows it."""
        engine = self._engine
        with reading(engine.db) as connection:
            store = store_of(connection, engine.settings.name)
            if store is None or not isinstance(id, str):
                return None
            entry = store.find(id)
            if entry is None or not self._may_see(entry):
                return None
            return engine.keeper.reader(entry)

    def _may_see(self, entry: Entry) -> bool:
        request = self._request
        context = getattr(request, "context", None)
        permission = engine_of(request).settings.admin_permission
        return is_owner(request, entry.job) or is_admin(request, context, permission)
