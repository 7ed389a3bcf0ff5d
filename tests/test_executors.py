"""Executors get each job to a worker once, soon, and outlive whatever happens there."""

import threading
from collections import Counter

import pytest
from conftest import PATIENCE
from conftest import eventually
from waiting import waiting

from asyncview import BaseAsyncView
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.store import transact


@pytest.fixture
def runs():
    """How often each job was entered."""
    return Counter()


@pytest.fixture
def make(make_site, gate, runs):
    """A site whose jobs wait for the gate, or do not."""
    return lambda **settings: make_site(waiting(gate, runs), **settings)


def transactions(site):
    found = site.db.storage.iterator()
    try:
        return sum(1 for _ in found)
    finally:
        found.close()


def state_of(site, process_id):
    with reading(site.db) as connection:
        state = store_of(connection, "tests").find(process_id).job.state
        return state.status, state._p_serial


def alive(name="asyncview-"):
    return [t for t in threading.enumerate() if t.name.startswith(name)]


# Threads


def test_as_many_jobs_run_at_once_as_there_are_threads(make, gate, runs):
    site = make(asyncview__threads="3")
    ids = [site.start("/waits") for _ in range(5)]
    eventually(lambda: len(runs) == 3)
    assert [site.status("/waits", id)["queue_position"] for id in ids[3:]] == [0, 1]
    gate.set()
    for process_id in ids:
        site.wait(process_id)
    assert runs == Counter(dict.fromkeys(ids, 1))


def test_idle_thread_does_not_keep_others_from_being_started(make, gate, runs):
    site = make(asyncview__threads="3")
    site.run("/quick")
    executor = site.engine.executor
    eventually(lambda: executor._hungry == 1)
    # All at once: the one that waits is woken for the first, and busy then.
    with executor._changed:
        ids = [site.start("/waits") for _ in range(3)]
    eventually(lambda: len(runs) == 4)
    gate.set()
    for process_id in ids:
        site.wait(process_id)


def test_threads_that_wait_share_the_commit_of_a_claim(make, gate, runs):
    site = make(asyncview__threads="4", asyncview__progress_interval="3600")
    ids = [site.start("/waits") for _ in range(4)]
    eventually(lambda: len(runs) == 4)
    gate.set()
    for process_id in ids:
        site.wait(process_id)
    executor = site.engine.executor
    eventually(lambda: executor._hungry == 4)
    gate.clear()
    runs.clear()
    with executor._changed:
        ids = [site.start("/waits") for _ in range(4)]
    eventually(lambda: len(runs) == 4)
    serials = {state_of(site, process_id) for process_id in ids}
    assert len(serials) == 1
    gate.set()


def test_job_that_is_submitted_twice_runs_once(make, gate, runs):
    site = make(asyncview__threads="2")
    process_id = site.start("/waits")
    for _ in range(3):
        site.engine.submit(process_id)
    eventually(lambda: runs[process_id] == 1)
    site.engine.submit(process_id)
    gate.set()
    site.wait(process_id)
    site.engine.submit(process_id)
    eventually(lambda: not site.engine.executor.busy())
    assert runs[process_id] == 1
    assert site.status("/waits", process_id)["status"] == "completed"


def test_job_that_waits_is_in_the_queue_once(make, gate, runs):
    site = make(asyncview__threads="1")
    site.start("/waits")
    eventually(lambda: runs)
    second, third = site.start("/quick"), site.start("/quick")
    for _ in range(3):
        site.engine.submit(second)
    fourth = site.start("/quick")
    positions = [site.engine.executor.position(id) for id in (second, third, fourth)]
    assert positions == [0, 1, 2]
    gate.set()


def test_watcher_of_a_job_that_another_process_took_does_not_wait(make, monkeypatch):
    site = make(asyncview__threads="1")
    claim, hold = site.engine.runner.claims.take, threading.Event()

    def late(ids, stride):
        assert hold.wait(PATIENCE)
        with reading(site.db) as connection:
            oids = [store_of(connection, "tests").find(i).job.state._p_oid for i in ids]
        for oid in oids:
            transact(
                site.db, lambda other, oid=oid: other.get(oid).claim("other", "t", 1.0)
            )
        return claim(ids, stride)

    monkeypatch.setattr(site.engine.runner.claims, "take", late)
    process_id = site.start("/quick")
    with site.engine.live.watching(process_id) as ended:
        assert site.engine.executor.waiting(process_id)
        hold.set()
        assert ended.wait(PATIENCE)
    assert not site.engine.executor.waiting(process_id)


def test_claim_that_fails_is_tried_again(make, runs, monkeypatch, caplog):
    monkeypatch.setattr("asyncview.executors.threads.PATIENCE", 0.01)
    site = make(asyncview__threads="1")
    site.engine.prepare()
    storage, fails = site.db.storage, [1, 1]
    begin = storage.tpc_begin

    def fail(*arguments, **kw):
        if threading.current_thread().name.startswith("asyncview-1") and fails:
            fails.pop()
            raise OSError(28, "the disk is full")
        return begin(*arguments, **kw)

    monkeypatch.setattr(storage, "tpc_begin", fail)
    process_id = site.start("/quick")
    site.wait(process_id)
    assert runs[process_id] == 1
    assert caplog.text.count("could not be claimed yet") == 2


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_thread_survives_whatever_the_framework_raises(make, monkeypatch, error):
    site = make(asyncview__threads="1")
    run = site.engine.runner.run
    raised = []

    def fail(ticket):
        if not raised:
            raised.append(ticket)
            raise error("a defect")
        run(ticket)

    monkeypatch.setattr(site.engine.runner, "run", fail)
    site.start("/quick")
    process_id = site.start("/quick")
    site.wait(process_id)
    assert raised
    assert site.status("/quick", process_id)["status"] == "completed"
    site.engine.live.end(raised[0].id)


def test_threads_are_daemons_also_where_the_one_that_starts_them_is_not(make):
    site = make()
    site.run("/quick")
    assert alive()
    assert all(thread.daemon for thread in alive())


def test_claimed_job_is_live_before_its_thread_begins_with_it(make, monkeypatch):
    """Or nobody would wait for its end, and the pulse would rest."""
    site = make(asyncview__threads="1")
    run, hold = site.engine.runner.run, threading.Event()

    def late(ticket):
        assert hold.wait(PATIENCE)
        run(ticket)

    monkeypatch.setattr(site.engine.runner, "run", late)
    process_id = site.start("/quick")
    eventually(lambda: not site.engine.executor.waiting(process_id))
    assert process_id in site.engine.live
    assert site.engine._busy()
    hold.set()
    site.wait(process_id)


def test_stopped_executor_takes_nothing_and_ends_its_threads(make, gate, runs):
    site = make(asyncview__threads="1")
    first = site.start("/waits")
    second = site.start("/quick")
    eventually(lambda: runs[first])
    executor = site.engine.executor
    executor.stop()
    assert not executor.waiting(second)
    assert not executor.join(0.01)
    gate.set()
    assert executor.join(PATIENCE)
    site.engine.submit(second)
    assert not alive("asyncview-1")
    assert state_of(site, first)[0] == "completed"
    assert state_of(site, second)[0] == "queued"


# Inline


def test_inline_job_has_ended_when_its_post_is_answered(make, gate, runs):
    gate.set()
    site = make(asyncview__executor="inline")
    process_id = site.start("/waits")
    assert runs[process_id] == 1
    assert site.status("/waits", process_id)["status"] == "completed"
    assert not site.engine.executor.busy()


def test_inline_job_may_start_another(make_site):
    ended = []

    class Child(BaseAsyncView):
        def __run__(self, process_id=None):
            ended.append("child")

    class Parent(BaseAsyncView):
        def __run__(self, process_id=None):
            ended.append("parent")

        def on_end(self, status):
            ended.append(status)

    def configure(config):
        config.add_async_view(Child, "child")
        config.add_async_view(Parent, "parent")

    site = make_site(configure, asyncview__executor="inline")
    site.start("/parent")
    site.start("/child")
    assert ended == ["parent", "completed", "child"]


def test_inline_job_that_can_not_be_claimed_stays_queued(make, monkeypatch, caplog):
    site = make(asyncview__executor="inline")

    def fail(ids):
        raise OSError("no storage")

    monkeypatch.setattr(site.engine.runner.claims, "take", fail)
    process_id = site.start("/quick")
    assert state_of(site, process_id)[0] == "queued"
    assert "could not be claimed" in caplog.text
    monkeypatch.undo()
    site.engine.submit(process_id)
    assert state_of(site, process_id)[0] == "completed"


def test_stopped_inline_executor_runs_nothing(make, runs):
    site = make(asyncview__executor="inline")
    site.engine.executor.stop()
    assert site.engine.executor.join(PATIENCE)
    process_id = site.start("/quick")
    assert not runs[process_id]
