"""The one housekeeping thread of a process: progress, heartbeat, sweep."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from ZODB.Connection import Connection

from asyncview.dispatch import Ids
from asyncview.dispatch import Live
from asyncview.expiry import BATCH
from asyncview.expiry import EXPIRE
from asyncview.expiry import Expired
from asyncview.expiry import expire
from asyncview.expiry import expires
from asyncview.failure import TIMEOUT
from asyncview.interfaces import IExecutor
from asyncview.job import QUEUED
from asyncview.job import Job
from asyncview.progress import Snapshot
from asyncview.rescue import Claim
from asyncview.rescue import Rescue
from asyncview.runner import Runner
from asyncview.session import ProgressSession
from asyncview.settings import Settings
from asyncview.shard import Entry
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.store import transact
from asyncview.tidying import Tidying
from asyncview.unreadable import Unreadable

log = logging.getLogger("asyncview.pulse")

#: Seconds of life before a process takes over queued jobs that it was not told of:
#: a script that ends at once must not claim.
SETTLE = 5.0

#: A lease has this many heartbeats.
BEATS = 6


class Pulse:
    """Writes what the jobs of this process say, and looks after everybody's.

    ``submit`` has a job run in this process, ``cancel`` ends one that was asked to stop
    or has it know; ``busy`` says whether anything waits or runs.  But for `start` and
    `stop` its methods are its own thread's.
    """

    def __init__(
        self,
        runner: Runner,
        settings: Settings,
        ids: Ids,
        submit: Callable[[str], None],
        cancel: Callable[[str], None],
        busy: Callable[[], bool],
        executor: IExecutor,
        tidying: Tidying | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.runner = runner
        self.live: Live = runner.live
        self.settings = settings
        self.ids = ids
        self.rescue = Rescue(runner, settings.lease, monotonic)
        self._submit = submit
        self._cancel = cancel
        self._busy = busy
        self._executor = executor
        self._tidying = tidying
        self._monotonic = monotonic
        self._born = monotonic()
        # At once: only who has been seen for a lease can be called dead.
        self._due = self._born
        self._wake = threading.Event()
        self._stopping = False
        self._poked = False
        self._resting = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        #: Progress that is not in the database yet, by job.
        self._news: dict[str, Snapshot] = {}
        #: Jobs that have ended and stand among the unfinished still.
        self._tidy: set[str] = set()
        self._unreadable = Unreadable()
        self._beaten = -float("inf")
        self._leased = False

    # The thread

    def start(self) -> None:
        """Start the thread, once, and have it awake: there is work, or will be."""
        # First this, then the question whether it rests; the thread asks in the
        # other order, so that one of the two sees the other.
        self._poked = True
        if self._resting:
            self._wake.set()
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._stopping:
                    thread = threading.Thread(
                        target=self._loop, name="asyncview-pulse", daemon=True
                    )
                    thread.start()
                    self._thread = thread

    @property
    def _beat_every(self) -> float:
        return self.settings.lease / BEATS

    @property
    def started(self) -> bool:
        return self._thread is not None

    def stop(self, timeout: float | None = None) -> None:
        """Beat once more, end the thread, and leave no lease behind."""
        with self._lock:
            self._stopping = True
            thread = self._thread
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _loop(self) -> None:
        while not self._stopping:
            self._resting = True
            poked, self._poked = self._poked, False
            if poked or self._busy() or self.live.ended or self._tidy or self._news:
                self._resting = False
                pause = min(self.settings.progress_interval, self._beat_every)
            else:
                pause = max(self._due - self._monotonic(), 0.05)
            self._wake.wait(pause)
            self._wake.clear()
            self._resting = False
            if not self._stopping:
                self._guarded(self.beat)
                if self._monotonic() >= self._due:
                    self._guarded(self.sweep)
                    self._guarded(self._tidy_uploads)
        self._guarded(self.beat)

    def _guarded(self, action: Callable[..., Any], *arguments: Any) -> None:
        # Storage trouble must not end the thread, nor keep the next from its turn; and
        # what a job handed over may raise anything when it is looked at.
        try:
            action(*arguments)
        except BaseException:
            name = getattr(action, "__name__", "go on").strip("_")
            log.exception("the pulse could not %s", name)

    # Beat

    def beat(self) -> None:
        """One transaction for all that is new; none if nothing is."""
        for session in self.live.overdue(self._monotonic()):
            self._guarded(self._time_out, session)
        self.runner.apart.give_up(self._monotonic())
        self._guarded(self._executor.give_back)
        now = self.runner.clock()
        for session in self.live.sessions():
            # One that can't be looked at must not cost the others their heartbeat.
            self._guarded(self._take, session, now)
        while self.live.ended:
            self._tidy.add(self.live.ended.popleft())
        for session in self.live.sessions():
            if session.settled:
                self._guarded(session.settle)
        due = self._monotonic() - self._beaten >= self._beat_every
        # Between two jobs that were claimed at once none is live.
        working = bool(self.live or self._executor.ahead())
        beating = working and (due or not self._leased) and not self._stopping
        leaving = self._stopping and self._leased
        with self.ids.using(list(self._tidy)) as tidy:
            if self._news or tidy or beating or leaving:
                transact(
                    self.runner.db,
                    lambda connection: self._write(connection, tidy, beating, leaving),
                )
            self._news.clear()
            self._tidy.difference_update(tidy)
        if beating:
            self._beaten, self._leased = self._monotonic(), True
        self._look_around()

    def _take(self, session: ProgressSession, now: float) -> None:
        snapshot = session.take(now)
        if snapshot is not None:
            self._news[str(session.id)] = snapshot

    def _write(
        self, connection: Connection, tidy: list[str], beating: bool, leaving: bool
    ) -> None:
        store = store_of(connection, self.runner.name)
        if store is None:
            return
        worker = self.runner.worker
        for id, snapshot in self._news.items():
            with self._unreadable.skipped(id):
                entry = store.find(id)
                # It may have been taken from us, and be another's by now.
                if entry is not None and entry.job.state.worker == worker:
                    if entry.progress is not None:
                        entry.progress.snapshot = snapshot
        for id in tidy:
            with self._unreadable.skipped(id):
                store.file(id, self._expires)
        if leaving:
            store.leases.pop(worker, None)
        elif beating:
            store.beat(worker)

    def _time_out(self, session: ProgressSession) -> None:
        """A job has run for longer than its view allows, or its ``on_end`` has."""
        session.stop()
        id = str(session.id)
        if self.live.is_parting(id) or self.rescue.take(id, TIMEOUT) is not None:
            self._executor.abandon(id)

    def _look_around(self) -> None:
        """See what others have said of what is here."""
        sessions = {str(session.id): session for session in self.live.sessions()}
        ids = [*sessions, *self._executor.ahead()]
        if not ids:
            return
        asked, over = [], []
        with reading(self.runner.db) as connection:
            store = store_of(connection, self.runner.name)
            for id in ids:
                with self._unreadable.skipped(id):
                    entry = None if store is None else store.find(id)
                    if entry is not None and entry.cancel:
                        asked.append(id)
                    if id in sessions and (end := sessions[id].seen(entry)):
                        over.append((id, end))
        for id in asked:
            self._guarded(self._cancel, id)
        for id, end in over:
            sessions[id].ended(end)
            if self.live.session(id) is sessions[id]:
                self.live.end(id)

    # Sweep

    @property
    def _settled(self) -> float:
        return min(SETTLE, self.settings.lease)

    def sweep(self) -> None:
        """Look after jobs that nobody in this process waits for.

        Reads first, and writes only what there is to write.
        """
        now = self._monotonic()
        pause = self.settings.lease / 4
        if now < self._born + self._settled:
            pause = min(pause, self._born + self._settled - now)
        self._due = now + pause
        stray: list[tuple[float, str]] = []
        claims: list[Claim] = []
        dead: list[Claim] = []
        expired: list[Expired] = []
        with reading(self.runner.db) as connection:
            store = store_of(connection, self.runner.name)
            if store is None:
                return
            self.ids.avoid = store.unreadable()
            for number in self.ids.avoid:
                name = f"shard {number} of the registry"
                with self._unreadable.skipped(name, name):
                    store.shards[number]._p_activate()
            for id, entry in store.items():
                if not (id in self.live or self._executor.waiting(id)):
                    with self._unreadable.skipped(id):
                        self._sort(entry, stray, claims)
            with self._unreadable.skipped("leases", "the leases"):
                dead = self.rescue.dead(store, claims)
            with self._unreadable.skipped("expiry", "what has expired"):
                expired = store.expired(self.runner.clock(), EXPIRE)
        for claim in dead:
            self._guarded(self._rescue, claim)
        if now - self._born >= self._settled:
            for _, id in sorted(stray):
                self._submit(id)
        for start in range(0, len(expired), BATCH):
            self._guarded(self._expire, expired[start : start + BATCH])
        if len(expired) == EXPIRE:
            self._due = now
        if self._unreadable.lost:
            self._guarded(self._drop_lost)

    def _tidy_uploads(self) -> None:
        if self._tidying is not None and self._tidying.step():
            # Between two steps others have their turn.
            self._due = self._monotonic()

    def _sort(
        self, entry: Entry, stray: list[tuple[float, str]], claims: list[Claim]
    ) -> None:
        job, state = entry.job, entry.job.state
        if state.ended:
            self._tidy.add(job.id)
        elif state.status == QUEUED:
            stray.append((job.created, job.id))
        else:
            claims.append(Claim(job.id, str(state.token), str(state.worker)))

    def _rescue(self, claim: Claim) -> None:
        if self.rescue.rescue(claim) == QUEUED and claim.job_id is not None:
            # While it waits for a thread nobody looks whether it was asked to stop.
            self._guarded(self.runner.claims.cancel, claim.job_id)
            self._submit(claim.job_id)

    def _expires(self, job: Job) -> float:
        return expires(job, self.settings)

    def _expire(self, expired: list[Expired]) -> None:
        expire(self.runner.db, self.runner.name, expired)

    def _drop_lost(self) -> None:
        self._unreadable.drop_lost(self.runner.db, self.runner.name)
