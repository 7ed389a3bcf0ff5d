"""What is kept costs nothing: finished jobs by the thousand, and packs in between."""

import threading
import time
from collections import Counter

import pytest
from conftest import PATIENCE
from conftest import eventually
from kept import keep
from pyramid.response import Response
from ZODB.serialize import referencesf

from asyncview import BaseAsyncView
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.store import transact

KEPT = 2000
BIG = 100_000 * b"x"
DAY = 86400


class Quick(BaseAsyncView):
    def __run__(self):
        return b"done"


class Costs:
    """Counts records loaded and bytes stored, while it is asked to."""

    def __init__(self, site):
        self._site = site
        self._storage = site.db.storage
        self._load = self._storage.loadBefore
        self._storage.loadBefore = self._loading
        self._loads = 0

    def _loading(self, oid, tid):
        self._loads += 1
        return self._load(oid, tid)

    def of(self, action):
        """Loads from cold caches, and bytes."""
        self._site.db.cacheMinimize()
        self._site.registry.asyncview.documents._kept.clear()
        loads, size = self._loads, self._storage.getSize()
        action()
        return self._loads - loads, self._storage.getSize() - size


@pytest.fixture
def quiet(make_site):
    """A site whose pulse beats and sweeps when a test says so."""

    def configure(config):
        config.add_async_view(Quick, "quick")

    site = make_site(configure).by_hand()
    site.engine.prepare()
    site.app.get("/quick")
    return site


def costs_of_a_life(site):
    """What a start with its end, a poll, a tidying and an idle sweep cost."""
    costs, pulse = Costs(site), site.engine.pulse
    site.run("/quick")
    pulse.beat()
    found, ids = {}, []
    # Where in a tree's node a random id falls is chance; of some it is not.
    for what, action in {
        "start and end": lambda: ids.append(site.run("/quick")["process_id"]),
        "poll": lambda: site.status("/quick", ids[-1]),
        "tidying": pulse.beat,
        "poll of one that is kept": lambda: site.status("/quick", ids[-1]),
        "sweep": pulse.sweep,
    }.items():
        found[what] = costs.of(action)
    return found


def test_jobs_that_are_kept_cost_the_others_nothing(quiet):
    few = costs_of_a_life(quiet)
    keep(quiet.db, "tests", KEPT, time.time() + DAY)
    lives = [costs_of_a_life(quiet) for _ in range(4)]
    # A node that is full splits, with its parent: one life in twenty pays for it.
    assert max(life["tidying"][1] for life in lives) <= few["tidying"][1] + 15_000
    many = {what: min(life[what] for life in lives) for what in few}
    for what in ("start and end", "poll", "sweep"):
        loads, size = few[what]
        # The sweep looks for the first that may go: a tree's height deep.
        assert many[what][0] <= loads * 1.1 + 6, (what, few, many)
        assert many[what][1] <= size * 1.1 + 100, (what, few, many)
    # In a tree of thousands a job is found in some nodes more, and written to few.
    assert many["poll of one that is kept"][0] <= few["poll of one that is kept"][0] + 8
    assert many["tidying"][0] <= few["tidying"][0] + 20
    assert many["tidying"][1] <= few["tidying"][1] + 2500
    assert many["sweep"][1] == 0


def test_sweep_touches_only_what_has_expired(quiet):
    keep(quiet.db, "tests", KEPT, time.time() + DAY)
    keep(quiet.db, "tests", 3, 1.0)
    costs, pulse = Costs(quiet), quiet.engine.pulse
    loads, size = costs.of(pulse.sweep)
    assert loads < 300
    assert size < 20_000
    with reading(quiet.db) as connection:
        store = store_of(connection, "tests")
        assert (len(store.finished), len(store.expiry)) == (KEPT, KEPT)


def test_what_has_expired_stays_in_no_cache(quiet):
    """Or Python would collect all garbage there is, while everybody waits."""
    keep(quiet.db, "tests", 300, 1.0)
    quiet.db.cacheMinimize()
    quiet.engine.pulse.sweep()
    loaded = []
    quiet.db._connectionMap(lambda each: loaded.extend(each._cache.lru_items()))
    names = Counter(type(record).__name__ for oid, record in loaded)
    assert (names["Job"], names["State"]) == (0, 0), names
    with reading(quiet.db) as connection:
        assert len(store_of(connection, "tests").finished) == 100


def test_all_that_has_expired_goes_without_a_poll_that_fails(quiet):
    keep(quiet.db, "tests", KEPT, 1.0)
    process_id = quiet.run("/quick")["process_id"]
    quiet.engine.pulse.beat()
    gone = threading.Event()
    pulse = quiet.engine.pulse
    thread = threading.Thread(target=lambda: sweep_all(pulse, gone))
    thread.start()
    polls = 0
    while not gone.is_set() or not polls:
        assert quiet.status("/quick", process_id)["status"] == "completed"
        polls += 1
    thread.join(PATIENCE)
    with reading(quiet.db) as connection:
        store = store_of(connection, "tests")
        assert len(store.finished) == len(store.expiry) == 1


def sweep_all(pulse, gone):
    for _ in range(KEPT // 200 + 1):
        pulse.sweep()
    gone.set()


# Packing


class Big(BaseAsyncView):
    """Takes a blob, waits in the middle, gives a blob."""

    def __run__(self):
        registry = self.request.registry
        self.progress.update(1, 2, "half of it")
        registry.entered.release()
        assert registry.gate.wait(PATIENCE)
        self.context.data["work"] = self.context.data.get("work", 0) + 1
        return Response(self.request.body)

    def on_end(self, status):
        self.request.registry.told.append(status)


class Retried(Big):
    def __run__(self):
        response = super().__run__()
        registry = self.request.registry
        registry.lost.append(1)
        if len(registry.lost) == 1:
            pack(registry.asyncview.engine.db)
            self.request.registry.disturb()
        return response


def pack(db):
    # Everything up to now and beyond: a clock that is behind must not spare it.
    db.storage.pack(time.time() + 10, referencesf)


@pytest.fixture
def packing(make_site, gate):
    def configure(config):
        config.registry.gate, config.registry.told = gate, []
        config.registry.lost = []
        config.registry.entered = threading.Semaphore(0)
        config.add_async_view(Big, "big")
        config.add_async_view(Retried, "retried")

    site = make_site(configure, asyncview__threads="2")
    site.registry.disturb = lambda: transact(
        site.db, lambda conn: conn.root().update(work=conn.root().get("work", 0))
    )
    return site


def test_pack_while_jobs_run_and_wait_loses_nothing(packing, gate):
    site = packing
    body = {"params": BIG, "content_type": "application/octet-stream"}
    ids = [site.start("/big", **body) for _ in range(4)]
    for _ in range(2):
        assert site.registry.entered.acquire(timeout=PATIENCE)
    pack(site.db)
    eventually(lambda: site.status("/big", ids[0])["current"] == 1)
    pack(site.db)
    site.db.cacheMinimize()
    gate.set()
    for id in ids:
        site.wait(id)
        pack(site.db)
    site.db.cacheMinimize()
    for id in ids:
        assert site.result("/big", id).body == BIG
    eventually(lambda: site.registry.told == 4 * ["completed"])


def test_pack_between_two_attempts_loses_nothing(packing, gate):
    gate.set()
    body = {"params": BIG, "content_type": "application/octet-stream"}
    doc = packing.run("/retried", **body)
    assert (doc["status"], doc["attempt"]) == ("completed", 2)
    pack(packing.db)
    assert packing.result("/retried", doc["process_id"]).body == BIG


def test_blobs_go_with_the_pack_after_their_job(packing, gate, tmp_path):
    gate.set()
    body = {"params": BIG, "content_type": "application/octet-stream"}
    id = packing.run("/big", **body)["process_id"]
    folder = tmp_path / "blobs"
    eventually(lambda: not packing.engine.live.ended)
    pack(packing.db)
    # The request went with the end of the job; its result is kept.
    assert len(list(folder.rglob("*.blob"))) == 1
    packing.app.post(f"/big/delete?process_id={id}", status=303)
    eventually(lambda: not packing.engine.pulse._tidy)
    pack(packing.db)
    assert not list(folder.rglob("*.blob"))
