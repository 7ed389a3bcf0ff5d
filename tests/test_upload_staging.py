"""Uploads on disk: several at once, dying in the middle, a full disk, too many."""

import errno
import gc
import os
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
from conftest import PATIENCE
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from uploading import cut
from uploading import some_bytes

from asyncview import journal
from asyncview.digest import Digest
from asyncview.disk import sync
from asyncview.exceptions import UploadExpired
from asyncview.exceptions import UploadIncomplete
from asyncview.exceptions import UploadNotFound
from asyncview.exceptions import UploadRefused
from asyncview.journal import LONG
from asyncview.staged import Staged
from asyncview.staging import IDLE
from asyncview.staging import Staging
from asyncview.upload import MAX_CHUNKS
from asyncview.upload import safe_name
from asyncview.uploaded import Upload

ALICE = (("str", "alice"), None)
NOBODY = (None, None)


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def staging(tmp_path):
    return staging_at(tmp_path)


def staging_at(path, clock=None, max_size=1 << 30, max_open=10):
    return Staging(
        str(path / "uploads"),
        "tests/x",
        max_size=max_size,
        max_open=max_open,
        keep=100.0,
        clock=clock or Clock(),
    )


def put(staged, number, data):
    return staged.put(number, len(data), iter([data] if data else []))


def content(staged):
    with open(staged.path(), "rb") as file:
        return file.read()


def open_files():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def names(staged):
    return sorted(os.listdir(staged.folder))


def at_once(count, action):
    """Call ``action`` in so many threads; what they gave or raised."""
    barrier, answers = threading.Barrier(count), []

    def run(number):
        barrier.wait(PATIENCE)
        try:
            answers.append(action(number))
        except Exception as error:
            answers.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(answers) == count
    return answers


# Names


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("report.csv", "report.csv"),
        ("../../etc/passwd", "passwd"),
        ("C:\\dir\\file.txt", "file.txt"),
        ("a\0b\r\nc\u202egpj.exe", "abcgpj.exe"),
        ("re\u0301sume\u0301.txt", "r\u00e9sum\u00e9.txt"),
        (" .hidden ", "hidden"),
        ("-rf", "rf"),
        ("..", "upload"),
        ("", "upload"),
        ("\ud800", "upload"),
        ("CON.txt", "_CON.txt"),
        ('a<b>:"c|?*', "a_b___c___"),
        ("x" * 4000 + ".csv", "x" * 251 + ".csv"),
        ("\u00e4" * 300 + ".txt", "\u00e4" * 125 + ".txt"),
    ],
)
def test_names_are_made_safe(said, kept):
    assert safe_name(said) == kept
    assert len(kept.encode()) <= 255


@given(st.text())
def test_any_name_is_made_safe(said):
    name = safe_name(said)
    assert name
    assert name == safe_name(name)
    assert len(name.encode()) <= 255
    assert "/" not in name
    assert name.isprintable()


# Chunks


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_chunks_of_any_size_in_any_order_also_twice(staging, data):
    sizes = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=6))
    total = sum(sizes)
    if len(sizes) > (total or 1):
        sizes, total = [1] * len(sizes), len(sizes)
    whole, chunks, at = some_bytes(total), [], 0
    for size in sizes:
        chunks.append(whole[at : at + size])
        at += size
    numbers = list(range(len(chunks)))
    sent = data.draw(st.lists(st.sampled_from(numbers), max_size=8))
    sent += data.draw(st.permutations(numbers))
    with staging.create(ALICE, "x", total, chunk_count=len(chunks)) as staged:
        for number in sent:
            if staged.look().complete:
                with pytest.raises(UploadRefused) as caught:
                    put(staged, number, chunks[number])
                assert caught.value.status == 409
            else:
                put(staged, number, chunks[number])
        assert content(staged) == whole
        assert len(names(staged)) == 3
        staging.remove(staged)


def test_chunks_sent_at_once(staging):
    data = some_bytes(3_000_001)
    chunks = cut(data, 200_000)
    staged = staging.create(ALICE, "x", len(data), chunk_count=len(chunks))

    def send(number):
        with staging.find(ALICE, staged.uid) as mine:
            blocks = cut(chunks[number], 50_000)
            return mine.put(number, len(chunks[number]), iter(blocks))

    answers = at_once(len(chunks), send)
    assert not [each for each in answers if isinstance(each, Exception)]
    assert content(staged) == data


def test_a_file_is_put_in_order_once_whoever_asks(staging, monkeypatch):
    staged = staging.create(ALICE, "x", 12, chunk_count=3)
    monkeypatch.setattr(staged, "finish", staged.look)
    for number, data in ((2, b"0123"), (0, b"abcde"), (1, b"xyz")):
        put(staged, number, data)
    answers = at_once(8, lambda _: content(staging.find(ALICE, staged.uid)))
    assert answers == [b"abcdexyz0123"] * 8


def test_a_client_that_hangs_holds_up_nobody(staging):
    staged = staging.create(ALICE, "x", 4, chunk_count=2)

    def hanging():
        yield b"a"
        # It was given up, and the chunk is sent again.
        with staging.find(ALICE, staged.uid) as other:
            put(other, 0, b"xy")
        yield b"b"

    with pytest.raises(UploadRefused) as caught:
        staged.put(0, 2, hanging())
    assert caught.value.code == "overtaken"
    put(staged, 1, b"zz")
    assert content(staged) == b"xyzz"


def test_a_client_that_hangs_while_a_file_grows_holds_up_nobody(staging):
    staged = staging.create(ALICE, "x", 4)

    def hanging():
        yield b"a"
        with staging.find(ALICE, staged.uid) as other:
            assert other.take_over().size == 1
            other.append(1, 1, iter([b"b"]))
        yield b"x"

    with pytest.raises(UploadRefused) as caught:
        staged.append(0, 4, hanging())
    assert caught.value.code == "overtaken"
    assert staged.append(2, 2, iter([b"cd"])).complete
    assert content(staged) == b"abcd"


@pytest.mark.parametrize("sent", [b"a", b"abc"])
@pytest.mark.parametrize("numbered", [True, False])
def test_what_is_not_as_long_as_announced_is_refused(staging, sent, numbered):
    staged = staging.create(ALICE, "x", 4, chunk_count=2 if numbered else None)
    take = staged.put if numbered else staged.append
    whole = {} if numbered else {"whole": True}
    with pytest.raises(UploadRefused) as caught:
        take(0, 2, iter([sent]), **whole)
    assert caught.value.code == "wrong_length"
    assert staged.look().received == 0
    assert len(names(staged)) == 3


def test_a_chunk_that_fails_leaves_the_one_before(staging):
    staged = staging.create(ALICE, "x", 4, chunk_count=2)
    put(staged, 0, b"ab")
    with pytest.raises(UploadRefused):
        staged.put(0, 2, iter([b"x"]))
    with pytest.raises(UploadRefused):
        staged.put(0, 2, iter([b"xx"]), Digest("sha1", b"no"))
    put(staged, 1, b"cd")
    assert content(staged) == b"abcd"
    assert len(names(staged)) == 3


def test_what_came_before_the_client_went_away_stays(staging):
    staged = staging.create(ALICE, "x", 4)

    def going_away():
        yield b"abc"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        staged.append(0, 4, going_away())
    assert staged.look().size == 3
    with pytest.raises(ConnectionResetError):
        staging.create(ALICE, "y", 4).append(0, 4, going_away(), whole=True)
    assert staged.look().size == 3


def test_an_upload_that_is_removed_before_it_is_read_is_gone(staging):
    staged = staging.create(ALICE, "x", 2, chunk_count=1)
    staged.put(0, 2, iter([b"ab"]))
    upload = Upload(staged, lambda: None)
    staging.remove(staged)
    with pytest.raises(UploadNotFound):
        upload.open()


def test_an_upload_that_is_removed_while_it_is_sent_is_gone(staging):
    staged = staging.create(ALICE, "x", 4, chunk_count=1)

    def removed():
        yield b"ab"
        staging.remove(staging.find(ALICE, staged.uid))
        yield b"cd"

    with pytest.raises(UploadNotFound):
        staged.put(0, 4, removed())
    with pytest.raises(UploadNotFound):
        staging.find(ALICE, staged.uid)
    assert all(not os.listdir(each) for each in folders(staging))


def folders(staging):
    return [os.path.join(staging.root, each) for each in os.listdir(staging.root)]


# Limits and keys


def test_first_chunks_sent_at_once_are_one_upload(staging):
    answers = at_once(
        8, lambda _: staging.create(ALICE, "x", 4, chunk_count=2, key="mine").uid
    )
    assert len(set(answers)) == 1
    [folder] = folders(staging)
    assert answers[0] in os.listdir(folder)
    assert len(os.listdir(folder)) == 2
    other = staging.create((("str", "bob"), None), "x", 4, chunk_count=2, key="mine")
    assert other.uid != answers[0]


def test_an_owner_has_so_many_unfinished_uploads_and_no_more(tmp_path):
    staging = staging_at(tmp_path, max_open=3)
    answers = at_once(8, lambda _: staging.create(ALICE, "x", 1, chunk_count=1))
    refused = [each for each in answers if isinstance(each, UploadRefused)]
    assert [each.status for each in refused] == [413] * 5
    first = next(each for each in answers if each not in refused)
    put(first, 0, b"x")
    staging.create(ALICE, "x", 1)
    staging.create((("str", "bob"), None), "x", 1)
    with pytest.raises(UploadRefused):
        staging.create(ALICE, "x", 1)


@pytest.mark.parametrize(
    ("total", "count", "status"),
    [
        (2 << 30, 1, 413),
        (10, 11, 400),
        (1 << 20, MAX_CHUNKS + 1, 400),
        (1 << 20, 5_000_000, 400),
    ],
)
def test_sizes_and_counts_are_limited(staging, total, count, status):
    with pytest.raises(UploadRefused) as caught:
        staging.create(ALICE, "x", total, chunk_count=count)
    assert caught.value.status == status
    assert not os.path.exists(staging.root)


@pytest.mark.parametrize("owner", [NOBODY, (None, "session"), (("int", "alice"), None)])
def test_an_upload_is_found_by_its_owner_alone(staging, owner):
    uid = staging.create(ALICE, "x", 0).uid
    staging.find(ALICE, uid)
    with pytest.raises(UploadNotFound):
        staging.find(owner, uid)
    assert len(folders(staging)) == 1


def test_an_idle_upload_expires(staging):
    staged = staging.create(ALICE, "x", 4, chunk_count=2, key="mine")
    staging.clock.now += 99
    put(staged, 0, b"ab")
    staging.clock.now += 99
    assert staging.find(ALICE, staged.uid).look().received == 2
    staging.clock.now += 1
    with pytest.raises(UploadExpired):
        staging.find(ALICE, staged.uid)
    assert staging.find_key(ALICE, "mine") is None
    assert staging.create(ALICE, "x", 4, key="mine").uid != staged.uid


# The journal


def test_a_long_journal_is_written_anew(staging):
    staged, other = staging.create(ALICE, "x", 4000), None
    path = os.path.join(staged.folder, "journal")
    longest = 0
    for at in range(4000):
        if at == 3000:
            other = staging.find(ALICE, staged.uid)
            other.look()
        staged.append(at, 1, iter([b"%d" % (at % 10)]))
        longest = max(longest, os.stat(path).st_size)
    assert LONG < longest + 100 < LONG + 300
    assert os.stat(path).st_size < LONG
    assert content(other) == b"0123456789" * 400


def test_a_journal_that_can_not_be_shorter_is_not_written_anew(staging, monkeypatch):
    monkeypatch.setattr("asyncview.journal.LONG", 200)
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    uid = staging.create(ALICE, "x", 100, chunk_count=100).uid
    synced.clear()
    for number in range(100):
        # Every second one comes three times.
        for _ in range(1 if number % 2 else 3):
            with staging.find(ALICE, uid) as staged:
                put(staged, number, b"x")
    assert len(synced) <= 10
    assert content(staging.find(ALICE, uid)) == b"x" * 100


def test_numbered_chunks_and_jobs_outlive_a_new_journal(staging, monkeypatch):
    monkeypatch.setattr("asyncview.journal.LONG", 200)
    staged = staging.create(ALICE, "upload", 12, chunk_count=3)
    staged.rename("b\u00e4 r.txt")
    for number, data in ((2, b"0123"), (0, b"abcde"), (1, b"xyz")):
        put(staged, number, data)
    for job in ("one", "two", "three"):
        staged.claim(job)
    staged.own("two")
    with staged.locked():
        staged.write("disowned two")
    chunks = staging.find(ALICE, staged.uid).look()
    assert chunks.file_name == "b\u00e4 r.txt"
    assert set(chunks.jobs) == {"one", "three"}
    assert chunks.spent
    assert content(staging.find(ALICE, staged.uid)) == b"abcdexyz0123"


def test_an_upload_that_a_job_has_just_claimed_is_not_removed(staging):
    found = staging.create(ALICE, "x", 0)
    staging.find(ALICE, found.uid).claim("job")
    with pytest.raises(UploadRefused) as caught:
        staging.remove(found)
    assert caught.value.status == 409
    assert content(found) == b""


def test_an_upload_that_is_removed_before_a_job_has_it_is_gone(staging, monkeypatch):
    found = staging.create(ALICE, "x", 1, chunk_count=1)
    put(found, 0, b"x")

    def late(path):
        if os.path.exists(found.folder):
            staging.remove(staging.find(ALICE, found.uid))
        sync(path)

    monkeypatch.setattr("asyncview.staged.sync", late)
    with pytest.raises(UploadNotFound):
        found.claim("job")


def test_the_oldest_upload_gives_way_once_it_is_idle(tmp_path):
    clock = Clock()
    staging = staging_at(tmp_path, clock, max_open=2)
    staging.keep = 2 * IDLE
    whole = staging.create(ALICE, "x", 1, chunk_count=1)
    put(whole, 0, b"x")
    one, two = (staging.create(ALICE, "x", 2, chunk_count=2) for _ in "12")
    clock.now += 1
    put(one, 0, b"x")
    clock.now += IDLE - 2
    with pytest.raises(UploadRefused):
        staging.create(ALICE, "x", 1, chunk_count=1)
    clock.now += 1
    staging.create(ALICE, "x", 1, chunk_count=1)
    with pytest.raises(UploadNotFound):
        put(two, 0, b"x")
    with pytest.raises(UploadRefused):
        staging.create(ALICE, "x", 1, chunk_count=1)
    put(one, 1, b"y")
    assert content(one) == b"xy"
    assert content(whole) == b"x"


def test_no_upload_gives_way_that_somebody_goes_on_with(tmp_path, monkeypatch):
    clock = Clock()
    staging = staging_at(tmp_path, clock, max_open=1)
    staging.keep = 2 * IDLE
    one = staging.create(ALICE, "x", 2, chunk_count=2)
    clock.now += IDLE
    look = Staged.look

    def then_put(staged):
        chunks = look(staged)
        monkeypatch.undo()
        put(one, 0, b"x")
        return chunks

    monkeypatch.setattr(Staged, "look", then_put)
    with pytest.raises(UploadRefused):
        staging.create(ALICE, "x", 1, chunk_count=1)
    put(one, 1, b"y")
    assert content(one) == b"xy"


@pytest.mark.parametrize("failing", ["fsync", "rename"])
def test_a_journal_that_can_not_be_written_anew_goes_on(staging, monkeypatch, failing):
    staged = staging.create(ALICE, "x", 12, chunk_count=3)

    def full(*args):
        raise OSError(errno.ENOSPC, "full")

    before = open_files()
    with monkeypatch.context() as patch:
        patch.setattr("asyncview.journal.LONG", 0)
        patch.setattr(os, failing, full)
        for number, data in ((2, b"0123"), (0, b"abcde"), (1, b"xyz")):
            put(staged, number, data)
    with staging.find(ALICE, staged.uid) as other:
        assert content(other) == b"abcdexyz0123"
    assert "journal.new" not in names(staged)
    staged.close()
    assert open_files() <= before


def test_what_nobody_goes_on_with_keeps_no_file_open(tmp_path):
    clock = Clock()
    staging = staging_at(tmp_path, clock)
    before = open_files()
    empty = staging.create(ALICE, "x", 0)
    keyed = staging.create(ALICE, "x", 1, key="one")
    with staging.find(ALICE, empty.uid) as found:
        assert found.look().complete
    clock.now += 100
    assert staging.find_key(ALICE, "one") is None
    with pytest.raises(UploadExpired):
        staging.find(ALICE, keyed.uid)
    assert open_files() == before


def test_a_line_that_a_crash_cut_off_counts_for_nothing(staging):
    staged = staging.create(ALICE, "x", 4, chunk_count=2)
    put(staged, 0, b"ab")
    with open(os.path.join(staged.folder, "journal"), "ab") as file:
        file.write(b"1000000.0 put")
    assert staging.find(ALICE, staged.uid).look().received == 2
    put(staging.find(ALICE, staged.uid), 1, b"cd")
    assert content(staged) == b"abcd"


# Death and a full disk, in processes of their own

CHILD = """
import sys
from test_upload_staging import *
staging = staging_at(__import__("pathlib").Path(sys.argv[1]))
uid = sys.argv[2]

def say(word):
    print(word, flush=True)
"""


def child(path, uid, code):
    here = os.path.dirname(__file__)
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + code, str(path), uid],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": here, "PYTHONWARNINGS": "ignore"},
        text=True,
    )


def kill_when(process, word):
    try:
        assert process.stdout.readline().strip() == word
    finally:
        process.kill()
        process.wait(PATIENCE)
        process.stdout.close()
        process.stdin.close()


HALF = """
def blocks():
    yield b"ab"
    say("half")
    sys.stdin.read()
"""


@pytest.mark.parametrize("before", [b"", b"wxyz"])
def test_a_chunk_of_a_process_that_is_killed_is_not_there(staging, tmp_path, before):
    staged = staging.create(ALICE, "x", 8, chunk_count=2)
    if before:
        put(staged, 0, before)
    code = HALF + "staging.find(ALICE, uid).put(0, 4, blocks())"
    kill_when(child(tmp_path, staged.uid, code), "half")
    assert staged.look().received == len(before)
    put(staged, 1, b"5678")
    if not before:
        with pytest.raises(UploadIncomplete):
            staged.path()
        put(staged, 0, b"1234")
    assert content(staged) == (before or b"1234") + b"5678"


def test_what_a_killed_process_had_added_to_a_growing_file_is_there(staging, tmp_path):
    staged = staging.create(ALICE, "x", 4)
    code = HALF + "staging.find(ALICE, uid).append(0, 4, blocks())"
    kill_when(child(tmp_path, staged.uid, code), "half")
    assert staged.take_over().size == 2
    staged.append(2, 2, iter([b"cd"]))
    assert content(staged) == b"abcd"


def test_a_lock_dies_with_its_holder(staging, tmp_path):
    staged = staging.create(ALICE, "x", 4, chunk_count=1)
    code = """
with staging.find(ALICE, uid).locked(), staging.locked(staging.folder_of(ALICE)):
    say("locked")
    sys.stdin.read()
"""
    kill_when(child(tmp_path, staged.uid, code), "locked")
    put(staged, 0, b"abcd")
    staging.create(ALICE, "y", 1)
    assert content(staged) == b"abcd"


FULL = """
import resource

def limit(size):
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

def refused(action):
    try:
        action()
    except UploadRefused as error:
        say(error.status)
    else:
        say("taken")
"""


def test_where_the_disk_is_full_the_chunks_are_kept(staging, tmp_path):
    data = some_bytes(100_000)
    chunks = cut(data, 25_000)
    staged = staging.create(ALICE, "x", len(data), chunk_count=4)
    put(staged, 0, chunks[0])
    code = FULL + (
        "staged = staging.find(ALICE, uid)\n"
        "limit(40_000)\n"
        "refused(lambda: put(staged, 1, some_bytes(25_000, 5)))\n"
        "refused(lambda: put(staged, 3, some_bytes(25_000, 5)))\n"
        "refused(lambda: staging.create(ALICE, 'y', 50_000))\n"
    )
    process = child(tmp_path, staged.uid, code)
    out, _ = process.communicate("", PATIENCE)
    assert out.split() == ["507"] * 3
    assert sorted(staged.look().parts) == [0]
    assert len(names(staged)) == 3
    [folder] = folders(staging)
    assert os.listdir(folder) == [staged.uid]
    for number in (1, 2, 3):
        put(staged, number, chunks[number])
    assert content(staged) == data


def test_where_the_disk_is_full_a_file_is_put_in_order_later(staging, tmp_path):
    staged = staging.create(ALICE, "x", 12_000, chunk_count=3)
    whole = some_bytes(12_000)
    chunks = [whole[:5000], whole[5000:8000], whole[8000:]]
    put(staged, 0, chunks[0])
    put(staged, 2, chunks[2])
    with open(tmp_path / "chunk", "wb") as file:
        file.write(chunks[1])
    code = FULL + (
        "staged = staging.find(ALICE, uid)\n"
        "data = open(sys.argv[1] + '/chunk', 'rb').read()\n"
        "limit(6_000)\n"
        "refused(lambda: put(staged, 1, data))\n"
    )
    out, _ = child(tmp_path, staged.uid, code).communicate("", PATIENCE)
    assert out.split() == ["507"]
    with suppress(UploadIncomplete):
        assert content(staged) == whole
    if not staged.look().complete:
        put(staged, 1, chunks[1])
    assert content(staged) == whole
    assert len(names(staged)) == 3


# A power cut


def restart(monkeypatch):
    monkeypatch.setattr("asyncview.journal.running", lambda: ("here", "another"))


@pytest.fixture
def running(monkeypatch):
    monkeypatch.setattr("asyncview.journal.running", lambda: ("here", "one"))


@pytest.mark.usefixtures("running")
def test_what_was_not_synced_before_a_power_cut_is_sent_again(staging, monkeypatch):
    numbered = staging.create(ALICE, "x", 4, chunk_count=2)
    put(numbered, 0, b"ab")
    growing = staging.create(ALICE, "x", 4)
    growing.append(0, 2, iter([b"ab"]))
    whole = staging.create(ALICE, "x", 2)
    whole.append(0, 2, iter([b"ab"]))
    empty = staging.create(ALICE, "x", 0)
    restart(monkeypatch)
    for staged in (numbered, growing, whole):
        assert staging.find(ALICE, staged.uid).look().received == 0
        with pytest.raises(UploadIncomplete):
            staged.path()
    assert content(empty) == b""
    put(numbered, 0, b"ab")
    put(numbered, 1, b"cd")
    assert content(numbered) == b"abcd"
    growing.append(0, 4, iter([b"abcd"]))
    assert content(growing) == b"abcd"


@pytest.mark.usefixtures("running")
def test_what_a_job_has_outlives_a_power_cut(staging, monkeypatch):
    staged = staging.create(ALICE, "x", 4, chunk_count=2)
    put(staged, 0, b"ab")
    put(staged, 1, b"cd")
    staged.claim("job")
    strange = staging.create(ALICE, "x", 12, chunk_count=3)
    for number, data in ((1, b"xyz"), (0, b"abcde"), (2, b"0123")):
        put(strange, number, data)
    restart(monkeypatch)
    assert content(staging.find(ALICE, staged.uid)) == b"abcd"
    assert strange.look().whole == "folded"
    assert content(strange) == b"abcdexyz0123"


@pytest.mark.usefixtures("running")
def test_another_machine_that_starts_is_no_power_cut(staging, monkeypatch):
    staged = staging.create(ALICE, "x", 4, chunk_count=2)
    put(staged, 0, b"ab")
    monkeypatch.setattr("asyncview.journal.running", lambda: ("there", "another"))
    put(staged, 1, b"cd")
    assert content(staged) == b"abcd"


# Trouble with the journal, and while a file is put in order


def test_a_file_that_could_not_be_put_in_order_is_later(staging, monkeypatch):
    strange = staging.create(ALICE, "x", 12, chunk_count=3)
    put(strange, 1, b"xyz")
    put(strange, 0, b"abcde")

    def full(*arguments):
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr("asyncview.folding.copy", full)
        with pytest.raises(UploadRefused) as caught:
            put(strange, 2, b"0123")
        assert caught.value.status == 507
        with pytest.raises(UploadRefused):
            strange.path()
    assert "folded" not in names(strange)
    assert content(staging.find(ALICE, strange.uid)) == b"abcdexyz0123"
    assert names(strange) == ["folded", "journal", "manifest"]


def test_a_chunk_that_is_not_written_down_is_not_there(staging, monkeypatch):
    staged = staging.create(ALICE, "x", 4, chunk_count=2)
    put(staged, 0, b"ab")
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr("os.write", lambda file, data: write(file, data[:10]))
        with pytest.raises(OSError, match="whole"):
            put(staged, 1, b"cd")
    assert sorted(staging.find(ALICE, staged.uid).look().parts) == [0]
    put(staged, 1, b"cd")
    assert content(staged) == b"abcd"


def test_a_machine_says_since_when_it_runs(monkeypatch):
    machine, boot = running_now()
    assert " " not in machine + boot
    monkeypatch.setattr("asyncview.journal.BOOT", "/nosuch")
    assert running_now() == (machine, "-")


def running_now():
    return journal.running.__wrapped__()
