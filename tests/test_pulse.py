"""The pulse: progress, heartbeats and the sweep, with nothing written in vain."""

import os
import shutil
import threading
import time
from contextlib import contextmanager

import pytest
from conftest import PATIENCE
from conftest import eventually
from ZODB.POSException import ConflictError

from asyncview import BaseAsyncView
from asyncview.count import Stopped
from asyncview.exceptions import JobCancelled
from asyncview.expiry import BATCH
from asyncview.job import Job
from asyncview.job import new_id
from asyncview.outcome import Outcome
from asyncview.progress import NOTHING
from asyncview.request import StoredRequest
from asyncview.rescue import Claim
from asyncview.store import Lease
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.store import transact


class Clock:
    """Hands out the time that a test says it is."""

    def __init__(self, now=1_000_000.0):
        self.now = now

    def __call__(self):
        return self.now


class Working(BaseAsyncView):
    """Says how far it is, then waits for the test's gate."""

    gates: dict[str, threading.Event] = {}  # noqa: RUF012
    restartable = False

    def __run__(self, process_id=None):
        self.request.response.content_type = "text/plain"
        self.context.data["work"] = self.request.params.get("work", "some")
        self.progress.update(3, 10, self.request.params.get("message"))
        gate = self.gates[self.request.params["gate"]]
        gate.wait(PATIENCE)
        if "fail" in self.request.params:
            raise RuntimeError("as it was told")
        return "done"


class Restartable(Working):
    restartable = 2


class One(Working):
    exclusive = "one"


class Told(Working):
    ended: list[str] = []  # noqa: RUF012

    def on_end(self, status):
        self.ended.append(status)


class ToldAgain(Told):
    restartable = 1


class Quick(BaseAsyncView):
    def __run__(self, process_id=None):
        return "done"


class Kept(Quick):
    keep = 50


class Failing(BaseAsyncView):
    def __run__(self, process_id=None):
        raise RuntimeError("as it was told")


def configure(config):
    for view in (Working, Restartable, One, Told, ToldAgain, Quick, Kept, Failing):
        config.add_async_view(view, view.__name__.lower())


@pytest.fixture
def gates():
    """Gates by name, which all open at the end."""
    made = Working.gates
    yield lambda name: made.setdefault(name, threading.Event())
    for gate in made.values():
        gate.set()
    made.clear()


@pytest.fixture
def make(make_site):
    """Makes sites whose pulse beats when the test says so, or each ``interval``."""

    def make(interval=None, **settings):
        if interval is None:
            return make_site(configure, **settings).by_hand()
        return make_site(configure, asyncview__progress_interval=interval, **settings)

    return make


def start(site, gates, name="gate", path="/working", **params):
    """A job that has said how far it is, and waits."""
    gates(name)
    params["gate"] = name
    process_id = site.start(path, params)
    eventually(lambda: site.engine.live.session(process_id) is not None)
    session = site.engine.live.session(process_id)
    eventually(lambda: session._current is not None)
    return process_id


@contextmanager
def store(site):
    with reading(site.db) as connection:
        yield store_of(connection, "tests")


def change(site, change):
    return transact(site.db, lambda connection: change(store_of(connection, "tests")))


def entry_facts(site, process_id):
    with store(site) as registry:
        entry = registry.find(process_id)
        state = entry.job.state
        return state.status, state.failure and state.failure.reason, state.restarts


# Progress


def test_progress_is_seen_within_two_intervals_while_the_job_is_at_it(make, gates):
    site = make(interval="0.2")
    process_id = start(site, gates, message="at work")
    eventually(lambda: site.status("/working", process_id)["current"] == 3, 2 * 0.2 + 2)
    document = site.status("/working", process_id)
    assert (document["percent"], document["message"]) == (30.0, "at work")
    with reading(site.db) as connection:
        assert "work" not in connection.root().get("data", {})
    gates("gate").set()
    site.wait(process_id)
    assert site.result("/working", process_id).text == "done"


def test_progress_of_a_job_that_then_fails_was_seen_and_its_work_is_gone(make, gates):
    site = make()
    process_id = start(site, gates, fail="1", work="never")
    site.engine.pulse.beat()
    assert site.status("/working", process_id)["current"] == 3
    gates("gate").set()
    site.wait(process_id)
    document = site.status("/working", process_id)
    assert (document["status"], document["current"]) == ("failed", 3)
    with reading(site.db) as connection:
        assert connection.root().get("work") is None


def test_one_commit_holds_the_progress_of_all_jobs(make, gates):
    site = make()
    ids = [start(site, gates, f"gate {n}") for n in range(3)]
    before = list_transactions(site)
    site.engine.pulse.beat()
    assert len(list_transactions(site)) == len(before) + 1
    assert {site.status("/working", id)["current"] for id in ids} == {3}


def list_transactions(site):
    found = site.db.storage.iterator()
    try:
        return [transaction.tid for transaction in found]
    finally:
        found.close()


def test_nothing_is_written_where_nothing_changed(make, gates):
    site = make()
    process_id = start(site, gates)
    site.engine.pulse.beat()
    before = site.db.lastTransaction()
    for _ in range(3):
        site.engine.pulse.beat()
        site.engine.pulse.sweep()
    assert site.db.lastTransaction() == before
    session = site.engine.live.session(process_id)
    session.update(4)
    site.engine.pulse.beat()
    assert site.db.lastTransaction() > before


@pytest.mark.parametrize(("jobs", "most"), [(1, 140), (4, 110)])
@pytest.mark.parametrize("first", [0, 5000])
def test_progress_write_appends_few_bytes(make, gates, tmp_path, jobs, most, first):
    site = make()
    ids = [start(site, gates, f"gate {n}") for n in range(jobs)]
    sessions = [site.engine.live.session(id) for id in ids]
    site.engine.pulse.beat()
    beats = 20
    before = os.path.getsize(tmp_path / "Data.fs")
    for beat in range(beats):
        for session in sessions:
            session.update(first + beat + 50, first + 100)
        site.engine.pulse.beat()
    appended = os.path.getsize(tmp_path / "Data.fs") - before
    assert 0 < appended / beats / jobs <= most


def test_progress_that_could_not_be_written_is_written_later(make, gates, monkeypatch):
    site = make()
    process_id = start(site, gates)
    storage = site.db.storage
    begin = storage.tpc_begin

    def fail(*arguments, **kw):
        raise OSError(28, "the disk is full")

    monkeypatch.setattr(storage, "tpc_begin", fail)
    with pytest.raises(OSError, match="full"):
        site.engine.pulse.beat()
    monkeypatch.setattr(storage, "tpc_begin", begin)
    site.engine.pulse.beat()
    assert site.status("/working", process_id)["current"] == 3


def test_progress_of_a_job_that_was_taken_is_not_its_new_workers(make, gates):
    site = make()
    process_id = start(site, gates)

    def take(registry):
        state = registry.find(process_id).job.state
        state.requeue(NOTHING)
        state.claim("another", "token", 1.0)

    change(site, take)
    site.engine.pulse.beat()
    assert site.status("/working", process_id)["current"] is None


def test_wish_to_cancel_is_seen_by_the_next_beat(make, gates):
    site = make()
    process_id = start(site, gates)
    change(site, lambda registry: registry.ask_cancel(process_id))
    session = site.engine.live.session(process_id)
    session.update()
    site.engine.pulse.beat()
    with pytest.raises(JobCancelled):
        session.update()


# Tidying


def test_ended_jobs_move_to_the_finished_ones_in_one_commit(make):
    site = make()
    ids = {site.run("/quick")["process_id"] for _ in range(3)}
    with store(site) as registry:
        assert registry.crowd() == 3
    before = len(list_transactions(site))
    site.engine.pulse.beat()
    assert len(list_transactions(site)) == before + 1
    with store(site) as registry:
        assert registry.crowd() == 0
        assert set(registry.finished) == ids
    for process_id in ids:
        assert site.status("/quick", process_id)["status"] == "completed"
    site.engine.pulse.beat()
    assert len(list_transactions(site)) == before + 1


def test_job_that_another_process_left_behind_is_tidied_by_the_sweep(make):
    site = make()
    process_id = site.run("/quick")["process_id"]
    site.engine.live.ended.clear()
    site.engine.pulse.sweep()
    site.engine.pulse.beat()
    with store(site) as registry:
        assert (registry.crowd(), list(registry.finished)) == (0, [process_id])


# Expiry


@pytest.mark.parametrize(
    ("path", "seconds"), [("/quick", 100), ("/failing", 200), ("/kept", 50)]
)
def test_job_is_kept_for_as_long_as_was_said(make, path, seconds):
    site = make(asyncview__keep="100", asyncview__keep_failed="200")
    clock = site.engine.runner.clock = Clock()
    process_id = site.run(path)["process_id"]
    site.engine.pulse.beat()
    clock.now += seconds - 1
    site.engine.pulse.sweep()
    site.status(path, process_id)
    clock.now += 3
    site.engine.pulse.sweep()
    site.status(path, process_id, status=404)
    site.result(path, process_id, status=404)
    with store(site) as registry:
        assert (len(registry.finished), len(registry.expiry)) == (0, 0)


def test_expired_job_leaves_no_blob_behind(make_site, tmp_path):
    class Big(BaseAsyncView):
        def __run__(self, process_id=None):
            return b"x" * 100_000

    site = make_site(lambda config: config.add_async_view(Big, "big")).by_hand()
    clock = site.engine.runner.clock = Clock()
    site.run("/big")
    site.engine.pulse.beat()
    assert blobs(tmp_path)
    clock.now += 1_000_000
    site.engine.pulse.sweep()
    site.db.pack(days=-1)
    assert not blobs(tmp_path)


def blobs(tmp_path):
    return [
        os.path.join(folder, name)
        for folder, _, names in os.walk(tmp_path / "blobs")
        for name in names
        if name.endswith(".blob")
    ]


def add_finished(site, count, expires, ended=True):
    ids = [new_id() for _ in range(count)]

    def fill(registry):
        for id in ids:
            job = Job(
                id,
                view="/quick",
                context=None,
                owner=None,
                visitor=None,
                created=1.0,
                terms={},
                request=StoredRequest({}, b"", 0, None),
            )
            registry.add(job)
            if ended:
                job.state.claim("worker", "token", 1.0)
                job.state.complete(Outcome("200 OK", (), b"", 0), NOTHING, 2.0)
                registry.file(id, lambda job: expires)

    change(site, fill)
    return ids


def test_sweep_touches_only_what_has_expired(make, gates):
    site = make(asyncview__threads="1")
    clock = site.engine.runner.clock = Clock()
    start(site, gates)
    queued = [site.start("/working", {"gate": "gate"}) for _ in range(3)]
    site.engine.pulse.beat()
    add_finished(site, 50, clock.now + 1000)
    gone = add_finished(site, 3, clock.now - 10)
    # What the sweep changes and loads.
    before = site.db.lastTransaction()
    site.db.cacheMinimize()
    site.db.setActivityMonitor(Activity())
    site.engine.pulse.sweep()
    loads = site.db.getActivityMonitor().loads
    site.db.setActivityMonitor(None)
    states = [
        record
        for transaction in site.db.storage.iterator(before)
        for record in transaction
        if transaction.tid > before and b"asyncview.job" in record.data[:30]
    ]
    assert len(states) == len(gone)
    # The shards, the registry, the way to the expired jobs, and those.
    assert loads < 128 + 40
    with store(site) as registry:
        assert len(registry.finished) == 50
        assert all(registry.find(id) for id in queued)
        assert not any(registry.find(id) for id in gone)


class Activity:
    """Counts what connections load."""

    def __init__(self):
        self.loads = 0

    def closedConnection(self, connection):
        loads, _ = connection.getTransferCounts(True)
        self.loads += loads


def test_many_expired_jobs_go_in_batches_without_a_pause_between_sweeps(make):
    site = make()
    site.engine.runner.clock = Clock()
    site.engine.prepare()
    add_finished(site, 230, 10.0)
    before = len(list_transactions(site))
    site.engine.pulse.sweep()
    with store(site) as registry:
        assert len(registry.finished) == 30
    assert len(list_transactions(site)) == before + 200 // BATCH
    assert site.engine.pulse._due <= site.engine.pulse._monotonic()
    site.engine.pulse.sweep()
    with store(site) as registry:
        assert len(registry.finished) == 0


def test_jump_of_the_wall_clock_kills_no_worker_and_loses_no_job(make, gates):
    site = make()
    clock = site.engine.runner.clock = Clock()
    process_id = start(site, gates)
    site.engine.pulse.beat()
    for jump in (365 * 86400, -730 * 86400):
        clock.now += jump
        site.engine.pulse.sweep()
        site.engine.pulse.beat()
        assert entry_facts(site, process_id) == ("running", None, 0)


# Silence


def test_idle_process_writes_nothing(make):
    site = make(interval="0.01", asyncview__lease="0.06")
    site.run("/quick")
    eventually(lambda: crowd(site) == 0)
    before = site.db.lastTransaction()
    sweeps = counted(site.engine.pulse, "sweep")
    eventually(lambda: len(sweeps) >= 3)
    assert site.db.lastTransaction() == before


def crowd(site):
    with store(site) as registry:
        return registry.crowd()


def counted(pulse, name):
    """Watch how often the pulse does something."""
    calls = []
    action = getattr(pulse, name)

    def counting():
        calls.append(1)
        action()

    counting.__name__ = name
    setattr(pulse, name, counting)
    return calls


def test_included_application_that_starts_no_job_is_silent(make, tmp_path):
    threads = set(threading.enumerate())
    site = make()
    before = site.db.lastTransaction()
    for _ in range(3):
        site.app.get("/quick")
        site.app.get("/quick/completed?process_id=nobody", status=404)
    assert set(threading.enumerate()) == threads
    assert all(each["opened"] is None for each in site.db.connectionDebugInfo())
    assert site.db.lastTransaction() == before


# Lost wake-ups


def test_job_whose_wake_up_was_lost_is_picked_up_by_the_sweep(make, gates, monkeypatch):
    site = make(interval="0.02", asyncview__lease="0.05")
    monkeypatch.setattr(site.engine.executor, "submit", lambda job_id: None)
    process_id = site.start("/quick")
    monkeypatch.undo()
    eventually(lambda: site.status("/quick", process_id)["status"] == "completed")


def test_process_that_just_began_takes_no_job_that_it_was_not_told_of(make, gates):
    site = make(asyncview__lease="60")
    site.engine.prepare()
    (process_id,) = add_finished(site, 1, 0.0, ended=False)
    pulse = site.engine.pulse
    pulse._monotonic = Clock(pulse._born + 4.9)
    pulse.sweep()
    assert not site.engine.executor.waiting(process_id)
    pulse._monotonic.now = pulse._born + 5.0
    pulse.sweep()
    eventually(lambda: entry_facts(site, process_id)[0] == "failed")


def test_jobs_queued_in_a_process_that_died_run_after_a_restart(
    make_site, gates, tmp_path
):
    first = make_site(configure, asyncview__threads="1")
    start(first, gates)
    queued = [first.start("/quick") for _ in range(3)]
    # What a process that is killed now would leave behind.
    shutil.copy(tmp_path / "Data.fs", tmp_path / "Left.fs")
    second = make_site(
        configure, storage=f"file://{tmp_path}/Left.fs", asyncview__lease="0.1"
    )
    second.app.get("/quick")
    for process_id in queued:
        eventually(lambda id=process_id: entry_facts(second, id)[0] == "completed")


def test_process_that_finds_finished_jobs_lets_them_expire(make_site):
    first = make_site(configure)
    process_id = first.run("/quick")["process_id"]
    first.engine.close(5)
    first.db.close()
    second = make_site(configure, asyncview__lease="0.05")
    second.engine.runner.clock = Clock(4_000_000_000.0)
    second.status("/quick", process_id)
    eventually(
        lambda: (
            second.app.get(
                f"/quick/completed?process_id={process_id}", expect_errors=True
            ).status_int
            == 404
        )
    )


# Dead workers


@pytest.fixture
def dying(make, gates):
    """A running job of a worker that is another process's."""

    def dying(path="/working", lease=Lease):
        site = make(asyncview__lease="60")
        pulse = site.engine.pulse
        pulse._monotonic = pulse.rescue._monotonic = Clock()
        site.engine.prepare()
        gates("gate")
        site.engine.executor.stop()
        process_id = site.start(path, {"gate": "gate"})

        def claim(registry):
            registry.find(process_id).job.state.claim("other", "token", 1.0)
            if lease is not None:
                registry.leases["other"] = lease()

        change(site, claim)
        return site, process_id

    return dying


def beat_other(site):
    def beat(registry):
        registry.leases["other"].beats += 1

    change(site, beat)


@pytest.mark.parametrize("lease", [Lease, None])
def test_job_of_a_worker_whose_counter_stands_is_interrupted(dying, lease):
    site, process_id = dying(lease=lease)
    pulse = site.engine.pulse
    pulse.sweep()
    pulse._monotonic.now += 59.9
    pulse.sweep()
    assert entry_facts(site, process_id) == ("running", None, 0)
    pulse._monotonic.now += 0.2
    pulse.sweep()
    assert entry_facts(site, process_id) == ("failed", "interrupted", 0)
    document = site.status("/working", process_id)
    assert document["error"]["reason"] == "interrupted"


def test_key_of_a_job_whose_worker_died_is_free_again(dying):
    site, process_id = dying("/one")
    # As long as nobody knows.
    assert site.start("/one", {"gate": "gate"}) == process_id
    pulse = site.engine.pulse
    pulse.sweep()
    pulse._monotonic.now += 61
    pulse.sweep()
    assert entry_facts(site, process_id) == ("failed", "interrupted", 0)
    assert site.start("/one", {"gate": "gate"}) != process_id


def test_worker_whose_counter_moves_is_alive_however_slow(dying):
    site, process_id = dying()
    pulse = site.engine.pulse
    for _ in range(5):
        pulse.sweep()
        pulse._monotonic.now += 50
        beat_other(site)
    pulse.sweep()
    assert entry_facts(site, process_id)[0] == "running"


@pytest.mark.parametrize("hours", [1, -1, 24 * 365, -24 * 365])
@pytest.mark.parametrize("whose", ["observer", "worker"])
def test_verdict_comes_after_a_lease_whatever_the_clocks_say(dying, hours, whose):
    site, process_id = dying()
    pulse, clock = site.engine.pulse, Clock(time.time())
    site.engine.runner.clock = clock
    if whose == "worker":
        # What it has written is of another time.
        def claim_at(registry):
            registry.find(process_id).job.state.started = clock.now + hours * 3600

        change(site, claim_at)
    pulse.sweep()
    if whose == "observer":
        clock.now += hours * 3600
    pulse._monotonic.now += 59
    pulse.sweep()
    assert entry_facts(site, process_id)[0] == "running"
    pulse._monotonic.now += 2
    pulse.sweep()
    assert entry_facts(site, process_id)[:2] == ("failed", "interrupted")


def test_counter_is_read_again_in_the_transaction_that_takes_the_job(dying):
    site, process_id = dying()
    pulse = site.engine.pulse
    pulse.sweep()
    pulse._monotonic.now += 61
    dead = pulse.rescue.dead

    def late(registry, claims):
        found = dead(registry, claims)
        beat_other(site)
        return found

    pulse.rescue.dead = late
    pulse.sweep()
    assert entry_facts(site, process_id)[0] == "running"


def test_job_of_a_restartable_view_is_queued_again_so_many_times(dying):
    site, process_id = dying("/restartable")
    pulse = site.engine.pulse
    for round in range(2):
        pulse.sweep()
        pulse._monotonic.now += 61
        pulse.sweep()
        assert entry_facts(site, process_id) == ("queued", None, round + 1)
        change(
            site,
            lambda registry, token=f"token {round}": registry.find(
                process_id
            ).job.state.claim("other", token, 1.0),
        )
    pulse.sweep()
    pulse._monotonic.now += 61
    pulse.sweep()
    assert entry_facts(site, process_id) == ("failed", "interrupted", 2)


@pytest.mark.parametrize(("path", "crashes"), [("/told", 1), ("/toldagain", 2)])
def test_end_by_a_crash_is_told_once_and_a_restart_is_no_end(
    dying, monkeypatch, path, crashes
):
    monkeypatch.setattr(Told, "ended", [])
    site, process_id = dying(path)
    pulse = site.engine.pulse
    for crash in range(crashes):
        if crash:
            change(
                site,
                lambda registry: registry.find(process_id).job.state.claim(
                    "other", "again", 1.0
                ),
            )
        assert Told.ended == []
        pulse.sweep()
        pulse._monotonic.now += 61
        pulse.sweep()
        site.engine.runner.apart.join(PATIENCE)
    pulse.sweep()
    site.engine.runner.apart.join(PATIENCE)
    assert entry_facts(site, process_id)[:2] == ("failed", "interrupted")
    assert Told.ended == ["failed"]


def test_job_that_was_queued_again_runs_to_its_end_here(dying, gates):
    site, process_id = dying("/restartable")
    submitted = []
    pulse = site.engine.pulse
    pulse._submit = submitted.append
    pulse.sweep()
    pulse._monotonic.now += 61
    pulse.sweep()
    assert submitted == [process_id]
    gates("gate").set()
    (ticket,) = site.engine.runner.claims.take(submitted)
    assert ticket.attempt == 2
    site.engine.runner.run(ticket)
    document = site.status("/restartable", process_id)
    assert (document["status"], document["attempt"]) == ("completed", 2)


def test_two_that_rescue_one_job_do_it_once(dying):
    site, process_id = dying("/restartable")
    pulse = site.engine.pulse
    pulse.sweep()
    pulse._monotonic.now += 61
    with store(site) as registry:
        (claim,) = pulse.rescue.dead(registry, [Claim(process_id, "token", "other")])
    assert pulse.rescue.rescue(claim) == "queued"
    assert pulse.rescue.rescue(claim) is None
    assert entry_facts(site, process_id) == ("queued", None, 1)


def test_lease_that_nobody_needs_is_removed(dying):
    site, process_id = dying()
    pulse = site.engine.pulse
    for _ in range(4):
        pulse.sweep()
        pulse._monotonic.now += 61
    assert entry_facts(site, process_id)[0] == "failed"
    with store(site) as registry:
        assert list(registry.leases) == []


def test_worker_beats_while_it_has_jobs(make, gates):
    site = make(asyncview__lease="60")
    pulse = site.engine.pulse
    pulse._monotonic = Clock()
    start(site, gates)
    beats = []
    for _ in range(3):
        pulse.beat()
        with store(site) as registry:
            beats.append(registry.leases[site.engine.runner.worker].beats)
        pulse._monotonic.now += 10
    assert beats == [1, 2, 3]


def test_job_that_runs_too_long_has_failed_and_its_thread_can_not_end_it(
    make_site, gates
):
    entered, errors = threading.Event(), []

    class Slow(BaseAsyncView):
        max_runtime = 0.05
        ended: list[str] = []  # noqa: RUF012

        def __run__(self, process_id=None):
            entered.set()
            gates("slow").wait(PATIENCE)
            try:
                self.progress.update(1, 2)
            except JobCancelled:
                errors.append("cancelled")
            self.context.data["late"] = True
            return "too late"

        def on_end(self, status):
            self.ended.append(status)

    site = make_site(lambda config: config.add_async_view(Slow, "slow"))
    process_id = site.start("/slow")
    assert entered.wait(PATIENCE)
    eventually(lambda: site.status("/slow", process_id)["status"] == "failed")
    assert site.status("/slow", process_id)["error"]["reason"] == "timeout"
    eventually(lambda: Slow.ended == ["failed"])
    # Its thread was given up, and nobody waits for it when the process ends.
    eventually(lambda: site.engine.leaked == 1)
    gates("slow").set()
    eventually(lambda: site.engine.leaked == 0)
    assert errors == ["cancelled"]
    assert entry_facts(site, process_id) == ("failed", "timeout", 0)
    with reading(site.db) as connection:
        assert "late" not in connection.root()


def test_time_of_a_job_begins_when_it_runs_and_not_when_it_is_claimed(make_site, gates):
    """Several claims share a commit, and a job may wait for its thread after that."""

    class Timed(BaseAsyncView):
        max_runtime = 5

        def __run__(self):
            entered.set()
            gates("timed").wait(PATIENCE)

    entered = threading.Event()
    site = make_site(lambda config: config.add_async_view(Timed, "timed"))
    site.engine.executor.stop()
    runner, live = site.engine.runner, site.engine.live
    [ticket] = runner.claims.take([site.start("/timed")])
    assert live.overdue(float("inf")) == []
    before = time.monotonic()
    thread = threading.Thread(target=runner.run, args=(ticket,), daemon=True)
    thread.start()
    assert entered.wait(PATIENCE)
    assert live.overdue(before + 4.99) == []
    assert live.overdue(time.monotonic() + 5) == [ticket.session]
    gates("timed").set()
    thread.join(PATIENCE)
    assert live.overdue(float("inf")) == []


# Trouble


def test_record_that_is_lost_does_not_stop_the_sweep(make, caplog):
    site = make(asyncview__lease="60")
    site.engine.prepare()
    site.engine.executor.stop()
    lost, stays = add_finished(site, 2, 0.0, ended=False)
    other = site.start("/quick")
    break_job(site, lost)
    pulse = site.engine.pulse
    submitted = []
    pulse._submit = submitted.append
    pulse._monotonic = Clock(pulse._born + 100)
    pulse.sweep()
    assert set(submitted) == {stays, other}
    with store(site) as registry:
        assert lost not in dict(registry.items())
    assert caplog.text.count("can't be read") == 1


def test_record_that_is_lost_keeps_no_other_job_from_its_cancel(make, gates):
    site = make()
    lost, other = (start(site, gates, name=name) for name in ("one", "two"))
    sessions = [site.engine.live.session(id) for id in (lost, other)]
    change(site, lambda registry: registry.ask_cancel(other))
    break_job(site, lost)
    site.engine.pulse.beat()
    assert [isinstance(session, Stopped) for session in sessions] == [False, True]


def test_record_that_is_lost_refuses_no_start_and_hides_no_queue(make, gates):
    site = make(asyncview__max_queued="3", asyncview__threads="1")
    start(site, gates)
    lost, other = site.start("/quick"), site.start("/quick")
    break_job(site, lost)
    assert site.status("/quick", other)["queue_position"] is not None
    # There are as many as there may be in the queue, but for the one that is lost.
    last = site.start("/quick")
    site.app.post("/quick", status=303)
    site.app.post("/quick", status=503)
    gates("gate").set()
    site.wait(last)


def break_job(site, process_id):
    """Refer to a record that does not exist."""

    def lose(registry):
        shard = registry.shard(process_id)
        entry = shard.entries[process_id]
        shard.put(process_id, entry._replace(job=lost_job(registry)))

    change(site, lose)


def lost_job(registry):
    ghost = Job.__new__(Job)
    registry._p_jar._cache.new_ghost(b"\0\0\0\0\x7f\xff\xff\xff", ghost)
    return ghost


def test_expired_job_that_can_not_be_read_goes_with_the_others(make):
    site = make()
    site.engine.runner.clock = Clock()
    site.engine.prepare()
    lost, *_others = add_finished(site, 5, 10.0)

    def lose(registry):
        registry.finished[lost] = lost_job(registry)

    change(site, lose)
    site.engine.pulse.sweep()
    with store(site) as registry:
        assert (len(registry.finished), len(registry.expiry)) == (0, 0)


def test_pulse_survives_trouble_with_the_storage(make, gates, monkeypatch, caplog):
    site = make(interval="0.01")
    process_id = start(site, gates)
    storage = site.db.storage
    failed = threading.Event()

    def fail(*arguments, **kw):
        failed.set()
        raise OSError(28, "the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "tpc_begin", fail)
        site.engine.live.session(process_id).update(7)
        assert failed.wait(PATIENCE)
    eventually(lambda: site.status("/working", process_id)["current"] == 7)
    assert "the pulse could not beat" in caplog.text


def test_conflict_in_the_sweep_is_tried_again(dying, monkeypatch):
    site, process_id = dying()
    pulse = site.engine.pulse
    pulse.sweep()
    pulse._monotonic.now += 61
    storage = site.db.storage
    begin, conflicts = storage.tpc_begin, [1, 1]

    def conflict(*arguments, **kw):
        if conflicts:
            conflicts.pop()
            raise ConflictError("for a while")
        return begin(*arguments, **kw)

    monkeypatch.setattr(storage, "tpc_begin", conflict)
    pulse.sweep()
    assert entry_facts(site, process_id)[0] == "failed"


def test_worker_beats_as_often_as_its_lease_needs_and_takes_it_along(make, gates):
    site = make(interval="3600", asyncview__lease="0.12")
    start(site, gates)

    def beats():
        with store(site) as registry:
            lease = registry.leases.get(site.engine.runner.worker)
            return 0 if lease is None else lease.beats

    eventually(lambda: beats() >= 3)
    gates("gate").set()
    site.engine.close(5)
    with store(site) as registry:
        assert list(registry.leases) == []
