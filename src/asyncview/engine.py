"""One application's jobs in one process: puts the parts together, starts and ends them.

Nothing here starts before the first request that has a reason for it.
"""

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable

from ZODB.DB import DB
from ZODB.interfaces import IBlobStorage

from asyncview import zeo
from asyncview.body import sweep
from asyncview.dispatch import Ids
from asyncview.dispatch import Live
from asyncview.failure import INTERRUPTED
from asyncview.forks import ForkGuard
from asyncview.interfaces import IExecutor
from asyncview.interfaces import IExecutorFactory
from asyncview.interfaces import IFront
from asyncview.keeper import Keeper
from asyncview.pulse import Pulse
from asyncview.runner import Runner
from asyncview.settings import Settings
from asyncview.staging import Staging
from asyncview.store import prepare
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.ticket import Brief
from asyncview.tidying import Tidying
from asyncview.trouble import TROUBLE
from asyncview.work import Workers

log = logging.getLogger("asyncview")

#: Seconds that jobs get to notice that they were asked to stop.
LAST_WORDS = 1.0

#: Requests that a process answers at a time; no server says how many threads it has.
REQUESTS = 64


class Engines:
    """The engines of one database in this process, by the names of applications."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.by_name: dict[str, Engine] = {}


def engines_of(db: DB) -> Engines:
    """Hung on the database: whoever has it finds who keeps its sessions."""
    engines: Engines = vars(db).setdefault("_asyncview", Engines())
    return engines


class Engine:
    """The jobs of one application, as one process sees them."""

    #: Whether it may have requests and jobs, and not only sessions.
    serves = True

    def __init__(
        self,
        settings: Settings,
        db: DB,
        front: IFront,
        factory: IExecutorFactory,
        fork: ForkGuard,
        at_exit: Callable[[], None],
    ) -> None:
        """``fork`` was made when ``db`` was opened.

        ``at_exit`` ends it all when the interpreter exits before `close` was called.
        """
        # Also of those that hold the application's own objects.
        for each in db.databases.values():
            zeo.cure(each.storage)
        self.settings = settings
        self.db = db
        self.ids = Ids()
        self.live = Live(settings.switch_interval)
        self.runner = Runner(db, settings.name, front, self.live)
        self.executor: IExecutor = factory(self.runner, settings.threads)
        #: None where there is no place for uploads.
        self.staging = staging = staging_for(settings, db)
        self.pulse = Pulse(
            self.runner,
            settings,
            self.ids,
            self.submit,
            self.settle_cancel,
            self._busy,
            self.executor,
            None if staging is None else Tidying(staging, db, settings.name),
        )
        #: Held by a start from its look at the limits to the end of its request.
        self.starting = threading.RLock()
        self.keeper = Keeper(
            self.runner,
            self.ids,
            settings.redirect_hosts,
            self.prepare,
            self.start,
            self.idle,
        )
        self.workers = Workers(self.keeper)
        engines_of(db).by_name[settings.name] = self
        self._fork = fork
        self._at_exit = at_exit
        self._lock = threading.Lock()
        self._looked = False
        self._prepared = False
        self._closed = False
        if self.serves:
            self._make_room()

    def _make_room(self) -> None:
        """For the requests and jobs of this process."""
        db = self.db
        if not IBlobStorage.providedBy(db.storage):
            log.warning(
                "the database has no place for blobs (blobstorage_dir): request bodies"
                " and results of any size will be records, and in memory"
            )
        # A pool size is what the ZODB warns about, and no limit.  A request and a job
        # open a second connection for a moment, to look or for a short transaction.
        most = max(db.getPoolSize(), REQUESTS) + self.settings.threads
        db.setPoolSize(2 * most + 1)

    def look(self) -> None:
        """At each request; at the first of a process: are there jobs to look after?

        Raises AsyncViewError in a process that was forked too late.
        """
        self._fork.check()
        if self._looked:
            return
        with self._lock:
            if self._looked:
                return
            try:
                with reading(self.db) as connection:
                    store = store_of(connection, self.settings.name)
                    self._prepared = store is not None
                    if store is not None:
                        self.ids.avoid = store.unreadable()
                    # Those that have ended want to expire.
                    waiting = store is not None and bool(store.crowd() or store.expiry)
            except TROUBLE:
                # Not every request needs the database, and the next one looks again.
                log.exception("nobody looks after the jobs yet")
                return
            if self.staging is not None and self._any_uploads(self.staging):
                waiting = True
            sweep(self.db, self.runner.clock())
            self._looked = True
        if waiting:
            self.start()

    @staticmethod
    def _any_uploads(staging: Staging) -> bool:
        try:
            return staging.any()
        except OSError:
            # Most requests need no uploads.
            log.exception("the uploads can't be looked at")
            return False

    def prepare(self) -> None:
        """Make the registry where there is none, before a transaction needs it."""
        if self._prepared:
            return
        with self._lock:
            if not self._prepared:
                try:
                    prepare(self.db, self.settings.name)
                except TROUBLE:
                    # Not every request starts a job, and the next one tries again.
                    log.exception("there is no place for jobs yet")
                    return
                self._prepared = True

    def start(self) -> None:
        """Have a pulse, and have it awake."""
        if not self._closed:
            if not self.pulse.started:
                atexit.register(self._at_exit)
            self.pulse.start()

    def submit(self, job_id: str, brief: Brief | None = None) -> None:
        """Have a job run that has been committed.  Quick, and raises nothing."""
        try:
            self.start()
            if brief is not None and self.executor.local:
                self.runner.claims.hand_over(brief)
            self.executor.submit(job_id)
        except Exception:
            # The sweep finds it: a wake-up is a hint.
            log.exception("the wake-up of %s… got lost", job_id[:6])

    def settle_cancel(self, job_id: str) -> None:
        """A wish to cancel was committed: end the job now, if nothing runs it."""
        session = self.live.session(job_id)
        if session is not None:
            session.stop()
            return
        self.executor.give_back(job_id)
        self.runner.claims.cancel(job_id)
        self.executor.withdraw(job_id)
        self.start()

    def buried(self, job_id: str) -> None:
        """A finished job was deleted: have the pulse tidy up after it."""
        self.live.ended.append(job_id)
        self.start()

    @property
    def leaked(self) -> int:
        """Threads of this process that jobs past their ``max_runtime`` still keep.

        Those that their ``on_end`` keeps for as long are among them.
        """
        leaked: int = self.executor.leaked + self.runner.apart.leaked
        return leaked

    def close(self, drain: float | None = None) -> None:
        """End it all; running jobs get ``drain`` seconds (the setting's, if None).

        What still runs then is asked to stop, and a moment later is marked as
        interrupted, or queued again where its view is ``restartable``.
        """
        if self._fork.forked:
            # Threads, locks and jobs are the parent's.
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        atexit.unregister(self._at_exit)
        engines = engines_of(self.db).by_name
        if engines.get(self.settings.name) is self:
            del engines[self.settings.name]
        self.executor.stop()
        end = time.monotonic() + (self.settings.drain if drain is None else drain)
        if not self._join(end):
            self.runner.leaving.set()
            for session in self.live.sessions():
                # In a session's own threads nobody expects to be stopped.
                if session.managed or not session.kept:
                    session.stop()
            self._join(time.monotonic() + LAST_WORDS)
        self.runner.closing.set()
        for session in self.live.sessions():
            try:
                self.pulse.rescue.take(str(session.id), INTERRUPTED)
            except Exception:
                log.exception("%.6s… could not be marked", session.id)
        self.runner.apart.join(LAST_WORDS)
        self.pulse.stop(timeout=LAST_WORDS)

    def idle(self) -> None:
        """A session of this process has ended."""

    def _join(self, end: float) -> bool:
        """Wait, by ``time.monotonic``, for all that runs; False if some still does."""
        executed = self.executor.join(max(end - time.monotonic(), 0.0))
        return self.workers.join(max(end - time.monotonic(), 0.0)) and executed

    def _busy(self) -> bool:
        return bool(len(self.live) or self.executor.busy() or self.runner.apart.busy)


def staging_for(settings: Settings, db: DB) -> Staging | None:
    """The place of uploads, beside the blobs if nothing else is said.

    There, because a file of another file system would be copied into a blob.
    """
    root = settings.upload_dir
    if root is None:
        if not IBlobStorage.providedBy(db.storage):
            return None
        blobs = os.path.dirname(os.path.abspath(db.storage.temporaryDirectory()))
        root = f"{blobs}.uploads"
    return Staging(
        root,
        settings.name,
        max_size=settings.upload_max_size,
        max_open=settings.upload_max_open,
        keep=settings.upload_keep,
    )
