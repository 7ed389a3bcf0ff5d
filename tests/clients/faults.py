"""A middleware in which requests for uploads come to grief, in a settled order."""

import io
import json
import os
import random
import signal
import threading
from pathlib import Path

#: What it does without orders: nothing.
CALM = {"number": 0, "seed": "", "share": 0.0, "die_after": None, "hold_after": None}

UNAVAILABLE = [("Content-Type", "text/plain"), ("Content-Length", "0")]


class Faults:
    """Follows the file ``orders`` in a folder, anew whenever that has changed.

    ``share`` of the requests are answered with 503, half of them before the application
    has seen them, and the others after it has done what they ask.  When more than
    ``die_after`` bytes of bodies were read, the process is killed where it is.  When
    more than ``hold_after`` were, requests that come then wait for other orders.  Files
    named by the orders' ``number`` tell how many ``bytes`` were read since they came,
    and that a request is ``held``.
    """

    def __init__(self, app, path, folder):
        self._app = app
        self._path = path
        self._folder = Path(folder)
        self._lock = threading.Lock()
        self._text = None
        self._read_orders()

    def __call__(self, environ, start_response):
        if not environ["PATH_INFO"].startswith(self._path):
            return self._app(environ, start_response)
        with self._lock:
            self._read_orders()
            draw, share = self._random.random(), self._orders["share"]
        if draw < share / 2:
            exhaust(environ["wsgi.input"])
            return unavailable(start_response)
        self._hold()
        app = self._counting(environ)
        if draw < share:
            run(app, environ)
            return unavailable(start_response)
        return app(environ, start_response)

    def _counting(self, environ):
        """The application, and what it reads of this request's body is counted."""
        body = environ["wsgi.input"]
        if not isinstance(body, io.BufferedRandom):
            environ["wsgi.input"] = Counted(body, self._count)
            return self._app

        def app(environ, start_response):
            def start(status, *more):
                # It is on disk, where the application copies it without a read.
                if status.startswith("2"):
                    self._count(int(environ["CONTENT_LENGTH"]))
                return start_response(status, *more)

            return self._app(environ, start)

        return app

    def _read_orders(self):
        try:
            text = (self._folder / "orders").read_text()
        except FileNotFoundError:
            text = json.dumps(CALM)
        if text != self._text:
            self._text = text
            self._orders = json.loads(text)
            self._random = random.Random(self._orders["seed"])
            self._bytes = 0

    def _file(self, name):
        """What tells of how the orders are followed."""
        return self._folder / f"{name}-{self._orders['number']}"

    def _count(self, number):
        with self._lock:
            self._bytes += number
            self._file("bytes").write_text(str(self._bytes))
            die_after = self._orders["die_after"]
            if die_after is not None and self._bytes > die_after:
                # The server is the leader of its group: gunicorn's master goes, too.
                os.killpg(0, signal.SIGKILL)

    def _hold(self):
        pause = threading.Event()
        while True:
            with self._lock:
                self._read_orders()
                hold_after = self._orders["hold_after"]
                if hold_after is None or self._bytes <= hold_after:
                    return
                self._file("held").touch()
            pause.wait(0.01)


class Counted:
    """The body of a request that tells how much of it was read."""

    def __init__(self, body, count):
        self._body = body
        self._count = count

    def read(self, *size):
        return self._counted(self._body.read(*size))

    def readline(self, *size):
        return self._counted(self._body.readline(*size))

    def __iter__(self):
        return iter(self.readline, b"")

    def _counted(self, data):
        self._count(len(data))
        return data


def exhaust(body):
    # Else some servers close the connection in the middle of the client's request.
    while body.read(1 << 16):
        pass


def unavailable(start_response):
    start_response("503 Service Unavailable", UNAVAILABLE)
    return []


def run(app, environ):
    """Have the application do its work, for an answer that gets lost."""
    answer = app(environ, lambda status, headers, exc_info=None: None)
    try:
        for _ in answer:
            pass
    finally:
        if hasattr(answer, "close"):
            answer.close()
