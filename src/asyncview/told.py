"""What a session tells whoever asks it: as a dictionary, and line by line."""

import json
import time
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

from asyncview.job import Job
from asyncview.progress import COMPLETE
from asyncview.progress import ERROR
from asyncview.progress import RUNNING
from asyncview.progress import Snapshot


def as_dict(id: str | None, status: str, last: Snapshot, now: float) -> dict[str, Any]:
    """The document of `IProgressSession.to_dict`."""
    share = 100.0 if status == COMPLETE else last.share_at(now) or 0.0
    return {
        "session_id": id,
        "status": status,
        "overall_percent": int(share),
        "message": last.message,
        "tasks": {
            task.id: {
                "name": task.name or task.id,
                "status": task.status,
                "percent": int(task.share(now) or 0.0),
                "message": task.message,
            }
            for task in last.tasks
        },
    }


class Facts(NamedTuple):
    """What is known of a session besides its progress; as its record has it."""

    label: str = ""
    tags: tuple[str, ...] = ()
    owner: tuple[str, str] | None = None
    created: float | None = None
    started: float | None = None


def facts_of(job: Job) -> Facts:
    label, tags = job.term("label"), job.term("tags")
    return Facts(label, tags, job.owner, job.created, job.state.started)


class Told:
    """What can be read of a session, whoever tells it: see `IProgressSession`."""

    __slots__ = ()

    facts: Facts

    @property
    def label(self) -> str:
        """See `IProgressSession`."""
        return self.facts.label

    @property
    def tags(self) -> tuple[str, ...]:
        """See `IProgressSession`."""
        return self.facts.tags

    @property
    def owner(self) -> str | None:
        """See `IProgressSession`."""
        return None if self.facts.owner is None else self.facts.owner[1]

    @property
    def created(self) -> float | None:
        """See `IProgressSession`."""
        return self.facts.created

    @property
    def started(self) -> float | None:
        """See `IProgressSession`."""
        return self.facts.started

    def to_dict(self) -> dict[str, Any]:
        """See `IProgressSession`."""
        return self._tell()[0]

    def _tell(self) -> tuple[dict[str, Any], bool]:
        """The document as it is now, and whether it is the last one."""
        raise NotImplementedError

    def _wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def stream(self, poll_interval: float = 0.1) -> Iterator[str]:
        """See `IProgressSession`."""
        while True:
            # What is said to be the last is what is given: never looked at again.
            document, ended = self._tell()
            yield json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n"
            if ended:
                return
            self._wait(poll_interval)

    @property
    def status(self) -> str:
        """See `IProgressSession`."""
        return str(self.to_dict()["status"])

    @property
    def overall_percent(self) -> int:
        """See `IProgressSession`."""
        return int(self.to_dict()["overall_percent"])

    @property
    def has_error(self) -> bool:
        """See `IProgressSession`."""
        document = self.to_dict()
        tasks = document["tasks"].values()
        failed = any(task["status"] == ERROR for task in tasks)
        return failed or document["status"] == ERROR

    @property
    def is_complete(self) -> bool:
        """See `IProgressSession`."""
        return self.status == COMPLETE

    @property
    def is_running(self) -> bool:
        """See `IProgressSession`."""
        document, ended = self._tell()
        tasks = document["tasks"].values()
        going = any(task["status"] == RUNNING for task in tasks)
        return not ended and (going or document["status"] == RUNNING)
