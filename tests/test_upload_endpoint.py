"""The endpoint itself: who may, what is too much, and how it is configured."""

import errno
import gzip
import socket
from contextlib import ExitStack
from io import BufferedReader
from io import BytesIO
from urllib.parse import urlencode

import pytest
from conftest import PATIENCE
from people import serving
from pyramid.exceptions import ConfigurationError
from pyramid.request import Request
from pyramid.session import SignedCookieSessionFactory
from test_csrf import CROSS_SITE
from test_csrf import token_of
from uploading import BYTES
from uploading import TUS
from uploading import all_gone
from uploading import checksum
from uploading import contents
from uploading import create
from uploading import endpoint
from uploading import got
from uploading import patch
from uploading import query
from uploading import send
from uploading import some_bytes
from uploading import staged_files
from uploading import upload
from webtest import Upload as FormFile

import asyncview


@pytest.fixture(scope="module")
def site(make_shared_site):
    return make_shared_site(
        endpoint, asyncview__upload_max_open=1000, asyncview__upload_max_chunk=1000
    )


@pytest.fixture(scope="module")
def big(make_shared_site):
    """The same for larger chunks."""
    return make_shared_site(endpoint, asyncview__upload_max_open=1000)


@pytest.fixture
def app(site):
    return site.browser(REMOTE_USER="alice")


def raw(address, head):
    """What a server sends over a connection that it closes."""
    with socket.create_connection(address, PATIENCE) as connection:
        connection.settimeout(PATIENCE)
        connection.sendall("\r\n".join([*head, "Connection: close", "", ""]).encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_an_answer_to_head_has_no_body(site):
    path = create(site.app, 5)
    with serving(site.wsgi) as address:
        for where in (path, "/files/nosuch", "/files"):
            for tus in ("Tus-Resumable: 1.0.0", "X: y"):
                answer = raw(
                    address, [f"HEAD {where} HTTP/1.1", "Host: localhost", tus]
                )
                head, _, body = answer.partition(b"\r\n\r\n")
                assert body == b""
                assert b"chunked" not in head
                assert b"Content-Length: " in head


def test_an_address_of_an_upload_is_a_path(site):
    head = ["POST /files HTTP/1.1", "Host: other.example", "Upload-Length: 5"]
    head += ["Tus-Resumable: 1.0.0", "Content-Length: 0"]
    with serving(site.wsgi) as address:
        answer = raw(address, head)
    assert b"\r\nLocation: /files/" in answer


def test_a_request_that_is_too_long_is_refused(site, app):
    before = staged_files(site)
    send(app, "", 0, [b"x" * 1001], status=413)
    params = {**query("", 0, 1, 1001), "content": FormFile("x", b"x" * 1001)}
    app.post("/files", params, status=413)
    params["content"] = FormFile("x", b"x" * 100_000)
    app.post("/files", params, status=413)
    create(app, 2000, 413, b"x" * 1001, Content_Type=BYTES)
    assert staged_files(site) == before
    patch(app, create(app, 2000), 0, b"x" * 1001, status=413)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_query_that_is_not_in_utf_8_is_the_clients_fault(app, method):
    answer = app.request("/files?uploadUid=%ff", method=method, status=400)
    assert answer.json["error"]["code"] == "bad_request"


def test_where_there_is_no_room_it_is_said_at_once(make_site):
    # More than any file system has, so that nothing is filled up.
    site = make_site(endpoint, asyncview__upload_max_size=str(1 << 60))
    send(site.app, "", 0, [b"x", b"y"], total=1 << 58, status=507)
    create(site.app, 1 << 58, 507)
    assert [each for each in staged_files(site) if "/" in each] == []


def test_too_many_unfinished_uploads_are_refused(make_site):
    site = make_site(endpoint, asyncview__upload_max_open=2)
    app, other = (site.browser(REMOTE_USER=name) for name in ("alice", "bob"))
    uid = send(app, "", 0, [b"a", b"b"])["uploadUid"]
    path = create(app, 5)
    error = send(app, "", 0, [b"a", b"b"], status=413)["error"]
    assert error["code"] == "too_many"
    create(app, 5, 413)
    create(other, 5)
    send(app, uid, 1, [b"a", b"b"])
    create(app, 5)
    app.delete(path, headers=TUS)
    create(app, 5)


def test_an_expired_upload_is_known_for_a_while(make_site):
    site = make_site(endpoint)
    path = create(site.app, 5)
    staging = site.engine.staging
    began = staging.clock()
    staging.clock = lambda: began + 86400
    site.app.head(path, headers=TUS, status=410)
    patch(site.app, path, 0, b"abc", status=410)
    send(site.app, path.rpartition("/")[2], 0, [b"a", b"b"], status=410)
    got(site.app, path.rpartition("/")[2], 404)
    for _ in site.engine.pulse._tidying.sweep():
        pass
    site.app.head(path, headers=TUS, status=404)
    all_gone(site)


def test_the_pulse_removes_what_is_idle(make_site):
    from conftest import eventually

    site = make_site(endpoint, asyncview__upload_keep="4", asyncview__lease="0.5")
    create(site.app, 5)
    # The pulse looks four times as often; of a shorter time the request may need some.
    later = site.engine.staging.clock() + 4
    site.engine.staging.clock = lambda: later
    eventually(lambda: not staged_files(site))


def test_an_empty_patch_to_a_whole_file_says_so(app):
    # What a client does whose last answer was lost.
    path = create(app, 3, body=b"abc", Content_Type=BYTES)
    response = patch(app, path, 3, b"")
    assert response.headers["Upload-Offset"] == "3"
    patch(app, path, 3, b"d", status=413)
    assert got(app, path.rpartition("/")[2]) == b"abc"


@pytest.mark.parametrize("headers", CROSS_SITE)
def test_another_site_uploads_nothing(site, app, headers):
    before = staged_files(site)
    headers = {**TUS, "Upload-Length": "5", **headers}
    app.post("/files", headers=headers, status=403)
    assert staged_files(site) == before


def test_the_view_says_how_requests_are_checked(make_site):
    def configure(config):
        config.set_session_factory(SignedCookieSessionFactory("secret"))
        config.add_upload_endpoint("/files", require_csrf=True)
        config.add_upload_endpoint("/open", cross_site=True)
        config.add_async_view(asyncview.BaseAsyncView, "page")
        config.add_view(contents, name="contents")

    site = make_site(configure)
    app = site.browser()
    create(app, 5, 400)
    token = token_of(app.get("/page"))
    path = create(app, 5, X_CSRF_Token=token)
    patch(app, path, 0, b"abcde", 400)
    patch(app, path, 0, b"abcde", X_CSRF_Token=token)
    fields = {**query("", 0, 1, 2), "content": FormFile("x", b"ab")}
    app.post("/files", fields, status=400)
    uid = app.post("/files", {**fields, "csrf_token": token}).json["uploadUid"]
    assert got(app, uid) == b"ab"
    headers = {**TUS, "Upload-Length": "5", **CROSS_SITE[0]}
    app.post("/open", headers=headers, status=201)


def test_requests_sent_at_once_are_of_one_visitor(make_site):
    def configure(config):
        config.set_session_factory(SignedCookieSessionFactory("secret"))
        config.add_upload_endpoint("/files", require_csrf=True)
        config.add_async_view(asyncview.BaseAsyncView, "page")
        config.add_view(contents, name="contents")

    site = make_site(configure)
    app = site.browser()
    token = token_of(app.get("/page"))
    # Neither has seen the other's answer.
    cookie = {"Cookie": f"session={app.cookies['session']}", "X-CSRF-Token": token}
    uid = send(site.browser(), "", 0, [b"ab", b"cd"], **cookie)["uploadUid"]
    send(site.browser(), uid, 1, [b"ab", b"cd"], **cookie)
    assert got(app, uid) == b"abcd"


def test_the_view_says_who_may(make_site):
    from people import Policy

    def configure(config):
        config.set_security_policy(Policy())
        config.add_upload_endpoint("/files/", permission="upload")

    site = make_site(configure)
    create(site.browser(REMOTE_USER="alice"), 5)
    banned = site.browser(REMOTE_USER="banned")
    create(banned, 5, 403)
    banned.get("/files/nosuch", status=403)


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_what_an_upload_does_not_take(app, method):
    path = create(app, 5)
    response = app.request(path, method=method, status=405)
    assert "PATCH" in response.headers["Allow"]
    app.get("/files/a/b", status=404)
    app.get("/files", status=404)
    app.post("/files", {"chunkNumber": "0"}, status=400)
    app.post("/files", status=400)


def test_an_endpoint_of_ones_own(make_site):
    def chunk(request):
        params = dict(request.POST) or request.json_body
        return request.asyncview.handle_chunk(params)

    def configure(config):
        config.add_view(chunk, name="chunk", renderer="json")
        config.add_view(contents, name="contents")

    site = make_site(configure)
    fields = {**query("", 0, 2, 4), "content": FormFile("x", b"ab")}
    uid = site.app.post("/chunk", fields).json["uploadUid"]
    params = {**query(uid, 1, 2, 4), "content": "cd"}
    assert site.app.post_json("/chunk", params).json == {"uploadUid": uid}
    assert got(site.app, uid) == b"abcd"
    error = site.app.post_json("/chunk", params, status=409).json["error"]
    assert error["code"] == "complete"
    del params["content"]
    site.app.post_json("/chunk", params, status=400)
    params = {**params, "content": "x", "chunkNumber": True}
    site.app.post_json("/chunk", params, status=400)


def test_an_endpoint_can_be_looked_up(site):
    category = site.registry.introspector.get_category("asyncview upload endpoints")
    [item] = category
    assert item["introspectable"]["pattern"] == "/files"
    assert item["introspectable"]["route_name"] == "/files"


def test_uploads_need_a_place(make_site, tmp_path):
    storage = f"file://{tmp_path}/bare.fs"
    with pytest.raises(ConfigurationError, match="upload_dir"):
        make_site(endpoint, storage=storage)
    site = make_site(
        endpoint,
        storage=f"file://{tmp_path}/other.fs",
        asyncview__upload_dir=str(tmp_path / "there"),
    )
    assert got(site.app, upload(site.app)) == b"some bytes"
    assert list((tmp_path / "there").iterdir())


def test_one_application_does_not_see_anothers(make_site, tmp_path):
    place = str(tmp_path / "uploads")
    first, second = (
        make_site(
            endpoint,
            storage=f"file://{tmp_path}/{name}.fs?blobstorage_dir={tmp_path}/{name}",
            asyncview__name=f"{name}/app",
            asyncview__upload_dir=place,
        )
        for name in ("first", "second")
    )
    uid = upload(first.app)
    got(second.app, uid, 404)
    assert got(first.app, uid) == b"some bytes"


# Bodies that are not what they seem


class Gone:
    """The input of a client that goes away."""

    def __init__(self, data):
        self.data = data

    def read(self, size=-1):
        data, self.data = self.data, None
        if data is None:
            raise OSError("the client is gone")
        return data


class Streamed(Gone):
    """A body of unknown length, to its end."""

    def read(self, size=-1):
        size = len(self.data) if size < 0 else size
        data, self.data = self.data[:size], self.data[size:]
        return data


def call(site, path, input, method="POST", headers=None, length=None):
    """A request whose body WebTest would not send."""
    request = Request.blank(path, method=method, headers=headers or {})
    request.environ["wsgi.input"] = input
    request.environ["REMOTE_USER"] = "alice"
    if length is None:
        request.environ.pop("CONTENT_LENGTH", None)
        request.environ["wsgi.input_terminated"] = True
    else:
        request.environ["CONTENT_LENGTH"] = str(length)
    return request.get_response(site.wsgi)


def chunk_path(uid, number, count, total):
    return "/files?" + urlencode(query(uid, number, count, total))


PATCH = {**TUS, "Content-Type": BYTES, "Upload-Offset": "0"}
RAW = {"Content-Type": "application/octet-stream"}


@pytest.mark.parametrize("kind", [Gone, Streamed])
def test_a_body_that_ends_early(site, app, kind):
    before = staged_files(site)
    path = chunk_path("", 0, 1, 9)
    response = call(site, path, kind(b"abc"), headers=RAW, length=9)
    assert (response.status_int, response.json["error"]["code"]) == (400, "cut_short")
    assert staged_files(site) == before
    path = create(app, 9)
    assert call(site, path, kind(b"abc"), "PATCH", PATCH, 9).status_int == 400
    # Of what grows the begin is kept.
    assert app.head(path, headers=TUS).headers["Upload-Offset"] == "3"


def test_a_body_of_unknown_length(site, app):
    response = call(site, chunk_path("", 0, 1, 3), Streamed(b"abc"), headers=RAW)
    assert response.status_int == 411
    path = create(app, 3)
    assert call(site, path, Streamed(b"abc"), "PATCH", PATCH).status_int == 204
    assert got(app, path.rpartition("/")[2]) == b"abc"
    path = create(app, 2000)
    response = call(site, path, Streamed(b"x" * 1001), "PATCH", PATCH)
    assert response.status_int == 413
    path = create(app, 3)
    response = call(site, path, Streamed(b"abcd"), "PATCH", PATCH)
    assert response.status_int == 413
    assert app.head(path, headers=TUS).headers["Upload-Offset"] == "0"
    params = {"dzuuid": "streamed", "dzchunkindex": 0, "dzchunksize": 3}
    params |= {"dztotalfilesize": 3, "dztotalchunkcount": 1}
    path = "/files?" + urlencode(params)
    assert call(site, path, Streamed(b"abc"), headers=RAW).status_int == 411


@pytest.fixture
def spooled(tmp_path):
    """Makes a file as servers put a large body into, standing after its begin."""
    path = tmp_path / "spooled"
    with ExitStack() as files:

        def make(data):
            path.write_bytes(b"before" + data)
            file = files.enter_context(open(path, "rb"))
            file.seek(len("before"))
            return file

        yield make


def test_a_body_that_the_server_has_on_disk_is_not_read(big, spooled, monkeypatch):
    def never(*said):
        raise AssertionError

    data = some_bytes(3 * (1 << 20) + 5)
    monkeypatch.setattr("asyncview.disk.os.pwrite", never)
    path = chunk_path("", 0, 1, len(data))
    answer = call(big, path, spooled(data), headers=RAW, length=len(data))
    monkeypatch.undo()
    assert got(big.browser(REMOTE_USER="alice"), answer.json["uploadUid"]) == data


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOSYS, None])
def test_what_the_kernel_does_not_copy_is_read(big, spooled, monkeypatch, error):
    def unable(*said):
        raise OSError(error, "not here")

    if error:
        monkeypatch.setattr("asyncview.disk.os.sendfile", unable)
    app = big.browser(REMOTE_USER="alice")
    data = some_bytes(2 * (1 << 20) + 5)
    path = create(app, len(data) + 3)
    headers = {**PATCH, "Upload-Checksum": checksum(data)}
    answer = call(big, path, spooled(data), "PATCH", headers, len(data))
    assert answer.status_int == 204
    patch(app, path, len(data), b"end")
    assert got(app, path.rpartition("/")[2]) == data + b"end"
    # Nor is what it has not been told to read.
    path = create(app, 9)
    assert call(big, path, spooled(data), "PATCH", PATCH, 9).status_int == 204
    assert got(app, path.rpartition("/")[2]) == data[:9]


def test_a_body_on_disk_that_ends_early(big, spooled):
    app = big.browser(REMOTE_USER="alice")
    path = create(app, 9)
    assert call(big, path, spooled(b"abc"), "PATCH", PATCH, 9).status_int == 400
    assert app.head(path, headers=TUS).headers["Upload-Offset"] == "3"


def test_a_file_that_is_unpacked_as_it_is_read_is_not_taken_as_it_lies(big, tmp_path):
    data = some_bytes(5000)
    path = create(big.browser(REMOTE_USER="alice"), len(data))
    with gzip.open(tmp_path / "packed", "wb") as file:
        file.write(data)
    with BufferedReader(gzip.open(tmp_path / "packed")) as file:
        assert call(big, path, file, "PATCH", PATCH, len(data)).status_int == 204
    assert got(big.browser(REMOTE_USER="alice"), path.rpartition("/")[2]) == data


def test_a_full_disk_is_one_for_the_kernel_too(big, spooled, monkeypatch):
    def full(*said):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr("asyncview.disk.os.sendfile", full)
    path = create(big.browser(REMOTE_USER="alice"), 9)
    assert call(big, path, spooled(b"x" * 9), "PATCH", PATCH, 9).status_int == 507


def form_of(data):
    """A form with a file in it: its head and foot are some bytes more."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="y"\r\n\r\n'
    return head + data + b"\r\n--x--\r\n"


FORM = {"Content-Type": "multipart/form-data; boundary=x"}


def test_a_form_of_unknown_length_is_read_no_further_than_it_may_be_long(site, app):
    before = staged_files(site)
    body = Streamed(form_of(b"x" * (1 << 20)))
    response = call(site, "/files", body, headers=FORM)
    assert response.status_int == 413
    assert response.json["error"]["code"] == "chunk_too_large"
    # A chunk, and for the rest of the form 64 KiB; WebOb takes as much at a time.
    assert len(body.data) > (1 << 20) - 1000 - 2 * (1 << 16)
    assert staged_files(site) == before
    response = call(site, "/files", Streamed(form_of(b"abc")), headers=FORM)
    assert got(app, response.json["uploadUid"]) == b"abc"


@pytest.mark.parametrize("kind", [Gone, Streamed])
def test_a_form_that_ends_early(site, kind):
    body = form_of(b"x" * 900)
    response = call(site, "/files", kind(body[:-9]), headers=FORM, length=len(body))
    assert (response.status_int, response.json["error"]["code"]) == (400, "cut_short")


def test_a_form_that_cant_be_read(site):
    headers = {"Content-Type": "multipart/form-data"}
    response = call(site, "/files", BytesIO(b"xx"), headers=headers, length=2)
    assert response.status_int == 400


def test_an_empty_file_needs_no_chunk(app):
    path = chunk_path("", 0, 0, 0)
    uid = app.post(path, b"", RAW).json["uploadUid"]
    assert got(app, uid) == b""
    app.post(chunk_path("", 0, 0, 5), b"", RAW, status=400)


def test_a_first_chunk_that_fails_may_have_been_joined(site, app):
    chunks, key = [b"ab", b"cd"], {"Idempotency_Key": "joined"}
    send(app, "", 0, chunks, status=400, Upload_Checksum="sha1 AAAA", **key)
    uid = send(app, "", 1, chunks, **key)["uploadUid"]
    send(app, "", 0, chunks, **key)
    assert got(app, uid) == b"abcd"


def test_dropzone_is_told_to_try_again(site, app):
    params = {"dzuuid": "cut", "dzchunkindex": 0, "dzchunksize": 3}
    params |= {"dztotalfilesize": 3, "dztotalchunkcount": 1}
    path = "/files?" + urlencode(params)
    response = call(site, path, Streamed(b"a"), headers=RAW, length=3)
    assert response.status_int == 503
    assert response.headers["Retry-After"]


def test_without_a_place_there_are_no_uploads(make_site, tmp_path):
    def configure(config):
        config.add_view(contents, name="contents")

    site = make_site(configure, storage=f"file://{tmp_path}/bare.fs")
    with pytest.raises(asyncview.AsyncViewError, match="upload_dir"):
        site.app.get("/contents", {"uid": "x" * 32})


def test_a_file_on_another_file_system_is_copied(make_site, monkeypatch, caplog):
    def keep(request):
        upload = request.asyncview.get_upload(request.params["uid"])
        request.root.data["blob"] = upload.to_blob()
        assert upload.file_name in repr(upload)
        return request.response

    def configure(config):
        endpoint(config)
        config.add_view(keep, name="keep")

    def refused(*paths):
        raise OSError(18, "Invalid cross-device link")

    site = make_site(configure)
    uid = upload(site.app)
    monkeypatch.setattr("os.link", refused)
    site.app.get("/keep", {"uid": uid})
    assert "is copied" in caplog.text
    with site.db.transaction() as connection, connection.root()["blob"].open() as file:
        assert file.read() == b"some bytes"
    assert got(site.app, uid) == b"some bytes"
