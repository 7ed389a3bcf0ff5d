"""However a server ends its process, jobs are drained and the database is closed."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import PATIENCE
from conftest import eventually
from test_engine import job_left_in

HERE = Path(__file__).parent

WAITRESS = [
    "-c",
    "import served, waitress;"
    " waitress.serve(served.make_app(), unix_socket='socket', threads=2)",
]
GUNICORN = ["-m", "gunicorn", "served:make_app()", "--bind", "unix:socket"]
SERVERS = {
    "waitress": WAITRESS,
    "sync": GUNICORN,
    "gthread": [*GUNICORN, "--worker-class", "gthread", "--threads", "2"],
}

#: What an operator who has no 20 seconds says.
SHORT = {"DRAIN": "0.5"}

COMPLETED = ("completed", None, 0)
INTERRUPTED = ("failed", "interrupted", 0)
REQUEUED = ("queued", None, 1)


class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


class Server:
    """A real server process in a folder of its own."""

    def __init__(self, folder, arguments, **environ):
        self.folder = folder
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": str(HERE)} | environ,
            )

    def ask(self, method, path, body=None):
        """Status, headers and text of the answer, as soon as there is one."""
        deadline = time.monotonic() + PATIENCE
        while True:
            connection = Connection(self.folder / "socket")
            try:
                kind = {"Content-Type": "application/x-www-form-urlencoded"}
                connection.request(method, path, body, kind if body else {})
                answer = connection.getresponse()
                return answer.status, answer.headers, answer.read().decode()
            except (OSError, http.client.HTTPException):
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                threading.Event().wait(0.02)
            finally:
                connection.close()

    def start(self, body):
        """Start a job; gives the address of its result when it runs."""
        status, headers, _ = self.ask("POST", "/task", body)
        assert status == 303, self.log.read_text()
        eventually((self.folder / "entered").exists)
        return headers["Location"].replace("processing", "result")

    def end(self, signum):
        """Send a signal; gives the seconds until the process is gone."""
        began = time.monotonic()
        self.process.send_signal(signum)
        self.process.wait(PATIENCE)
        return time.monotonic() - began


@pytest.fixture
def serve(tmp_path):
    """Starts the server of that name; ends it in any case."""
    with running(tmp_path) as start:
        yield start


@contextmanager
def running(folder):
    servers = []

    def start(name, *arguments, **environ):
        if name != "waitress" and not find_spec("gunicorn"):
            assert os.environ.get("ASYNCVIEW_CI") != "1", "gunicorn is missing"
            pytest.skip("gunicorn is not installed")
        servers.append(Server(folder, [*SERVERS[name], *arguments], **environ))
        return servers[-1]

    try:
        yield start
    finally:
        for server in servers:
            # Of gunicorn the workers, too: they follow it.
            server.process.terminate()
            try:
                server.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                server.process.kill()
                server.process.wait()


def closed_cleanly(folder):
    """The database was closed: only then its index is written."""
    return (folder / "Data.fs.index").exists()


@pytest.mark.parametrize(
    ("server", "signum"),
    [
        ("waitress", signal.SIGTERM),
        ("sync", signal.SIGTERM),
        ("gthread", signal.SIGTERM),
        ("gthread", signal.SIGINT),
    ],
)
def test_job_that_ends_in_time_is_completed(serve, tmp_path, server, signum):
    server = serve(server)
    server.start("drains=1")
    assert server.end(signum) < 20
    assert job_left_in(tmp_path) == COMPLETED, server.log.read_text()
    assert closed_cleanly(tmp_path)
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(
    ("server", "signum", "restartable"),
    [
        ("waitress", signal.SIGINT, 0),
        ("waitress", signal.SIGTERM, 2),
        ("sync", signal.SIGTERM, 2),
        ("gthread", signal.SIGTERM, 0),
    ],
)
def test_job_that_does_not_end_is_accounted_for(
    serve, tmp_path, server, signum, restartable
):
    server = serve(server, **SHORT)
    server.start(f"stubborn=1&restartable={restartable}")
    assert server.end(signum) < 0.5 + 5
    expected = REQUEUED if restartable else INTERRUPTED
    assert job_left_in(tmp_path) == expected, server.log.read_text()
    assert closed_cleanly(tmp_path)


def test_worker_that_has_served_its_requests_drains_before_the_next_begins(serve):
    """Gunicorn's max-requests: the next finds the job ended, or runs it."""
    server = serve("gthread", "--max-requests", "3")
    address = server.start("drains=1")
    codes = [server.ask("GET", address)[0] for _ in range(2)]
    # The third was the last of the first worker.
    assert codes == [303, 303]
    # It may take one more before it goes.
    eventually(lambda: server.ask("GET", address)[::2] == (200, "done"))


def test_preloaded_application_is_refused_with_a_sentence(serve, tmp_path):
    server = serve("sync", "--preload")
    status, _, text = server.ask("POST", "/task", "quick=1")
    assert status == 500
    assert "Traceback" not in text
    said = server.log.read_text()
    assert "forked after the database was opened" in said
    assert "without --preload" in said
    server.end(signal.SIGTERM)
    assert (tmp_path / "Data.fs").stat().st_size < 1000


def test_embedded_interpreter_is_closed_by_its_server(tmp_path):
    """As under mod_wsgi: no signal handler of ours, no main thread, no atexit."""
    script = """if True:
        import atexit, os, signal, threading
        import asyncview, served
        from webtest import TestApp

        def embedded():
            app = served.make_app()
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            TestApp(app).post("/task", {"drains": 1}, status=303)
            while not os.path.exists("entered"):
                threading.Event().wait(0.01)
            shutdown_subscribers.append(lambda: asyncview.close(app.registry))

        shutdown_subscribers = []
        thread = threading.Thread(target=embedded, daemon=True)
        thread.start()
        thread.join()
        for subscriber in shutdown_subscribers:
            subscriber()
        print([t.name for t in threading.enumerate()])
        os._exit(0)
    """
    server = Server(tmp_path, ["-c", script])
    assert server.process.wait(PATIENCE) == 0, server.log.read_text()
    # Before it there may be what Pyramid's imports warn of.
    assert server.log.read_text().splitlines()[-1] == "['MainThread']"
    assert job_left_in(tmp_path) == COMPLETED
    assert closed_cleanly(tmp_path)


# Restarts


def test_job_that_a_crash_interrupted_says_so_on_its_page(serve, tmp_path):
    server = serve("waitress")
    status, headers, _ = server.ask("POST", "/task", "die=1&key=one")
    assert status == 303
    (tmp_path / "answered").touch()
    assert server.process.wait(PATIENCE) == 9
    server = serve("waitress", **{"LEASE": "0.3"})
    _, _, text = server.ask("GET", headers["Location"])
    result = headers["Location"].replace("processing", "result")
    eventually(lambda: server.ask("GET", result)[0] == 500)
    _, _, text = server.ask("GET", result)
    assert "The server was stopped while your job ran" in text
    document = result.replace("result", "completed") + "&output_json=1"
    assert '"reason": "interrupted"' in server.ask("GET", document)[2]
    # Its key died with it.
    again = server.ask("POST", "/task", "quick=1&key=one")[1]["Location"]
    assert again != headers["Location"]


def test_job_that_was_queued_when_its_process_died_runs_in_the_next(serve):
    server = serve("waitress", THREADS="1")
    server.start("stubborn=1")
    _, headers, _ = server.ask("POST", "/task", "quick=1")
    server.process.kill()
    server.process.wait(PATIENCE)
    server = serve("waitress", LEASE="0.3")
    result = headers["Location"].replace("processing", "result")
    eventually(lambda: server.ask("GET", result)[0] == 200)
    assert server.ask("GET", result)[2] == "done"
