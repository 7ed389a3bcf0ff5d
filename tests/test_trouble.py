"""A storage in trouble: each job ends in the right state, once, and users are told."""

import json
import logging
import re
import subprocess
import sys
import textwrap
import threading

import pytest
from conftest import PATIENCE
from conftest import eventually
from pyramid.request import Request
from pyramid.response import Response
from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError
from ZODB.POSException import ReadConflictError
from ZODB.POSException import StorageError

from asyncview import BaseAsyncView
from asyncview import InvalidTransition
from asyncview.failure import INTERRUPTED
from asyncview.failure import TIMEOUT
from asyncview.pyramid.jobs import Jobs
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.store import transact

TRANSIENT = [ConflictError, ReadConflictError, ClientDisconnected]
LASTING = [StorageError, OSError]
#: What may be raised although the commit was stored.
DOUBTFUL = [ClientDisconnected, StorageError, OSError]


class Ending(BaseAsyncView):
    """Ends as its form says, and counts what happens."""

    restartable = property(lambda self: int(self.request.params.get("again", 0)))

    def __run__(self, process_id=None):
        registry = self.request.registry
        registry.entered.append(process_id)
        if "wait" in self.request.params:
            registry.gate.wait(PATIENCE)
        if "fail" in self.request.params:
            raise ZeroDivisionError("as it was told")
        self.context.data["work"] = self.context.data.get("work", 0) + 1
        return "done"

    def on_end(self, status):
        self.request.registry.told.append(status)


@pytest.fixture(scope="module")
def shared(make_shared_site):
    def configure(config):
        config.add_async_view(Ending, "ending")
        config.registry.entered, config.registry.told = [], []

    site = make_shared_site(configure, asyncview__threads="1")
    site.engine.prepare()
    site.app.get("/ending")
    return site


@pytest.fixture
def site(shared, monkeypatch):
    monkeypatch.setattr("asyncview.executors.threads.PATIENCE", 0.01)
    registry, engine = shared.registry, shared.engine
    registry.entered, registry.told = [], []
    registry.gate = threading.Event()
    transact(shared.db, lambda connection: connection.root().update(work=0))
    shared.fault = lambda *args, **kw: fault(shared, monkeypatch, *args, **kw)
    shared.work = lambda: work(shared)
    yield shared
    registry.gate.set()
    eventually(lambda: not (engine.executor.busy() or len(engine.live)))


def work(site):
    with reading(site.db) as connection:
        return connection.root().get("work", 0)


def fault(site, monkeypatch, thread, number, error, stored=False, times=1):
    """Let commits of a thread fail, from its ``number``-th on; gives those to come."""
    storage = site.db.storage
    begin, finish = storage.tpc_begin, storage.tpc_finish
    left, seen = [error] * times, []

    def due():
        if threading.current_thread().name.startswith(thread) and left:
            seen.append(1)
            return len(seen) >= number
        return False

    def tpc_begin(*args, **kw):
        if due():
            raise left.pop()("of this storage")
        return begin(*args, **kw)

    def tpc_finish(*args, **kw):
        tid = finish(*args, **kw)
        if due():
            raise left.pop()("of this storage")
        return tid

    if stored:
        monkeypatch.setattr(storage, "tpc_finish", tpc_finish)
    else:
        monkeypatch.setattr(storage, "tpc_begin", tpc_begin)
    return left


def goes_on(site):
    """The process does: its one thread runs the next job."""
    return site.run("/ending")["status"] == "completed"


# A worker's commits: the first claims the job, the second ends it


@pytest.mark.parametrize("times", [1, 30])
@pytest.mark.parametrize("error", TRANSIENT + LASTING)
def test_claim_that_fails_is_made_again_and_the_job_runs_once(site, error, times):
    left = site.fault("asyncview-1", 1, error, times=times)
    assert site.run("/ending")["status"] == "completed"
    assert not left
    assert len(site.registry.entered) == 1
    assert site.registry.told == ["completed"]
    assert goes_on(site)


@pytest.mark.parametrize("error", DOUBTFUL)
def test_claim_that_was_stored_all_the_same_is_a_claim(site, error):
    left = site.fault("asyncview-1", 1, error, stored=True)
    doc = site.run("/ending")
    assert not left
    assert (doc["status"], doc["attempt"]) == ("completed", 1)
    assert len(site.registry.entered) == 1
    assert goes_on(site)


@pytest.mark.parametrize("error", TRANSIENT)
def test_storm_of_transient_errors_at_the_end_is_weathered(site, error):
    left = site.fault("asyncview-1", 2, error, times=6)
    doc = site.run("/ending")
    assert not left
    assert (doc["status"], doc["attempt"]) == ("completed", 7)
    assert site.work() == 1
    assert site.registry.told == ["completed"]


@pytest.mark.parametrize("error", LASTING)
def test_work_that_can_not_be_committed_is_a_failure_that_is_recorded(site, error):
    left = site.fault("asyncview-1", 2, error, times=4)
    doc = site.run("/ending")
    assert not left
    assert (doc["status"], doc["error"]["reason"]) == ("failed", "exception")
    assert len(site.registry.entered) == 1
    assert site.work() == 0
    eventually(lambda: site.registry.told == ["failed"])
    assert goes_on(site)


@pytest.mark.parametrize("error", DOUBTFUL)
def test_work_that_was_stored_all_the_same_is_completed_once(site, error):
    left = site.fault("asyncview-1", 2, error, stored=True)
    assert site.run("/ending")["status"] == "completed"
    assert not left
    assert len(site.registry.entered) == 1
    assert site.work() == 1
    assert site.registry.told == ["completed"]


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("error", DOUBTFUL)
def test_failure_is_recorded_once_whatever_its_commit_says(site, error, stored):
    left = site.fault("asyncview-1", 2, error, stored, times=1 if stored else 3)
    doc = site.run("/ending", {"fail": "1"})
    assert not left
    assert (doc["status"], doc["error"]["reason"]) == ("failed", "exception")
    assert len(site.registry.entered) == 1
    assert site.registry.told == ["failed"]
    assert goes_on(site)


# What others commit


@pytest.mark.parametrize("error", DOUBTFUL)
def test_job_out_of_its_time_is_ended_once_whatever_its_commit_says(
    site, error, caplog
):
    process_id = site.start("/ending", {"wait": "1"})
    eventually(lambda: site.registry.entered)
    left = site.fault("MainThread", 1, error, stored=True)
    assert site.engine.pulse.rescue.take(process_id, TIMEOUT) == "failed"
    assert not left
    doc = site.status("/ending", process_id)
    assert (doc["status"], doc["error"]["reason"]) == ("failed", "timeout")
    eventually(lambda: site.registry.told == ["failed"])
    site.registry.gate.set()
    assert goes_on(site)
    assert site.registry.told == ["failed", "completed"]
    assert taken(caplog) == ["failed"]


@pytest.mark.parametrize("error", DOUBTFUL)
def test_job_is_queued_again_once_whatever_its_commit_says(site, error, caplog):
    process_id = site.start("/ending", {"wait": "1", "again": "1"})
    eventually(lambda: site.registry.entered)
    left = site.fault("MainThread", 1, error, stored=True)
    assert site.engine.pulse.rescue.take(process_id, INTERRUPTED) == "queued"
    assert not left
    assert taken(caplog) == ["queued"]
    site.registry.gate.set()
    site.engine.submit(process_id)
    # The thread that lost the job ends it for this process, too.
    eventually(lambda: site.status("/ending", process_id)["status"] == "completed")
    assert site.status("/ending", process_id)["attempt"] == 2
    assert len(site.registry.entered) == 2
    assert site.work() == 1


@pytest.mark.parametrize("error", DOUBTFUL)
@pytest.mark.parametrize(("again", "status"), [("0", "failed"), ("1", "queued")])
def test_job_that_a_shutdown_stops_ends_once_whatever_its_commit_says(
    make_site, monkeypatch, error, again, status, caplog
):
    caplog.set_level(logging.INFO, "asyncview")
    site = make_site(stopping)
    process_id = site.start("/stopping", {"again": again})
    assert site.registry.entered.wait(PATIENCE)
    left = fault(site, monkeypatch, "asyncview-1", 1, error, stored=True)
    site.engine.close(0)
    assert not left
    (line,) = [r for r in caplog.messages if f" is {status} after" in r]
    assert process_id[:6] in line
    with reading(site.db) as connection:
        state = store_of(connection, "tests").find(process_id).job.state
        assert (state.status, state.restarts) == (status, int(again))


class Stopping(Ending):
    """Notices that it is asked to stop."""

    def __run__(self):
        self.request.registry.entered.set()
        while True:
            self.progress.update()


def stopping(config):
    config.registry.entered, config.registry.told = threading.Event(), []
    config.add_async_view(Stopping, "stopping")


def taken(caplog):
    """What became of the jobs that were taken away, as the log has it."""
    pattern = r"was taken from its worker after .*: it is (\w+)"
    return re.findall(pattern, caplog.text)


@pytest.mark.parametrize("error", DOUBTFUL)
def test_queued_job_is_cancelled_once_whatever_its_commit_says(site, error):
    running = site.start("/ending", {"wait": "1"})
    eventually(lambda: site.registry.entered)
    process_id = site.start("/ending")
    # The first stores the wish.
    left = site.fault("MainThread", 2, error, stored=True)
    site.app.post(f"/ending/cancel?process_id={process_id}", status=303)
    assert not left
    assert site.status("/ending", process_id)["status"] == "cancelled"
    eventually(lambda: site.registry.told == ["cancelled"])
    site.registry.gate.set()
    site.wait(running)
    assert site.registry.entered == [running]


# What a user sees


@pytest.mark.parametrize("error", DOUBTFUL)
def test_start_that_can_not_be_stored_is_503_and_no_job(site, error, caplog):
    site.fault("MainThread", 1, error)
    response = site.app.post("/ending", status=503)
    assert int(response.headers["Retry-After"]) > 0
    assert "try again in a moment" in response.text
    assert "Traceback" not in response.text
    assert "could not be committed" in caplog.text
    with reading(site.db) as connection:
        states = [each.job.state for each in store_of(connection, "tests").unfinished()]
        assert all(state.ended for state in states)
    assert goes_on(site)
    assert len(site.registry.entered) == 1


def test_start_that_can_not_be_stored_is_said_to_clients_as_json(site):
    site.fault("MainThread", 1, OSError)
    headers = {"Accept": "application/json"}
    response = site.app.post("/ending", headers=headers, status=503)
    assert "try again" in response.json["error"]


@pytest.mark.parametrize("error", LASTING)
def test_first_start_of_all_that_can_not_be_stored_is_503_and_no_job(
    make_site, monkeypatch, error, caplog
):
    site = make_site(fresh)
    before = site.db.lastTransaction()
    left = fault(site, monkeypatch, "MainThread", 1, error, times=2)
    # What starts no job is answered as ever.
    assert site.app.post("/other").text == "other"
    response = site.app.post("/ending", status=503)
    assert not left
    assert "try again in a moment" in response.text
    assert int(response.headers["Retry-After"]) > 0
    assert "Traceback" not in response.text
    assert "no place for jobs yet" in caplog.text
    assert site.db.lastTransaction() == before
    assert goes_on(site)


@pytest.mark.parametrize("error", DOUBTFUL)
def test_first_start_of_all_finds_what_was_stored_all_the_same(
    make_site, monkeypatch, error
):
    site = make_site(fresh)
    left = fault(site, monkeypatch, "MainThread", 1, error, stored=True)
    assert goes_on(site)
    assert not left


def fresh(config):
    """Before its first start, an application has no place for jobs."""
    config.registry.entered, config.registry.told = [], []
    config.add_async_view(Ending, "ending")
    config.add_view(lambda request: Response("other"), name="other")


@pytest.mark.parametrize("error", DOUBTFUL)
def test_start_that_was_stored_all_the_same_is_a_start(site, error):
    left = site.fault("MainThread", 1, error, stored=True)
    process_id = site.start("/ending")
    assert not left
    site.wait(process_id)
    assert site.status("/ending", process_id)["status"] == "completed"
    assert site.registry.entered == [process_id]


def test_error_that_is_not_the_storages_is_the_applications(site, monkeypatch):
    def broken(*args):
        raise RuntimeError("a defect")

    monkeypatch.setattr(site.db.storage, "tpc_finish", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        site.app.post("/ending")


def test_cancel_that_can_not_be_stored_is_503(site):
    process_id = site.start("/ending", {"wait": "1"})
    site.fault("MainThread", 1, OSError)
    response = site.app.post(f"/ending/cancel?process_id={process_id}", status=503)
    assert "try again in a moment" in response.text
    assert not site.status("/ending", process_id)["cancel_requested"]


@pytest.mark.parametrize("subview", ["processing", "completed", "events", "result"])
def test_job_that_can_not_be_read_is_503_and_there_again_later(
    site, subview, monkeypatch
):
    process_id = site.run("/ending")["process_id"]
    with reading(site.db) as connection:
        store = store_of(connection, "tests")
        oid = store.find(process_id).job.state._p_oid
    load = site.db.storage.loadBefore

    def lost(wanted, tid):
        if wanted == oid:
            raise ClientDisconnected("for a while")
        return load(wanted, tid)

    url = f"/ending/{subview}?process_id={process_id}"
    with monkeypatch.context() as patch:
        patch.setattr(site.db.storage, "loadBefore", lost)
        site.db.cacheMinimize()
        response = site.app.get(url, status=503)
        assert "Retry-After" in response.headers
    assert site.app.get(url).status_int < 400


def test_process_whose_first_look_fails_serves_what_needs_no_database(
    make_site, monkeypatch
):
    def configure(config):
        config.add_route("health", "/health")
        config.add_view(lambda r: r.response, route_name="health")
        config.add_async_view(Ending, "ending")
        config.registry.entered, config.registry.told = [], []

    site = make_site(configure, root_factory=lambda request: {})

    def lost(*args):
        raise ClientDisconnected("not yet")

    with monkeypatch.context() as patch:
        patch.setattr(site.db, "open", lost)
        site.app.get("/health", status=200)
    assert site.start("/ending")


def test_full_disk_delays_the_end_of_a_job_and_nothing_is_lost(tmp_path):
    """A real one, as far as a process is concerned: files can't grow any more."""
    script = """
        import json, logging, os, resource, threading, warnings
        from pyramid.config import Configurator
        from pyramid_zodbconn import get_connection
        from webtest import TestApp
        import asyncview
        from asyncview.store import reading, store_of

        class Work(asyncview.BaseAsyncView):
            def __run__(self):
                entered.set()
                gate.wait(30)
                get_connection(self.request).root()["work"] = "x" * 50_000
                return "done"

        class Trouble(logging.Handler):
            def emit(self, record):
                if "can't be recorded yet" in record.getMessage():
                    seen.set()

        entered, gate, seen = (threading.Event() for _ in range(3))
        logging.getLogger("asyncview").addHandler(Trouble())
        settings = {"zodbconn.uri": "file://Data.fs", "asyncview.name": "tests"}
        config = Configurator(settings=settings)
        config.include("asyncview")
        config.add_async_view(Work, "work")
        app = TestApp(config.make_wsgi_app())
        said = []
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

        def fill():
            size = os.stat("Data.fs").st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

        def free():
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

        fill()
        # There is no place for jobs yet.
        said.append(app.post("/work", status="*").status_int)
        free()
        start = app.post("/work", status=303)
        assert entered.wait(30)
        look = start.location.replace("processing", "completed") + "&output_json=1"
        fill()
        said.append(app.post("/work", status="*").status_int)
        said.append(app.get(look).json["status"])
        gate.set()
        assert seen.wait(30)
        said.append(app.get(look).json["status"])
        free()
        engine = config.registry.asyncview.engine
        job_id = start.location.rpartition("=")[2]
        with engine.live.watching(job_id) as ended:
            if job_id in engine.live:
                assert ended.wait(30)
        doc = app.get(look).json
        said += [doc["status"], doc["error"]["reason"]]
        with reading(engine.db) as connection:
            said.append("work" in connection.root())
        after = app.post("/work", status=303).location
        after_id = after.rpartition("=")[2]
        with engine.live.watching(after_id) as ended:
            if engine.executor.waiting(after_id) or after_id in engine.live:
                assert ended.wait(30)
        said.append(app.get(after.replace("processing", "completed")).text)
        asyncview.close(config.registry)
        print(json.dumps(said))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said == [
        503,
        503,
        "running",
        "running",
        "failed",
        "exception",
        False,
        "True",
    ]


# Sessions that are no job


@pytest.fixture
def api(site):
    request = Request.blank("/")
    request.registry = site.registry
    return Jobs(request)


def status_of(site, session):
    with reading(site.db) as connection:
        return store_of(connection, "tests").find(session.id).job.state.status


@pytest.mark.parametrize("error", DOUBTFUL)
def test_session_that_was_stored_all_the_same_is_made_once(site, api, error):
    left = site.fault("MainThread", 1, error, stored=True)
    session = api.create_session(api.new_id(), owner=None)
    assert not left
    session.finish()
    assert status_of(site, session) == "completed"


@pytest.mark.parametrize("error", DOUBTFUL)
@pytest.mark.parametrize("end", ["finish", "fail"])
def test_end_that_was_stored_all_the_same_is_the_end(site, api, error, end):
    session = api.create_session(owner=None)
    left = site.fault("MainThread", 1, error, stored=True)
    session.finish("Done") if end == "finish" else session.fail("Lost")
    assert not left
    assert status_of(site, session) == ("completed" if end == "finish" else "failed")
    assert session.id not in site.engine.live


@pytest.mark.parametrize("error", LASTING)
def test_end_that_was_not_stored_is_raised_and_may_be_said_again(site, api, error):
    session = api.create_session(owner=None)
    left = site.fault("MainThread", 1, error)
    with pytest.raises(error):
        session.finish("Done")
    assert not left
    assert status_of(site, session) == "running"
    session.finish("Done")
    assert status_of(site, session) == "completed"


@pytest.mark.parametrize("error", DOUBTFUL)
def test_session_that_was_taken_over_all_the_same_is_its_takers(site, api, error):
    session = api.create_session(owner=None)
    # As if it were another process's.
    site.engine.live.end(session.id)
    left = site.fault("MainThread", 1, error, stored=True)
    opened = api.open_session(session.id)
    assert not left
    opened.finish()
    assert status_of(site, session) == "completed"
    with pytest.raises(InvalidTransition):
        session.fail("It is another's")
    assert status_of(site, session) == "completed"


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("error", LASTING)
def test_work_in_a_thread_and_its_end_are_one_also_in_doubt(site, api, error, stored):
    def work(connection, session):
        connection.root()["work"] = 1

    session = api.create_session(owner=None)
    left = site.fault(f"asyncview-{session.id[:6]}", 1, error, stored=stored)
    api.run_in_thread(session, work)
    eventually(lambda: status_of(site, session) != "running")
    eventually(lambda: session.id not in site.engine.live)
    assert not left
    assert status_of(site, session) == ("completed" if stored else "failed")
    assert site.work() == int(stored)
