"""FilePond, resumable.js, Flow.js and Dropzone, request by request."""

import uuid

import pytest
from uploading import BYTES
from uploading import cut
from uploading import endpoint
from uploading import got
from uploading import some_bytes
from uploading import staged_files
from webtest import Upload as FormFile


@pytest.fixture(scope="module")
def site(make_shared_site):
    return make_shared_site(endpoint, asyncview__upload_max_open=1000)


@pytest.fixture
def app(site):
    return site.browser(REMOTE_USER="alice")


# FilePond


def pond(app, uid, offset, data, name="caf\u00e9.bin", status=204, form="/files/{}"):
    headers = {
        "Content-Type": BYTES,
        "Upload-Offset": str(offset),
        "Upload-Length": "10",
        "Upload-Name": name.encode().decode("latin-1"),
    }
    return app.patch(form.format(uid), data, headers, status=status)


def pond_create(app, size=10):
    response = app.post(
        "/files",
        {"filepond": "{}"},
        {"Upload-Length": str(size)},
        content_type="multipart/form-data",
    )
    assert response.content_type == "text/plain"
    return response.text


@pytest.mark.parametrize("form", ["/files/{}", "/files?patch={}", "/files/?patch={}"])
def test_filepond_sends_chunks(app, form):
    uid = pond_create(app)
    pond(app, uid, 0, b"01234", form=form)
    assert app.head(form.format(uid)).headers["Upload-Offset"] == "5"
    # The answer was lost.
    pond(app, uid, 0, b"01234", form=form)
    pond(app, uid, 5, b"56789", form=form)
    # The size is a multiple of the chunks'.
    pond(app, uid, 10, b"", form=form)
    assert got(app, uid) == b"0123456789"
    page = app.get("/contents", {"uid": uid})
    assert page.headers["X-File-Name"] == "caf\u00e9.bin"


def test_filepond_skips_nothing(app):
    uid = pond_create(app)
    pond(app, uid, 5, b"56789", status=409)
    pond(app, uid, 0, b"01234")
    pond(app, uid, 3, b"34567", status=409)
    assert app.head(f"/files/{uid}").headers["Upload-Offset"] == "5"


def test_filepond_sends_a_small_file(app):
    body = (
        b'--b\r\nContent-Disposition: form-data; name="filepond"\r\n\r\n{}\r\n'
        b'--b\r\nContent-Disposition: form-data; name="filepond"; filename="a.txt"'
        b"\r\nContent-Type: text/plain\r\n\r\nsmall\r\n--b--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    response = app.post("/files", body, headers)
    assert response.content_type == "text/plain"
    assert got(app, response.text) == b"small"


def test_filepond_takes_a_file_back(site, app):
    before = staged_files(site)
    uid = pond_create(app)
    app.delete("/files", params=uid, status=204)
    app.delete("/files", params=uid, status=404)
    app.delete("/files", params="x" * 101, status=404)
    assert staged_files(site) == before


def test_a_patch_without_a_version_is_no_tus(app):
    uid = pond_create(app)
    headers = {"Content-Type": BYTES, "Upload-Offset": "0"}
    app.patch(f"/files/{uid}", b"01234", headers, status=412)


# Numbered chunks


def resumable(prefix):
    def params(index, chunks, size, id):
        return {
            f"{prefix}ChunkNumber": index + 1,
            f"{prefix}ChunkSize": size,
            f"{prefix}CurrentChunkSize": len(chunks[index]),
            f"{prefix}TotalSize": sum(map(len, chunks)),
            f"{prefix}Type": "",
            f"{prefix}Identifier": id,
            f"{prefix}Filename": "data.bin",
            f"{prefix}RelativePath": "data.bin",
            f"{prefix}TotalChunks": len(chunks),
        }

    return params


def dropzone(index, chunks, size, id):
    return {
        "dzuuid": id,
        "dzchunkindex": index,
        "dztotalfilesize": sum(map(len, chunks)),
        "dzchunksize": size,
        "dztotalchunkcount": len(chunks),
        "dzchunkbyteoffset": index * size,
    }


CLIENTS = {
    "resumable.js": resumable("resumable"),
    "Flow.js": resumable("flow"),
    "Dropzone": dropzone,
}


@pytest.fixture(params=CLIENTS)
def client(request):
    return CLIENTS[request.param]


@pytest.fixture(params=["form", "raw", "form with a query"])
def sent(request):
    """How a chunk is sent; resumable.js says in the address what the form says, too."""

    def send(app, params, chunk, status=200):
        url = "/files?" + "&".join(f"{name}={value}" for name, value in params.items())
        if request.param != "raw":
            fields = {**params, "file": FormFile("data.bin", chunk)}
            return app.post(
                "/files" if request.param == "form" else url, fields, status=status
            )
        headers = {"Content-Type": "application/octet-stream"}
        return app.post(url, chunk, headers, status=status)

    return send


def test_numbered_chunks_in_any_order(app, client, sent):
    # The last one has up to twice as much as the others.
    data = some_bytes(1000, 1)
    chunks = [data[:300], data[300:600], data[600:]]
    for index in (2, 0, 1, 0):
        answer = sent(app, client(index, chunks, 300, "a"), chunks[index]).json
    assert answer["complete"]
    assert got(app, answer["uploadUid"]) == data
    # With another size it is another file.
    other = sent(app, client(0, [b"x", b"y"], 1, "a"), b"x").json
    assert other["uploadUid"] != answer["uploadUid"]


@pytest.mark.parametrize("name", ["resumable.js", "Flow.js"])
def test_a_reloaded_page_asks_what_is_there(site, app, name, sent):
    client, chunks = CLIENTS[name], [b"ab", b"cd", b"e"]
    before, id = staged_files(site), uuid.uuid4().hex
    app.get("/files", client(1, chunks, 2, id), status=204)
    assert staged_files(site) == before
    sent(app, client(1, chunks, 2, id), chunks[1])
    app.get("/files", client(1, chunks, 2, id), status=200)
    app.get("/files", client(0, chunks, 2, id), status=204)
    other = site.browser(REMOTE_USER="bob")
    other.get("/files", client(1, chunks, 2, id), status=204)
    # The same name is another file for another user.
    mine = sent(app, client(0, chunks, 2, id), chunks[0]).json["uploadUid"]
    theirs = sent(other, client(0, chunks, 2, id), b"xy").json["uploadUid"]
    assert mine != theirs


def test_who_is_nobody_has_no_secret(site):
    params = CLIENTS["resumable.js"](0, [b"a"], 1, "x")
    fields = {**params, "file": FormFile("data.bin", b"a")}
    assert site.app.post("/files", fields, status=400).json["error"]["code"]


@pytest.mark.parametrize(
    ("name", "status"), [("resumable.js", 400), ("Flow.js", 413), ("Dropzone", 413)]
)
def test_an_end_is_one_for_the_client(app, name, status, sent):
    client = CLIENTS[name]
    params = client(0, [b"a"], 1, "big")
    total = next(each for each in params if "otal" in each and "ize" in each)
    params[total] = 5 << 30
    error = sent(app, params, b"a", status).json["error"]
    assert error["code"] == "too_large"
    assert error.get("status", status) == 413


def test_any_form_with_a_file_is_an_upload(app):
    uid = app.post("/files", {"file": FormFile("x", b"small")}).json["uploadUid"]
    assert got(app, uid) == b"small"
    empty = app.post("/files", {"file": FormFile("x", b"")}).json["uploadUid"]
    assert got(app, empty) == b""
    app.post("/files", {"file": "text"}, status=400)


def test_chunks_of_a_large_file(app, client, sent):
    data = some_bytes(1_000_003, 2)
    chunks = cut(data, 64 * 1024)
    for index in reversed(range(len(chunks))):
        answer = sent(app, client(index, chunks, 64 * 1024, "c"), chunks[index]).json
    assert got(app, answer["uploadUid"]) == data
