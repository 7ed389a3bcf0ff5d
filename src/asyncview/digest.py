"""Whether a chunk is what was announced: as long as that, and with its checksum."""

import hashlib
from collections.abc import Iterable
from collections.abc import Iterator
from typing import NamedTuple

from asyncview.disk import Block
from asyncview.disk import in_memory
from asyncview.disk import length
from asyncview.exceptions import UploadRefused


class Digest(NamedTuple):
    """What a chunk must hash to; ``algorithm`` is one of `hashlib`'s."""

    algorithm: str
    value: bytes


def checked(
    blocks: Iterable[Block], size: int | None, digest: Digest | None
) -> Iterator[Block]:
    """The blocks; at their end UploadRefused where they are not what was announced."""
    seen = 0
    hasher = None if digest is None else hashlib.new(digest.algorithm)
    for block in blocks:
        seen += length(block)
        if size is not None and seen > size:
            break
        if hasher is not None:
            hasher.update(in_memory(block))
        yield block
    if size is not None and seen != size:
        raise UploadRefused(400, "wrong_length", f"this is not {size} bytes long")
    if hasher is not None and digest is not None and hasher.digest() != digest.value:
        raise UploadRefused(460, "checksum", "the checksum is another one")
