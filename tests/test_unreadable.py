"""A record that nobody can read costs its own job, and no other anything."""

import logging
import threading

import pytest
from conftest import PATIENCE
from people import Policy
from test_pulse import Clock
from transaction import TransactionManager
from ZODB.Connection import TransactionMetaData

from asyncview import BaseAsyncView
from asyncview.shard import SHARDS
from asyncview.shard import shard_of
from asyncview.store import Lease
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.store import transact

#: What may become of a record's pickle.
SPOILT = {
    "cut off": lambda data: data[:-20],
    # It names a class that cannot be imported, in the place of its state.
    "of another time": lambda data: (
        b"\x80\x03cBTrees.OOBTree\nOOBTree\nq\x01.\x80\x03cnowhere.at.all\nGone\nq\x01."
    ),
    "noise": lambda data: b"\xff" * len(data),
}

ANN = {"REMOTE_USER": "ann"}


class Waiting(BaseAsyncView):
    """Runs for as long as the gate is closed."""

    tags = "waiting"

    @property
    def exclusive(self):
        return self.request.params.get("key")

    def __run__(self):
        self.context.data["ran"] = self.process_id
        self.request.registry.entered.release()
        self.request.registry.gate.wait(PATIENCE)
        return b"done"


class Told(Waiting):
    ended: list[str] = []  # noqa: RUF012

    def on_end(self, status):
        self.ended.append(status)


def spoil(db, find, how):
    """Put into the place of the record that ``find`` finds what nobody can read."""
    tm = TransactionManager(explicit=True)
    connection = db.open(tm)
    tm.begin()
    record = find(store_of(connection, "tests"))
    oid, storage, meta = record._p_oid, connection._storage, TransactionMetaData()
    data, serial = storage.load(oid)
    storage.tpc_begin(meta)
    storage.store(oid, serial, SPOILT[how](data), "", meta)
    storage.tpc_vote(meta)
    storage.tpc_finish(meta)
    tm.abort()
    connection.cacheMinimize()
    connection.close()
    # What other connections have of it in their caches they hear of at their next use.


#: The records of a job, of an id.
RECORDS = {
    "job": lambda id: lambda registry: registry.find(id).job,
    "state": lambda id: lambda registry: registry.find(id).job.state,
}

of_each = pytest.mark.parametrize("record", RECORDS)
in_each_way = pytest.mark.parametrize("how", SPOILT)


@pytest.fixture
def make(make_site, gate):
    """Makes sites that run no job before they are told to."""

    def configure(config):
        config.registry.gate, config.registry.entered = gate, threading.Semaphore(0)
        config.set_security_policy(Policy())
        config.add_async_view(Waiting, "waiting")
        config.add_async_view(Told, "told")
        config.add_view(
            lambda request: [each.id for each in request.asyncview.running()],
            name="running",
            renderer="json",
        )

    def make(**settings):
        site = make_site(configure, asyncview__lease="60", **settings).by_hand()
        site.engine.prepare()
        site.ann = site.browser(**ANN)
        site.submit, site.engine.executor.submit = site.engine.executor.submit, park
        site.pulse = site.engine.pulse
        site.pulse._monotonic = site.pulse.rescue._monotonic = Clock(
            site.pulse._born + 100
        )
        Told.ended.clear()
        return site

    return make


def park(job_id):
    """It waits."""


def spoilt(site, find, how):
    spoil(site.db, find, how)
    site.db.cacheMinimize()
    site.engine.runner.claims._briefs.clear()


def own_lines(caplog, text):
    """What we have logged (the ZODB has a line for each time that it is asked)."""
    return [
        record
        for record in caplog.records
        if record.name.startswith("asyncview") and text in record.getMessage()
    ]


@of_each
@in_each_way
def test_a_job_refuses_no_start(make, record, how):
    site = make(asyncview__max_queued="3", asyncview__max_per_owner="2")
    mine = site.start("/waiting", app=site.ann)
    bad = site.start("/waiting", app=site.ann)
    site.ann.post("/waiting", status=429)
    spoilt(site, RECORDS[record](bad), how)
    # It counts for neither limit.
    last = site.start("/waiting", app=site.ann)
    site.ann.post("/waiting", status=429)
    site.start("/waiting")
    site.app.post("/waiting", status=503)
    # And stands in no list or queue.
    assert set(site.app.get("/running").json) >= {mine, last}
    assert bad not in site.app.get("/running").json
    assert site.status("/waiting", last, site.ann)["queue_position"] == 1


@of_each
@in_each_way
def test_a_job_is_not_there_for_who_asks(make, record, how):
    """A page that gets a 404 asks no more."""
    site = make()
    bad = site.start("/waiting")
    spoilt(site, RECORDS[record](bad), how)
    document = site.status("/waiting", bad, status=404)
    assert document == {"completed": "ERROR", "progress": "ERROR"}
    site.app.post(f"/waiting/cancel?process_id={bad}", status=404)


@of_each
@in_each_way
def test_a_job_keeps_no_exclusive_key(make, record, how):
    site = make()
    bad = site.start("/waiting", {"key": "one"})
    assert site.start("/waiting", {"key": "one"}) == bad
    spoilt(site, RECORDS[record](bad), how)
    assert site.start("/waiting", {"key": "one"}) != bad


@of_each
@in_each_way
def test_a_job_ends_no_sweep_and_is_logged_once(make, record, how, caplog):
    site = make()
    bad, other = site.start("/waiting"), site.start("/waiting")
    dead = claimed_by_another(site)
    spoilt(site, RECORDS[record](bad), how)
    submitted = []
    site.pulse._submit = submitted.append
    for _ in range(3):
        site.pulse.sweep()
        site.pulse._monotonic.now += 61
    assert set(submitted) == {other}
    assert site.status("/waiting", dead)["status"] == "failed"
    assert len(own_lines(caplog, "can't be read")) == 1
    assert bad[:6] in own_lines(caplog, "can't be read")[0].getMessage()


def claimed_by_another(site, path="/waiting"):
    """A job of a worker that is dead."""
    id = site.start(path)

    def claim(connection):
        registry = store_of(connection, "tests")
        registry.find(id).job.state.claim("other", "token", 1.0)
        registry.leases["other"] = Lease()

    transact(site.db, claim)
    return id


# What a job has beside its own records


def request_of(id):
    return lambda registry: registry.find(id).job.state.request


def live_of(id):
    return lambda registry: registry.find(id).job.state.live


@in_each_way
def test_a_job_without_its_request_fails_and_holds_up_no_other(make, gate, how, caplog):
    caplog.set_level(logging.INFO, "asyncview")
    site = make()
    gate.set()
    bad, other = site.start("/told"), site.start("/told")
    spoilt(site, request_of(bad), how)
    site.engine.executor.submit = site.submit
    for id in (bad, other):
        site.submit(id)
        site.wait(id)
    document = site.status("/told", bad)
    assert (document["status"], document["error"]["reason"]) == (
        "failed",
        "not_reached",
    )
    assert document["error"]["id"] in caplog.text
    assert site.status("/told", other)["status"] == "completed"
    # There is no request any more in which it could be told.
    assert Told.ended == ["completed"]


@in_each_way
def test_a_job_without_its_request_can_be_given_up(make, how):
    site = make()
    dead, queued = claimed_by_another(site, "/told"), site.start("/told")
    for id in (dead, queued):
        spoilt(site, request_of(id), how)
    site.app.post(f"/told/cancel?process_id={queued}", status=303)
    assert site.status("/told", queued)["status"] == "cancelled"
    site.pulse.sweep()
    site.pulse._monotonic.now += 61
    site.pulse.sweep()
    assert site.status("/told", dead)["error"]["reason"] == "interrupted"


@in_each_way
def test_progress_is_as_none_and_its_job_ends(make, how):
    site = make()
    dead = claimed_by_another(site)
    spoilt(site, live_of(dead), how)
    assert site.status("/waiting", dead)["percent"] is None
    assert site.app.get("/running").json == [dead]
    site.pulse.sweep()
    site.pulse._monotonic.now += 61
    site.pulse.sweep()
    assert site.status("/waiting", dead)["status"] == "failed"


# Leases and shards


def lease_of(worker):
    return lambda registry: registry.leases[worker]


@in_each_way
def test_a_lease_ends_no_sweep_and_is_that_of_a_dead_worker(make, how):
    site = make()
    dead, other = claimed_by_another(site), site.start("/waiting")
    spoilt(site, lease_of("other"), how)
    submitted = []
    site.pulse._submit = submitted.append
    site.pulse.sweep()
    assert submitted == [other]
    site.pulse._monotonic.now += 61
    site.pulse.sweep()
    assert site.status("/waiting", dead)["status"] == "failed"
    # As nobody needs it any more.
    site.pulse.sweep()
    site.pulse._monotonic.now += 61
    site.pulse.sweep()
    with reading(site.db) as connection:
        assert list(store_of(connection, "tests").leases) == []


@in_each_way
def test_a_worker_makes_itself_another_lease(make, how, gate):
    site = make()
    id = site.start("/waiting")
    site.submit(id)
    assert site.registry.entered.acquire(timeout=PATIENCE)
    site.pulse.beat()
    spoilt(site, lease_of(site.engine.runner.worker), how)
    for _ in range(2):
        site.pulse._monotonic.now += 61
        site.engine.live.session(id).update(1, message=str(site.pulse._monotonic.now))
        site.pulse.beat()
    with reading(site.db) as connection:
        leases = store_of(connection, "tests").leases
        assert leases[site.engine.runner.worker].beats == 2
    # Its progress goes with its heartbeat.
    assert site.status("/waiting", id)["current"] == 1


def shard_number(number):
    return lambda registry: registry.shards[number]


@in_each_way
def test_a_shard_ends_no_sweep_and_refuses_no_start(make, how, caplog):
    site = make(asyncview__max_queued="1000", asyncview__max_per_owner="1000")
    bad = other = site.start("/waiting")
    while shard_of(other) == shard_of(bad):
        other = site.start("/waiting")
    spoilt(site, shard_number(shard_of(bad)), how)
    submitted = []
    site.pulse._submit = submitted.append
    for _ in range(2):
        site.pulse.sweep()
    assert other in submitted
    assert bad not in submitted
    [line] = own_lines(caplog, "can't be read")
    assert f"shard {shard_of(bad)} " in line.getMessage()
    site.status("/waiting", bad, status=404)
    assert_avoided(site, shard_of(bad))
    assert other in site.app.get("/running").json


def assert_avoided(site, number):
    """Starts go on, and none is of that shard."""
    ids = site.engine.ids
    # Some of so many would be.
    for _ in range(10 * SHARDS):
        id = ids.pick(ids.begin())
        ids.release(id)
        assert shard_of(id) != number
    site.start("/waiting", app=site.ann)


def test_a_process_that_begins_with_a_shard_it_can_not_read_serves(
    make, make_site, tmp_path
):
    site = make()
    bad = site.start("/waiting")
    spoilt(site, shard_number(shard_of(bad)), "noise")
    site.engine.close(0)
    site.db.close()
    second = make()
    second.app.get("/waiting")
    assert_avoided(second, shard_of(bad))


def test_a_key_that_nobody_can_tell_of_is_503(make):
    site = make()
    bad = site.start("/waiting", {"key": "one"})
    spoilt(site, shard_number(shard_of(bad)), "noise")
    site.app.get("/waiting")
    site.app.post("/waiting", {"key": "one"}, status=503)


@of_each
@in_each_way
def test_a_job_keeps_its_uploads(make, record, how):
    """It may be the reader that is too old for it."""
    site = make()
    bad, other = site.start("/waiting"), site.start("/waiting")
    spoilt(site, RECORDS[record](bad), how)
    with reading(site.db) as connection:
        registry = store_of(connection, "tests")
        assert [registry.may_have(id) for id in (bad, other, "none")] == [1, 1, 0]


def test_a_shard_keeps_the_uploads_of_its_jobs(make):
    site = make()
    bad = site.start("/waiting")
    spoilt(site, shard_number(shard_of(bad)), "noise")
    with reading(site.db) as connection:
        assert store_of(connection, "tests").may_have(bad)
