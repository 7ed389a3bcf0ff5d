"""A server that is killed and started again while a file is on its way."""

import re
import signal
import socket
import subprocess
import sys

import pytest
from playwright.sync_api import expect

from asyncview.demo.sample import blocks


class Server:
    """``asyncview demo`` on one port, as often as a test starts it."""

    def __init__(self, var):
        self._var = var
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self._port = taken.getsockname()[1]
        self._process = None

    def start(self):
        command = [sys.executable, "-W", "ignore", "-m", "asyncview", "demo"]
        self._process = subprocess.Popen(
            [*command, "--var", str(self._var), "--port", str(self._port)],
            stdout=subprocess.PIPE,
        )
        line = self._process.stdout.readline().decode()
        return re.search(r"http://\S+", line)[0]

    def kill(self):
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process.stdout.close()
            self._process = None


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path / "var")
    yield server
    server.kill()


def slow_down(tab, bytes_a_second):
    session = tab.context.new_cdp_session(tab)
    session.send("Network.enable")
    conditions = {"offline": False, "latency": 0, "downloadThroughput": -1}
    session.send(
        "Network.emulateNetworkConditions",
        {**conditions, "uploadThroughput": bytes_a_second},
    )


def test_upload_goes_on_when_the_server_is_back(server, tab, tmp_path):
    path = tmp_path / "customers.csv"
    path.write_bytes(b"".join(blocks(1000)) + b"\r\n" * (12 * 2**20))
    begun = []
    tab.on(
        "request",
        lambda request: (
            begun.append(request.headers.get("upload-offset"))
            if request.method == "PATCH"
            else None
        ),
    )
    tab.goto(server.start() + "/import")
    slow_down(tab, 4_000_000)
    tab.get_by_label("CSV file").set_input_files(path)
    tab.get_by_role("button", name="Import the file").click()
    # In the middle of the second of four chunks.
    with tab.expect_request(
        lambda request: request.headers.get("upload-offset") == str(8 * 2**20)
    ):
        pass
    server.kill()
    expect(tab.get_by_role("status").first).to_contain_text("Connection lost")
    slow_down(tab, -1)
    server.start()
    expect(tab.locator("#imported")).to_have_text("990")
    # What was there before is not sent again.
    assert begun.count("0") == 1
