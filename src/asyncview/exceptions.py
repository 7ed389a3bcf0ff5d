"""What can go wrong, as classes; the facts are attributes."""


class AsyncViewError(Exception):
    """Something about a background view went wrong."""


class NoSuchProcessError(AsyncViewError, LookupError):
    """There is no such job, or it is not this caller's to see."""

    def __init__(self, process_id: object = None) -> None:
        super().__init__(process_id)
        self.process_id = process_id

    def __str__(self) -> str:
        return f"no process has the id {self.process_id!r}"


class ThreadDiedBeforeCompletionError(AsyncViewError, RuntimeError):
    """The job ended without a result.

    ``error_id`` finds its traceback in the log; ``reason`` is one of
    ``exception``, ``interrupted``, ``timeout``, ``not_reached`` and ``aborted``;
    ``type`` and ``message`` are those of the exception, as text, where there was one.
    """

    def __init__(
        self,
        error_id: str = "",
        reason: str = "exception",
        type: str = "",
        message: str = "",
    ) -> None:
        super().__init__(error_id, reason, type, message)
        self.error_id = error_id
        self.reason = reason
        self.type = type
        self.message = message

    def __str__(self) -> str:
        return f"the job ended without a result: {self.reason} ({self.error_id})"


class ProcessCancelledError(ThreadDiedBeforeCompletionError):
    """The job was cancelled."""

    def __str__(self) -> str:
        return "the job was cancelled"


class JobCancelled(BaseException):
    """Raised inside a job that was asked to stop, as asyncio's CancelledError."""


class QueueFull(AsyncViewError):
    """No more jobs are taken: in all (503), or of this owner (429).

    ``retry_after`` is in seconds.
    """

    def __init__(
        self, message: str, *, status: int = 503, retry_after: int = 30
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class InvalidTransition(AsyncViewError, ValueError):
    """A job, session or task can't go from its state to the one asked for.

    ``what`` is the word for it, ``current`` and ``wanted`` are its states.
    """

    def __init__(self, current: str, wanted: str, what: str = "job") -> None:
        super().__init__(current, wanted, what)
        self.current = current
        self.wanted = wanted
        self.what = what

    def __str__(self) -> str:
        error = "error"
        state = "has failed" if self.current == error else f"is {self.current}"
        change = "fail" if self.wanted == error else f"become {self.wanted}"
        return f"a {self.what} that {state} can't {change}"


class Fenced(AsyncViewError):
    """The job was taken away from this worker: it must write nothing more."""


class UploadNotFound(AsyncViewError, LookupError):
    """There is no such upload, or it is not this caller's to see."""

    def __init__(self, uid: object = None) -> None:
        super().__init__(uid)
        self.uid = uid

    def __str__(self) -> str:
        return f"no upload has the id {self.uid!r}"


class UploadExpired(UploadNotFound):
    """Nothing was added to the upload for so long that it is given up."""


class UploadIncomplete(AsyncViewError, ValueError):
    """The upload is not whole yet."""


class UploadRefused(AsyncViewError, ValueError):
    """What was sent can't be taken; what is there already stays.

    ``status`` is the HTTP status that says why, ``code`` a word for programs.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
