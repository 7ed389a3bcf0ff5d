"""Streams: snapshots line by line, always with the end, from any process."""

import contextlib
import json
import socket
import subprocess
import sys
import threading

import pytest
from conftest import PATIENCE
from conftest import eventually
from pyramid.request import Request
from pyramid.response import Response

from asyncview import BaseAsyncView
from asyncview import ProgressSession
from asyncview.pyramid.jobs import Jobs

TERMINAL = ("complete", "error")


@pytest.fixture
def site(make_site):
    return make_site()


@pytest.fixture
def api(site):
    return api_of(site)


def api_of(site):
    request = Request.blank("/")
    request.registry = site.registry
    request.context = None
    return Jobs(request)


def lines(stream):
    """What a stream gives, each line read as JSON, to its end."""
    found = []
    for line in stream:
        assert line.endswith("\n")
        assert line.count("\n") == 1
        found.append(json.loads(line))
    return found


def collected(stream):
    """The same in a thread; the list grows."""
    found = []

    def read():
        found.extend(json.loads(line) for line in stream)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return found, thread


@pytest.mark.parametrize("reading", [True, False])
def test_stream_follows_and_ends_with_the_end(api, reading):
    made = api.create_session(tasks={"a": "A", "b": "B"}, message="Begins")
    found = api.get_session(made.id) if reading else made
    stream = found.stream(0.01)
    first = json.loads(next(stream))
    assert set(first) == {"session_id", "status", "overall_percent", "message", "tasks"}
    assert (first["session_id"], first["status"]) == (made.id, "pending")
    seen, thread = collected(stream)
    made.task("a").update(1, 2)
    eventually(lambda: seen and seen[-1]["overall_percent"] == 25)
    assert thread.is_alive()
    made.complete("a")
    made.complete("b", "All sent")
    made.finish("Done")
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert (seen[-1]["status"], seen[-1]["overall_percent"]) == ("complete", 100)
    assert seen[-1]["tasks"]["b"]["message"] == "All sent"
    assert [each["overall_percent"] for each in seen] == sorted(
        each["overall_percent"] for each in seen
    )


@pytest.mark.parametrize("reading", [True, False])
def test_task_that_ran_when_its_session_failed_has_failed_too(api, reading):
    made = api.create_session(tasks={"a": "A", "b": "B", "c": "C"})
    found = api.get_session(made.id) if reading else made
    made.complete("a")
    made.task("b").update(1, 4)
    # An estimate ends where it was, and is not shown as nothing.
    made.task("b").task("part", expected=1e-9).start()
    made.fail("It went wrong")
    last = lines(found.stream(0.01))[-1]
    assert last["status"] == "error"
    shown = {id: task["status"] for id, task in last["tasks"].items()}
    assert shown == {"a": "complete", "b": "error", "c": "pending"}
    assert last["tasks"]["b"]["percent"] >= 25
    assert found.to_dict() == last
    assert not found.is_running


def test_stream_of_a_reader_is_no_frozen_copy(api):
    made = api.create_session(total=4)
    found = api.get_session(made.id)
    stream = found.stream(0.01)
    assert json.loads(next(stream))["overall_percent"] == 0
    made.update(2)
    eventually(lambda: json.loads(next(stream))["overall_percent"] == 50)
    made.finish()
    assert lines(stream)[-1]["status"] == "complete"


@pytest.mark.parametrize("reading", [True, False])
def test_slow_consumer_gets_the_end(api, reading):
    made = api.create_session(total=4)
    found = api.get_session(made.id) if reading else made
    stream = found.stream(0)
    assert json.loads(next(stream))["status"] in ("pending", "running")
    # All of it happens while the consumer holds the first line.
    for i in range(5):
        made.update(i)
    made.finish("Done")
    assert lines(stream)[-1]["status"] == "complete"


@pytest.mark.parametrize("reading", [True, False])
def test_stream_that_is_opened_after_the_end_is_the_end(api, reading):
    made = api.create_session()
    made.fail("Refused")
    found = api.get_session(made.id) if reading else made
    for _ in range(3):
        # Any number of readers, any number of times.
        (only,) = lines(found.stream(60))
        assert (only["status"], only["message"]) == ("error", "Refused")


def test_error_of_one_task_ends_no_stream_while_others_run(api):
    made = api.create_session(tasks={"a": "A", "b": "B"})
    seen, thread = collected(api.get_session(made.id).stream(0.01))
    made.start("b")
    made.error("a", "Refused")
    eventually(lambda: seen and seen[-1]["status"] == "error")
    more = len(seen) + 3
    eventually(lambda: len(seen) > more)
    assert thread.is_alive()
    made.complete("b", "Sent all the same")
    # Nobody says finish: its tasks were its end.
    thread.join(PATIENCE)
    assert [task["status"] for task in seen[-1]["tasks"].values()] == [
        "error",
        "complete",
    ]


def test_stream_of_what_is_deleted_meanwhile_ends(make_site):
    site = make_site(asyncview__keep="3600").by_hand()
    api = api_of(site)
    made = api.create_session(keep=0)
    stream = api.get_session(made.id).stream(0)
    next(stream)
    made.finish()
    site.engine.pulse.beat()
    created = site.engine.runner.clock()
    site.engine.runner.clock = lambda: created + 60
    site.engine.pulse.sweep()
    assert api.get_session(made.id) is None
    assert lines(stream)[-1]["status"] in TERMINAL


def test_stream_goes_on_at_its_pace_while_its_process_ends(api, site, monkeypatch):
    """Of another process's session, say: it must not look without a pause."""
    pauses = []
    made = api.create_session(total=4)
    stream = api.get_session(made.id).stream(60)
    first = next(stream)
    monkeypatch.setattr("asyncview.reader.time.sleep", pauses.append)
    site.engine.runner.closing.set()
    assert [next(stream) for _ in range(3)] == [first] * 3
    assert len(pauses) == 3
    assert min(pauses) > 0.01
    made.finish()
    assert lines(stream)[-1]["status"] == "complete"


def test_stream_without_a_database_ends_with_its_session():
    session = ProgressSession()
    stream = session.stream(0)
    assert json.loads(next(stream))["status"] == "pending"
    session.finish()
    assert lines(stream)[-1]["status"] == "complete"


def test_view_can_give_a_stream_as_its_answer(make_site, gate):
    def view(request):
        found = request.asyncview.get_session(request.GET["id"])
        chunks = (line.encode() for line in found.stream(0.01))
        return Response(app_iter=chunks, content_type="application/x-ndjson")

    site = make_site(lambda config: config.add_view(view, name="stream"))
    made = api_of(site).create_session()
    made.finish("Done")
    text = site.app.get(f"/stream?id={made.id}").text
    assert json.loads(text.splitlines()[-1])["message"] == "Done"


# Of a job


def test_stream_of_a_job_ends_with_the_job_whatever_its_tasks_say(make_site, gate):
    inside = threading.Event()

    class Work(BaseAsyncView):
        tasks = {"a": "A"}  # noqa: RUF012

        def __run__(self):
            self.progress.complete("a")
            inside.set()
            gate.wait(PATIENCE)
            raise ZeroDivisionError

    site = make_site(lambda config: config.add_async_view(Work, "work"))
    process_id = site.start("/work")
    assert inside.wait(PATIENCE)
    seen, thread = collected(api_of(site).get_session(process_id).stream(0.01))
    eventually(lambda: seen and seen[-1]["overall_percent"] == 100)
    # Complete it is when its work is committed.
    assert seen[-1]["status"] == "running"
    assert thread.is_alive()
    gate.set()
    thread.join(PATIENCE)
    assert seen[-1]["status"] == "error"


# Other processes

WORKER = """
import sys
import threading
from pyramid.config import Configurator
from pyramid.request import Request
import asyncview

TASKS = {"a": "A", "b": "B"}
over = threading.Event()


def obey(session):
    for line in sys.stdin:
        if line.strip() == "step":
            session.task("a").update(1, 2, "Half of it")
        else:
            session.complete("a")
            session.complete("b", "Sent")
            return


class Work(asyncview.BaseAsyncView):
    tasks = TASKS

    def __run__(self):
        try:
            obey(self.progress)
        finally:
            over.set()


settings = {
    "zodbconn.uri": sys.argv[1],
    "asyncview.name": "tests",
    "asyncview.lease": "0.6",
    "asyncview.progress_interval": "0.02",
}
with Configurator(settings=settings) as config:
    config.include("asyncview")
    config.add_async_view(Work, "work")
    app = config.make_wsgi_app()
if sys.argv[2] == "job":
    post = Request.blank("/work", method="POST", accept="application/json")
    print(post.get_response(app).json_body["process_id"], flush=True)
    over.wait()
else:
    request = Request.blank("/")
    request.registry, request.context = app.registry, None
    session = asyncview.pyramid.jobs.Jobs(request).create_session(tasks=TASKS)
    print(session.id, flush=True)
    obey(session)
    session.finish("Done")
asyncview.close(app.registry)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A ZEO server in a process of its own; gives its URI."""
    path = tmp_path_factory.mktemp("zeo")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "ZEO.runzeo"]
    command += ["-a", f"127.0.0.1:{port}", "-f", f"{path}/Data.fs"]
    with open(path / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=path)
    try:
        yield f"zeo://127.0.0.1:{port}?wait_timeout={PATIENCE:.0f}"
    finally:
        process.terminate()
        process.wait(PATIENCE)


class Worker:
    """A session or a job in another process, which does what it is told."""

    def __init__(self, uri, kind="session"):
        command = [sys.executable, "-W", "ignore", "-c", WORKER, uri, kind]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.id = self.process.stdout.readline().strip()
        assert self.id

    def say(self, word):
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def close(self):
        self.process.kill()
        self.process.wait(PATIENCE)
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("kind", ["session", "job"])
def test_stream_follows_another_process_to_its_end(make_site, server, kind, killed):
    with contextlib.closing(Worker(server, kind)) as worker:
        site = make_site(storage=server, asyncview__lease="0.6")
        found = api_of(site).get_session(worker.id)
        seen, thread = collected(found.stream(0.02))
        assert api_of(site).running()[0].id == worker.id
        worker.say("step")
        eventually(lambda: seen and seen[-1]["overall_percent"] == 25)
        assert seen[-1]["tasks"]["a"]["message"] == "Half of it"
        if killed:
            worker.process.kill()
        else:
            worker.say("end")
        thread.join(PATIENCE)
        assert not thread.is_alive()
        last = seen[-1]
        assert last["status"] == ("error" if killed else "complete")
        assert last["overall_percent"] == (25 if killed else 100)
        # As for everybody who comes later.
        assert lines(found.stream(60)) == [last]
        assert api_of(site).running() == []


def test_slow_consumer_of_another_process_gets_the_end(make_site, server):
    with contextlib.closing(Worker(server)) as worker:
        site = make_site(storage=server)
        stream = api_of(site).get_session(worker.id).stream(0.02)
        first = json.loads(next(stream))
        assert first["overall_percent"] == 0
        # All of it happens, and its process is gone, while one line is held.
        worker.say("step")
        worker.say("end")
        worker.process.wait(PATIENCE)
        assert json.loads(list(stream)[-1])["status"] == "complete"
