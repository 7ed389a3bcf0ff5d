"""The contract: the nouns of asyncview in the order one meets them."""

from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

from zope.interface import Attribute
from zope.interface import Interface


class IJob(Interface):
    """What was said when a job was started; it never changes.

    A job goes ``queued -> running -> completed | failed | cancelled``; from ``queued``
    it can also go to ``cancelled`` and ``failed`` at once, and from ``running`` back to
    ``queued`` when its worker died and its view is ``restartable``, or when it was
    claimed ahead of its turn and has not begun.  The last three are final.
    """

    id = Attribute("32 characters of base64url; the `process_id` of every URL (str)")
    view = Attribute("Identity of the view: virtual root and path; empty: no job (str)")
    context = Attribute("The context's oid (bytes), None if it is not persistent")
    owner = Attribute("Type and text of the userid, None for nobody")
    visitor = Attribute("Digest of an anonymous owner's session secret, or None (str)")
    created = Attribute("Seconds since the epoch, UTC (float)")
    state = Attribute("Its `IState`")

    def term(name: str) -> Any:
        """What the view said about its jobs, by the name of its attribute.

        KeyError for a name that is not in `asyncview.job.TERMS`.
        """


class IState(Interface):
    """Where a job stands.

    Written when the job is claimed, with its first checkpoint, when it ends and when
    it is deleted, and by nobody else.  Each change is guarded: from a state that does
    not allow it, it raises InvalidTransition and changes nothing.
    """

    status = Attribute("queued, running, completed, failed or cancelled")
    version = Attribute("Grows with each change (int)")
    worker = Attribute("Id of the process that claimed it, or None (str)")
    token = Attribute("Fencing token of the claim; see `requeue`; or None (str)")
    attempt = Attribute("Entries into the work because of conflicts or restarts (int)")
    restarts = Attribute("How often it was queued again after a worker's death (int)")
    started = Attribute(
        "Seconds since the epoch, UTC (float); None before, and while it is not known"
        " whether a job that was claimed ahead of its turn has begun"
    )
    finished = Attribute("Likewise")
    request = Attribute("Its `IStoredRequest`; None when the job has ended")
    live = Attribute("Its `IProgress` while it runs, else None")
    progress = Attribute("The last snapshot of an ended job's progress")
    failure = Attribute("Reason, error id, type, message, traceback as text, or None")
    outcome = Attribute("Its `IOutcome`, or None")
    flashes = Attribute("What the job flashed: pairs of queue and message")
    changed = Attribute("What the view said anew in its work (dict)")
    ended = Attribute("Whether the status is final (bool)")
    deleted = Attribute("Whether this is a tombstone (bool)")
    checkpointed = Attribute("Whether work of it was committed before its end (bool)")

    def take_over(worker: str, token: str) -> None:
        """Another process goes on with a session that is no job; running only."""

    def check(token: str) -> None:
        """Raise Fenced unless the job runs under this claim."""

    def claim(worker: str, token: str, now: float | None) -> None:
        """queued -> running; ``now`` is None where its turn is yet to come."""

    def give_back(mark: str | None = None) -> None:
        """running -> queued, of a job that was claimed ahead and has not begun.

        ``mark`` as in `requeue`, but it counts neither as attempt nor as restart.
        """

    def complete(outcome: Any, last: Any, now: float, **facts: Any) -> None:
        """running -> completed; ``last`` is the last snapshot of the progress.

        The ``outcome`` of a session that is no job is None.

        The ``facts`` are ``changed`` (what the view said anew), ``flashes`` and
        ``keep_request``.
        """

    def fail(
        failure: Any, last: Any, now: float, outcome: Any = None, **facts: Any
    ) -> None:
        """queued or running -> failed."""

    def cancel(last: Any, now: float, **facts: Any) -> None:
        """queued or running -> cancelled."""

    def requeue(last: Any, mark: str | None = None) -> None:
        """running -> queued, after the death of the worker.

        ``mark`` stands for the token until the next claim: who queued the job can tell
        after a doubtful commit.
        """

    def delete() -> None:
        """Leave a tombstone; a final state only."""


class IStoredRequest(Interface):
    """What a replay needs to be the same request again; text, bytes and blobs only."""

    environ = Attribute("Pairs of CGI name and exact text")
    body = Attribute("bytes, or a blob where there are more than 64 KiB")
    size = Attribute("Length of the body in bytes (int)")
    session = Attribute("The session as it was, opaque bytes, or None")


class IProgress(Interface):
    """A small record of its own for the last snapshot of a job's progress."""

    snapshot = Attribute("An `asyncview.progress.Snapshot`")


class IOutcome(Interface):
    """A response as it is kept."""

    status = Attribute("Status line, as '200 OK' (str)")
    headers = Attribute("Pairs of name and value; checked, no hop-by-hop ones")
    body = Attribute("bytes, a record of bytes above 1 KiB, a blob above 64 KiB")
    size = Attribute("Length of the body in bytes (int)")


class IStore(Interface):
    """The persistent registry of one application's jobs."""

    def add(job: Any, key: str | None = None) -> None:
        """Register a new job; a second with the same exclusive key is a conflict."""

    def find(id: str) -> Any:
        """The entry of a job (its `IJob`, the wish to cancel, its progress), or None.

        A deleted job is none, and so is one whose record can't be read.
        """

    def unfinished() -> Iterator[Any]:
        """Entries of the jobs that may not have ended, and can be read."""


class ICount(Interface):
    """How much of how much is done, in plain memory; any thread may call it.

    What a session and its tasks have in common.

    When the job was asked to stop every call raises JobCancelled, each time.
    """

    id = Attribute("Of a session: the job's id, None outside of a job (str)")

    def update(
        current: float | None = None,
        total: float | None = None,
        message: str | None = None,
    ) -> None:
        """Say how much of how much is done, and what is being done.

        What is omitted stays as it is.
        """

    def advance(n: float = 1) -> None:
        """Say that ``n`` more are done."""

    def track(
        iterable: Iterable[Any],
        total: float | None = None,
        message: str | None = None,
    ) -> Iterator[Any]:
        """Yield the items and count them; ``total`` is `len`, where they have one."""

    def task(
        id: str,
        name: str | None = None,
        total: float | None = None,
        weight: float | None = None,
        expected: float | None = None,
    ) -> Any:
        """The `ITask` with this id, declared or new; what is given is taken over.

        ``weight`` is its part of the whole, 1 if nothing was said.  ``expected`` is in
        seconds: a task without counts then has a percentage that eases towards 95 as
        the time goes by, and says that it is an estimate.  ValueError for what is not
        above 0, and for an id that is no text or has more than 500 characters.
        """

    def as_factory() -> Any:
        """A factory for `asyncview.progress_loop` that counts here.

        The ``finish()`` of what it makes ends a stage, and nothing else.
        """

    def stop() -> None:
        """Ask the job to stop."""


class ITask(ICount):
    """A part of the work: ``pending -> running -> complete | error``.

    As context manager it starts, and then completes or fails.  One that nobody
    started runs as soon as it, or a task of it, says something.  One that is done has
    failed if a task of it has.  A task of a task has no tasks: ValueError.
    """

    name = Attribute("What people call it; its id if nothing was said (str)")

    def start() -> Any:
        """pending -> running; gives the task.  ValueError when it has ended."""

    def complete(message: str | None = None) -> None:
        """It is done, started or not; ValueError after an error."""

    def error(message: str | None = None) -> None:
        """It failed; ``message`` is shown to users."""


class IProgressSession(ICount):
    """Live progress of a job, or of any piece of work.

    The pulse makes it visible to other processes.  Statuses are ``pending``,
    ``running``, ``complete`` and ``error``.  After its end a session stays as it was:
    what is said then is shown nowhere, and is no error.
    """

    label = Attribute("What people call it (str)")
    owner = Attribute("The userid as text; None: nobody's (str)")
    tags = Attribute("Words to find it by (tuple of str)")
    created = Attribute("Seconds since the epoch, UTC; None where it is kept nowhere")
    started = Attribute("Likewise")
    status = Attribute("How it ended; before, error > complete > running > pending")
    overall_percent = Attribute("Weighted mean of the tasks, else of the counts (int)")
    has_error = Attribute("Whether a task failed, or the session (bool)")
    is_complete = Attribute("Whether all tasks are complete, or it has finished (bool)")
    is_running = Attribute("Whether anything runs (bool)")

    def start(id: str) -> Any:
        """Start the task with this id; KeyError if there is none, as below."""

    def complete(id: str, message: str | None = None) -> None:
        """Complete a task."""

    def error(id: str, message: str | None = None) -> None:
        """Fail a task."""

    def add_sequential(id: str, func: Any, *args: Any, **kw: Any) -> Any:
        """Run ``func`` now, as a task.

        ``.result`` of what it gives is the value, or raises the exception.
        """

    def add_parallel(id: str, future: Any) -> Any:
        """Have a task follow a `concurrent.futures.Future`; ``.result`` likewise."""

    def finish(message: str | None = None, url: str | None = None) -> None:
        """End a session that is no job; ``url`` is where a browser goes then.

        AsyncViewError for a job's, InvalidTransition when it has ended.
        """

    def fail(error: Any, url: str | None = None) -> None:
        """End it as failed: with an exception, a text that users may see, or None."""

    def to_dict() -> dict[str, Any]:
        """``session_id``, ``status``, ``overall_percent``, ``message``, ``tasks``.

        Of each task, by id: ``name``, ``status``, ``percent`` (int), ``message``.
        """

    def stream(poll_interval: float = 0.1) -> Iterator[str]:
        """What `to_dict` gives, as JSON, one a line, now and every so many seconds.

        The last one is always that of the end.
        """


class IKeeper(Interface):
    """Keeps the sessions of one application's database in this process."""

    def create(**terms: Any) -> Any:
        """A new `IProgressSession`, in the database; ValueError for a taken id."""

    def get(id: str) -> Any:
        """A read-only one of any process, or None."""

    def end(
        session: Any,
        status: str,
        message: str | None,
        url: str | None,
        error: BaseException | None,
    ) -> None:
        """Record the end of a session: ``complete`` or ``error``."""

    def address(url: Any) -> str:
        """As a browser may be sent there; ValueError if it may not."""


class IFront(Interface):
    """What knows a web framework: runs a stored request through its application."""

    def replay(ticket: Any) -> None:
        """Run the ticket's request in this thread, in a transaction of its own.

        Where the view came to an outcome, that is recorded in the transaction of the
        work.  The `Verdict` is left on the ticket; none, or an exception from
        here, means doubt, and the database knows.  The work is not entered unless the
        same transaction has seen that the job is still the ticket's (`Ticket.state`).
        """


class IExecutor(Interface):
    """Gets a job to a worker, soon."""

    local = Attribute("Whether this process runs what is submitted here (bool)")
    leaked = Attribute("Threads that jobs keep which were taken from them (int)")

    def submit(job_id: str) -> None:
        """Have the job run.  The job is committed already; saying it twice is fine."""

    def withdraw(job_id: str) -> None:
        """Forget a job that has ended while it waited; those behind move up."""

    def waiting(job_id: str) -> bool:
        """Whether this process will run the job, or is just claiming it.

        No longer once it is live, or turned out not to be queued any more.
        """

    def ahead() -> list[str]:
        """Ids of the jobs that are claimed and wait for the one before them to end."""

    def give_back(job_id: str | None = None) -> None:
        """Queue such jobs again: this one, or all that wait behind a slow one.

        In a transaction of its own, after any other that does so; what can't be given
        back stays claimed, who was asked to stop is cancelled.
        """

    def position(job_id: str) -> int | None:
        """How many wait before the job in this process; None if it does not know."""

    def busy() -> bool:
        """Whether anything waits or runs here."""

    def abandon(job_id: str) -> None:
        """A running job was taken away, and its thread may never come back.

        Another takes its place.
        """

    def stop() -> None:
        """Ask it to claim no more.  What runs goes on, what waits is given back."""

    def join(timeout: float) -> bool:
        """After `stop`: wait until nothing runs and no thread of it is left.

        Those that were given up do not count.  False where that took longer than
        ``timeout`` seconds.
        """


class IExecutorFactory(Interface):
    """Makes an executor."""

    def __call__(runner: Any, threads: int) -> IExecutor:
        """An executor that hands claimed jobs to ``runner``."""
