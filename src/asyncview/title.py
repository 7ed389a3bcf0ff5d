"""How logs name a job: on one line, whatever it is called."""

from typing import Any


def title(job: Any) -> str:
    """A job or a ticket as one line of a log names it."""
    owner = job.owner[1] if job.owner else "anonymous"
    # A session that is no job has no view.
    what = one_line(job.view) or "session"
    return f"{job.id[:6]}… {what} of {one_line(owner)}"


def one_line(text: str, width: int = 200) -> str:
    """Bounded, and with nothing that could begin another line."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text[:width]
    )
