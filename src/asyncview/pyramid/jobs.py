"""``request.asyncview``: the jobs of the application, as one request may see them."""

from collections.abc import Mapping
from typing import Any

from pyramid.request import Request
from pyramid_zodbconn import get_connection

from asyncview.job import new_id
from asyncview.pyramid.access import engine_of
from asyncview.pyramid.identity import is_admin
from asyncview.pyramid.identity import is_owner
from asyncview.pyramid.uploads.incoming import staging_of
from asyncview.pyramid.uploads.incoming import uploader_of
from asyncview.pyramid.uploads.taking import handle_chunk
from asyncview.shard import Entry
from asyncview.store import Store
from asyncview.store import store_of
from asyncview.uploaded import Upload


class Jobs:
    """See DESIGN.md, 4.5.  Everything here only reads."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def new_id(self) -> str:
        """An id that nothing has, 32 characters of base64url."""
        return new_id()

    def get_job(self, id: str) -> Entry | None:
        """A job of this user's (of anybody's for an admin), None if there is none."""
        store = self._store()
        entry = store.find(id) if store is not None and isinstance(id, str) else None
        if entry is None or not self._may_see(entry):
            return None
        return entry

    def running(self, owner: Any = None, tag: str | None = None) -> list[Entry]:
        """Jobs that have not ended, newest first; of one owner, with one tag.

        ``owner`` is a userid; None: of everybody.
        """
        store = self._store()
        if store is None:
            return []
        wanted = None if owner is None else (type(owner).__name__, str(owner))
        found = [
            entry
            for entry in store.unfinished()
            if not entry.job.state.ended
            and (wanted is None or entry.job.owner == wanted)
            and (tag is None or tag in entry.job.term("tags"))
        ]
        return sorted(found, key=lambda entry: entry.job.created, reverse=True)

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
        settings = engine_of(self._request).settings
        connection = get_connection(self._request, settings.database)
        return store_of(connection, settings.name)

    def _may_see(self, entry: Entry) -> bool:
        request = self._request
        context = getattr(request, "context", None)
        permission = engine_of(request).settings.admin_permission
        return is_owner(request, entry.job) or is_admin(request, context, permission)
