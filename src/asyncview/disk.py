"""Files by their descriptors: bytes at their place, and what a full disk says."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from asyncview.exceptions import UploadRefused

#: How much of a chunk is in memory at a time, in bytes.
BLOCK = 256 * 1024

#: What the kernel says where there is no room.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def opened(path: str, flags: int) -> Iterator[int]:
    file = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def disk_space() -> Iterator[None]:
    """What is raised in here where there is no room is UploadRefused, with 507."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UploadRefused(507, "disk_full", "there is no room for this") from error


def write_at(file: int, block: bytes, offset: int) -> None:
    view = memoryview(block)
    while view:
        done = os.pwrite(file, view, offset)
        view, offset = view[done:], offset + done


def copy(source: str, at: int, target: int, offset: int, size: int) -> None:
    with opened(source, os.O_RDONLY) as file:
        while size:
            block = os.pread(file, min(BLOCK, size), at)
            if not block:
                raise OSError(errno.EIO, "a chunk is shorter than it was", source)
            write_at(target, block, offset)
            at, offset, size = at + len(block), offset + len(block), size - len(block)


def sync(path: str) -> None:
    """Have a file or a directory outlive a power cut."""
    with opened(path, os.O_RDONLY) as file:
        os.fsync(file)
