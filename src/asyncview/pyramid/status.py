"""The status document: one shape for polls, events, pages and API clients."""

import re
import time
from datetime import datetime
from datetime import timezone
from math import inf
from typing import Any

from pyramid.request import Request
from pyramid_zodbconn import get_connection

from asyncview.engine import Engine
from asyncview.i18n import _
from asyncview.i18n import written
from asyncview.job import CANCELLED
from asyncview.job import COMPLETED
from asyncview.job import FAILED
from asyncview.job import QUEUED
from asyncview.job import RUNNING
from asyncview.job import Job
from asyncview.progress import Snapshot
from asyncview.progress import TaskSnapshot
from asyncview.pyramid.identity import has_sessions
from asyncview.pyramid.identity import own_url
from asyncview.pyramid.identity import subview_url
from asyncview.shard import Entry
from asyncview.store import store_of

SUBVIEWS = ("processing", "completed", "result", "events", "cancel", "delete")

MESSAGES = {
    QUEUED: _("Waiting in the queue"),
    RUNNING: _("Running"),
    COMPLETED: _("Completed"),
    FAILED: _("Failed"),
    CANCELLED: _("Cancelled"),
}
STOPPING = _("Stopping")
UNSAFE = _("Something went wrong.")

#: More than a running job may show.
NOT_YET = 99.9


#: Where a word of a class's name begins: MyHTTPView, UserIDs.
WORD = re.compile(
    r"(?<=[a-z0-9])(?=[A-Z])|(?:(?<=[A-Z]{2})|(?<=[a-z][A-Z]))(?=[A-Z][a-z]{2})|_"
)


def label_of(view: Any) -> Any:
    """What people call the view's jobs."""
    if view.label:
        return view.label
    words = WORD.sub(" ", type(view).__name__).split()
    label = " ".join(
        word if word[:2].isupper() and len(word) > 1 else word.lower() for word in words
    )
    return label[:1].upper() + label[1:]


def shown_progress(entry: Entry, now: float | None = None) -> Any:
    """netsight.async's value: False, a number, True, or "ERROR".

    ``now`` is in seconds since the epoch: an estimate grows by itself.
    """
    state = entry.job.state
    if state.status in (FAILED, CANCELLED):
        return "ERROR"
    if state.status == COMPLETED:
        last = state.progress
        return 100 if last.numeric or last.share is not None else True
    share = None
    if entry.status != QUEUED:
        share = entry.snapshot.share_at(time.time() if now is None else now)
    if share is None:
        return False
    share = min(share, NOT_YET)
    return int(share) if share == int(share) else share


def snapshot_of(entry: Entry) -> Snapshot:
    state = entry.job.state
    return state.progress if state.ended else entry.snapshot


def version_of(entry: Entry) -> int:
    """Grows with every durable change of state, progress or flags."""
    state = entry.job.state
    if state.ended:
        return state.version
    return state.version + entry.snapshot.version + int(entry.cancel)


def is_stopping(entry: Entry) -> bool:
    """Whether the job was asked to stop, and has not ended yet.

    The wish itself is forgotten soon after the end, so it must not be shown then.
    """
    return entry.cancel and not entry.job.state.ended


def next_url(job: Job, base: str) -> str | None:
    """Where a browser goes when the job has ended; None before.

    A session that is no job has no result to go to.
    """
    state = job.state
    if not state.ended:
        return None
    url = job.term("success_url")
    if state.status != COMPLETED:
        url = job.term("error_url") or url
    if url or not job.view:
        return str(url) if url else None
    return subview_url(base, "result", job.id)


def links(job: Job, base: str) -> dict[str, str]:
    """Addresses by what they are for; a session that is no job has but two."""
    if job.view:
        return {name: subview_url(base, name, job.id) for name in SUBVIEWS}
    here = f"{base}?progress_id={job.id}"
    known = {"completed": here, "processing": f"{here}&page=1"}
    return {name: known.get(name, "") for name in SUBVIEWS}


def document(request: Request, entry: Entry, base: str | None = None) -> dict[str, Any]:
    """The status document: all keys always, one type a key.

    ``base`` is the view's own address, the request's if None.
    """
    job, state, last = entry.job, entry.job.state, snapshot_of(entry)
    if base is None:
        base = own_url(request)
    # An estimate grows until the end.
    now = state.finished or time.time()
    if state.status in (FAILED, CANCELLED):
        last = last.broken_off(now)
    shown = shown_progress(entry, now)
    percent = last.share_at(now)
    if state.status == COMPLETED:
        percent = 100.0 if shown == 100 and shown is not True else None
    elif percent is not None:
        percent = min(float(percent), NOT_YET)
    stopping = is_stopping(entry)
    return {
        "completed": shown,
        "progress": shown,
        "progress_message": _message(request, entry.status, shown, stopping),
        "process_id": job.id,
        "status": entry.status,
        "label": job.term("label"),
        "tags": list(job.term("tags")),
        "owner": None if job.owner is None else job.owner[1],
        "queue_position": _position(request, entry),
        "percent": percent,
        "current": last.current,
        "total": last.total,
        "message": _last_words(request, job, last),
        "estimated": last.estimated and not state.ended,
        "rate": rate(entry.started, last),
        "tasks": [_task(task, now) for task in last.tasks or declared(job)],
        "log": list(last.log),
        "version": version_of(entry),
        "created": iso(job.created),
        "started": iso(entry.started),
        "updated": iso(_updated(entry, last)),
        "finished": iso(state.finished),
        "attempt": max(state.attempt, last.attempt),
        "cancel_requested": stopping or state.status == CANCELLED,
        "error": _error(request, job),
        "next_url": next_url(job, base),
        "links": links(job, base),
    }


def declared(job: Job) -> tuple[TaskSnapshot, ...]:
    """The tasks of a job that has said nothing yet."""
    return tuple(TaskSnapshot(id, name) for id, name in job.term("tasks"))


def _task(task: TaskSnapshot, now: float) -> dict[str, Any]:
    return {
        "id": task.id,
        "name": task.name or task.id,
        "status": task.status,
        "percent": task.share(now),
        "current": task.current,
        "total": task.total,
        "message": task.message,
        "estimated": task.estimated,
        "tasks": [_task(each, now) for each in task.tasks],
    }


def _message(request: Request, status: str, shown: Any, stopping: bool) -> str:
    if stopping:
        text = STOPPING
    elif isinstance(shown, (int, float)) and not isinstance(shown, bool):
        percent = written(shown, request.locale_name)
        text = _("${percent}% completed...", mapping={"percent": percent})
    else:
        text = MESSAGES[status]
    return str(request.localizer.translate(text))


def _last_words(request: Request, job: Job, last: Snapshot) -> str:
    """The job's message; where nothing is flashed, what would have been."""
    status = job.state.status
    shown = not has_sessions(request) or next_url(job, "") is None
    if status in (COMPLETED, FAILED, CANCELLED) and shown:
        said = job.term("success_msg" if status == COMPLETED else "error_msg")
        return said or last.message
    return last.message


def _position(request: Request, entry: Entry) -> int | None:
    if entry.status != QUEUED:
        return None
    job = entry.job
    engine: Engine = request.registry.asyncview.engine
    position = engine.executor.position(job.id)
    if position is not None:
        return position
    # Where it is about to be stored the document is of a job that nobody has yet.
    connection = job._p_jar or get_connection(request, engine.settings.database)
    store = store_of(connection, engine.settings.name)
    if store is None:
        return None
    return sum(
        1
        for each in store.unfinished()
        if each.job.created < job.created and each.status == QUEUED
    )


def _updated(entry: Entry, last: Snapshot) -> float | None:
    """When something last changed; never before the start or after the end.

    Progress keeps its time in tenths of a second.
    """
    started, state = entry.started, entry.job.state
    moment = last.updated or state.finished or started
    if moment is not None and started is not None:
        moment = max(moment, started)
    if moment is not None and state.finished is not None:
        moment = min(moment, state.finished)
    return moment


def rate(started: float | None, last: Snapshot) -> float | None:
    """A second, since the count began; None where that is not known.

    ``started`` is when the job did, in seconds since the epoch.
    """
    since = started if last.since is None else last.since
    if not since or not last.updated or last.current is None:
        return None
    done = last.current - last.base
    # The time is kept in tenths of a second.
    a_second = done / max(last.updated - since, 0.1)
    return round(a_second, 2) if 0 < a_second < inf else None


def _error(request: Request, job: Job) -> dict[str, str] | None:
    failure = job.state.failure
    if failure is None:
        return None
    message = job.term("error_msg") or request.localizer.translate(UNSAFE)
    return {"id": failure.id, "reason": failure.reason, "message": message}


def iso(seconds: float | None) -> str | None:
    """ISO 8601 in UTC."""
    if seconds is None:
        return None
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
