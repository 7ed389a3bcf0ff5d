"""The outcome record: the response that a job made, as it is kept."""

from typing import Any

from persistent import Persistent
from ZODB.blob import Blob

#: Bodies above this many bytes are blobs: 64 KiB.
INLINE = 64 * 1024


class Outcome(Persistent):
    """See `IOutcome`."""

    status = "200 OK"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | Blob = b""
    size = 0

    def __init__(
        self,
        status: str,
        headers: tuple[tuple[str, str], ...],
        body: bytes | Blob,
        size: int,
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.size = size

    def __getstate__(self) -> tuple[Any, ...]:
        return (1, self.status, self.headers, self.body, self.size)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.status, self.headers, self.body, self.size = state
