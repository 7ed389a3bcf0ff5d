"""Chunks of one upload, taken by several processes of gunicorn at once."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

import pytest
from conftest import PATIENCE
from pyramid.config import Configurator
from pyramid.response import Response
from uploading import contents
from uploading import cut
from uploading import query
from uploading import some_bytes

from chaos.oracle import opened
from chaos.servers import wait_until

TESTS = Path(__file__).parent.parent

WORKERS = 3

DATA = some_bytes(6 << 20)
CHUNKS = cut(DATA, 256 * 1024)

#: Which chunk is on its way when its process is killed.
TORN = 7

RAW = {"Content-Type": "application/octet-stream"}


def make_app():
    """What each process of gunicorn serves."""
    config = Configurator(
        settings={"zodbconn.uri": os.environ["URI"], "asyncview.name": "tests"}
    )
    config.include("asyncview")
    config.add_upload_endpoint("/files")
    config.add_view(lambda request: contents(request), name="contents")
    config.add_view(lambda request: Response(str(os.getpid())), name="pid")
    return config.make_wsgi_app()


@pytest.fixture
def port(zeo, tmp_path):
    """Where a gunicorn with several processes serves."""
    command = f"{sys.executable} -m gunicorn chaos.test_workers:make_app() --threads 8"
    command += f" --workers {WORKERS} --keep-alive 60 --bind 127.0.0.1:0"
    log = tmp_path / "log"
    with opened(zeo.uri):
        # Of several that find it empty, and make it, one is refused, and gunicorn ends.
        pass
    environ = os.environ | {"URI": zeo.uri, "PYTHONPATH": str(TESTS)}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command.split(), env=environ, stdout=file, stderr=file, cwd=tmp_path
        )
    try:
        wait_until(lambda: b"Listening at" in log.read_bytes(), "gunicorn starts")
        yield int(log.read_text().partition("127.0.0.1:")[2].split()[0])
    finally:
        process.terminate()
        process.wait(PATIENCE)


class Line:
    """A connection, and so one process; once closed, and asked again, another."""

    def __init__(self, port):
        self._line = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._line.connect()

    def meet(self):
        """Learn whose it is."""
        self.pid = int(self.ask("GET", "/pid"))
        return self.pid

    def ask(self, method, path, body=None):
        self._line.request(method, path, body, RAW if body else {})
        answer = self._line.getresponse()
        data = answer.read()
        assert answer.status == 200, data
        return data

    def send(self, uid, number):
        """A chunk; gives the upload's uid."""
        answer = self.ask("POST", path_of(uid, number), CHUNKS[number])
        return json.loads(answer)["uploadUid"]

    def begin(self, uid, number):
        """Half of a chunk, and then nothing more."""
        chunk = CHUNKS[number]
        self._line.putrequest("POST", path_of(uid, number))
        for name, value in {**RAW, "Content-Length": len(chunk)}.items():
            self._line.putheader(name, value)
        self._line.endheaders()
        self._line.send(chunk[: len(chunk) // 2])

    def close(self):
        self._line.close()


def path_of(uid, number):
    return "/files?" + urlencode(query(uid, number, len(CHUNKS), len(DATA)))


def lines(port, stack):
    """Connections to more than one of the processes."""

    def several():
        # All at once, or the process that is quickest takes them all.
        made = [stack.enter_context(closing(Line(port))) for _ in range(9)]
        if len({line.meet() for line in made}) > 1:
            return made
        for line in made:
            line.close()

    return wait_until(several, "there are several processes")


def test_an_upload_of_several_processes_outlives_one_of_them(port, zeo):
    with ExitStack() as stack:
        victim, *others = lines(port, stack)
        uid = victim.send("", 0)
        victim.begin(uid, TORN)
        (journal,) = zeo.blobs.parent.glob(
            f"{zeo.blobs.name}.uploads/*/*/{uid}/journal"
        )
        wait_until(lambda: f" begin {TORN} " in journal.read_text(), "half is there")

        def send(line, numbers):
            for number in numbers:
                while True:
                    try:
                        line.send(uid, number)
                        break
                    except (OSError, http.client.HTTPException):
                        # It was the same process.
                        line.close()

        rest = [number for number in range(1, len(CHUNKS)) if number != TORN]
        threads = [
            threading.Thread(target=send, args=(line, rest[at :: len(others)]))
            for at, line in enumerate(others)
        ]
        for thread in threads:
            thread.start()
        os.kill(victim.pid, signal.SIGKILL)
        for thread in threads:
            thread.join(PATIENCE)
        victim.close()
        said = json.loads(victim.ask("GET", f"/files/{uid}"))
        assert said["chunks"] == sorted([0, *rest])
        assert not said["complete"]
        victim.send(uid, TORN)
        assert victim.ask("GET", f"/contents?uid={uid}") == DATA
