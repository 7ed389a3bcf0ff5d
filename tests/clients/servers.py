"""Real servers in processes of their own, killed and started again as ordered."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlencode

from clients.faults import CALM

#: Seconds that a test waits for what another process does.
PATIENCE = 120.0

TESTS = Path(__file__).parent.parent

FACTORY = "clients.app:make_app"

#: More threads than a client has requests on their way, as some are made to wait.
#: waitress puts chunks into files, as it does with larger ones where nothing is said.
COMMANDS = {
    "waitress": "-m waitress --listen=127.0.0.1:{port} --threads=16 "
    "--inbuf-overflow=100000 --call " + FACTORY,
    "gunicorn": "-m gunicorn --bind=127.0.0.1:{port} --threads=16 --log-level=warning "
    f"{FACTORY}()",
}


def wait_until(condition, what, patience=PATIENCE):
    deadline = time.monotonic() + patience
    pause = threading.Event()
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what}: not within {patience} s"
        pause.wait(0.01)


class Server:
    """A server that comes back on the same port and data when it is killed."""

    def __init__(self, kind, folder, workshop):
        self.kind = kind
        self.folder = folder
        self.deaths = 0
        self._orders = CALM
        self._environ = os.environ | {
            "PYTHONPATH": str(TESTS),
            "WORKSHOP": str(workshop),
        }
        # Bound but not listening: nobody else gets the port while the server is dead,
        # and who connects meanwhile is refused.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self.port = self._reserved.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._closing = threading.Event()
        self._process = None
        self._guard = threading.Thread(target=self._keep_alive, name=kind)

    def __enter__(self):
        self.order()
        self._start()
        self._guard.start()
        wait_until(self._serves, f"{self.kind} serves; {self.folder / 'log'}")
        return self

    def __exit__(self, *error):
        self._closing.set()
        self._kill()
        self._guard.join(PATIENCE)
        self._reserved.close()

    def order(self, **orders):
        """Give it other orders than it had; see `Faults`."""
        self.deaths = 0
        self._orders = CALM | {"number": self._orders["number"] + 1} | orders
        self._write_orders()

    def received(self):
        """Bytes of bodies that were read since the last order."""
        try:
            return int(self._file("bytes").read_text() or 0)
        except FileNotFoundError:
            return 0

    def wait_until_held(self):
        """Until a request waits for other orders."""
        wait_until(self._file("held").exists, "a request is held")

    def request(self, method, path, body=None, headers=None):
        """Status, headers and body of an answer."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            line.request(method, path, body, headers or {})
            answer = line.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            line.close()

    def _file(self, name):
        return self.folder / f"{name}-{self._orders['number']}"

    def _write_orders(self):
        # In one go: the server reads it at any time.
        new = self.folder / "orders.new"
        new.write_text(json.dumps(self._orders))
        new.replace(self.folder / "orders")

    def _start(self):
        command = COMMANDS[self.kind].format(port=self.port)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *command.split()],
                cwd=self.folder,
                env=self._environ,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A group of its own, to be killed as a whole.
                start_new_session=True,
            )

    def _keep_alive(self):
        while True:
            status = self._process.wait()
            if self._closing.is_set():
                return
            if status != -signal.SIGKILL:
                # It failed to start, or ended by itself; the tests will notice.
                return
            self.deaths += 1
            # One death an order.
            self._orders = self._orders | {"die_after": None}
            self._write_orders()
            self._start()
            if self._closing.is_set():
                self._kill()

    def _kill(self):
        # What has ended already has no group any more.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _serves(self):
        assert self._guard.is_alive(), (self.folder / "log").read_text()
        try:
            return self.request("GET", "/token")[0] == 200
        except OSError:
            return False


class Visitor:
    """Someone with a web session, known by its cookie, and its token."""

    def __init__(self, server):
        self._server = server
        status, headers, body = server.request("GET", "/token")
        assert status == 200, body
        self.cookie = headers["Set-Cookie"].partition(";")[0]
        self.headers = {"Cookie": self.cookie, "X-CSRF-Token": body.decode()}

    def content(self, uid):
        """Name, size and SHA-256 of an upload that arrived; None if there is none."""
        path = f"/content?{urlencode({'uid': uid})}"
        status, _, body = self._server.request("GET", path, headers=self.headers)
        if status == 404:
            return None
        assert status == 200, (uid, status, body)
        return json.loads(body)
