"""Hands uploads over to a job: from the form of its POST to its ``__run__``."""

from collections.abc import Iterator
from typing import Any

from pyramid.request import Request
from pyramid_zodbconn import get_connection

from asyncview.pyramid.uploads.incoming import form_of
from asyncview.pyramid.uploads.incoming import staging_of
from asyncview.pyramid.uploads.incoming import uploader_of
from asyncview.pyramid.uploads.taking import take_whole
from asyncview.staged import Staged
from asyncview.ticket import Ticket
from asyncview.uploaded import Upload

#: In the environ: uids of files that came in the form itself, staged once.
STAGED = "asyncview.uploads"


def claim(view: Any, job_id: str) -> tuple[tuple[str, str], ...]:
    """Have a job own what the form's fields name, as pairs of field and uid.

    What is claimed stays until the job is there, or never will be.  UploadNotFound,
    UploadIncomplete.
    """
    claimed = []
    for field in fields_of(view):
        for staged in _named(view.request, field):
            with staged:
                staged.claim(job_id)
            claimed.append((field, staged.uid))
    return tuple(claimed)


def confirm(request: Request, claimed: tuple[tuple[str, str], ...], job_id: str) -> Any:
    """What is to be done once the job is known to be stored."""
    staging, owner = staging_of(request), uploader_of(request)

    def run() -> None:
        for _, uid in claimed:
            with staging.find(owner, uid) as staged:
                staged.own(job_id)
                # Who sends a file of the same name now means another one.
                staging.forget_key(staged)

    return run


def upload_of(view: Any, field: str, ticket: Ticket | None) -> Upload | None:
    """The upload of a form's field; in a job the one that it owns."""
    request: Request = view.request
    if field not in fields_of(view):
        raise KeyError(f"{type(view).__name__}.uploads does not name {field!r}")
    if ticket is None:
        found = next(_named(request, field), None)
    else:
        uids = dict(reversed(ticket.terms.get("uploads", ())))
        if field not in uids:
            return None
        found = staging_of(request).find(uploader_of(request), uids[field])
    if found is None:
        return None
    with found:
        return Upload(found, lambda: get_connection(request))


def fields_of(view: Any) -> tuple[str, ...]:
    fields = view.uploads
    return (fields,) if isinstance(fields, str) else tuple(fields)


def _named(request: Request, field: str) -> Iterator[Staged]:
    """The uploads that a field of the form names or has in it."""
    staging, owner = staging_of(request), uploader_of(request)
    known = request.environ.setdefault(STAGED, {})
    for number, value in enumerate(form_of(request, staging.max_size).getall(field)):
        # Without a file a browser sends one without name and bytes.
        if value in ("", b""):
            continue
        if hasattr(value, "filename"):
            uid = known.get((field, number))
            if uid is None:
                uid = known[field, number] = take_whole(request, value, False).uid
        else:
            uid = value
        yield staging.find(owner, uid)
