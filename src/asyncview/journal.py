"""The journal of one upload: the lines that say what is on disk, and its lock.

A change is one append, so after a crash a chunk is there whole or not at all.  The lock
is the kernel's (flock), and dies with its holder.
"""

import fcntl
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import suppress
from urllib.parse import quote

from asyncview.exceptions import UploadNotFound
from asyncview.upload import Chunks
from asyncview.upload import Manifest

NAME = "journal"

#: What is another after each start of the machine.
BOOT = "/proc/sys/kernel/random/boot_id"

#: A journal this long, in bytes, is written anew where that makes half of it; a million
#: appends would else cost a million lines to read at each.
LONG = 8 * 1024


@functools.cache
def running() -> tuple[str, str]:
    """This machine, and since which start it runs; both without spaces."""
    try:
        with open(BOOT, encoding="ascii") as file:
            boot = file.read().strip()
    except FileNotFoundError:
        # Not Linux: there a power cut is not noticed.
        boot = "-"
    return quote(os.uname().nodename) or "-", boot


class Journal:
    """One request's view of a journal.

    Other threads and processes write to the same file; each has its own descriptor,
    because that is what the lock belongs to.
    """

    def __init__(self, folder: str, manifest: Manifest) -> None:
        self._path = os.path.join(folder, NAME)
        self._manifest = manifest
        self._file = -1
        self._chunks = Chunks(manifest)
        self._read = 0
        #: How long it may be until it is worth to look whether it can be shorter.
        self._limit = LONG
        #: Whether there is half a line at the end.
        self._torn = False

    @contextmanager
    def locked(self, shared: bool = False, wait: bool = True) -> Iterator[Chunks]:
        """Hold the lock; gives what is on disk now.

        UploadNotFound where the upload was removed meanwhile; BlockingIOError where
        another holds the lock, and ``wait`` is False.
        """
        at_once = 0 if wait else fcntl.LOCK_NB
        self._lock((fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | at_once)
        try:
            machine, boot = running()
            if self._chunks.boots.get(machine) != boot:
                if shared:
                    self._lock(fcntl.LOCK_EX | at_once)
                if self._chunks.boots.get(machine) != boot:
                    self.write(f"{self._chunks.touched!r} boot {machine} {boot}")
            yield self._chunks
        finally:
            if self._file >= 0:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def sync(self) -> None:
        """Have all that was written outlive a power cut."""
        os.fsync(self._file)

    def write(self, *lines: str) -> None:
        """Add lines, all of them or none; the lock is held exclusively."""
        data = "".join(f"{line}\n" for line in lines).encode()
        if self._torn:
            # What a crash cut off would become one line with ours.
            os.ftruncate(self._file, self._read)
            self._torn = False
        done = os.write(self._file, data)
        if done != len(data):
            os.ftruncate(self._file, self._read)
            raise OSError("the journal could not be written whole")
        self._read += done
        for line in lines:
            self._chunks.apply(line)
        if self._read > self._limit:
            self._rewrite()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _lock(self, how: int) -> None:
        while True:
            if self._file < 0:
                self._open()
            fcntl.flock(self._file, how)
            if self._current():
                break
            self.close()
        self._catch_up()

    def _open(self) -> None:
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            raise UploadNotFound(self._manifest.uid) from None
        self._chunks, self._read = Chunks(self._manifest), 0

    def _current(self) -> bool:
        """Whether what is locked is the journal still, and not one written anew."""
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            self.close()
            raise UploadNotFound(self._manifest.uid) from None
        return os.path.samestat(there, os.fstat(self._file))

    def _catch_up(self) -> None:
        size = os.fstat(self._file).st_size
        self._torn = False
        if size <= self._read:
            return
        data = os.pread(self._file, size - self._read, self._read)
        data = data[: data.rfind(b"\n") + 1]
        for line in data.decode().splitlines():
            self._chunks.apply(line)
        self._read += len(data)
        self._torn = self._read < size

    def _rewrite(self) -> None:
        """Have a shorter journal that says the same, and go on with it.

        Where that fails the long one stays: what it has been told is written.
        """
        data = "".join(f"{line}\n" for line in self._chunks.lines()).encode()
        self._limit = max(LONG, 2 * len(data))
        if self._read < self._limit:
            return
        new = f"{self._path}.new"
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            file = os.open(new, flags, 0o600)
        except OSError:
            return
        try:
            # Nobody else knows it yet, and who waits for the old one looks again.
            fcntl.flock(file, fcntl.LOCK_EX)
            done = os.write(file, data) == len(data)
            if done:
                os.fsync(file)
                os.rename(new, self._path)
        except OSError:
            done = False
        if not done:
            os.close(file)
            with suppress(OSError):
                os.unlink(new)
            return
        os.close(self._file)
        self._file, self._read = file, len(data)
