"""The uploads of one application: a directory, in which each owner has one.

Whose an upload is says its place, so another owner's is not found.  Nothing is kept in
memory: any number of processes share the directory.
"""

import fcntl
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from asyncview.disk import disk_space
from asyncview.disk import opened
from asyncview.exceptions import UploadExpired
from asyncview.exceptions import UploadNotFound
from asyncview.exceptions import UploadRefused
from asyncview.folding import DATA
from asyncview.journal import NAME as JOURNAL
from asyncview.staged import MANIFEST
from asyncview.staged import Staged
from asyncview.upload import MAX_CHUNKS
from asyncview.upload import WELL_FORMED
from asyncview.upload import Chunks
from asyncview.upload import Manifest
from asyncview.upload import Owner
from asyncview.upload import key_of
from asyncview.upload import safe_name

log = logging.getLogger("asyncview.uploads")

#: What a directory's name begins with while it is filled or emptied; no uid does.
UNDONE = "."
#: What the name of a link begins with that leads from a client's key to a uid.
KEY = "="

#: Seconds after which an unfinished upload gives way to another one of its owner's.
IDLE = 900.0


class Staging:
    """See the module.

    ``keep`` is for how many seconds an upload waits for its next chunk, or for a job.
    """

    def __init__(
        self,
        root: str,
        name: str,
        *,
        max_size: int,
        max_open: int,
        keep: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.root = os.path.join(root, quote(name, safe=""))
        self.max_size = max_size
        self.max_open = max_open
        self.keep = keep
        self.clock = clock

    def create(
        self,
        owner: Owner,
        file_name: str,
        total_size: int,
        *,
        chunk_count: int | None = None,
        chunk_size: int | None = None,
        key: str | None = None,
        metadata: str = "",
        limited: bool = True,
    ) -> Staged:
        """Begin an upload; with a ``key``, go on with the one that has it.

        ``limited``: by how many the owner has open; one that is `IDLE` gives way.
        Raises UploadRefused.
        """
        if total_size > self.max_size:
            raise UploadRefused(413, "too_large", "the file is too large")
        if chunk_count is not None and chunk_count > min(MAX_CHUNKS, total_size or 1):
            raise UploadRefused(400, "bad_count", "these are too many chunks")
        manifest = Manifest(
            uid=secrets.token_urlsafe(24),
            file_name=safe_name(file_name),
            total_size=total_size,
            created=self.clock(),
            chunk_count=chunk_count,
            chunk_size=chunk_size,
            key=None if key is None else key_of(key),
            metadata=metadata,
        )
        with disk_space(), self.locked(self.folder_of(owner)) as folder:
            if manifest.key is not None:
                known = self._by_key(folder, manifest.key)
                if known is not None:
                    known.check_same(manifest)
                    return known
            if limited and any(owner):
                self._make_room(folder)
            self._fill(folder, manifest)
        staged = Staged(os.path.join(folder, manifest.uid), manifest, self.clock)
        if not total_size and not chunk_count:
            with staged, staged.locked():
                staged.write(f"whole {DATA}")
        return staged

    def find(self, owner: Owner, uid: Any) -> Staged:
        """An upload of this owner's; UploadNotFound, which may be UploadExpired."""
        if not isinstance(uid, str) or not WELL_FORMED.fullmatch(uid):
            raise UploadNotFound(uid)
        staged = self.load(self.folder_of(owner), uid)
        if self.is_expired(staged):
            staged.close()
            raise UploadExpired(uid)
        return staged

    def find_key(self, owner: Owner, key: str) -> Staged | None:
        """The upload of this owner's that the client calls ``key``."""
        return self._by_key(self.folder_of(owner), key_of(key))

    def remove(self, staged: Staged) -> None:
        """Remove an upload; who still writes to it finds out at the next block.

        UploadRefused where a job has it.
        """
        with staged.locked() as chunks:
            if chunks.jobs:
                raise UploadRefused(409, "in_use", "a job has this upload")
            away = self.put_away(staged)
        shutil.rmtree(away, ignore_errors=True)

    def forget_key(self, staged: Staged) -> None:
        """From now on a client that names the upload by its key begins anew."""
        if staged.manifest.key is not None:
            link = os.path.join(
                os.path.dirname(staged.folder), KEY + staged.manifest.key
            )
            with suppress(FileNotFoundError):
                if os.readlink(link) == staged.uid:
                    os.unlink(link)

    def is_expired(self, staged: Staged) -> bool:
        """Whether nobody has added anything for long, and no job has the upload."""
        return self.is_over(staged.look())

    def is_over(self, chunks: Chunks) -> bool:
        """The same, of what is known already."""
        idle = self.clock() - chunks.touched
        return not chunks.jobs and (chunks.spent or idle >= self.keep)

    def expires(self, staged: Staged) -> float:
        """When it will be, in seconds since the epoch."""
        return staged.look().touched + self.keep

    def any(self) -> bool:
        """Whether there is anything to look after."""
        with suppress(FileNotFoundError), os.scandir(self.root) as folders:
            return any(True for _ in folders)
        return False

    def put_away(self, staged: Staged) -> str:
        """Have an upload be there no more; its lock is held."""
        folder = os.path.dirname(staged.folder)
        away = os.path.join(folder, UNDONE + secrets.token_urlsafe(8))
        self.forget_key(staged)
        os.rename(staged.folder, away)
        return away

    # Directories

    def folder_of(self, owner: Owner) -> str:
        user, visitor = owner
        return os.path.join(self.root, key_of(*(user or ()), "", visitor or ""))

    @contextmanager
    def locked(self, folder: str, wait: bool = True) -> Iterator[str]:
        """The only one to make or remove uploads of one owner.

        BlockingIOError where another is, and ``wait`` is False.
        """
        file = _lock(folder, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield folder
        finally:
            os.close(file)

    def _fill(self, folder: str, manifest: Manifest) -> None:
        """Make the directory of an upload: it is there with all its files, or not."""
        new = os.path.join(folder, UNDONE + manifest.uid)
        os.mkdir(new, 0o700)
        try:
            with opened(os.path.join(new, MANIFEST), os.O_WRONLY | os.O_CREAT) as file:
                os.write(file, manifest.dump())
                os.fsync(file)
            with opened(os.path.join(new, JOURNAL), os.O_WRONLY | os.O_CREAT):
                pass
            with opened(os.path.join(new, DATA), os.O_WRONLY | os.O_CREAT) as file:
                if manifest.total_size:
                    # That there is no room is said now, and not after hours.
                    os.posix_fallocate(file, 0, manifest.total_size)
            if manifest.key is not None:
                link = os.path.join(folder, KEY + manifest.key)
                with suppress(FileNotFoundError):
                    os.unlink(link)
                os.symlink(manifest.uid, link)
            os.rename(new, os.path.join(folder, manifest.uid))
        except BaseException:
            shutil.rmtree(new)
            raise

    def load(self, folder: str, uid: str) -> Staged:
        """An upload, expired or not, in the directory of its owner."""
        path = os.path.join(folder, uid)
        try:
            with open(os.path.join(path, MANIFEST), "rb") as file:
                manifest = Manifest.load(file.read())
        except FileNotFoundError:
            raise UploadNotFound(uid) from None
        return Staged(path, manifest, self.clock)

    def _by_key(self, folder: str, key: str) -> Staged | None:
        try:
            staged = self.load(folder, os.readlink(os.path.join(folder, KEY + key)))
            if not self.is_expired(staged):
                return staged
            staged.close()
        except (FileNotFoundError, UploadNotFound):
            pass
        return None

    def _make_room(self, folder: str) -> None:
        """Have an owner's unfinished uploads be few enough for another one."""
        unfinished = []
        for uid in filter(WELL_FORMED.fullmatch, os.listdir(folder)):
            with suppress(UploadNotFound), self.load(folder, uid) as staged:
                chunks = staged.look()
                if not (chunks.complete or self.is_over(chunks)):
                    unfinished.append((chunks.touched, uid))
        if len(unfinished) < self.max_open:
            return
        # Clients that can't ask where to go on begin anew, and never come back to it.
        if not (unfinished and self._give_way(folder, min(unfinished)[1])):
            raise UploadRefused(
                413, "too_many", "too many uploads are unfinished; end one first"
            )

    def _give_way(self, folder: str, uid: str) -> bool:
        """Remove an unfinished upload that is idle; whether it has gone."""
        try:
            with self.load(folder, uid) as staged, staged.locked() as chunks:
                if chunks.complete or self.clock() - chunks.touched < IDLE:
                    return False
                away = self.put_away(staged)
        except UploadNotFound:
            return True
        log.info("the upload %.6s… gives way to another one", uid)
        shutil.rmtree(away, ignore_errors=True)
        return True


def _lock(folder: str, how: int) -> int:
    """Make a directory and lock it; gives the descriptor that the lock belongs to."""
    while True:
        os.makedirs(folder, 0o700, exist_ok=True)
        try:
            file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            # It was empty, and somebody has tidied up.
            continue
        try:
            fcntl.flock(file, how)
        except BlockingIOError:
            os.close(file)
            raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(folder), os.fstat(file)):
                return file
        os.close(file)
