"""The clients that people upload with, before real servers that fail them.

To run these: node and Chromium on the PATH, ``pip install -e '.[clients]'``, ``npm ci
--ignore-scripts`` in this folder, and ``pytest --clients tests/clients``.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clients.app import ENDPOINT
from clients.files import CHUNK
from clients.files import SIZE
from clients.files import File
from clients.servers import COMMANDS
from clients.servers import PATIENCE
from clients.servers import Server
from clients.servers import Visitor

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("clients")


@pytest.fixture(scope="session")
def workshop(tmp_path_factory):
    """A folder with our scripts beside what is installed from npm."""
    modules = Path(os.environ.get("ASYNCVIEW_NODE", HERE), "node_modules").resolve()
    if not modules.exists():
        pytest.fail(f"there is no {modules}: run 'npm ci' in tests/clients")
    folder = tmp_path_factory.mktemp("workshop")
    (folder / "node_modules").symlink_to(modules)
    for script in (HERE / "scripts").iterdir():
        shutil.copy(script, folder)
    # Uppy comes as modules that no browser could load one by one.
    bundle = [
        modules / ".bin" / "esbuild",
        "uppy.mjs",
        "--bundle",
        "--format=iife",
        "--outfile=uppy.js",
    ]
    subprocess.run(bundle, cwd=folder, check=True, capture_output=True, text=True)
    return folder


@pytest.fixture(scope="session")
def node():
    executable = shutil.which("node")
    if not executable:
        pytest.fail("there is no node on the PATH")
    return executable


@pytest.fixture(scope="session", params=COMMANDS)
def running(request, tmp_path_factory, workshop):
    with Server(request.param, tmp_path_factory.mktemp("server"), workshop) as server:
        yield server


@pytest.fixture
def server(running):
    """A server that has no orders at first."""
    running.order()
    yield running
    running.order()


@pytest.fixture
def visitor(server):
    return Visitor(server)


@pytest.fixture
def make_file(tmp_path):
    def make_file(size=SIZE, name="räksmörgås.bin"):
        return File(tmp_path / name, size)

    return make_file


@pytest.fixture
def start_client(server, visitor, workshop, node, tmp_path):
    """Starts a client that is a command; its output is the uid of the upload."""
    commands = {"tuspy": [sys.executable, str(HERE / "tuspy_client.py")]}
    started = []

    def start_client(client, file, **options):
        command = commands.get(client, [node, str(workshop / f"{client}.node.mjs")])
        options = {
            "endpoint": server.url + ENDPOINT,
            "headers": visitor.headers,
            "path": str(file.path),
            "name": file.path.name,
            "chunkSize": CHUNK,
            "memory": str(tmp_path / f"{client}.json"),
            **options,
        }
        process = subprocess.Popen(
            [*command, json.dumps(options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start_client
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run_client(start_client):
    """Runs such a client to its end; gives the uid of the upload."""

    def run_client(client, file, **options):
        process = start_client(client, file, **options)
        output, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
        return output.strip()

    return run_client
