"""One upload on disk: how its bytes get there, and what becomes of them when all are.

Everything goes to its place in one preallocated file; what has no place yet is parked
in files of its own.  The lock is held for a block at a time, never while a client is
waited for.
"""

import os
import secrets
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import suppress
from urllib.parse import quote

from asyncview.digest import Digest
from asyncview.digest import checked
from asyncview.disk import Block
from asyncview.disk import disk_space
from asyncview.disk import length
from asyncview.disk import opened
from asyncview.disk import sync
from asyncview.disk import write_at
from asyncview.exceptions import UploadIncomplete
from asyncview.exceptions import UploadNotFound
from asyncview.exceptions import UploadRefused
from asyncview.folding import DATA
from asyncview.folding import FOLDED
from asyncview.folding import fold
from asyncview.folding import parked_name
from asyncview.journal import Journal
from asyncview.upload import NOBODY
from asyncview.upload import UNNAMED
from asyncview.upload import Chunks
from asyncview.upload import Manifest
from asyncview.upload import Part
from asyncview.upload import begin

MANIFEST = "manifest"


class Staged:
    """See the module.  An object is one request's; others may have the same upload."""

    def __init__(
        self, folder: str, manifest: Manifest, clock: Callable[[], float]
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self._clock = clock
        self._journal = Journal(folder, manifest)

    def __enter__(self) -> "Staged":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Keep no file open; what is asked for next opens it again."""
        self._journal.close()

    @property
    def uid(self) -> str:
        return self.manifest.uid

    def look(self, wait: bool = True) -> Chunks:
        """What is there now; UploadNotFound where the upload was removed.

        BlockingIOError where another changes it, and ``wait`` is False.
        """
        with self._journal.locked(shared=True, wait=wait) as chunks:
            return chunks

    @contextmanager
    def locked(self, wait: bool = True) -> Iterator[Chunks]:
        """Nobody else changes the upload; ``wait`` as `look`."""
        with disk_space(), self._journal.locked(wait=wait) as chunks:
            yield chunks

    def write(self, *words: str) -> None:
        """Write to the journal; the lock is held."""
        now = self._clock()
        self._journal.write(*(f"{now!r} {each}" for each in words))

    def check_same(self, other: Manifest) -> None:
        """Raise UploadRefused where that one was another file at first."""
        mine = self.manifest
        for name in ("total_size", "chunk_count"):
            if getattr(mine, name) != getattr(other, name):
                self.close()
                raise UploadRefused(400, "changed", f"{name} was another one at first")

    def rename(self, file_name: str) -> None:
        """Say what the file is called, if nobody has said it yet."""
        with self.locked() as chunks:
            if chunks.file_name == UNNAMED != file_name:
                self.write(f"name {quote(file_name)}")

    # Jobs

    def claim(self, job_id: str) -> None:
        """Let a job have the upload, which must be whole.

        From here on the file outlives a power cut, as the job does.
        """
        path = self.path()
        try:
            # This may take long, so nobody waits for it with the lock.
            for each in (path, self.folder, os.path.dirname(self.folder)):
                sync(each)
        except FileNotFoundError:
            raise UploadNotFound(self.uid) from None
        with self.locked():
            self.write("synced", f"claim {job_id}")
            self._journal.sync()

    def own(self, job_id: str) -> None:
        """The job is stored."""
        with self.locked():
            self.write(f"owned {job_id}")

    # Numbered chunks

    def put(
        self,
        number: int,
        size: int,
        blocks: Iterable[Block],
        digest: Digest | None = None,
    ) -> Chunks:
        """Take a chunk of ``size`` bytes, in place of an earlier one of this number.

        Raises UploadRefused; then it is as if nothing had been sent.
        """
        token = secrets.token_hex(4)
        with self.locked() as chunks:
            self._check_number(chunks, number, size)
            part = Part(size, chunks.place(number, size), token)
            self._unpark(number, chunks.coming.get(number))
            self.write(begin(number, part))
        try:
            self._receive(number, part, checked(blocks, size, digest))
            with self.locked() as chunks:
                self._check_writer(chunks, number, token)
                self._check_number(chunks, number, size)
                self._unpark(number, chunks.parts.get(number))
                self.write(f"put {number}")
        except BaseException:
            self._give_up(number, part)
            raise
        return self.finish()

    def _check_number(self, chunks: Chunks, number: int, size: int) -> None:
        count = self.manifest.chunk_count
        if count is None or not 0 <= number < count:
            raise UploadRefused(400, "bad_number", "there is no chunk of this number")
        refuse_if_complete(chunks)
        if size > chunks.room_for(number):
            raise UploadRefused(
                413, "too_large", "with this chunk there would be more than totalSize"
            )

    @staticmethod
    def _check_writer(chunks: Chunks, number: int, token: str) -> None:
        coming = chunks.coming.get(number)
        if coming is None or coming.token != token:
            raise UploadRefused(409, "overtaken", "another request sends this chunk")

    def _receive(self, number: int, part: Part, blocks: Iterable[Block]) -> None:
        if part.offset is None:
            name, at, flags = parked_name(number, part), 0, os.O_CREAT | os.O_EXCL
        else:
            name, at, flags = DATA, part.offset, 0
        path = os.path.join(self.folder, name)
        with disk_space(), opened(path, os.O_WRONLY | flags) as file:
            for block in blocks:
                with self._journal.locked() as chunks:
                    self._check_writer(chunks, number, part.token)
                    write_at(file, block, at)
                at += length(block)

    def _give_up(self, number: int, part: Part) -> None:
        # What fails here is put right by whoever sends the chunk again.
        with suppress(Exception), self._journal.locked() as chunks:
            if chunks.coming.get(number) == part:
                self.write(f"drop {number}")
            self._unpark(number, part)

    def _unpark(self, number: int, part: Part | None) -> None:
        if part is not None and part.offset is None:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(self.folder, parked_name(number, part)))

    # A file that grows

    def append(
        self,
        offset: int,
        size: int | None,
        blocks: Iterable[Block],
        digest: Digest | None = None,
        whole: bool = False,
    ) -> Chunks:
        """Add bytes at the end, which is at ``offset``; ``size`` of them, if known.

        What came before an error stays, but with a ``digest``, or where ``whole``:
        then it is as if nothing had been sent.
        """
        whole = whole or digest is not None
        token = secrets.token_hex(4)
        total = self.manifest.total_size
        with self.locked() as chunks:
            if self.manifest.chunk_count is not None:
                raise UploadRefused(409, "numbered", "this upload has numbered chunks")
            if offset != chunks.size:
                raise UploadRefused(
                    409, "wrong_offset", f"the upload goes on at {chunks.size}"
                )
            if offset + (size or 0) > total:
                raise UploadRefused(413, "too_large", "this is more than was announced")
            self.write(f"fence {token}")
        end = offset
        try:
            path = os.path.join(self.folder, DATA)
            with disk_space(), opened(path, os.O_WRONLY) as file:
                for block in checked(blocks, size, digest):
                    with self._journal.locked() as chunks:
                        self._check_still(chunks, token)
                        if end + length(block) > total:
                            raise UploadRefused(
                                413, "too_large", "this is more than was announced"
                            )
                        write_at(file, block, end)
                        end += length(block)
                        if not whole:
                            self.write(f"grow {token} {end}")
            with self.locked() as chunks:
                self._check_still(chunks, token)
                self.write(f"grow {NOBODY} {end}")
        except BaseException:
            with suppress(Exception), self._journal.locked() as chunks:
                if chunks.writer == token:
                    self.write(f"fence {NOBODY}")
            raise
        return self.finish()

    @staticmethod
    def _check_still(chunks: Chunks, token: str) -> None:
        if chunks.writer != token:
            raise UploadRefused(409, "overtaken", "another request has taken over")

    def take_over(self) -> Chunks:
        """What is there; whoever is adding to it at the moment must stop."""
        with self.locked() as chunks:
            if chunks.writer != NOBODY:
                self.write(f"fence {NOBODY}")
            return chunks

    # The end

    def finish(self) -> Chunks:
        """Put all in order if all is there; any number of times.

        UploadRefused where the chunks add up to another size than was announced.
        """
        with self.locked() as chunks:
            if chunks.complete or not chunks.all_there:
                return chunks
            if chunks.received != self.manifest.total_size:
                raise UploadRefused(
                    400,
                    "wrong_size",
                    f"all chunks are there, but they have {chunks.received} bytes and"
                    f" not {self.manifest.total_size}",
                )
            whole = fold(self.folder, chunks)
            self.write(f"whole {whole}", *(["synced"] if whole == FOLDED else []))
            for number, part in chunks.parts.items():
                self._unpark(number, part)
            if chunks.whole != DATA:
                os.unlink(os.path.join(self.folder, DATA))
            return chunks

    def path(self) -> str:
        """The whole file; UploadIncomplete if it is not whole yet."""
        try:
            chunks = self.finish()
        except UploadRefused as error:
            if error.status != 400:
                raise
            raise UploadIncomplete(str(error)) from None
        if not chunks.complete:
            raise UploadIncomplete(f"of {self.uid} there are {chunks.received} bytes")
        return os.path.join(self.folder, chunks.whole)


def refuse_if_complete(chunks: Chunks) -> None:
    if chunks.complete:
        raise UploadRefused(409, "complete", "the upload is complete")
