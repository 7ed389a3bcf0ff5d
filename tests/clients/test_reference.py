"""Our answers beside those of tus's own server, to the same raw requests."""

import http.client
import subprocess

import pytest

from clients.app import ENDPOINT
from clients.probes import PROBES
from clients.probes import TUS
from clients.servers import PATIENCE

#: Headers whose value is compared.
VALUES = ("Upload-Offset", "Upload-Length", "Upload-Defer-Length", "Upload-Metadata")
#: Headers that are only to be there or not.
NAMES = ("Location", "Tus-Version", "Tus-Resumable")


@pytest.fixture(scope="session")
def reference_port(workshop, node, tmp_path_factory):
    """Where the reference serves."""
    command = [
        node,
        workshop / "reference.mjs",
        tmp_path_factory.mktemp("reference"),
        str(1 << 40),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield int(process.stdout.readline())
        process.kill()


@pytest.mark.parametrize("name", PROBES)
def test_answers_are_those_of_the_reference(name, server, visitor, reference_port):
    probe = PROBES[name]
    ours = ask(server.port, probe.steps, visitor.headers)
    theirs = ask(reference_port, probe.steps, {})
    for number, difference in probe.differences.items():
        assert theirs[number] == difference.theirs, difference.because
        assert difference.theirs != difference.ours
        theirs[number] = difference.ours
    assert ours == theirs


def ask(port, steps, headers):
    """What a server answers, step by step: the status, and what headers say."""
    answers = []
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    location = None
    for step in steps:
        path = step.path or (location if step.follows else ENDPOINT)
        wanted = {**TUS, **headers, **step.headers}
        wanted = {name: value for name, value in wanted.items() if value is not None}
        try:
            line.request(step.method, path, step.body, wanted)
            answer = line.getresponse()
            answer.read()
        finally:
            line.close()
        location = location or answer.headers["Location"]
        answers.append(summary(step.method, answer))
    return answers


def summary(method, answer):
    words = [str(answer.status)]
    words += [
        f"{name}={answer.headers[name]}" for name in VALUES if name in answer.headers
    ]
    words += [name for name in NAMES if name in answer.headers]
    if method != "HEAD" and "Upload-Expires" in answer.headers:
        # tus asks for it after POST and PATCH only; ours say it always.
        words.append("Upload-Expires")
    if method == "HEAD" and answer.status == 200:
        words.append(f"Cache-Control={answer.headers['Cache-Control']}")
    return " ".join(words)
