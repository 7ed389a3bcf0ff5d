"""What nobody needs goes, a little at a time, and nothing else."""

import fcntl
import os
import threading
import time

import pytest
from conftest import PATIENCE
from uploading import all_gone
from uploading import endpoint
from uploading import send
from uploading import staged_files
from uploading import upload

from asyncview import tidying
from asyncview.staging import KEY
from asyncview.staging import UNDONE
from asyncview.tidying import Tidying


@pytest.fixture
def site(make_site):
    site = make_site(endpoint)
    # It would tidy up as well.
    site.engine.pulse.stop(PATIENCE)
    return site


@pytest.fixture
def tidy(site):
    clock = iter(range(0, 10**9, 1))
    return Tidying(
        site.engine.staging, site.db, "tests", monotonic=lambda: next(clock) * 0.001
    )


def later(site, seconds):
    began = time.time()
    site.engine.staging.clock = lambda: began + seconds


def folder_of(site):
    root = site.engine.staging.root
    [name] = os.listdir(root)
    return os.path.join(root, name)


def test_an_idle_process_writes_nothing(site):
    upload(site.app)
    site.engine.prepare()
    before = site.db.lastTransaction()
    for _ in site.engine.pulse._tidying.sweep():
        pass
    assert site.db.lastTransaction() == before
    assert len(staged_files(site)) == 4


@pytest.mark.parametrize(
    "strange", ["a file", "what another process removed", "a loop"]
)
def test_what_is_no_directory_keeps_no_others(site, tidy, monkeypatch, strange):
    upload(site.app)
    root = site.engine.staging.root
    if strange == "a file":
        open(os.path.join(root, "0"), "w").close()
    elif strange == "a loop":
        # As a directory that may not be read, which root does not know.
        os.symlink("0", os.path.join(root, "0"))
    listdir = os.listdir

    def first(path):
        return ["0", *listdir(path)] if path == root else listdir(path)

    monkeypatch.setattr(os, "listdir", first)
    later(site, 10 * 86400)
    for _ in tidy.sweep():
        pass
    assert [each for each in listdir(root) if each != "0"] == []


def test_what_was_begun_and_left_goes_and_what_is_new_stays(site, tidy):
    uid = upload(site.app)
    folder = folder_of(site)
    os.mkdir(os.path.join(folder, UNDONE + "x"))
    os.symlink("nosuch", os.path.join(folder, KEY + "x"))
    with open(os.path.join(folder, "stranger"), "w"):
        pass
    later(site, 3000)
    list(tidy.sweep())
    assert sorted(os.listdir(folder)) == sorted([UNDONE + "x", "stranger", uid])
    later(site, 4000)
    list(tidy.sweep())
    assert sorted(os.listdir(folder)) == sorted(["stranger", uid])


def test_a_key_goes_with_its_upload(site, tidy):
    send(site.app, "", 0, [b"a", b"b"], Idempotency_Key="mine")
    later(site, 86_401)
    list(tidy.sweep())
    all_gone(site)
    assert os.listdir(site.engine.staging.root) == []
    list(tidy.sweep())


def test_one_that_cant_be_read_does_not_keep_the_others(site, tidy, caplog):
    for _ in range(3):
        upload(site.app)
    folder = folder_of(site)
    broken = sorted(os.listdir(folder))[1]
    with open(os.path.join(folder, broken, "manifest"), "w") as file:
        file.write("nonsense")
    later(site, 86_401)
    list(tidy.sweep())
    assert os.listdir(folder) == [broken]
    assert "could not be looked at" in caplog.text


def test_a_step_takes_a_moment_and_the_next_goes_on(site, tidy, monkeypatch):
    monkeypatch.setattr(tidying, "BUDGET", 0.0)
    for _ in range(3):
        upload(site.app)
    later(site, 86_401)
    folder, left = folder_of(site), 3
    while tidy.step():
        left -= 1
        assert len(os.listdir(folder)) == left
    assert left == 0
    assert not tidy.step(), "all was looked at a moment ago"


def test_where_the_database_does_not_answer_nothing_goes(site, tidy, monkeypatch):
    upload(site.app)
    staging = site.engine.staging
    [uid] = os.listdir(folder_of(site))
    with staging.load(folder_of(site), uid) as staged:
        staged.claim("x" * 32)
        staged.own("x" * 32)
    later(site, 86_401)

    def trouble(*arguments):
        raise OSError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(tidying, "reading", trouble)
        list(tidy.sweep())
    assert staged_files(site)
    list(tidy.sweep())
    all_gone(site)


def test_without_a_registry_no_job_owns_anything(site, monkeypatch):
    monkeypatch.setattr(tidying, "store_of", lambda connection, name: None)
    assert site.engine.pulse._tidying._stored({"x"}) == set()


@pytest.mark.parametrize("what", ["folder", "journal"])
def test_nobody_waits_for_a_process_that_stands_still_with_a_lock(site, tidy, what):
    """The pulse is needed elsewhere, be it to take that process's jobs away."""
    uid = upload(site.app)
    folder = folder_of(site)
    later(site, 86_401)
    path = folder if what == "folder" else os.path.join(folder, uid, "journal")
    held = os.open(path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    step = threading.Thread(target=lambda: list(tidy.sweep()), daemon=True)
    step.start()
    step.join(PATIENCE / 3)
    went_on = not step.is_alive()
    os.close(held)
    step.join(PATIENCE)
    assert went_on
    assert os.path.exists(folder)
    list(tidy.sweep())
    assert not os.path.exists(folder)


def test_uploads_that_can_not_be_looked_at_keep_nobody_from_a_page(
    make_site, tmp_path, caplog
):
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / "tests").write_text("no directory")
    site = make_site(endpoint, asyncview__upload_dir=str(tmp_path / "uploads"))
    site.app.get("/nowhere", status=404)
    assert "can't be looked at" in caplog.text
