"""The endpoint itself: who may, what is too much, and how it is configured."""

import socket

import pytest
from conftest import PATIENCE
from people import serving
from pyramid.exceptions import ConfigurationError
from pyramid.session import SignedCookieSessionFactory
from test_csrf import CROSS_SITE
from test_csrf import token_of
from uploading import BYTES
from uploading import TUS
from uploading import contents
from uploading import create
from uploading import endpoint
from uploading import got
from uploading import patch
from uploading import query
from uploading import send
from uploading import staged_files
from uploading import upload
from webtest import Upload as FormFile

import asyncview


@pytest.fixture(scope="module")
def site(make_shared_site):
    return make_shared_site(
        endpoint, asyncview__upload_max_open=1000, asyncview__upload_max_chunk=1000
    )


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
    assert staged_files(site) == []


def test_the_pulse_removes_what_is_idle(make_site):
    from conftest import eventually

    site = make_site(endpoint, asyncview__upload_keep="0.05", asyncview__lease="0.5")
    create(site.app, 5)
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
