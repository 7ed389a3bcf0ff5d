"""Removes the uploads that nobody needs: a little at a time, so that nobody waits."""

import logging
import os
import shutil
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import suppress

from ZODB.DB import DB

from asyncview import zeo
from asyncview.exceptions import UploadNotFound
from asyncview.staged import Staged
from asyncview.staging import KEY
from asyncview.staging import UNDONE
from asyncview.staging import Staging
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.upload import WELL_FORMED

log = logging.getLogger("asyncview.uploads")

#: Seconds between two looks at all uploads, at most.
EVERY = 60.0

#: Seconds that one step may take, but for a file that is large to remove.
BUDGET = 0.1

#: Seconds after which nobody is at it any more: what was begun and not ended, a claim
#: for a job that was never stored.
LEFT = 3600.0

#: The same for a claim of a job that was stored and is gone.
STORED = 60.0


class Tidying:
    """The pulse's own; `step` is called at its leisure.

    It waits for no lock: a process that stands still with one would have the pulse of
    all others stand still too, and nobody would take its jobs away.
    """

    def __init__(
        self,
        staging: Staging,
        db: DB,
        name: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._staging = staging
        self._db = db
        self._name = name
        self._monotonic = monotonic
        self._pause = min(EVERY, staging.keep / 4)
        self._due = monotonic()
        self._rest: Iterator[None] | None = None

    def step(self) -> bool:
        """Go on for a moment; True if there is more to do."""
        now = self._monotonic()
        if self._rest is None:
            if now < self._due:
                return False
            self._due = now + self._pause
            self._rest = self.sweep()
        rest, self._rest = self._rest, None
        for _ in rest:
            if self._monotonic() - now >= BUDGET:
                self._rest = rest
                return True
        return False

    def sweep(self) -> Iterator[None]:
        """Remove what has expired or was left behind, one at each step."""
        root = self._staging.root
        with suppress(FileNotFoundError):
            for owner in os.listdir(root):
                folder = os.path.join(root, owner)
                try:
                    yield from self._of_one(folder)
                except (FileNotFoundError, NotADirectoryError):
                    # Another process may have removed it, or it is none.
                    continue
                except OSError:
                    log.exception("%s can't be looked at", folder)

    def _of_one(self, folder: str) -> Iterator[None]:
        for name in os.listdir(folder):
            try:
                self._tidy(folder, name)
            except BlockingIOError:
                # Somebody is at it, and so it is needed; or will be looked at again.
                pass
            except Exception:
                # It must not keep the others.
                log.exception("the upload %.6s… could not be looked at", name)
            yield
        with suppress(OSError), self._staging.locked(folder, wait=False):
            os.rmdir(folder)

    def _tidy(self, folder: str, name: str) -> None:
        path = os.path.join(folder, name)
        if name.startswith(UNDONE):
            # Whoever made it may still be at it.
            with suppress(FileNotFoundError):
                if self._staging.clock() - os.stat(path).st_mtime >= LEFT:
                    shutil.rmtree(path, ignore_errors=True)
        elif name.startswith(KEY):
            # It is made just before what it leads to.
            with self._staging.locked(folder, wait=False):
                if not os.path.exists(path):
                    os.unlink(path)
        elif WELL_FORMED.fullmatch(name):
            with suppress(UploadNotFound), self._staging.load(folder, name) as staged:
                self._settle(staged)

    def _settle(self, staged: Staged) -> None:
        """Note which of its jobs there are, and let an upload go if none needs it."""
        staging, chunks, away = self._staging, staged.look(wait=False), None
        if not (chunks.jobs or staging.is_over(chunks)):
            return
        # The clock first: a process that stands still between the two must take a claim
        # for younger than it is, not for older.
        now = staging.clock()
        there = self._stored(set(chunks.jobs)) if chunks.jobs else set()
        with staged.locked(wait=False) as chunks:
            for job, (claimed, known) in tuple(chunks.jobs.items()):
                # Who claims it now is not in what we have seen of the database.
                if job in there and not known:
                    staged.write(f"owned {job}")
                elif job not in there and now - claimed >= (STORED if known else LEFT):
                    staged.write(f"disowned {job}")
            if staging.is_over(chunks):
                away = staging.put_away(staged)
        if away is not None:
            log.info("the upload %.6s… is removed: nobody needs it", staged.uid)
            shutil.rmtree(away, ignore_errors=True)

    def _stored(self, ids: set[str]) -> set[str]:
        """Those of the jobs that are in the database now."""
        zeo.catch_up(self._db.storage)
        with reading(self._db) as connection:
            store = store_of(connection, self._name)
            if store is None:
                return set()
            return {id for id in ids if store.may_have(id)}
