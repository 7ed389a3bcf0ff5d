"""No job ends a worker thread, hangs on to one for ever, or ends the pulse."""

import logging
import os
import threading

import pytest
from conftest import PATIENCE
from conftest import eventually
from pyramid.events import NewResponse
from ZODB.FileStorage import FileStorage
from ZODB.serialize import referencesf

import asyncview
from asyncview import BaseAsyncView
from asyncview import JobCancelled
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.store import transact

#: In a row, of each kind; ASYNCVIEW_LONG=1 for as many as are promised.
DEATHS = 1000 if os.environ.get("ASYNCVIEW_LONG") else 12

THREADS = 2


def recurse():
    return recurse()


def exhaust():
    raise MemoryError


def leave():
    raise SystemExit(3)


def interrupt():
    raise KeyboardInterrupt


def close():
    raise GeneratorExit


def cancel():
    raise JobCancelled


DYING = {each.__name__: each for each in (recurse, exhaust, leave, interrupt, close)}
DYING["cancel"] = cancel

#: Where in the framework they die.
PLACES = ["run", "subscriber", "tween", "renderer", "finished", "response", "on_end"]


class Dying(BaseAsyncView):
    def __run__(self, process_id=None):
        self.where("run")
        self.request.add_finished_callback(lambda request: self.where("finished"))
        self.request.add_response_callback(lambda *_: self.where("response"))
        return {}

    def where(self, place):
        params = self.request.params
        if params.get("place") == place:
            DYING[params["how"]]()

    def on_end(self, status):
        self.where("on_end")


class Meeting(BaseAsyncView):
    """Needs all threads of the pool at the same time."""

    def __run__(self):
        self.request.registry.barrier.wait(PATIENCE)
        return b""


def in_replay(request, place):
    if "asyncview.job" in request.environ and request.params.get("place") == place:
        DYING[request.params["how"]]()


def tween_factory(handler, registry):
    def tween(request):
        in_replay(request, "tween")
        return handler(request)

    return tween


class Renderer:
    def __init__(self, info):
        pass

    def __call__(self, value, system):
        in_replay(system["request"], "renderer")
        return ""


def configure(config):
    config.registry.barrier = threading.Barrier(THREADS)
    config.add_renderer("dying", Renderer)
    config.add_async_view(Dying, "dying", renderer="dying")
    config.add_async_view(Meeting, "meeting")
    config.add_tween("test_deaths.tween_factory")
    config.add_subscriber(lambda e: in_replay(e.request, "subscriber"), NewResponse)


@pytest.fixture(scope="module")
def site(make_shared_site):
    return make_shared_site(configure, asyncview__threads=str(THREADS))


def is_whole(site):
    """All threads of the pool work, and there are no more of them."""
    for id in [site.start("/meeting") for _ in range(THREADS)]:
        site.wait(id)
        assert site.status("/meeting", id)["status"] == "completed"
    executor = site.engine.executor
    return len(executor._threads) == THREADS and not executor.leaked


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", DYING)
def test_deaths_in_a_row_leave_the_pool_at_its_size(site, how, place):
    number = DEATHS if place == "run" else max(DEATHS // 10, 2)
    ids = []
    for _ in range(number):
        ids.append(site.start("/dying", {"how": how, "place": place}))
        if len(ids) >= 50:
            site.wait(ids.pop(0))
    for id in ids:
        site.wait(id)
    ended = {site.status("/dying", id)["status"] for id in ids}
    expected = "completed"
    if place in ("run", "renderer"):
        expected = "cancelled" if how == "cancel" else "failed"
    elif place == "tween":
        # It is over ours, and so never lets the job in.
        expected = "failed"
    assert ended == {expected}
    assert is_whole(site)


# Threads that do not come back


class Hanging(BaseAsyncView):
    max_runtime = 0.05

    def __run__(self):
        self.context.data["work"] = True
        self.request.registry.gate.wait(PATIENCE)
        return b"too late"


class Quick(BaseAsyncView):
    keep = keep_failed = 0

    def __run__(self):
        return threading.current_thread().name


@pytest.fixture
def hanging(make_site, gate):
    def configure(config):
        config.registry.gate = gate
        config.add_async_view(Hanging, "hanging")
        config.add_async_view(Quick, "quick")

    site = make_site(configure, asyncview__threads="1", asyncview__keep_failed="0")
    site.hang = lambda: hang(site)
    return site


def hang(site):
    before = site.engine.leaked
    process_id = site.start("/hanging")
    eventually(lambda: site.engine.leaked == before + 1)
    return process_id


def test_thread_that_a_job_keeps_is_counted_and_replaced(hanging, gate, caplog):
    site = hanging
    ids = [site.hang(), site.hang()]
    assert site.engine.leaked == 2
    eventually(lambda: "threads lost in this way: 2" in caplog.text)
    doc = site.run("/quick")
    assert doc["status"] == "completed"
    gate.set()
    eventually(lambda: site.engine.leaked == 0)
    eventually(lambda: "gave asyncview-1 back" in caplog.text)
    for id in ids:
        assert site.status("/hanging", id)["error"]["reason"] == "timeout"
    assert len(site.engine.executor._threads) == 1
    assert site.run("/quick")["status"] == "completed"


def test_job_that_waits_behind_one_that_hangs_is_run_by_the_replacement(hanging, gate):
    site = hanging
    hanging_id = site.start("/hanging")
    waiting = site.start("/quick")
    site.wait(waiting)
    assert site.status("/quick", waiting)["status"] == "completed"
    assert site.status("/hanging", hanging_id)["status"] == "failed"


def test_close_does_not_wait_for_a_thread_that_was_given_up(hanging, gate):
    hanging.hang()
    closed = threading.Event()

    def close():
        hanging.engine.close(PATIENCE)
        closed.set()

    threading.Thread(target=close).start()
    assert closed.wait(PATIENCE / 2)
    gate.set()
    eventually(lambda: not hanging.engine.leaked)


def test_thread_that_is_given_up_meanwhile_ends_no_drain(make_site):
    """Those after it get their time, and it is not waited for."""
    gates = {"given up": threading.Event(), "good": threading.Event()}
    entered = threading.Semaphore(0)

    class Waiting(BaseAsyncView):
        def __run__(self):
            entered.release()
            gates[self.request.params["gate"]].wait(PATIENCE)
            return b""

    site = make_site(
        lambda config: config.add_async_view(Waiting, "waiting"), asyncview__threads="2"
    )
    executor, ids = site.engine.executor, []
    for name in gates:
        ids.append(site.start("/waiting", {"gate": name}))
        assert entered.acquire(timeout=PATIENCE)
    first, drained = executor._threads[0], []
    executor.stop()
    draining = threading.Thread(target=lambda: drained.append(executor.join(PATIENCE)))
    draining.start()
    executor.abandon(ids[0])
    gates["given up"].set()
    first.join(PATIENCE)
    # It would have come back by now, or does so at once.
    draining.join(0.5)
    assert draining.is_alive()
    gates["good"].set()
    draining.join(PATIENCE)
    assert drained == [True]


def test_database_is_closed_under_a_thread_that_has_written(hanging, gate, tmp_path):
    """Also where its connection is joined to a transaction that nobody here can end."""
    hanging.hang()
    asyncview.close(hanging.registry)
    FileStorage(str(tmp_path / "Data.fs")).close()
    gate.set()
    eventually(lambda: not hanging.engine.leaked)


def test_thread_comes_back_also_when_its_job_was_packed_away(hanging, gate, caplog):
    site = hanging
    process_id = site.hang()
    site.app.post(f"/hanging/delete?process_id={process_id}", status=303)
    eventually(lambda: not site.engine.pulse._tidy and not site.engine.live.ended)
    transact(site.db, lambda conn: store_of(conn, "tests").drop(process_id))
    site.db.storage.pack(2**40, referencesf)
    gate.set()
    eventually(lambda: not site.engine.leaked)
    assert "can't be recorded" not in caplog.text
    assert "can't be read" not in caplog.text
    assert site.run("/quick")["status"] == "completed"


def test_pool_that_can_not_grow_leaves_the_job_to_the_sweep(hanging, monkeypatch):
    site = hanging
    executor = site.engine.executor

    def none_left(thread):
        raise RuntimeError("can't start new thread")

    site.engine.start()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        process_id = site.start("/quick")
    assert not executor.waiting(process_id)
    assert not executor._threads
    site.engine.pulse._born -= 60
    site.engine.pulse._due = 0
    site.engine.start()
    eventually(lambda: site.status("/quick", process_id)["status"] == "completed")


class Parting(BaseAsyncView):
    """Comes to an end as it is told, but not away from there."""

    @property
    def max_runtime(self):
        return 0.05 if "limit" in self.request.params else None

    def __run__(self):
        how = self.request.params["how"]
        if how == "failed":
            raise ValueError("as it was told")
        if how in ("timeout", "queued"):
            self.request.registry.gate.wait(PATIENCE)
        return b"done"

    def on_end(self, status):
        assert self.request.registry.gate.wait(PATIENCE)


@pytest.fixture
def parting(make_site, gate):
    def configure(config):
        config.registry.gate = gate
        config.add_async_view(Parting, "parting")
        config.add_async_view(Quick, "quick")

    return make_site(configure, asyncview__threads="1")


@pytest.mark.parametrize("how", ["completed", "failed"])
def test_thread_that_on_end_keeps_is_counted_and_replaced(parting, gate, how, caplog):
    site = parting
    process_id = site.start("/parting", {"how": how, "limit": "1"})
    eventually(lambda: site.engine.leaked == 1)
    eventually(lambda: "threads lost in this way: 1" in caplog.text)
    assert site.status("/parting", process_id)["status"] == how
    assert site.run("/quick")["status"] == "completed"
    gate.set()
    eventually(lambda: site.engine.leaked == 0)
    assert site.status("/parting", process_id)["status"] == how


def test_thread_of_its_own_that_on_end_keeps_is_counted(parting, gate, caplog):
    site = parting
    process_id = site.start("/parting", {"how": "timeout", "limit": "1"})
    # That of the job, and that in which its view is told.
    eventually(lambda: site.engine.leaked == 2)
    eventually(lambda: "keeps asyncview-end" in caplog.text)
    assert site.status("/parting", process_id)["error"]["reason"] == "timeout"
    gate.set()
    eventually(lambda: site.engine.leaked == 0)
    eventually(lambda: "gave asyncview-end back" in caplog.text)
    assert caplog.text.count("keeps asyncview-end") == 1


def test_thread_of_its_own_is_counted_for_a_job_that_never_ran(parting, gate):
    site = parting
    site.start("/parting", {"how": "queued"})
    process_id = site.start("/parting", {"how": "completed", "limit": "1"})
    site.app.post(f"/parting/cancel?process_id={process_id}", status=303)
    eventually(lambda: site.engine.leaked == 1)
    gate.set()
    eventually(lambda: site.engine.leaked == 0)


def test_on_end_of_a_job_without_a_limit_has_none(parting, gate):
    site = parting.by_hand()
    process_id = site.start("/parting", {"how": "completed"})
    eventually(lambda: site.status("/parting", process_id)["status"] == "completed")
    pulse = site.engine.pulse
    pulse._monotonic = lambda: float("inf")
    pulse.beat()
    assert site.engine.leaked == 0


# What a job hands to the pulse


class Poison:
    def __init__(self, error):
        self.error = error

    def __str__(self):
        raise self.error

    __float__ = __repr__ = __str__


class Poisonous(BaseAsyncView):
    def __run__(self):
        registry = self.request.registry
        poison = Poison(registry.poison)
        self.progress.update(poison, 4, poison)
        self.log.info("%s", Poison(RuntimeError("no words")))
        registry.gate.wait(PATIENCE)
        self.progress.update(3)
        registry.other.wait(PATIENCE)
        return b""


@pytest.mark.parametrize("poison", [SystemExit(), JobCancelled(), ValueError()])
def test_progress_that_raises_when_it_is_read_does_not_end_the_pulse(
    make_site, gate, poison
):
    def configure(config):
        config.registry.poison = poison
        config.registry.gate, config.registry.other = gate, other
        config.add_async_view(Poisonous, "poisonous")

    other = threading.Event()
    site = make_site(configure)
    process_id = site.start("/poisonous")
    eventually(lambda: site.status("/poisonous", process_id)["total"] == 4)
    gate.set()
    eventually(lambda: site.status("/poisonous", process_id)["current"] == 3)
    other.set()
    site.wait(process_id)


def test_progress_that_raises_holds_up_neither_heartbeat_nor_others(make_site, gate):
    entered = threading.Semaphore(0)

    class Saying(BaseAsyncView):
        def __run__(self):
            poison = Poison(JobCancelled())
            self.progress.update(poison if "bad" in self.request.params else 3)
            entered.release()
            gate.wait(PATIENCE)
            return b""

    site = make_site(lambda config: config.add_async_view(Saying, "saying")).by_hand()
    for params in ({"bad": "1"}, {}):
        good = site.start("/saying", params)
        assert entered.acquire(timeout=PATIENCE)
    site.engine.pulse.beat()
    assert site.status("/saying", good)["current"] == 3
    with reading(site.db) as connection:
        leases = store_of(connection, "tests").leases
        assert leases[site.engine.runner.worker].beats == 1


def test_job_whose_first_line_can_not_be_logged_is_not_kept_for_ever(
    hanging, monkeypatch
):
    """The pulse takes it for one that runs, for as long as it is live."""

    def refuse(record):
        if "starts after" in record.msg:
            raise RuntimeError("no log today")
        return True

    logger = logging.getLogger("asyncview.job")
    logger.setLevel(logging.INFO)
    logger.addFilter(refuse)
    try:
        process_id = hanging.start("/quick")
        eventually(lambda: not hanging.engine.executor.busy())
    finally:
        logger.removeFilter(refuse)
        logger.setLevel(logging.NOTSET)
    assert process_id not in hanging.engine.live
