"""The outcome: the response that a job made, as it is kept."""

from typing import NamedTuple

from persistent import Persistent
from ZODB.blob import Blob
from zope.interface import implementer

from asyncview.interfaces import IOutcome

#: Bodies above this many bytes are blobs: 64 KiB.
INLINE = 64 * 1024

#: And those above this many are records of their own, which a poll does not load.
SMALL = 1024


class Content(Persistent):
    """A body of some kilobytes, beside the record that refers to it."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __getstate__(self) -> tuple[int, bytes]:
        return (1, self.data)

    def __setstate__(self, state: tuple[int, bytes]) -> None:
        _, self.data = state


@implementer(IOutcome)
class Outcome(NamedTuple):
    """See `IOutcome`."""

    status: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | Content | Blob
    size: int
