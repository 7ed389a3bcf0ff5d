"""A body on its way into the database: a few bytes, or a file that becomes a blob."""

import glob
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from typing import BinaryIO

from ZODB.blob import Blob
from ZODB.Connection import Connection
from ZODB.DB import DB
from ZODB.interfaces import IBlobStorage

from asyncview.outcome import INLINE

#: How much of a body is in memory at a time, in bytes.
BLOCK = 256 * 1024


class Body:
    """Bytes, or a synced file in the storage's own temporary directory.

    There, because a file elsewhere would be copied and not renamed at commit, and
    because the ZODB never syncs a blob itself.
    """

    def __init__(self, data: bytes = b"", path: str | None = None, size: int = 0):
        self.data = data
        self.path = path
        self.size = size if path else len(data)

    @classmethod
    def collect(cls, chunks: Iterable[bytes], db: DB) -> "Body":
        """All of ``chunks``; memory stays flat where the storage has blobs."""
        directory = (
            db.storage.temporaryDirectory()
            if IBlobStorage.providedBy(db.storage)
            else None
        )
        held: list[bytes] = []
        size = 0
        chunks = iter(chunks)
        for chunk in chunks:
            held.append(chunk)
            size += len(chunk)
            if size > INLINE and directory is not None:
                return cls._spooled(held, chunks, directory)
        return cls(b"".join(held))

    @classmethod
    def read(cls, file: BinaryIO, db: DB) -> "Body":
        """All of ``file``, from where it stands."""
        return cls.collect(iter(lambda: file.read(BLOCK), b""), db)

    @classmethod
    def _spooled(
        cls, held: list[bytes], chunks: Iterable[bytes], directory: str
    ) -> "Body":
        handle, path = tempfile.mkstemp(".body", "asyncview-", directory)
        size = 0
        try:
            with os.fdopen(handle, "wb", buffering=0) as file:
                for chunk in held:
                    size += _write_all(file, chunk)
                held.clear()
                for chunk in chunks:
                    size += _write_all(file, chunk)
                os.fsync(file.fileno())
        except BaseException:
            os.unlink(path)
            raise
        return cls(path=path, size=size)

    def store(self, connection: Connection) -> bytes | Blob:
        """What a record keeps: the bytes, or a blob of ``connection``."""
        if self.path is None:
            return self.data
        blob = Blob()
        connection.add(blob)
        # Each attempt has a link of its own: what is consumed is gone, also where
        # the commit then fails.
        link = tempfile.mktemp(".body", "asyncview-", os.path.dirname(self.path))
        os.link(self.path, link)
        blob.consumeFile(link)
        return blob

    def close(self) -> None:
        """Remove the file; a blob made of it stays."""
        if self.path is not None:
            os.unlink(self.path)
            self.path = None


def sweep(db: DB, now: float, age: float = 86400.0) -> None:
    """Remove the files of bodies that a killed process left behind.

    Only those that are ``age`` seconds old: others may be another process's.
    """
    if not IBlobStorage.providedBy(db.storage):
        return
    folder = db.storage.temporaryDirectory()
    for path in glob.glob(os.path.join(glob.escape(folder), "asyncview-*.body")):
        # Somebody else may be just as tidy.
        with suppress(OSError):
            if now - os.stat(path).st_mtime >= age:
                os.unlink(path)


def _write_all(file: object, chunk: bytes) -> int:
    view = memoryview(chunk)
    while view:
        view = view[file.write(view) :]  # type: ignore[attr-defined]
    return len(chunk)
