"""What the security of jobs asks for, and no test of one part alone shows."""

import base64
import configparser
import os
import pickle
import re
import stat
from pathlib import Path
from urllib.parse import urlencode

import pytest
from people import Policy
from people import Work
from people import job_that_is
from people import working
from pyramid.session import SignedCookieSessionFactory
from uploading import endpoint
from uploading import send

from asyncview import BaseAsyncView
from asyncview.failure import TRACEBACK_WIDTH
from asyncview.job import new_id
from asyncview.store import reading
from asyncview.store import store_of

TOP = Path(__file__).parent.parent


def test_an_id_is_192_random_bits():
    ids = [new_id() for _ in range(2000)]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", id) for id in ids)
    assert len(set(ids)) == 2000
    # Each place takes each of the 64 characters.
    assert all(len(set(column)) == 64 for column in zip(*ids, strict=True))


# What is answered


def configure(config):
    working(config)
    config.set_security_policy(Policy())
    config.add_async_view(Work, "other")


def refusals(site):
    """An answer of each kind that is no page of a job, and the code to be expected."""
    live, waiting = job_that_is(site, "running"), site.start("/work")
    for accept in ("text/html", "application/json"):

        def ask(method, url, accept=accept, **headers):
            headers = {name.replace("_", "-"): each for name, each in headers.items()}
            return site.app.request(
                url,
                method=method,
                headers={"Accept": accept, **headers},
                expect_errors=True,
            )

        yield 404, ask("GET", f"/work/result?process_id={32 * 'a'}")
        yield 404, ask("GET", f"/other/result?process_id={live}")
        yield 400, ask("GET", "/work/result")
        yield 403, ask("POST", "/work", Sec_Fetch_Site="cross-site")
        cancel = f"/work/cancel?process_id={live}"
        yield 403, ask("POST", cancel, Sec_Fetch_Site="cross-site")
        yield 405, ask("PUT", "/work")
        yield 405, ask("GET", cancel)
        yield 409, ask("POST", f"/work/delete?process_id={live}")
        yield 503, ask("POST", "/work")
    site.app.post(f"/work/cancel?process_id={waiting}", status=303)
    site.registry.gate.set()
    site.wait(live)


def test_every_refusal_is_private(make_site):
    """It tells no cache, no other site and no guess of a browser's anything."""
    site = make_site(configure, asyncview__max_queued="1", asyncview__threads="1")
    for code, response in refusals(site):
        assert response.status_int == code, response.text
        assert response.headers["Cache-Control"] == "private, no-store"
        assert response.headers["Vary"] == "Cookie, Accept-Language"
        assert response.headers["Referrer-Policy"] == "same-origin"
        assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_no_page_of_ours_stands_in_a_foreign_frame(make_site):
    site = make_site(configure, asyncview__max_queued="1", asyncview__threads="1")
    pages = [response for _, response in refusals(site)]
    pages.append(site.app.get("/work"))
    for mode in ("failed", "cancelled"):
        id = job_that_is(site, mode)
        pages.append(site.app.get(f"/work/result?process_id={id}", status="*"))
    pages = [each for each in pages if each.content_type == "text/html"]
    assert len(pages) == 12
    assert {each.headers["X-Frame-Options"] for each in pages} == {"SAMEORIGIN"}


# What is kept


class Careless(BaseAsyncView):
    def __run__(self):
        password = "a secret of the work"
        if self.request.params["how"] == "deep":
            return self.__run__()
        raise ValueError(100_000 * "x", len(password))


@pytest.mark.parametrize("how", ["deep", "long"])
def test_what_is_kept_of_an_error_is_bounded_and_has_no_values(make_site, how):
    site = make_site(lambda config: config.add_async_view(Careless, "careless"))
    process_id = site.run("/careless", {"how": how})["process_id"]
    with reading(site.db) as connection:
        failure = store_of(connection, "tests").find(process_id).job.state.failure
        assert "in __run__" in failure.traceback
        assert len(failure.traceback) <= TRACEBACK_WIDTH + 100
        assert len(failure.message) <= 1000
        # The line of the source may be there, and is not the value of a variable.
        assert failure.traceback.count("a secret of the work") <= 1
        assert "password =" not in failure.traceback


class Mine:
    """Where it is unpickled, there is a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Taking(BaseAsyncView):
    uploads = ("file",)

    def __run__(self):
        params, body = self.request.params.mixed(), self.request.body
        return f"{sorted(params)} {len(body)}"


def test_nothing_that_is_sent_is_unpickled(make_site, tmp_path):
    def configure(config):
        endpoint(config)
        config.set_session_factory(SignedCookieSessionFactory("secret"))
        config.add_async_view(Taking, "taking")

    site = make_site(configure)
    mine = tmp_path / "unpickled"
    for protocol in (0, 2, 4):
        data = pickle.dumps(Mine(str(mine)), protocol)
        # As text, in each way in which somebody might read it again.
        ways = (data.decode("latin-1"), base64.b64encode(data).decode(), data.hex())
        for text in ways:
            line = text.encode("unicode_escape").decode()
            site.app.reset()
            headers = {"X-Own": line, "Cookie": f"session={line}; csrf_token={line}"}
            site.run("/taking", {"a": text}, headers=headers)
            for name in ("completed", "result", "processing", "events"):
                address = f"/taking/{name}?{urlencode({'process_id': text})}"
                site.app.get(address, headers={"Last-Event-ID": line}, status=400)
            app = site.browser(REMOTE_USER=line)
            send(app, "", 0, [data], name=line[:100])
            app.post("/taking", upload_files=[("a", "name", data)], status=303)
            app.post("/taking", {"file": text}, status="*")
        response = site.app.post(
            "/taking", data, {"Content-Type": "application/octet-stream"}, status=303
        )
        site.wait(response.location.rpartition("process_id=")[2])
    assert not mine.exists()
    # It would be.
    pickle.loads(data)
    assert mine.exists()


def test_what_is_staged_is_the_servers_alone(make_site):
    site = make_site(endpoint)
    before = os.umask(0o002)
    try:
        send(site.browser(REMOTE_USER="ann"), "", 0, [b"a", b"b"])
    finally:
        os.umask(before)
    root = Path(site.engine.staging.root)
    found = list(root.rglob("*"))
    assert any(each.is_file() for each in found)
    for each in found:
        if each.is_file():
            assert stat.S_IMODE(each.stat().st_mode) & 0o077 == 0, each
    # Nor can anybody else come in.
    assert any(
        stat.S_IMODE(each.stat().st_mode) & 0o077 == 0
        for each in (root, *root.iterdir())
    )


# What an operator relies on


#: The first in which the holes are mended that matter here.
MENDED = {
    # Open redirects by Location.
    "webob": (1, 8, 11),
    # Requests that are smuggled in, and a flood of half closed connections.
    "waitress": (3, 0, 1),
    # Files outside of a static view.
    "pyramid": (2, 0, 2),
}


@pytest.mark.parametrize("name", MENDED)
def test_dependencies_are_those_whose_holes_are_mended(name):
    config = configparser.ConfigParser(interpolation=None)
    config.read(TOP / "setup.cfg")
    wanted = config["options"]["install_requires"]
    (version,) = re.findall(rf"^{name} >= ([\d.]+)$", wanted, re.MULTILINE)
    assert tuple(map(int, version.split("."))) >= MENDED[name]


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("docs/operations.rst", "who can store one can have code of their own run"),
        ("docs/operations.rst", "until they expire"),
        ("docs/operations.rst", "*and* the database was packed"),
        ("docs/deployment.rst", "waitress believes no proxy until it is told which"),
        ("README.rst", "stays in the file as an old revision until the database is"),
    ],
)
def test_the_documentation_says_what_code_can_not_prevent(path, sentence):
    text = " ".join((TOP / path).read_text("utf-8").split())
    assert sentence in text
