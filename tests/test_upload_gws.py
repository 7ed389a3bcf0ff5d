"""The GWS protocol, without the defects of the plug-in that it comes from."""

import pytest
from uploading import cut
from uploading import endpoint
from uploading import got
from uploading import query
from uploading import send
from uploading import some_bytes
from uploading import staged_files
from uploading import upload
from webtest import Upload as FormFile


@pytest.fixture(scope="module")
def site(make_shared_site):
    return make_shared_site(endpoint, asyncview__upload_max_open=1000)


@pytest.fixture
def app(site):
    return site.browser(REMOTE_USER="alice")


@pytest.mark.parametrize("size", [0, 1, 2, 9, 10, 11, 1000, 100_003])
@pytest.mark.parametrize("order", ["forward", "backward", "last first"])
def test_a_file_is_what_was_sent(app, size, order):
    data = some_bytes(size)
    chunks = cut(data, max(1, size // 7))
    numbers = list(range(len(chunks)))
    if order == "backward":
        numbers.reverse()
    elif order == "last first":
        numbers = numbers[-1:] + numbers[:-1]
    uid = ""
    for number in numbers:
        got(app, uid, 404 if not uid else 409)
        answer = send(app, uid, number, chunks)
        assert list(answer) == ["uploadUid"]
        uid = answer["uploadUid"]
    assert got(app, uid) == data
    assert got(app, uid) == data


def test_chunks_may_come_as_a_form(app):
    uid = ""
    for number, content in enumerate([b"ab", b"\xff\x00"]):
        params = query(uid, number, 2, 4)
        params["content"] = FormFile("blob", content)
        uid = app.post("/files", params).json["uploadUid"]
    assert got(app, uid) == b"ab\xff\x00"


def test_one_can_ask_what_is_there(app):
    chunks = [b"abc", b"def", b"g"]
    uid = send(app, "", 1, chunks, name="../x.txt")["uploadUid"]
    for url in (f"/files/{uid}", f"/files?uploadUid={uid}"):
        assert app.get(url).json == {
            "uploadUid": uid,
            "fileName": "x.txt",
            "totalSize": 7,
            "chunkCount": 3,
            "chunks": [1],
            "received": 3,
            "complete": False,
        }


@pytest.mark.parametrize(
    "sizes", [(5, 3, 4), (1, 9, 2), (2, 5, 5), (0, 12, 0), (4, 4, 4), (7, 0, 5)]
)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_chunks_may_be_of_any_size(site, app, sizes, order):
    data, chunks, at = some_bytes(12), [], 0
    for size in sizes:
        chunks.append(data[at : at + size])
        at += size
    uid = ""
    for number in order:
        uid = send(app, uid, number, chunks)["uploadUid"]
    assert got(app, uid) == data
    names = [each.rpartition("/")[2] for each in staged_files(site) if uid in each]
    assert len(names) == 4, "nothing but directory, manifest, journal and data"


def test_a_chunk_is_replaced_before_the_end_and_refused_after(app):
    wrong, right = [b"xxx", b"yyy", b"zz"], [b"abc", b"def", b"gh"]
    uid = send(app, "", 0, wrong)["uploadUid"]
    send(app, uid, 1, wrong)
    send(app, uid, 1, right)
    send(app, uid, 0, right)
    send(app, uid, 2, right)
    assert got(app, uid) == b"abcdefgh"
    assert send(app, uid, 1, wrong, status=409)["error"]["code"] == "complete"
    assert got(app, uid) == b"abcdefgh"


def test_a_wrong_total_can_be_mended(app):
    short, right = [b"ab", b"def", b"gh"], [b"abc", b"def", b"gh"]
    uid = send(app, "", 0, short, total=8)["uploadUid"]
    send(app, uid, 1, right)
    assert send(app, uid, 2, right, status=400)["error"]["code"] == "wrong_size"
    got(app, uid, 409)
    assert app.get(f"/files/{uid}").json["chunks"] == [0, 1, 2]
    send(app, uid, 0, right)
    assert got(app, uid) == b"abcdefgh"


def test_what_would_be_too_much_is_refused_at_once(app):
    chunks = [b"abc", b"def"]
    uid = send(app, "", 0, chunks, total=5)["uploadUid"]
    assert send(app, uid, 1, chunks, total=5, status=413)["error"]["code"]
    assert app.get(f"/files/{uid}").json["chunks"] == [0]
    send(app, uid, 1, [b"abc", b"de"])
    assert got(app, uid) == b"abcde"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fileName", "other.bin"),
        ("totalSize", "7"),
        ("chunkCount", "3"),
        ("chunkNumber", "2"),
        ("chunkNumber", "-1"),
        ("chunkNumber", ""),
        ("chunkNumber", "1.0"),
        ("chunkNumber", "\u0661"),
        ("chunkNumber", "9" * 20),
        ("totalSize", "x"),
    ],
)
def test_what_the_first_chunk_said_is_kept_to(app, name, value):
    uid = send(app, "", 0, [b"abcd", b"ef"])["uploadUid"]
    params = {**query(uid, 1, 2, 6), name: value, "content": FormFile("b", b"ef")}
    error = app.post("/files", params, status=400).json["error"]
    assert set(error) == {"code", "message"}
    assert app.get(f"/files/{uid}").json["chunks"] == [0]


@pytest.mark.parametrize("name", ["fileName", "totalSize", "chunkCount", "content"])
def test_a_first_chunk_must_say_it_all(site, app, name):
    before = staged_files(site)
    params = query("", 0, 1, 2) | {"content": FormFile("b", b"ab")}
    del params[name]
    app.post("/files", params, status=400)
    assert staged_files(site) == before


def test_what_later_chunks_do_not_repeat_holds(app):
    uid = send(app, "", 0, [b"abcd", b"ef"])["uploadUid"]
    app.post(f"/files?uploadUid={uid}&chunkNumber=1", b"ef", {"Content-Type": "a/b"})
    assert got(app, uid) == b"abcdef"


def test_an_upload_can_be_given_up(site, app):
    before = staged_files(site)
    uid = send(app, "", 0, [b"ab", b"cd"])["uploadUid"]
    assert staged_files(site) != before
    app.delete(f"/files/{uid}", status=204)
    send(app, uid, 1, [b"ab", b"cd"], status=404)
    app.delete(f"/files/{uid}", status=404)
    assert staged_files(site) == before


def test_an_upload_is_its_owners(site, app):
    uid = send(app, "", 0, [b"ab", b"cd"])["uploadUid"]
    for other in (site.browser(REMOTE_USER="bob"), site.app):
        send(other, uid, 1, [b"ab", b"cd"], status=404)
        other.get(f"/files/{uid}", status=404)
        other.delete(f"/files/{uid}", status=404)
        got(other, uid, 404)
    whole = upload(app)
    got(site.browser(REMOTE_USER="bob"), whole, 404)
    assert got(app, whole) == b"some bytes"


@pytest.mark.parametrize(
    "uid", ["nosuch", "x" * 32, "x" * 300, "../../etc/passwd", ".", "..", "\u00e9" * 22]
)
def test_probing_creates_nothing(site, app, uid):
    upload(app)
    before = staged_files(site)
    got(app, uid, 404)
    params = {**query(uid, 0, 1, 2), "content": FormFile("b", b"ab")}
    error = app.post("/files", params, status=404).json["error"]
    assert error["code"] == "not_found"
    app.get("/files", {"uploadUid": uid}, status=404)
    assert staged_files(site) == before
    stranger = site.browser(REMOTE_USER="stranger")
    got(stranger, uid, 404)
    stranger.get("/files", {"uploadUid": uid}, status=404)
    assert staged_files(site) == before


def test_a_checksum_is_kept_to(app):
    from uploading import checksum

    chunks = [b"ab", b"cd"]
    uid = send(app, "", 0, chunks, Upload_Checksum=checksum(b"ab"))["uploadUid"]
    wrong = send(app, uid, 1, chunks, status=400, Upload_Checksum=checksum(b"xx"))
    assert wrong["error"]["code"] == "checksum"
    assert app.get(f"/files/{uid}").json["chunks"] == [0]
    send(app, uid, 1, chunks, Upload_Checksum=checksum(b"cd", "sha256"))
    assert got(app, uid) == b"abcd"


def test_a_lost_first_answer_leaves_no_second_upload(app):
    chunks = [b"ab", b"cd"]
    first = send(app, "", 0, chunks, Idempotency_Key="one")
    assert send(app, "", 1, chunks, Idempotency_Key="one") == first
    assert got(app, first["uploadUid"]) == b"abcd"
    assert send(app, "", 0, chunks, Idempotency_Key="two") != first
