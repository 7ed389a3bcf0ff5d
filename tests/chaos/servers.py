"""Starts real server processes, and ends them in the ways that hurt."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlencode

from chaos.app import Trace

#: Seconds that a test waits for what another process does.
PATIENCE = 60.0

TESTS = Path(__file__).parent.parent


def wait_until(condition, what, patience=PATIENCE):
    deadline = time.monotonic() + patience
    pause = threading.Event()
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what}: not within {patience} s"
        pause.wait(0.01)


class Zygote:
    """See `chaos.zygote`; a context manager."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "chaos.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(TESTS)},
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.stdout.close()

    def fork(self, orders):
        self._process.stdin.write(json.dumps(orders) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


class Server:
    """One process that serves the application of `chaos.app`."""

    def __init__(self, pid, port_file, log):
        self.pid = pid
        self.log = log
        self._port_file = port_file
        self._port = None
        self._born = self._stat()[19:20]

    @property
    def alive(self):
        """Whether it is there, and its pid not another process's by now."""
        return bool(self._born) and self._stat()[19:20] == self._born

    def port(self):
        """None while it does not serve yet, or never will."""
        if self._port is None and self._port_file.exists():
            self._port = int(self._port_file.read_text())
        return self._port

    def ready(self):
        """Wait until it serves, or is dead."""
        wait_until(lambda: self.port() or not self.alive, "a server starts")
        return self

    def signal(self, number):
        if self.alive:
            os.kill(self.pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.gone()

    def gone(self):
        wait_until(lambda: not self.alive, "a server dies")

    def request(self, method, path, fields=None, timeout=PATIENCE):
        """Status and body (JSON, where it is); OSError where there is no answer."""
        connection = HTTPConnection("127.0.0.1", self.port() or 1, timeout=timeout)
        headers = {"Accept": "application/json"}
        body = None
        if fields is not None:
            body = urlencode(fields, doseq=True)
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
        except HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def post(self, **fields):
        """Start a job; gives its id."""
        status, document = self.request("POST", "/work", fields)
        assert status == 202, (status, document)
        return document["process_id"]

    def status(self, process_id):
        return self.request(
            "GET", f"/work/completed?process_id={process_id}&output_json=1"
        )

    def send_freeze(self):
        """Have it stop itself (SIGSTOP); gives what the answer will come on."""
        line = socket.create_connection(("127.0.0.1", self.port()), PATIENCE)
        line.sendall(b"GET /freeze HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        wait_until(lambda: self._state() == "T", "a server freezes")
        return line

    def _state(self):
        return self._stat()[0]

    def _stat(self):
        """State, and what follows: the 19th from it is when it was started."""
        try:
            text = Path(f"/proc/{self.pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return []
        return text.rpartition(")")[2].split()


#: Of all servers.
SETTINGS = {
    "asyncview.name": "chaos",
    "asyncview.progress_interval": "0.05",
    "asyncview.max_queued": "1000000",
    "asyncview.grace": "0",
}


class World:
    """A folder with a database, and all servers that work on it."""

    def __init__(self, folder, zygote, uri, mutant=None, **settings):
        self.folder = folder
        self.uri = uri
        self.mutant = mutant
        self.starts = Trace(folder / "starts")
        self.points = Trace(folder / "points")
        self.servers = []
        self._zygote = zygote
        self._settings = SETTINGS | {
            name.replace("__", "."): str(value) for name, value in settings.items()
        }

    def start(self, point=None, count=1, lose_answers=None, **settings):
        """Start a server; does not wait until it serves."""
        number = len(self.servers)
        port = self.folder / f"port-{number}"
        log = self.folder / f"log-{number}"
        settings = self._settings | {
            name.replace("__", "."): str(value) for name, value in settings.items()
        }
        settings |= {
            "zodbconn.uri": self.uri,
            "chaos.starts": str(self.folder / "starts"),
            "chaos.folder": str(self.folder),
        }
        pid = self._zygote.fork(
            {
                "settings": settings,
                "log": str(log),
                "port": str(port),
                "points": str(self.folder / "points"),
                "point": point,
                "count": count,
                "lose_answers": lose_answers,
                "mutant": self.mutant,
            }
        )
        server = Server(pid, port, log)
        self.servers.append(server)
        return server

    def open_gate(self, server, gate=1):
        """Let the jobs go on that this server has in their middle, at this gate."""
        (self.folder / f"gate-{gate}-{server.pid}").touch()

    def entered(self):
        """Entries of ``__run__``, oldest first."""
        return self.starts.read()

    def kill_all(self):
        for server in self.servers:
            server.kill()

    def logs(self):
        """Lines that all servers have logged."""
        for server in self.servers:
            if server.log.exists():
                yield from server.log.read_text(errors="replace").splitlines()


class Zeo:
    """A ZEO server in a process of its own."""

    def __init__(self, folder, option=""):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._config = folder / "zeo.conf"
        self._config.write_text(
            f"""
            <zeo>
              address 127.0.0.1:{self.port}
              {option}
            </zeo>
            <filestorage 1>
              path {folder}/Data.fs
              blob-dir {folder}/blobs
            </filestorage>
            <eventlog>
              level ERROR
              <logfile>
                path {folder}/zeo.log
              </logfile>
            </eventlog>
            """
        )
        self.blobs = folder / "blobs"
        self.uri = (
            f"zeo://127.0.0.1:{self.port}?wait_timeout=10&blob_dir={self.blobs}"
            "&shared_blob_dir=1"
        )
        self._process = None

    def start(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ZEO.runzeo", "-C", self._config],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._answers, "the ZEO server starts")
        return self

    def _answers(self):
        assert self._process.poll() is None, "the ZEO server has ended"
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def end(self, number=signal.SIGKILL):
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE)
