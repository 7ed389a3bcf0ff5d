"""Odd requests, by the hundred: no crash, no traceback, nothing stored."""

import itertools
import logging
import os
import random
import socket
from io import BytesIO

import hypothesis
import hypothesis.strategies as st
import pytest
from conftest import PATIENCE
from people import Policy
from people import job_that_is
from people import let_go
from people import serving
from people import working
from pyramid.response import Response
from pyramid.session import SignedCookieSessionFactory

from asyncview import BaseAsyncView

#: That are made up; `.ci/run` wants more.
EXAMPLES = int(os.environ.get("ASYNCVIEW_FUZZ", "100"))

SUBVIEWS = ["processing", "completed", "result", "events", "cancel", "delete"]

PATHS = [
    "/work",
    "/work/",
    *(f"/work/{name}" for name in SUBVIEWS),
    *(f"/work/{name}/" for name in SUBVIEWS),
    "/work//result",
    "//work/result",
    "/work/./result",
    "/work/../work/result",
    "/work/result/..",
    "/work/result\x00",
    "/work/r\xe9sult",
    "/work/%",
    "/work/\xff\xfe",
    "/@@work/result",
    "/work/result;x=1",
    "/work/" + 3000 * "a",
    "/work/" + 200 * "a/",
    "/\u2028work".encode().decode("latin-1"),
]
QUERIES = [
    "process_id={id}",
    "process_id={id}&process_id=x",
    "process_id=x&process_id={id}",
    "process_id={id}&output_json=1",
    "process_id={id}&output_json=%ff",
    "process_id={id}&output_json[]=1",
    "process_id={id}&_LOCALE_=../../etc",
    "process_id={id}&_LOCALE_=%00",
    "process_id={id}&_LOCALE_=xx_YY.utf-8@euro",
    "process_id={id}&refresh=%22%3E",
    "process_id=" + 5000 * "a",
    "process_id=%ff%fe",
    "process_id=%c3%28",
    "process_id=%ed%a0%80",
    "process_id=%zz",
    "process_id=%",
    "process_id",
    "process_id=\xe9",
    "&&&;;=",
    "=",
    "%ff=%ff",
    "process_id={id}%00",
    "process_id={id}%0d%0aX: y",
    "process_id=<script>",
    "",
]
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "FOO", "get", "P\xd6ST"]
HEADERS = [
    {},
    {"Accept": "application/json"},
    {"Accept": "application/json;q=x, ;;,,"},
    {"Accept": "\xff"},
    {"Accept-Language": "xx-\xff;q=a"},
    {"Prefer": "respond-async; wait=\xff"},
    {"Range": "bytes=0-"},
    {"Range": "bytes=-1"},
    {"Range": "bytes=99999999999999999999-"},
    {"Range": "bytes=--5"},
    {"Range": "bytes=0-1,2-3"},
    {"Range": "\xff", "If-Range": "\xff"},
    {"If-Range": "Thu, 99 Foo 2026"},
    {"If-Range": '"', "Range": "bytes=0-1"},
    {"If-None-Match": '"'},
    {"If-None-Match": "*"},
    {"If-None-Match": ',,"a",W/"'},
    {"If-Modified-Since": "yesterday"},
    {"Last-Event-ID": "\xff" * 50},
    {"Last-Event-ID": "-1"},
    {"Cookie": "session=\xff; =; ;;"},
    {"Cookie": "_LOCALE_=../../x"},
    {"Origin": "http://["},
    {"Origin": "\xff"},
    {"Sec-Fetch-Site": "nonsense"},
    {"X-Vhm-Root": "/nothing"},
    {"X-Csrf-Token": "\xff"},
    {"X-Requested-With": "XMLHttpRequest"},
]
BODIES = [
    ("", b""),
    ("application/x-www-form-urlencoded", b"process_id={id}"),
    ("application/x-www-form-urlencoded", b"process_id=%ff&%ff"),
    ("application/x-www-form-urlencoded; charset=nonsense", b"process_id={id}"),
    ("multipart/form-data", b"no boundary"),
    ("multipart/form-data; boundary=", b"--\r\n"),
    ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data"),
    ("multipart/form-data; boundary=" + 300 * "x", b"--x"),
    (
        "multipart/form-data; boundary=x",
        b"--x\r\nContent-Disposition: form-data; name=process_id\r\n\r\n\xff\r\n--x--",
    ),
    ("application/json", b'{"process_id": "{id}"}'),
    ("\xff", b"\x00" * 100),
]


class Big(BaseAsyncView):
    def __run__(self):
        return Response(100_000 * b"x")


def configure(config):
    working(config)
    config.add_async_view(Big, "big")
    config.set_security_policy(Policy())


def with_sessions(config):
    configure(config)
    config.set_session_factory(SignedCookieSessionFactory("secret"))


@pytest.fixture(scope="module", params=[configure, with_sessions])
def site(request, make_shared_site):
    return make_shared_site(request.param)


def environ_of(method, path, query, headers, body=("", b"")):
    """As a server makes it: bytes as latin-1."""
    kind, data = body
    return {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "CONTENT_TYPE": kind,
        "CONTENT_LENGTH": str(len(data)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(data),
        "wsgi.errors": BytesIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **{
            "HTTP_" + name.upper().replace("-", "_"): value
            for name, value in headers.items()
        },
    }


def call(site, environ):
    """The status, headers and body of the answer; raises what the application does."""
    seen = []
    app_iter = site.wsgi(environ, lambda *head: seen.append(head[:2]))
    try:
        body = b"".join(app_iter)
    finally:
        if hasattr(app_iter, "close"):
            app_iter.close()
    (status, headers), *_ = seen
    return int(status[:3]), headers, body


def is_failure(path, query, failed):
    """The result of a job that failed is a 500, by design."""
    return failed is not None and path.strip("/").endswith("result") and failed in query


def check(site, environ, failed=None):
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    status, headers, body = call(site, environ)
    expected = status < 500 or is_failure(path, environ["QUERY_STRING"], failed)
    assert expected, (method, path, environ["QUERY_STRING"])
    assert b"Traceback" not in body
    assert b"<script>" not in body
    for name, value in headers:
        assert "\r" not in name + value
        assert "\n" not in name + value
        (name + value).encode("latin-1")
    return status


def odd_requests(id):
    """Each odd thing with a plain rest, then a few hundred mixtures."""
    name = f"process_id={id}"
    bodies = [(kind, data.replace(b"{id}", id.encode())) for kind, data in BODIES]
    queries = [query.replace("{id}", id) for query in QUERIES]
    plain = [f"/work/{each}" for each in SUBVIEWS]
    yield from ((method, path, name, {}) for method in METHODS for path in PATHS)
    yield from (
        (method, path, query, {})
        for method in ("GET", "POST")
        for path in plain
        for query in queries
    )
    yield from (
        (method, path, name, headers)
        for method in ("GET", "HEAD")
        for path in ("/work", *plain)
        for headers in HEADERS
    )
    yield from (
        ("POST", path, query, {}, body)
        for path in plain
        for query in ("", name)
        for body in bodies
    )
    dice = random.Random(2)
    for _ in range(300):
        yield (
            dice.choice(METHODS),
            dice.choice(PATHS),
            dice.choice(queries),
            dict(itertools.chain(*(dice.choice(HEADERS).items() for _ in range(2)))),
            dice.choice(bodies),
        )


def is_undecodable(path):
    """Such a path is an error in Pyramid's traversal, before it comes to any view."""
    try:
        path.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def test_nothing_that_is_sent_is_a_crash(site, caplog):
    caplog.set_level(logging.WARNING)
    id = job_that_is(site, "completed")
    seen = set()
    for request in odd_requests(id):
        method, path, *rest = request
        if is_undecodable(path):
            continue
        if method == "POST" and "delete" in path:
            # One that the others do not need.
            other = job_that_is(site, "completed")
            rest[0] = rest[0].replace(id, other)
        seen.add(check(site, environ_of(method, path, *rest)))
    assert {200, 303, 400, 404, 405} <= seen
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


# Those that nobody thought of

ODD = st.text(st.characters(max_codepoint=255), max_size=12)


def mostly(known, odd=ODD):
    return st.one_of(st.sampled_from(known), st.sampled_from(known), odd)


QUERY = st.lists(
    st.tuples(
        mostly(["process_id", "output_json", "refresh", "_LOCALE_", "csrf_token"]),
        mostly(["{done}", "{failed}", "{waiting}", "{gone}", "1", "de", "x"]),
    ).map("=".join),
    max_size=3,
).map("&".join)
PATH = st.one_of(
    st.sampled_from(SUBVIEWS).map("/work/{}".format),
    st.sampled_from(PATHS),
    st.lists(mostly(["work", "@@work", *SUBVIEWS]), max_size=4).map("/".join),
).map(lambda path: "/" + path.lstrip("/"))
NAMES = sorted({name for each in HEADERS for name in each})
VALUES = sorted({value for each in HEADERS for value in each.values()})
REQUEST = st.tuples(
    st.one_of(st.sampled_from(METHODS), st.sampled_from(["GET", "POST"])),
    PATH.filter(lambda path: not is_undecodable(path)),
    QUERY,
    st.dictionaries(st.sampled_from(NAMES), mostly(VALUES), max_size=3).filter(
        lambda headers: not is_undecodable(headers.get("X-Vhm-Root", ""))
    ),
    st.one_of(
        st.sampled_from(BODIES),
        QUERY.map(lambda q: (BODIES[1][0], q.encode("latin-1"))),
        st.tuples(mostly([kind for kind, _ in BODIES]), st.binary(max_size=40)),
    ),
)


@pytest.fixture(scope="module")
def jobs(site):
    """Jobs in several states, by name, for addresses to be about."""
    ids = {
        "done": job_that_is(site, "completed"),
        "failed": job_that_is(site, "failed"),
        "waiting": job_that_is(site, "running"),
        "gone": 32 * "a",
    }
    yield ids
    let_go(site)


def named(text, jobs):
    for name, id in jobs.items():
        text = text.replace("{" + name + "}", id)
    return text


@hypothesis.given(request=REQUEST)
@hypothesis.settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_nothing_that_can_be_sent_is_a_crash(site, jobs, request):
    method, path, query, headers, (kind, data) = request
    data = named(data.decode("latin-1"), jobs).encode("latin-1")
    environ = environ_of(method, path, named(query, jobs), headers, (kind, data))
    check(site, environ, jobs["failed"])


@hypothesis.given(request=REQUEST)
@hypothesis.settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_no_get_changes_anything(quiet, request):
    site, jobs = quiet
    method, path, query, headers, _body = request
    method = "HEAD" if method == "HEAD" else "GET"
    before = site.db.lastTransaction()
    environ = environ_of(method, path, named(query, jobs), headers)
    check(site, environ, jobs["failed"])
    assert site.db.lastTransaction() == before


@pytest.fixture(scope="module", params=[configure, with_sessions])
def quiet(request, make_shared_site):
    """A site in which nothing happens by itself."""
    site = make_shared_site(request.param).by_hand()
    jobs = {name: job_that_is(site, name) for name in ("completed", "failed")}
    jobs["done"] = jobs.pop("completed")
    return site, jobs | {"gone": 32 * "a", "waiting": ""}


@pytest.mark.parametrize("headers", HEADERS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_no_header_breaks_a_large_result(site, method, headers):
    process_id = site.start("/big")
    site.wait(process_id)
    environ = environ_of(method, "/big/result", f"process_id={process_id}", headers)
    check(site, environ)


def test_a_real_server_answers_odd_bytes(make_site, caplog):
    """Written to a socket as they are, so that no client mends them."""
    site = make_site(configure)
    process_id = job_that_is(site, "completed")
    lines = [
        b"GET /work/result?process_id=%ff HTTP/1.1",
        b"GET /work/completed?process_id=" + process_id.encode() + b" HTTP/1.0",
        b"POST /work/result?process_id=" + process_id.encode() + b" HTTP/1.1",
        b"POST /work/cancel?process_id=%00 HTTP/1.1",
        b"FOO /work/result?process_id=abc HTTP/1.1",
        b"GET /work/result?process_id=a#b HTTP/1.1",
        b"GET http://other/work/result?process_id=abc HTTP/1.1",
    ]
    with serving(site.wsgi) as address:
        for line in lines:
            with socket.create_connection(address, timeout=PATIENCE) as connection:
                connection.sendall(line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = b"".join(iter(lambda c=connection: c.recv(65536), b""))
            status = int(answer.split(b" ", 2)[1])
            assert status < 500, (line, answer)
            assert b"Traceback" not in answer
