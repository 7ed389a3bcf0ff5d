"""Files by their descriptors: bytes at their place, and what a full disk says."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from asyncview.exceptions import UploadRefused

#: How much of a chunk is in memory at a time, in bytes.
BLOCK = 256 * 1024

#: How much of one that is in a file already is copied at a time, in bytes.
STRETCH = 4 * 1024 * 1024

#: What the kernel says where there is no room.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

#: What it says where it can't copy from this file to that one by itself.
UNABLE = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSOCK, errno.EOPNOTSUPP})


class Stretch(NamedTuple):
    """A block that is not in memory: ``size`` bytes of the open ``file``."""

    file: int
    offset: int
    size: int


Block = bytes | Stretch


def length(block: Block) -> int:
    """In bytes."""
    return block.size if isinstance(block, Stretch) else len(block)


def in_memory(block: Block) -> bytes:
    if isinstance(block, Stretch):
        return os.pread(block.file, block.size, block.offset)
    return block


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


def write_at(file: int, block: Block, offset: int) -> None:
    if isinstance(block, Stretch):
        copy(block.file, block.offset, file, offset, block.size)
        return
    view = memoryview(block)
    while view:
        done = os.pwrite(file, view, offset)
        view, offset = view[done:], offset + done


def copy(source: int, at: int, target: int, offset: int, size: int) -> None:
    """From one file to another, within the kernel where that can do it."""
    able = True
    while size:
        done = _send(source, at, target, offset, size) if able else None
        if done is None:
            able, block = False, os.pread(source, min(BLOCK, size), at)
            write_at(target, block, offset)
            done = len(block)
        if not done:
            raise OSError(errno.EIO, "a file is shorter than it was")
        at, offset, size = at + done, offset + done, size - done


def _send(source: int, at: int, target: int, offset: int, size: int) -> int | None:
    """How many bytes the kernel copied; None if it does not do it."""
    # It writes where the file stands, which nobody else asks for.
    os.lseek(target, offset, os.SEEK_SET)
    try:
        return os.sendfile(target, source, at, size)
    except OSError as error:
        if error.errno not in UNABLE:
            raise
        return None


def sync(path: str) -> None:
    """Have a file or a directory outlive a power cut."""
    with opened(path, os.O_RDONLY) as file:
        os.fsync(file)
