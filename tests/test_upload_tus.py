"""tus 1.0.0, request by request."""

import base64
from email.utils import parsedate_to_datetime

import pytest
from uploading import BYTES
from uploading import TUS
from uploading import checksum
from uploading import create
from uploading import endpoint
from uploading import got
from uploading import patch
from uploading import staged_files


@pytest.fixture(scope="module")
def site(make_shared_site):
    return make_shared_site(endpoint, asyncview__upload_max_open=1000)


@pytest.fixture
def app(site):
    return site.browser(REMOTE_USER="alice")


def uid_of(path):
    return path.rpartition("/")[2]


def offset_of(app, path, status=200):
    return app.head(path, headers=TUS, status=status).headers.get("Upload-Offset")


def test_what_the_server_can_do(app):
    for url in ("/files", "/files/"):
        headers = app.options(url, status=204).headers
        assert headers["Tus-Version"] == headers["Tus-Resumable"] == "1.0.0"
        assert headers["Tus-Max-Size"] == str(4 << 30)
        assert headers["Tus-Checksum-Algorithm"].split(",")[0] == "sha1"
        assert headers["Tus-Extension"].split(",") == [
            "creation",
            "creation-with-upload",
            "termination",
            "checksum",
            "expiration",
        ]


def test_a_file_in_two_requests(app):
    name = base64.b64encode(b"../r\xc3\xa9sum\xc3\xa9.txt").decode()
    metadata = f"filename {name},is_confidential"
    path = create(app, 10, Upload_Metadata=metadata)
    assert path == f"/files/{uid_of(path)}"
    assert offset_of(app, path) == "0"
    assert patch(app, path, 0, b"hello").headers["Upload-Offset"] == "5"
    response = app.head(path, headers=TUS)
    assert response.headers["Upload-Offset"] == "5"
    assert response.headers["Upload-Length"] == "10"
    assert response.headers["Upload-Metadata"] == metadata
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Content-Length"] == "0"
    got(app, uid_of(path), 409)
    assert patch(app, path, 5, b"world").headers["Upload-Offset"] == "10"
    assert got(app, uid_of(path)) == b"helloworld"
    page = app.get("/contents", {"uid": uid_of(path)})
    assert page.headers["X-File-Name"] == "r\xe9sum\xe9.txt"


def test_an_unfinished_upload_says_when_it_expires(app, site):
    response = app.post("/files", headers={**TUS, "Upload-Length": "5"})
    path = response.headers["Location"]
    expires = parsedate_to_datetime(response.headers["Upload-Expires"])
    assert abs(expires.timestamp() - site.engine.staging.clock() - 86400) < 60
    assert "Upload-Expires" in patch(app, path, 0, b"abc").headers
    assert "Upload-Expires" not in patch(app, path, 3, b"de").headers


def test_a_file_with_its_creation(app):
    headers = {"Content_Type": BYTES}
    path = create(app, 5, body=b"hello", **headers)
    assert got(app, uid_of(path)) == b"hello"
    response = app.post(
        "/files", b"he", {**TUS, "Upload-Length": "5", "Content-Type": BYTES}
    )
    assert response.headers["Upload-Offset"] == "2"
    patch(app, response.headers["Location"], 2, b"llo")


def test_a_creation_whose_answer_was_lost_may_come_again(app):
    again = {"Content_Type": BYTES, "Idempotency_Key": "one"}
    path = create(app, 5, body=b"abc", **again)
    patch(app, path, 3, b"d")
    assert create(app, 5, body=b"abc", **again) == path
    patch(app, path, 4, b"e")
    assert got(app, uid_of(path)) == b"abcde"


def test_a_creation_with_a_key_that_has_another_length_is_refused(site, app):
    path = create(app, 5, Idempotency_Key="two")
    before = staged_files(site)
    create(app, 6, 400, Idempotency_Key="two")
    create(app, 6, 400, b"xy", Content_Type=BYTES, Idempotency_Key="two")
    assert staged_files(site) == before
    assert create(app, 5, Idempotency_Key="two") == path


def test_an_empty_file_is_complete_at_once(app):
    assert got(app, uid_of(create(app, 0))) == b""


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Tus-Resumable": "0.2.2"}, 412),
        ({"Tus-Resumable": None}, 412),
        ({"Upload-Length": "x"}, 400),
        ({"Upload-Length": "-1"}, 400),
        ({"Upload-Length": str((4 << 30) + 1)}, 413),
        ({"Upload-Concat": "partial"}, 400),
        ({"Upload-Defer-Length": "1"}, 400),
        ({"Upload-Metadata": "filename n\u00f6"}, 400),
        ({"Upload-Metadata": "filename ***"}, 400),
        ({"Upload-Metadata": "a eA==,a eQ=="}, 400),
        ({"Upload-Metadata": "a eA==,"}, 400),
    ],
)
def test_a_creation_that_is_refused(site, app, headers, status):
    before = staged_files(site)
    headers = {**TUS, "Upload-Length": "5", **headers}
    headers = {
        name: value.encode().decode("latin-1")
        for name, value in headers.items()
        if value is not None
    }
    response = app.post("/files", headers=headers, status=status)
    assert response.headers["Tus-Resumable"] == "1.0.0"
    assert ("Tus-Version" in response.headers) == (status == 412)
    assert staged_files(site) == before


def test_a_creation_needs_a_length(app):
    app.post("/files", headers=TUS, status=400)


def test_empty_metadata_is_none(app):
    path = create(app, 5, Upload_Metadata="")
    assert "Upload-Metadata" not in app.head(path, headers=TUS).headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Tus-Resumable": "0.2.2"}, 412),
        ({"Upload-Offset": ""}, 400),
        ({"Upload-Offset": "x"}, 400),
        ({"Upload-Offset": "2"}, 409),
        ({"Upload-Offset": "4"}, 409),
        ({"Content-Type": "text/plain"}, 415),
        ({"Upload-Checksum": "crc7 AAAA"}, 400),
        ({"Upload-Checksum": "sha1"}, 400),
        ({"Upload-Checksum": "sha1 ***"}, 400),
        ({"Upload-Checksum": checksum(b"other")}, 460),
    ],
)
def test_a_patch_that_is_refused_changes_nothing(app, headers, status):
    path = create(app, 5)
    patch(app, path, 0, b"abc")
    response = app.patch(
        path,
        b"de",
        {**TUS, "Upload-Offset": "3", "Content-Type": BYTES, **headers},
        status=status,
    )
    assert response.headers["Tus-Resumable"] == "1.0.0"
    assert offset_of(app, path) == "3"
    patch(app, path, 3, b"de")
    assert got(app, uid_of(path)) == b"abcde"


def test_more_than_was_announced_is_refused(app):
    path = create(app, 5)
    patch(app, path, 0, b"abcdef", status=413)
    assert offset_of(app, path) == "0"


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
def test_a_checksum_that_is_right(app, algorithm):
    path = create(app, 5)
    patch(app, path, 0, b"abcde", Upload_Checksum=checksum(b"abcde", algorithm))
    assert got(app, uid_of(path)) == b"abcde"


def test_an_upload_can_be_terminated(site, app):
    before = staged_files(site)
    path = create(app, 5)
    app.delete(path, headers=TUS, status=204)
    assert offset_of(app, path, 404) is None
    patch(app, path, 0, b"abc", status=404)
    app.delete(path, headers=TUS, status=404)
    assert staged_files(site) == before


def test_the_method_may_be_in_a_header(app):
    path = create(app, 5)
    headers = {
        **TUS,
        "Upload-Offset": "0",
        "Content-Type": BYTES,
        "X-HTTP-Method-Override": "PATCH",
    }
    app.post(path, b"abcde", headers, status=204)
    assert got(app, uid_of(path)) == b"abcde"
    headers["X-HTTP-Method-Override"] = "DELETE"
    # A token is asked for by the request's own method.
    app.get(path, headers=headers, status=200)
    app.post(path, b"", headers, status=204)
    offset_of(app, path, 404)


def test_an_upload_is_its_owners(site, app):
    path = create(app, 5)
    for other in (site.browser(REMOTE_USER="bob"), site.app):
        offset_of(other, path, 404)
        patch(other, path, 0, b"abcde", status=404)
        other.delete(path, headers=TUS, status=404)
    assert offset_of(app, path) == "0"


def test_another_version_is_refused_whatever_it_asks(app):
    path = create(app, 5)
    for ask in (app.head, app.get, app.delete):
        response = ask(path, headers={"Tus-Resumable": "0.2.2"}, status=412)
        assert response.headers["Tus-Version"] == "1.0.0"
    assert offset_of(app, path) == "0"


def test_every_answer_to_head_has_a_length(app):
    for path in (create(app, 5), "/files/nosuch", "/files/a/b", "/files"):
        response = app.head(path, headers=TUS, expect_errors=True)
        assert int(response.headers["Content-Length"]) >= 0
