"""The one housekeeping thread of a process: progress, heartbeat, sweep."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from ZODB.Connection import Connection

from asyncview.dispatch import Ids
from asyncview.dispatch import Live
from asyncview.job import CANCELLED
from asyncview.job import COMPLETED
from asyncview.job import INTERRUPTED
from asyncview.job import QUEUED
from asyncview.job import RUNNING
from asyncview.job import Job
from asyncview.progress import Snapshot
from asyncview.runner import Runner
from asyncview.runner import give_up
from asyncview.settings import Settings
from asyncview.store import Entry
from asyncview.store import Lease
from asyncview.store import Store
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.store import transact
from asyncview.ticket import Ticket

log = logging.getLogger("asyncview.pulse")

#: Seconds of life before a process takes over queued jobs that it was not told of:
#: a script that ends at once must not claim.
SETTLE = 5.0


class Pulse:
    """Writes what the jobs of this process say, and looks after everybody's."""

    def __init__(
        self,
        runner: Runner,
        settings: Settings,
        ids: Ids,
        submit: Callable[[str], None],
        waiting: Callable[[str], bool],
        busy: Callable[[], bool],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.runner = runner
        self.live: Live = runner.live
        self.settings = settings
        self.ids = ids
        self._submit = submit
        self._waiting = waiting
        self._busy = busy
        self._monotonic = monotonic
        self._born = monotonic()
        self._due = self._born + min(SETTLE, settings.lease)
        self._wake = threading.Event()
        self._stopping = False
        self._resting = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        #: Jobs that have ended and stand among the unfinished still.
        self._tidy: set[str] = set()
        #: token -> (beats, since): when a running job's worker was last seen to move.
        self._seen: dict[str, tuple[int, float]] = {}
        self._beaten = -float("inf")
        self._leased = False

    # The thread

    def start(self) -> None:
        """Start the thread, once, and have it look whether there is work."""
        if self._resting:
            self._wake.set()
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._stopping:
                    self._thread = threading.Thread(
                        target=self._loop, name="asyncview-pulse", daemon=True
                    )
                    self._thread.start()

    @property
    def started(self) -> bool:
        return self._thread is not None

    def stop(self, timeout: float | None = None) -> None:
        """Beat once more, end the thread, and leave no lease behind."""
        with self._lock:
            self._stopping = True
            thread = self._thread
        self._wake.set()
        if thread is not None:
            thread.join(timeout)

    def _loop(self) -> None:
        while not self._stopping:
            pause = self.settings.progress_interval
            # In this order, or a job that comes between is not seen for long.
            self._resting = True
            if not (self._busy() or self.live.ended or self._tidy):
                pause = max(self._due - self._monotonic(), 0.05)
            self._wake.wait(pause)
            self._wake.clear()
            self._resting = False
            self._each(self.beat)
            if not self._stopping and self._monotonic() >= self._due:
                self._each(self.sweep)

    # Beat

    def beat(self) -> None:
        """One transaction for all that is new; none if nothing is."""
        now = self.runner.clock()
        while self.live.ended:
            self._tidy.add(self.live.ended.popleft())
        news = [
            (str(session.id), snapshot)
            for session in self.live.sessions()
            if (snapshot := session.take(now)) is not None
        ]
        due = self._monotonic() - self._beaten >= self.settings.lease / 6
        beating = bool(self.live) and (due or not self._leased)
        leaving = self._stopping and self._leased
        with self.ids.using(list(self._tidy)) as tidy:
            if news or tidy or beating or leaving:
                transact(
                    self.runner.db,
                    lambda connection: self._write(
                        connection, news, tidy, beating, leaving
                    ),
                )
            self._tidy.difference_update(tidy)
        if beating:
            self._beaten, self._leased = self._monotonic(), True
        self._look_for_cancel()

    def _write(
        self,
        connection: Connection,
        news: list[tuple[str, Snapshot]],
        tidy: list[str],
        beating: bool,
        leaving: bool,
    ) -> None:
        store = store_of(connection, self.runner.name)
        if store is None:
            return
        for id, snapshot in news:
            store.attach(id, snapshot)
        for id in tidy:
            store.file(id, self.expires)
        if leaving:
            store.leases.pop(self.runner.worker, None)
        elif beating:
            lease = store.leases.get(self.runner.worker)
            if lease is None:
                lease = store.leases[self.runner.worker] = Lease()
            lease.beats += 1

    def expires(self, job: Job) -> float:
        """When a finished job may go, in seconds since the epoch."""
        keep = job.term("keep")
        if keep is None:
            ended_well = job.state.status in (COMPLETED, CANCELLED)
            keep = self.settings.keep if ended_well else self.settings.keep_failed
        return float((job.state.finished or job.created) + keep)

    def _look_for_cancel(self) -> None:
        sessions = self.live.sessions()
        if not sessions:
            return
        with reading(self.runner.db) as connection:
            store = store_of(connection, self.runner.name)
            for session in sessions:
                entry = None if store is None else store.find(str(session.id))
                if entry is not None and entry.cancel:
                    session.stop()

    # Sweep

    def sweep(self) -> None:
        """Look after jobs that nobody in this process waits for.

        Reads first, and writes only what there is to write.
        """
        now = self._monotonic()
        self._due = now + self.settings.lease / 2
        stray: list[tuple[float, str]] = []
        dead: list[str] = []
        seen: dict[str, tuple[int, float]] = {}
        with reading(self.runner.db) as connection:
            store = store_of(connection, self.runner.name)
            if store is None:
                return
            for entry in store.unfinished():
                state, job = entry.job.state, entry.job
                if state.ended:
                    self._tidy.add(job.id)
                elif state.status == QUEUED:
                    if not self._waiting(job.id) and job.id not in self.live:
                        stray.append((job.created, job.id))
                elif self._is_dead(store, entry, now, seen):
                    dead.append(job.id)
            expired = store.expired(self.runner.clock())
        self._seen = seen
        for id in dead:
            self._each(self._rescue, id)
        if now - self._born >= min(SETTLE, self.settings.lease):
            for _, id in sorted(stray):
                self._submit(id)
        for start in range(0, len(expired), 50):
            self._each(self._expire, expired[start : start + 50])

    def _each(self, action: Callable[..., None], *arguments: Any) -> None:
        # One record that can't be read must not keep the others waiting, and
        # storage trouble must not end the thread.
        try:
            action(*arguments)
        except Exception:
            log.exception("the pulse could not %s", action.__name__.strip("_"))

    def _is_dead(
        self,
        store: Store,
        entry: Entry,
        now: float,
        seen: dict[str, tuple[int, float]],
    ) -> bool:
        state = entry.job.state
        if state.worker == self.runner.worker and entry.job.id in self.live:
            return False
        lease = store.leases.get(state.worker)
        beats = -1 if lease is None else lease.beats
        if state.worker == self.runner.worker:
            # Ours, and no thread has it: as dead as a stopped counter.
            beats = -2
        token = str(state.token)
        before = self._seen.get(token)
        if before is None or before[0] != beats:
            seen[token] = (beats, now)
            return False
        seen[token] = before
        return now - before[1] >= self.settings.lease

    def _rescue(self, id: str) -> None:
        """Take a job from a worker that is dead."""
        orphans: list[Ticket] = []

        def change(connection: Connection) -> str | None:
            orphans.clear()
            store = store_of(connection, self.runner.name)
            assert store is not None
            entry = store.find(id)
            if entry is None or entry.job.state.status != RUNNING:
                return None
            state = entry.job.state
            lease = store.leases.get(state.worker)
            beats = -1 if lease is None else lease.beats
            known = self._seen.get(str(state.token))
            if known is None or known[0] not in (beats, -2):
                return None
            if entry.job.term("on_end") and state.request is not None:
                orphans.append(self.runner.orphan(entry.job))
            return give_up(connection, store, entry, INTERRUPTED, self.runner.clock())

        status = transact(self.runner.db, change)
        if status is None:
            return
        log.warning("%s… was %s: its worker is dead", id[:6], status)
        if status == QUEUED:
            self._submit(id)
            return
        self.live.end(id)
        for ticket in orphans:
            self.runner.finish_apart(ticket, status)

    def _expire(self, expired: list[tuple[int, str]]) -> None:
        def change(connection: Connection) -> None:
            store = store_of(connection, self.runner.name)
            assert store is not None
            for expires, id in expired:
                store.forget(expires, id)

        transact(self.runner.db, change)
        log.info("%d finished jobs have expired", len(expired))
