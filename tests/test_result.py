"""The stored response: as it was made, for as many as fetch it."""

import hashlib
import http.client
from concurrent.futures import ThreadPoolExecutor
from wsgiref.util import FileWrapper

import pytest
from conftest import PATIENCE
from people import serving
from pyramid.response import Response

from asyncview import BaseAsyncView
from asyncview.pyramid.answers import private

#: More than is kept in a record.
SIZE = 300_000
BLOB = bytes(number * 7 % 251 for number in range(SIZE))


class Made(BaseAsyncView):
    """Returns what ``kind`` says."""

    def __run__(self):
        return getattr(self, self.request.params["kind"])()

    def small(self):
        response = Response(b"small \xff", status="203 As It Is")
        response.headers["Content-Type"] = "application/x-thing; a=b"
        response.headers["X-Own"] = "one"
        response.headers.add("X-Own", "two")
        response.headers["Content-Disposition"] = 'attachment; filename="a b.bin"'
        response.set_cookie("own", "value", path="/here")
        return response

    def bare(self):
        response = Response(b"no type")
        del response.headers["Content-Type"]
        return response

    def nothing(self):
        return None

    def empty(self):
        return Response(status=204, headerlist=[("X-Own", "empty")])

    def blob(self):
        response = Response(BLOB, content_type="application/octet-stream")
        response.content_disposition = "attachment; filename=blob.bin"
        return response

    def tagged(self):
        response = Response(BLOB, content_type="application/octet-stream")
        response.etag = "own"
        response.cache_control = "max-age=60"
        return response

    def picture(self):
        return Response("<svg/>", content_type="image/svg+xml", charset="utf-8")

    def page(self):
        return Response("<p>of a user</p>")

    def to_be_sniffed(self):
        response = Response(b"?")
        response.headers["X-Content-Type-Options"] = "own"
        return response

    def refusal(self):
        return Response(BLOB, status=404)

    def redirect(self):
        return Response(status=302, location="/elsewhere")


@pytest.fixture(scope="module")
def site(make_shared_site):
    return make_shared_site(lambda config: config.add_async_view(Made, "made"))


@pytest.fixture(scope="module")
def result_of(site):
    """The address of a result of that kind, one for all tests."""
    known = {}

    def address(kind):
        if kind not in known:
            doc = site.run("/made", {"kind": kind})
            assert doc["status"] == "completed"
            known[kind] = doc["links"]["result"]
        return known[kind]

    return address


@pytest.fixture(scope="module")
def server(site):
    """A real server; gives its host and port."""
    with serving(site.wsgi) as address:
        yield address


@pytest.fixture
def ask(server):
    """Sends a request to the real server; gives status, headers, body."""

    def ask(url, method="GET", **headers):
        connection = http.client.HTTPConnection(*server, timeout=PATIENCE)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, url, headers=names)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    return ask


def test_status_headers_cookies_and_body_are_as_they_were_made(site, result_of):
    for _ in range(2):
        response = site.app.get(result_of("small"))
        assert response.status == "203 As It Is"
        assert response.body == b"small \xff"
        assert response.headers["Content-Type"] == "application/x-thing; a=b"
        assert response.headers.getall("X-Own") == ["one", "two"]
        assert response.headers["Content-Disposition"] == (
            'attachment; filename="a b.bin"'
        )
        assert response.headers["Set-Cookie"] == "own=value; Path=/here"
        assert response.headers["Content-Length"] == "7"
        assert response.headers["Cache-Control"] == "private, no-store"
        assert "ETag" not in response.headers


def test_no_header_is_made_up(ask, result_of):
    status, headers, body = ask(result_of("bare"))
    assert (status, body) == (200, b"no type")
    assert "Content-Type" not in headers


@pytest.mark.parametrize(
    "kind",
    ["small", "nothing", "empty", "blob", "refusal", "redirect", "picture", "page"],
)
def test_no_browser_takes_it_for_something_else(site, result_of, kind):
    response = site.app.get(result_of(kind), expect_errors=True)
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_what_the_job_says_about_that_counts(site, result_of):
    response = site.app.get(result_of("to_be_sniffed"))
    assert response.headers.getall("X-Content-Type-Options") == ["own"]


@pytest.mark.parametrize("kind", ["nothing", "empty"])
def test_an_empty_result_is_204(site, ask, result_of, kind):
    assert site.app.get(result_of(kind), status=204).body == b""
    status, headers, body = ask(result_of(kind))
    assert (status, body) == (204, b"")
    assert "Content-Length" not in headers
    assert "Content-Type" not in headers
    assert headers["X-Own"] == ("empty" if kind == "empty" else None)


def test_a_redirect_is_the_results_own(site, result_of):
    response = site.app.get(result_of("redirect"), status=302)
    assert response.location == "http://localhost/elsewhere"


@pytest.mark.parametrize("kind", ["small", "blob"])
def test_sixteen_threads_read_the_same(site, result_of, kind):
    url = result_of(kind)

    def read(number):
        response = site.browser().get(url)
        return hashlib.sha256(response.body).digest(), tuple(response.headerlist)

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(read, range(64)))) == 1


def test_a_file_has_an_etag_and_may_be_asked_for_in_parts(site, result_of):
    response = site.app.get(result_of("blob"))
    assert response.body == BLOB
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["ETag"].startswith('"')
    assert response.headers["Content-Length"] == str(SIZE)
    assert response.headers["Content-Disposition"] == "attachment; filename=blob.bin"
    assert response.headers["Cache-Control"] == "private, no-cache"


@pytest.mark.parametrize("kind", ["small", "blob"])
def test_a_head_has_the_length(site, ask, result_of, kind):
    got = site.app.get(result_of(kind))
    headed = site.app.head(result_of(kind))
    assert (headed.status, headed.body) == (got.status, b"")
    assert headed.headers == got.headers
    _, headers, body = ask(result_of(kind), "HEAD")
    assert body == b""
    assert headers["Content-Length"] == got.headers["Content-Length"]


RANGES = [
    ("bytes=0-0", 0, 1),
    ("bytes=0-99", 0, 100),
    ("bytes=100000-265000", 100_000, 265_001),
    ("bytes=299999-", SIZE - 1, SIZE),
    ("bytes=262144-", 262_144, SIZE),
    ("bytes=-500", SIZE - 500, SIZE),
    ("bytes=299990-999999", SIZE - 10, SIZE),
    ("bytes=0-", 0, SIZE),
]


@pytest.mark.parametrize(("wanted", "start", "stop"), RANGES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_part_of_a_file(ask, result_of, method, wanted, start, stop):
    status, headers, body = ask(result_of("blob"), method, Range=wanted)
    assert status == 206
    assert headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert headers["Content-Length"] == str(stop - start)
    assert headers["Content-Type"] == "application/octet-stream"
    assert body == (BLOB[start:stop] if method == "GET" else b"")


@pytest.mark.parametrize("wanted", [f"bytes={SIZE}-", "bytes=999999-9999999"])
def test_a_part_that_is_not_there(ask, result_of, wanted):
    status, headers, body = ask(result_of("blob"), Range=wanted)
    assert status == 416
    assert headers["Content-Range"] == f"bytes */{SIZE}"
    assert headers["Cache-Control"] == "private, no-cache"
    assert len(body) == int(headers["Content-Length"])


@pytest.mark.parametrize(
    "wanted", ["bytes=5-2", "lines=0-1", "bytes=", "bytes=--5", "x"]
)
def test_a_range_that_says_nothing_is_the_whole(ask, result_of, wanted):
    status, _, body = ask(result_of("blob"), Range=wanted)
    assert (status, body) == (200, BLOB)


def test_a_part_only_if_it_is_still_the_same(ask, result_of):
    url = result_of("blob")
    etag = ask(url, "HEAD")[1]["ETag"]
    assert ask(url, Range="bytes=0-9", If_Range=etag)[0] == 206
    status, _, body = ask(url, Range="bytes=0-9", If_Range='"other"')
    assert (status, body) == (200, BLOB)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_file_that_is_known_is_not_sent_again(ask, result_of, method):
    url = result_of("blob")
    etag = ask(url, "HEAD")[1]["ETag"]
    for known in (etag, f'"x", {etag}'):
        status, headers, body = ask(url, method, If_None_Match=known)
        assert (status, body) == (304, b"")
        assert headers["ETag"] == etag
        assert headers["Cache-Control"] == "private, no-cache"
        assert headers["Vary"] == "Cookie, Accept-Language"
    assert ask(url, If_None_Match='"other"')[0] == 200


def test_an_etag_and_caching_of_the_jobs_own_are_kept(ask, result_of):
    status, headers, body = ask(result_of("tagged"))
    assert (status, body) == (200, BLOB)
    assert headers["ETag"] == '"own"'
    assert headers["Cache-Control"] == "max-age=60"
    assert ask(result_of("tagged"), If_None_Match='"own"')[0] == 304


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ((), "Cookie, Accept-Language"),
        (("cookie",), "cookie, Accept-Language"),
        (("Origin", "Accept"), "Origin, Accept, Cookie, Accept-Language"),
        (("*",), "*"),
    ],
)
def test_what_a_result_depends_on_besides_is_kept(said, sent):
    response = private(Response(headerlist=[("Vary", each) for each in said]))
    assert response.headers.getall("Vary") == [sent]


def test_an_error_is_sent_whole_whatever_is_known(ask, result_of):
    status, headers, body = ask(
        result_of("refusal"), If_None_Match="*", Range="bytes=0-9"
    )
    assert (status, body) == (404, BLOB)
    assert "Accept-Ranges" not in headers


def test_a_server_gets_the_file_itself(site, result_of):
    """Where it has a wrapper for files, and wants the whole."""
    wrapped = []

    def wrapper(file, size):
        wrapped.append(FileWrapper(file, size))
        return wrapped[-1]

    environ = {"wsgi.file_wrapper": wrapper}
    response = site.app.get(result_of("blob"), extra_environ=environ)
    assert response.body == BLOB
    assert len(wrapped) == 1
    assert wrapped[0].filelike.closed
    part = site.app.get(
        result_of("blob"), headers={"Range": "bytes=5-9"}, extra_environ=environ
    )
    assert part.body == BLOB[5:10]
    assert len(wrapped) == 1


def test_a_file_is_the_same_under_a_real_server(ask, result_of):
    for _ in range(3):
        status, headers, body = ask(result_of("blob"))
        assert (status, body) == (200, BLOB)
        assert headers["Content-Length"] == str(SIZE)


def test_a_small_result_does_not_know_ranges(ask, result_of):
    status, headers, body = ask(result_of("small"), Range="bytes=0-1")
    assert (status, body) == (203, b"small \xff")
    assert "Accept-Ranges" not in headers


def test_a_document_that_is_known_is_empty_under_a_real_server(site, ask, result_of):
    url = result_of("small").replace("/result", "/completed") + "&output_json=1"
    etag = ask(url)[1]["ETag"]
    status, headers, body = ask(url, If_None_Match=etag)
    assert (status, body) == (304, b"")
    assert headers["ETag"] == etag
