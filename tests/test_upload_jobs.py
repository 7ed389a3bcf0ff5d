"""From the form to ``__run__``: an upload belongs to the job that it started."""

import errno
import os
import shutil
import threading

import pytest
from conftest import PATIENCE
from pyramid.session import SignedCookieSessionFactory
from uploading import all_gone
from uploading import cut
from uploading import endpoint
from uploading import send
from uploading import some_bytes
from uploading import staged_files
from uploading import upload
from webtest import Upload as FormFile
from ZODB.POSException import ConflictError

from asyncview import BaseAsyncView
from asyncview.uploaded import Upload

DATA = some_bytes(100_000)


class Import(BaseAsyncView):
    """Keeps the file as a blob, and says what it was."""

    uploads = ("file",)

    def __run__(self, process_id=None):
        self.request.registry.hook(self)
        upload = self.upload("file")
        if upload is None:
            return "no file"
        with upload.open() as file:
            data = file.read()
        assert len(data) == upload.total_size == os.stat(upload.path).st_size
        self.context.data["blob"] = upload.to_blob()
        return f"{upload.uid} {upload.file_name} {len(data)} {data[:3].hex()}"


def importing(config):
    endpoint(config)
    config.registry.hook = lambda view: None
    config.add_async_view(Import, "import")


@pytest.fixture
def site(make_site):
    return make_site(importing)


@pytest.fixture
def app(site):
    return site.browser(REMOTE_USER="alice")


def stored_blob(site):
    with site.db.transaction() as connection, connection.root()["blob"].open() as file:
        return file.read()


def ran(site, app, fields, **kw):
    process_id = site.start("/import", fields, app, **kw)
    site.wait(process_id)
    status = site.status("/import", process_id, app)["status"]
    assert status == "completed"
    return process_id, site.result("/import", process_id, app).text


def test_a_job_gets_the_upload_that_its_form_names(site, app):
    uid = upload(app, DATA, 30_000, "../big.csv")
    _, text = ran(site, app, {"file": uid})
    assert text == f"{uid} big.csv {len(DATA)} {DATA[:3].hex()}"
    assert stored_blob(site) == DATA


def test_a_plain_form_without_a_script_gives_the_same(site, app):
    _, text = ran(site, app, {"file": FormFile("../big.csv", DATA)})
    uid, rest = text.split(" ", 1)
    assert rest == f"big.csv {len(DATA)} {DATA[:3].hex()}"
    assert stored_blob(site) == DATA
    assert site.engine.staging.find((("str", "alice"), None), uid).look().jobs


@pytest.mark.parametrize("fields", [{}, {"file": ""}, {"other": "x"}])
def test_without_a_file_there_is_none(site, app, fields):
    assert ran(site, app, fields)[1] == "no file"


def test_a_plain_form_without_a_file_has_none(site, app):
    assert ran(site, app, {"file": FormFile("", b"")})[1] == "no file"


def test_a_field_that_the_view_does_not_name_is_an_error(site, app):
    site.registry.hook = lambda view: view.upload("other")
    process_id = site.start("/import", {}, app)
    site.wait(process_id)
    assert site.status("/import", process_id, app)["status"] == "failed"


@pytest.mark.parametrize("uid", ["nosuch", "x" * 32])
def test_a_form_with_a_wrong_id_starts_nothing(site, app, uid):
    app.post("/import", {"file": uid}, status=404)


def test_a_form_with_half_an_upload_starts_nothing(site, app):
    uid = send(app, "", 0, cut(DATA, 60_000))["uploadUid"]
    app.post("/import", {"file": uid}, status=409)
    other = site.browser(REMOTE_USER="bob")
    send(app, uid, 1, cut(DATA, 60_000))
    other.post("/import", {"file": uid}, status=404)
    ran(site, app, {"file": uid})


def test_an_upload_survives_conflicts_and_errors_at_commit(site, app):
    uids = []

    def conflict(view):
        uids.append(view.upload("file").uid)
        if len(uids) < 4:
            view.context.data["blob"] = view.upload("file").to_blob()
            raise ConflictError()

    site.registry.hook = conflict
    ran(site, app, {"file": upload(app, DATA, 30_000)})
    assert len(uids) == 4
    assert len(set(uids)) == 1
    assert stored_blob(site) == DATA


def no_link(*args):
    raise OSError(errno.EXDEV, "another file system")


def test_a_copy_that_becomes_a_blob_outlives_a_power_cut(site, app, monkeypatch):
    uid, synced, fsync = upload(app, DATA, 30_000), [], os.fsync

    def noted(file):
        synced.append(os.fstat(file).st_ino)
        fsync(file)

    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(os, "fsync", noted)
    ran(site, app, {"file": uid})
    with site.db.transaction() as connection:
        assert os.stat(connection.root()["blob"].committed()).st_ino in synced
    assert stored_blob(site) == DATA


def test_a_copy_that_there_is_no_room_for_leaves_nothing(site, app, monkeypatch):
    uid = upload(app, DATA, 30_000)

    def full(source, target):
        with open(target, "wb") as file:
            file.write(DATA[:1000])
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(shutil, "copyfile", full)
    with (
        site.engine.staging.find((("str", "alice"), None), uid) as staged,
        site.db.transaction() as connection,
        pytest.raises(OSError, match="full"),
    ):
        Upload(staged, lambda: connection).to_blob()
    directory = site.db.storage.temporaryDirectory()
    assert [name for name in os.listdir(directory) if "asyncview-" in name] == []


def test_a_blob_is_the_staged_file_itself(site, app):
    uid, seen = upload(app, DATA, 30_000), []
    site.registry.hook = lambda view: seen.append(os.stat(view.upload("file").path))
    ran(site, app, {"file": uid})
    with site.db.transaction() as connection:
        blob = os.stat(connection.root()["blob"].committed())
    assert (blob.st_ino, blob.st_dev) == (seen[0].st_ino, seen[0].st_dev)


def later(site, seconds):
    """Have the clock of uploads say so, and have the pulse look after them."""
    staging = site.engine.staging
    began = staging.clock()
    staging.clock = lambda: began + seconds
    for _ in site.engine.pulse._tidying.sweep():
        pass


def test_an_upload_does_not_expire_before_its_job(make_site):
    site = make_site(importing, asyncview__keep=10**6)
    app = site.browser(REMOTE_USER="alice")
    entered, gate = threading.Event(), threading.Event()
    site.registry.hook = lambda view: (entered.set(), gate.wait(PATIENCE))
    uid, unneeded = upload(app, DATA, 30_000), upload(app)
    process_id = site.start("/import", {"file": uid}, app)
    assert entered.wait(PATIENCE)
    later(site, 200_000)
    app.get(f"/files/{unneeded}", status=404)
    gate.set()
    site.wait(process_id)
    assert site.status("/import", process_id, app)["status"] == "completed"
    app.get(f"/files/{uid}", status=200)
    # Nor does its owner take it away by accident.
    app.delete(f"/files/{uid}", status=409)
    app.post(f"/import/delete?process_id={process_id}", status=303)
    later(site, 61)
    app.get(f"/files/{uid}", status=404)
    all_gone(site)
    assert stored_blob(site) == DATA


def test_a_job_that_was_never_stored_owns_nothing(make_site):
    site = make_site(importing, asyncview__upload_keep=4000)
    app = site.browser(REMOTE_USER="alice")
    uid = upload(app)
    staging = site.engine.staging
    with staging.find((("str", "alice"), None), uid) as staged:
        staged.claim("x" * 32)
    later(site, 3599)
    app.get(f"/files/{uid}", status=200)
    later(site, 600)
    app.get(f"/files/{uid}", status=404)
    all_gone(site)


def test_a_job_that_was_stored_while_the_tidying_stood_still_owns_its_upload(
    site, app, monkeypatch
):
    uid = upload(app)
    staging, tidying = site.engine.staging, site.engine.pulse._tidying
    stored = tidying._stored

    def standing_still(ids):
        there, began = stored(ids), staging.clock()
        staging.clock = lambda: began + 4000
        return there

    monkeypatch.setattr(tidying, "_stored", standing_still)
    with staging.find((("str", "alice"), None), uid) as staged:
        staged.claim("x" * 32)
        for _ in tidying.sweep():
            pass
        assert "x" * 32 in staged.look().jobs


def test_a_job_whose_process_did_not_get_to_say_so_owns_its_upload(site, app):
    uid = upload(app, DATA, 30_000)
    site.registry.hook = lambda view: None
    process_id, _ = ran(site, app, {"file": uid})
    staged = site.engine.staging.find((("str", "alice"), None), uid)
    with staged.locked():
        staged.write(f"disowned {process_id}", f"claim {process_id}")
    later(site, 10_000)
    assert staged.look().jobs[process_id][1]
    app.get(f"/files/{uid}", status=200)


def test_of_a_form_that_is_sent_twice_each_job_has_the_upload(site, app):
    uid = upload(app, DATA, 30_000)
    first, _ = ran(site, app, {"file": uid})
    second, _ = ran(site, app, {"file": uid})
    app.post(f"/import/delete?process_id={first}", status=303)
    later(site, 100)
    app.get(f"/files/{uid}", status=200)
    app.post(f"/import/delete?process_id={second}", status=303)
    later(site, 100)
    app.get(f"/files/{uid}", status=404)


def test_an_anonymous_upload_belongs_to_its_web_session(make_site):
    def configure(config):
        importing(config)
        config.set_session_factory(SignedCookieSessionFactory("secret"))

    site = make_site(configure)
    app, other = site.browser(), site.browser()
    app.get("/import")
    uid = upload(app, DATA, 30_000)
    other.get("/import")
    other.post("/import", {"file": uid}, status=404)
    other.get(f"/files/{uid}", status=404)
    ran(site, app, {"file": uid})
    assert stored_blob(site) == DATA
    ran(site, other, {"file": FormFile("x", b"plain")})
    assert stored_blob(site) == b"plain"


def test_without_a_job_the_upload_of_the_request_is_given(make_site):
    class Quick(Import):
        def run_process(self):
            self.request.response.headers["X-Size"] = str(
                self.upload("file").total_size
            )
            return False

        def initial_page(self):
            assert self.upload("file").uid == self.upload("file").uid
            return self.request.response

    def configure(config):
        importing(config)
        config.add_async_view(Quick, "quick")

    site = make_site(configure)
    app = site.browser(REMOTE_USER="alice")
    uid = upload(app)
    assert app.post("/quick", {"file": uid}).headers["X-Size"] == "10"
    fields = {"file": FormFile("x", b"plain")}
    assert app.post("/quick", fields).headers["X-Size"] == "5"
    assert sum(each.endswith("data") for each in staged_files(site)) == 2


def test_a_key_of_the_request_does_not_make_one_upload_of_two_files(make_site):
    seen = []

    class Two(BaseAsyncView):
        uploads = ("first", "second")

        def __run__(self, process_id=None):
            for field in self.uploads:
                with self.upload(field).open() as file:
                    seen.append(file.read())
            return "done"

    def both(config):
        endpoint(config)
        config.add_async_view(Two, "two")

    site = make_site(both)
    app = site.browser(REMOTE_USER="alice")
    for data in (b"1", b"2"):
        fields = {
            "first": FormFile("a.txt", b"first " + data),
            "second": FormFile("b.txt", b"second " + data),
        }
        headers = {"Idempotency-Key": "one"}
        site.wait(site.start("/two", fields, app, headers=headers))
    assert seen == [b"first 1", b"second 1", b"first 2", b"second 2"]


def test_a_whole_file_that_is_sent_again_with_its_key_is_one_upload(site, app):
    form = {"file": FormFile("a.txt", b"some bytes")}
    first, again = (
        app.post("/files", form, {"Idempotency-Key": "one"}).json for _ in range(2)
    )
    assert first == again
