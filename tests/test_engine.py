"""A process begins with nothing, and ends with every job accounted for."""

import logging
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from conftest import PATIENCE
from conftest import eventually
from ZODB.DB import DB
from ZODB.FileStorage import FileStorage

import asyncview
from asyncview import BaseAsyncView
from asyncview.exceptions import JobCancelled
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.store import transact


def facts(db, process_id):
    with reading(db) as connection:
        state = store_of(connection, "tests").find(process_id).job.state
        return state.status, state.failure and state.failure.reason, state.restarts


def threads_of_ours():
    return [t for t in threading.enumerate() if t.name.startswith("asyncview")]


@pytest.fixture
def runs():
    """The jobs that were entered."""
    return []


@pytest.fixture
def stubborn(make_site, gate, runs):
    """Makes a site with a job that waits for the gate and looks at nothing."""
    entered = threading.Event()

    class Stubborn(BaseAsyncView):
        def __run__(self, process_id=None):
            assert self.context.data["asyncview:tests"]
            runs.append(process_id)
            entered.set()
            gate.wait(PATIENCE)
            return "done"

    class Restartable(Stubborn):
        restartable = 1

    def configure(config):
        config.add_async_view(Stubborn, "stubborn")
        config.add_async_view(Restartable, "restartable")

    def make(path="/stubborn", **settings):
        site = make_site(configure, **settings)
        process_id = site.start(path)
        assert entered.wait(PATIENCE)
        return site, process_id

    return make


# The end


def test_job_that_ends_within_the_drain_is_completed(stubborn, gate):
    site, process_id = stubborn()
    closing = threading.Thread(target=site.engine.close, args=(PATIENCE,))
    closing.start()
    eventually(lambda: site.engine.executor._stopped)
    gate.set()
    closing.join(PATIENCE)
    assert facts(site.db, process_id) == ("completed", None, 0)
    assert not threads_of_ours()


def test_job_is_not_asked_to_stop_while_it_has_time(attentive, gate):
    site, process_id = attentive()
    closing = threading.Thread(target=site.engine.close, args=(PATIENCE,))
    closing.start()
    # For longer than it would take to notice.
    assert not site.engine.runner.leaving.wait(0.3)
    assert not site.noticed
    gate.set()
    closing.join(PATIENCE)
    assert facts(site.db, process_id) == ("completed", None, 0)


@pytest.mark.parametrize("drain", [0, 0.05])
def test_job_that_does_not_end_is_marked_as_interrupted(
    stubborn, gate, runs, monkeypatch, drain
):
    monkeypatch.setattr("asyncview.engine.LAST_WORDS", 0.05)
    site, process_id = stubborn()
    site.engine.close(drain)
    assert facts(site.db, process_id) == ("failed", "interrupted", 0)
    # What it does afterwards changes nothing.
    gate.set()
    assert site.engine.executor.join(PATIENCE)
    assert facts(site.db, process_id) == ("failed", "interrupted", 0)
    assert runs == [process_id]


def test_job_that_is_marked_is_told_that_it_has_ended(make_site, gate):
    entered, told = threading.Event(), []

    class Telling(BaseAsyncView):
        def __run__(self, process_id=None):
            entered.set()
            gate.wait(PATIENCE)

        def on_end(self, status):
            told.append((status, self.process_id))

    site = make_site(lambda config: config.add_async_view(Telling, "telling"))
    process_id = site.start("/telling")
    assert entered.wait(PATIENCE)
    site.engine.close(0)
    assert told == [("failed", process_id)]
    gate.set()
    assert site.engine.executor.join(PATIENCE)
    assert len(told) == 1


def test_job_of_a_restartable_view_waits_for_the_next_process(
    stubborn, gate, monkeypatch
):
    monkeypatch.setattr("asyncview.engine.LAST_WORDS", 0.05)
    site, process_id = stubborn("/restartable")
    site.engine.close(0)
    assert facts(site.db, process_id) == ("queued", None, 1)
    gate.set()
    assert site.engine.executor.join(PATIENCE)
    assert facts(site.db, process_id) == ("queued", None, 1)


@pytest.fixture
def attentive(make_site, gate):
    """A site with a job that looks at every step whether it should stop."""
    entered, noticed, told = threading.Event(), [], []

    class Attentive(BaseAsyncView):
        restartable = property(lambda self: int(self.request.params.get("again", 0)))

        def __run__(self, process_id=None):
            entered.set()
            try:
                while not gate.wait(0.001):
                    self.progress.advance()
            except JobCancelled:
                noticed.append(True)
                raise

        def on_end(self, status):
            told.append(status)

    def make(**params):
        site = make_site(lambda config: config.add_async_view(Attentive, "attentive"))
        site.noticed, site.told = noticed, told
        process_id = site.start("/attentive", params)
        assert entered.wait(PATIENCE)
        return site, process_id

    return make


def test_job_that_stops_because_the_process_ends_was_interrupted(attentive, caplog):
    site, process_id = attentive()
    # As loud as of a job whose process was killed: its owner has seen the error id.
    caplog.set_level(logging.WARNING, "asyncview")
    site.engine.close(0)
    assert site.noticed
    assert facts(site.db, process_id) == ("failed", "interrupted", 0)
    assert site.told == ["failed"]
    assert "failed (interrupted), error id" in caplog.text
    assert not threads_of_ours()


def test_restartable_job_that_stops_because_the_process_ends_is_not_lost(attentive):
    site, process_id = attentive(again="2")
    site.engine.close(0)
    assert site.noticed
    assert facts(site.db, process_id) == ("queued", None, 1)
    assert site.told == []


def test_job_that_somebody_cancelled_before_the_process_ends_is_cancelled(attentive):
    site, process_id = attentive(again="2")
    # The wish is in the database, and its job has not heard of it yet.
    transact(site.db, lambda conn: store_of(conn, "tests").ask_cancel(process_id))
    site.engine.close(0)
    assert facts(site.db, process_id)[0] == "cancelled"
    assert site.told == ["cancelled"]


def test_job_that_waits_stays_queued(stubborn, gate, monkeypatch):
    monkeypatch.setattr("asyncview.engine.LAST_WORDS", 0.05)
    site, _ = stubborn(asyncview__threads="1")
    waiting = site.start("/stubborn")
    site.engine.close(0)
    assert facts(site.db, waiting) == ("queued", None, 0)


def test_close_may_be_said_again_and_nothing_starts_after_it(make_site):
    class Quick(BaseAsyncView):
        def __run__(self, process_id=None):
            return "done"

    site = make_site(lambda config: config.add_async_view(Quick, "quick"))
    site.run("/quick")
    for _ in range(3):
        site.engine.close(5)
    process_id = site.start("/quick")
    assert facts(site.db, process_id)[0] == "queued"
    site.engine.start()
    assert not threads_of_ours()


def test_unused_engine_closes_at_once(make_site):
    site = make_site()
    site.engine.close(PATIENCE)
    assert not threads_of_ours()
    assert site.db.lastTransaction() == site.db.lastTransaction()


def test_close_ends_jobs_and_pulse_before_the_databases(make_site, monkeypatch):
    class Quick(BaseAsyncView):
        def __run__(self, process_id=None):
            return "done"

    site = make_site(lambda config: config.add_async_view(Quick, "quick"))
    site.run("/quick")
    left = []
    monkeypatch.setattr(site.db, "close", lambda: left.append(threads_of_ours()))
    asyncview.close(site.registry, drain=5)
    monkeypatch.undo()
    assert left == [[]]


def test_job_that_was_just_claimed_counts_as_running(stubborn, gate):
    """Between its claim and its first line, the drain must see it."""
    gate.set()
    site, _ = stubborn(asyncview__threads="1")
    runner = site.engine.runner
    claim, claimed = runner.claims.take, threading.Event()
    hold = threading.Event()

    def slow(ids, stride):
        tickets = claim(ids, stride)
        claimed.set()
        hold.wait(PATIENCE)
        return tickets

    runner.claims.take = slow
    process_id = site.start("/stubborn")
    assert claimed.wait(PATIENCE)
    closing = threading.Thread(target=site.engine.close, args=(PATIENCE,))
    closing.start()
    eventually(lambda: site.engine.executor._stopped)
    hold.set()
    closing.join(PATIENCE)
    assert facts(site.db, process_id) == ("completed", None, 0)


# The pool


def test_the_pool_has_room_for_the_threads_of_any_server(make_site):
    """A request may hold two connections for a moment, as a job may."""
    site = make_site(asyncview__threads="4")
    assert site.db.getPoolSize() >= 2 * (64 + 4)


def test_zodb_never_warns_about_its_pool(make_site, gate, caplog):
    barrier = threading.Barrier(4)

    class Opening(BaseAsyncView):
        exclusive = property(lambda self: self.request.params["key"])

        def __run__(self, process_id=None):
            barrier.wait(PATIENCE)
            return "done"

    site = make_site(
        lambda config: config.add_async_view(Opening, "opening"),
        asyncview__max_per_owner="100",
        asyncview__threads="4",
    )
    caplog.set_level(logging.WARNING, "ZODB")
    ids, errors = [], []

    def post(number):
        try:
            ids.append(site.start("/opening", {"key": str(number)}, site.browser()))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=post, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not errors
    for process_id in ids:
        site.wait(process_id)
    assert "connections" not in caplog.text


# Processes

PREAMBLE = """
    import os, sys, threading, time
    from pyramid.config import Configurator
    from pyramid_zodbconn import get_connection
    from webtest import TestApp
    import asyncview

    class Task(asyncview.BaseAsyncView):
        restartable = "restartable" in sys.argv

        def __run__(self, process_id=None):
            entered.set()
            threading.Event().wait(600)

    entered = threading.Event()

    settings = {
        "zodbconn.uri": "file://Data.fs",
        "asyncview.name": "tests",
        "asyncview.drain": "0.2",
    }

    def root_of(request):
        return get_connection(request).root()

    def make():
        config = Configurator(settings=settings, root_factory=root_of)
        config.include("asyncview")
        config.add_async_view(Task, "task")
        return TestApp(config.make_wsgi_app())
"""


def process(tmp_path, script, *arguments):
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(PREAMBLE) + textwrap.dedent(script),
            *arguments,
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def job_left_in(tmp_path):
    db = DB(FileStorage(str(tmp_path / "Data.fs")))
    try:
        with reading(db) as connection:
            store = store_of(connection, "tests")
            (entry,) = [*store.unfinished(), *store.finished.values()]
            id = getattr(entry, "job", entry).id
        return facts(db, id)
    finally:
        db.close()


@pytest.mark.parametrize(
    ("how", "restartable"),
    [
        ("exit", False),
        (signal.SIGTERM, False),
        (signal.SIGTERM, True),
        (signal.SIGINT, False),
    ],
)
def test_process_that_ends_records_its_job(tmp_path, how, restartable):
    script = """
        app = make()
        app.post("/task", status=303)
        assert entered.wait(30)
        print("ready", flush=True)
        if "exit" in sys.argv:
            sys.exit(0)
        threading.Event().wait(60)
    """
    arguments = ["restartable"] * restartable + ["exit"] * (how == "exit")
    child = process(tmp_path, script, *arguments)
    try:
        assert child.stdout.readline() == "ready\n"
        if how != "exit":
            child.send_signal(how)
        began = time.monotonic()
        _, errors = child.communicate(timeout=60)
    finally:
        child.kill()
    assert time.monotonic() - began < 0.2 + 5
    if how != signal.SIGINT:
        assert child.returncode == 0, errors
        assert "Traceback" not in errors
    expected = ("queued", None, 1) if restartable else ("failed", "interrupted", 0)
    assert job_left_in(tmp_path) == expected


def test_child_of_a_process_with_an_open_database_is_refused(tmp_path):
    """Also where the parent never served a request, as with gunicorn's --preload."""
    script = """
        import warnings
        warnings.simplefilter("ignore")
        app = make()
        if "used" in sys.argv:
            app.post("/task", status=303)
        child = os.fork()
        if not child:
            try:
                app.get("/task")
            except asyncview.AsyncViewError as error:
                print(error, flush=True)
            app.app.registry.asyncview.engine.close()
            asyncview.close(app.app.registry)
            sys.exit(0)
        os.waitpid(child, 0)
        # The child has neither marked our job nor given up our lock.
        app.get("/task")
        registry = app.app.registry
        print(len(registry.asyncview.engine.live), flush=True)
        from ZODB.FileStorage import FileStorage
        from zc.lockfile import LockError
        try:
            FileStorage("Data.fs")
        except LockError:
            print("locked", flush=True)
    """
    for use in ([], ["used"]):
        child = process(tmp_path, script, *use)
        out, errors = child.communicate(timeout=60)
        lines = out.splitlines()
        assert child.returncode == 0, errors
        assert "forked after the database was opened" in lines[0]
        assert lines[1:] == [str(len(use)), "locked"]
