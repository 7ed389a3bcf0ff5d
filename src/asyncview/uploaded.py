"""A whole upload, as whoever processes it sees it: a file that may become a blob."""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

from ZODB.blob import Blob
from ZODB.Connection import Connection

from asyncview.disk import sync
from asyncview.exceptions import UploadNotFound
from asyncview.staged import Staged

log = logging.getLogger("asyncview.uploads")


class Upload:
    """``file_name`` is a safe base name, ``total_size`` in bytes.

    ``path`` is that of the staged file, which is not to be changed or moved.
    """

    def __init__(self, staged: Staged, connect: Callable[[], Connection]) -> None:
        """UploadIncomplete if it is not whole."""
        self.path = staged.path()
        self.uid = staged.uid
        self.file_name = staged.look().file_name
        self.total_size = staged.manifest.total_size
        self._connect = connect

    def __repr__(self) -> str:
        return f"<Upload {self.uid[:6]}… {self.file_name!r} of {self.total_size} bytes>"

    def open(self) -> BinaryIO:
        """The file, for reading from its begin; UploadNotFound if it was removed."""
        try:
            return open(self.path, "rb")
        except FileNotFoundError:
            # Some servers take an OSError for the client's connection that broke.
            raise UploadNotFound(self.uid) from None

    def to_blob(self, connection: Connection | None = None) -> Blob:
        """A new blob of ``connection`` (the request's), without copying a byte.

        The staged file stays, for another attempt or another blob; until the commit it
        is the blob's own, so what is written to the blob before is written to both.
        """
        connection = connection or self._connect()
        # What is consumed is gone, also where the commit then fails.
        directory = connection.db().storage.temporaryDirectory()
        link = tempfile.mktemp(".upload", "asyncview-", directory)
        try:
            self._link(link)
            # The ZODB never does, and then a blob may be lost that was committed.
            sync(link)
            blob = Blob()
            # First this: else it would be moved to the system's temporary directory.
            connection.add(blob)
            blob.consumeFile(link)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(link)
            raise
        return blob

    def _link(self, link: str) -> None:
        try:
            os.link(self.path, link)
        except FileNotFoundError:
            raise UploadNotFound(self.uid) from None
        except OSError:
            log.warning(
                "%s is copied: asyncview.upload_dir is not on the file system of the"
                " blobs, or that has no links",
                self,
            )
            shutil.copyfile(self.path, link)
