"""The records: plain values, guarded changes, tombstones, versions that only grow."""

import io
import pickle
import subprocess
import sys
import textwrap
import time

import pytest
import zodbpickle.fastpickle
from persistent.mapping import PersistentMapping
from ZODB.FileStorage import FileStorage
from ZODB.utils import p64

from asyncview import BaseAsyncView
from asyncview import InvalidTransition
from asyncview import ThreadDiedBeforeCompletionError
from asyncview.exceptions import Fenced
from asyncview.failure import Failure
from asyncview.job import CANCELLED
from asyncview.job import COMPLETED
from asyncview.job import FAILED
from asyncview.job import QUEUED
from asyncview.job import RUNNING
from asyncview.job import State
from asyncview.outcome import Outcome
from asyncview.progress import NOTHING
from asyncview.progress import Progress
from asyncview.progress import Snapshot
from asyncview.progress import packed
from asyncview.progress import percentage
from asyncview.progress import unpacked
from asyncview.request import StoredRequest
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.store import transact

PLAIN = (str, int, float, bool, type(None), bytes)


class Text(str):
    """What applications hand over: a text that is no plain one."""


class Talkative(BaseAsyncView):
    """Says all that a job can say."""

    label = Text("Label")
    tags = (Text("one"), Text("two"))
    success_msg = Text("Well done")
    error_msg = Text("Badly done")
    success_url = Text("/there")
    keep_request = True
    restartable = True
    tasks = {Text("a"): Text("A")}  # noqa: RUF012

    def __run__(self, process_id=None):
        self.label = Text("Another label")
        self.log.info("a line of the log")
        self.progress.update(3, 10, Text("a message"))
        self.request.response.headers["X-Own"] = Text("own")
        if "fail" in self.request.params:
            raise Unpicklable(object())
        if "big" in self.request.params:
            return b"b" * 70_000
        return "x" * int(self.request.params.get("size", 10))

    def on_end(self, status):
        pass


class Unpicklable(Exception):
    """One that no other process could load."""

    def __init__(self, required):
        super().__init__(required)
        self.lock = io.StringIO()


def talk(config):
    config.add_async_view(Talkative, "talk")


def records_of(path):
    """The pickles of every record ever written to a FileStorage."""
    storage = FileStorage(path, read_only=True)
    try:
        for transaction in storage.iterator():
            for record in transaction:
                if record.data:
                    yield record.data
    finally:
        storage.close()


def classes_and_values(data):
    """The classes that a record names, and the values of its state."""
    classes = set()

    class Reader(zodbpickle.fastpickle.Unpickler):
        def find_class(self, module, name):
            classes.add((module, name))
            return type(name, (), {"__setstate__": lambda self, state: None})

        def persistent_load(self, reference):
            return None

    reader = Reader(io.BytesIO(data))
    reader.load()
    return classes, reader.load()


def plain(value):
    """Raises where a value is, or holds, anything but plain values."""
    if isinstance(value, tuple):
        assert type(value) is tuple
        for each in value:
            plain(each)
    elif isinstance(value, dict):
        for each in value.items():
            plain(each)
    else:
        assert type(value) in PLAIN, value


# WebOb leaves its copies of big bodies to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_records_of_real_jobs_hold_plain_values_and_name_no_class_of_others(
    make_site, tmp_path
):
    site = make_site(talk)
    for params in ("", "big=1", "fail=1", "size=3000", f"filler={'f' * 70_000}"):
        assert site.run("/talk", params)["status"] in (COMPLETED, FAILED)
    site.engine.close(5)
    seen = set()
    for data in records_of(str(tmp_path / "Data.fs")):
        classes, state = classes_and_values(data)
        seen |= classes
        for module, _name in classes:
            assert module.split(".")[0] in ("asyncview", "BTrees", "persistent", "ZODB")
        if any(module.startswith("asyncview.") for module, _ in classes):
            plain(state)
    names = {f"{module}.{name}" for module, name in seen}
    assert {
        "asyncview.job.Job",
        "asyncview.job.State",
        "asyncview.request.StoredRequest",
        "asyncview.outcome.Content",
        "asyncview.progress.Progress",
        "asyncview.shard.Shard",
        "ZODB.blob.Blob",
    } <= names


def test_every_record_type_has_a_version_number(make_site, tmp_path):
    site = make_site(talk)
    site.run("/talk")
    site.engine.close(5)
    for data in records_of(str(tmp_path / "Data.fs")):
        classes, state = classes_and_values(data)
        name = next(iter(classes))[1] if len(classes) == 1 else ""
        if name in ("Job", "State", "StoredRequest", "Progress", "Shard", "Store"):
            assert state[0] == 1, name


def test_records_are_read_by_a_process_without_the_application(make_site, tmp_path):
    site = make_site(talk)
    good = site.run("/talk")["process_id"]
    bad = site.run("/talk", "fail=1")["process_id"]
    site.engine.close(5)
    site.db.close()
    script = f"""
        import sys
        from ZODB.FileStorage import FileStorage
        from ZODB.DB import DB
        from asyncview.store import store_of
        db = DB(FileStorage({str(tmp_path / "Data.fs")!r}, read_only=True))
        with db.transaction() as connection:
            for id in {(good, bad)!r}:
                job = store_of(connection, "tests").find(id).job
                failure = job.state.failure
                print(job.state.status, job.term("label"), failure and failure.type)
        assert "test_records" not in sys.modules
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.splitlines() == [
        "completed Another label None",
        "failed Another label Unpicklable",
    ]


def test_exception_is_kept_as_text(make_site):
    site = make_site(talk)
    process_id = site.run("/talk", "fail=1")["process_id"]
    with reading(site.db) as connection:
        failure = store_of(connection, "tests").find(process_id).job.state.failure
        assert failure.type == "Unpicklable"
        assert "raise Unpicklable" in failure.traceback
        assert (failure.reason, len(failure.id)) == ("exception", 8)
    error = ThreadDiedBeforeCompletionError("id", "exception", "Type", "message")
    assert pickle.loads(pickle.dumps(error)).type == "Type"


# Transitions

OUTCOME = Outcome("200 OK", (), b"body", 4)
FAILURE = Failure("exception", "id")

CHANGES = {
    "claim": lambda state: state.claim("worker", "token", 1.0),
    "claim ahead": lambda state: state.claim("worker", "token", None),
    "give back": lambda state: state.give_back(),
    "complete": lambda state: state.complete(OUTCOME, NOTHING, 2.0),
    "fail": lambda state: state.fail(FAILURE, NOTHING, 2.0),
    "cancel": lambda state: state.cancel(NOTHING, 2.0),
    "requeue": lambda state: state.requeue(NOTHING),
    "delete": lambda state: state.delete(),
}

#: Running, but it is not known whether its turn has come.
AHEAD = "ahead"

#: How a state gets to where it is, and what may be done there.
PATHS = {
    QUEUED: ((), {"claim", "claim ahead", "fail", "cancel"}),
    RUNNING: (("claim",), {"complete", "fail", "cancel", "requeue"}),
    AHEAD: (("claim ahead",), {"complete", "fail", "cancel", "requeue", "give back"}),
    COMPLETED: (("claim", "complete"), {"delete"}),
    FAILED: (("claim", "fail"), {"delete"}),
    CANCELLED: (("claim", "cancel"), {"delete"}),
    "deleted": (("claim", "complete", "delete"), set()),
}


def state_at(name):
    state = State(StoredRequest({}, b"", 0, None))
    for change in PATHS[name][0]:
        CHANGES[change](state)
    return state


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("change", CHANGES)
def test_only_legal_transitions_change_a_state(name, change):
    state = state_at(name)
    before = state.__getstate__()
    if change in PATHS[name][1]:
        CHANGES[change](state)
        assert state.version > before[2]
    else:
        with pytest.raises(InvalidTransition) as caught:
            CHANGES[change](state)
        assert caught.value.current == (RUNNING if name == AHEAD else name)
        assert state.__getstate__() == before


def test_what_was_given_back_is_as_it_was_before_but_for_its_version():
    state = state_at(AHEAD)
    state.give_back("mark")
    before = state_at(QUEUED)
    assert (state.attempt, state.restarts, state.worker) == (0, 0, None)
    assert (state.token, before.token) == ("mark", None)
    assert state.version == before.version + 2


def test_end_says_when_a_job_began_that_was_claimed_ahead():
    state = state_at(AHEAD)
    state.complete(OUTCOME, NOTHING._replace(started=1.5), 2.0)
    assert (state.started, state.finished) == (1.5, 2.0)
    assert state.progress == NOTHING
    # A claim knows better.
    state = state_at(RUNNING)
    state.complete(OUTCOME, NOTHING._replace(started=1.5), 2.0)
    assert state.started == 1.0


def test_invalid_transition_is_a_value_error_that_tells_both_states():
    with pytest.raises(ValueError, match="that is completed can't become running"):
        state_at(COMPLETED).claim("worker", "token", 1.0)


@pytest.mark.parametrize("name", set(PATHS) - {RUNNING, AHEAD})
def test_claim_is_refused_where_the_job_does_not_run(name):
    with pytest.raises(Fenced):
        state_at(name).check("token")


def test_claim_is_refused_with_another_token():
    state = state_at(RUNNING)
    state.check("token")
    with pytest.raises(Fenced):
        state.check("another token")


def test_second_of_two_workers_is_refused(make_site, gate):
    class Waits(BaseAsyncView):
        def __run__(self, process_id=None):
            assert gate.wait(30)

    site = make_site(lambda config: config.add_async_view(Waits, "waits"))
    process_id = site.start("/waits")
    with reading(site.db) as connection:
        state = store_of(connection, "tests").find(process_id).job.state
        oid = state._p_oid
    while site.status("/waits", process_id)["status"] != RUNNING:
        pass

    def claim(connection):
        connection.get(oid).claim("another", "token", 1.0)

    with pytest.raises(InvalidTransition):
        transact(site.db, claim)


def test_each_claim_has_a_token_of_its_own(make_site):
    site = make_site(talk)
    before = time.time()
    claims = [state_of(site, site.run("/talk")["process_id"]) for _ in range(20)]
    assert {state.worker for state in claims} == {site.engine.runner.worker}
    assert len({state.token for state in claims}) == 20
    assert all(before <= state.started <= time.time() for state in claims)


def state_of(site, process_id):
    with reading(site.db) as connection:
        state = store_of(connection, "tests").find(process_id).job.state
        state._p_activate()
        return state


def test_end_is_in_the_transaction_of_the_work(make_site):
    class Working(BaseAsyncView):
        def __run__(self):
            self.context.data["work"] = PersistentMapping()
            if "big" in self.request.params:
                return b"b" * 70_000

    site = make_site(lambda config: config.add_async_view(Working, "working"))
    for params in ("", "big=1"):
        process_id = site.run("/working", params)["process_id"]
        with reading(site.db) as connection:
            work = connection.root()["work"]
            state = store_of(connection, "tests").find(process_id).job.state
            for record in (work, state):
                record._p_activate()
            assert work._p_serial == state._p_serial > p64(0)


def test_each_process_is_another_worker(make_site):
    """Also where two have the same pid, host and time."""
    sites = [make_site(talk, storage=f"memory://{number}") for number in range(5)]
    assert len({site.engine.runner.worker for site in sites}) == 5


def test_tombstone_holds_nothing_of_what_the_job_said(make_site):
    site = make_site(talk)
    process_id = site.run("/talk", "size=5000")["process_id"]

    def delete(connection):
        state = store_of(connection, "tests").find(process_id).job.state
        state.delete()
        assert store_of(connection, "tests").find(process_id) is None
        return state

    state = transact(site.db, delete)
    assert state.deleted
    assert (state.outcome, state.request, state.failure) == (None, None, None)
    assert (state.flashes, state.changed, state.progress) == ((), {}, NOTHING)


def test_late_writer_conflicts_with_the_tombstone(make_site):
    """A write to a deleted record would succeed into nowhere."""
    from transaction import TransactionManager
    from ZODB.POSException import ReadConflictError

    site = make_site(talk)
    process_id = site.run("/talk")["process_id"]
    tm = TransactionManager(explicit=True)
    connection = site.db.open(tm)
    tm.begin()
    state = store_of(connection, "tests").find(process_id).job.state
    connection.readCurrent(state)
    connection.root()["late"] = 1

    transact(
        site.db,
        lambda other: store_of(other, "tests").find(process_id).job.state.delete(),
    )
    with pytest.raises(ReadConflictError):
        tm.commit()
    tm.abort()
    connection.close()


def test_version_of_the_document_grows_over_claim_progress_cancel_and_requeue():
    state = state_at(QUEUED)
    seen = [state.version]

    def shown(snapshot=NOTHING, cancel=False):
        seen.append(state.version + snapshot.version + cancel)

    state.claim("worker", "token", 1.0)
    shown()
    last = Snapshot(version=7)
    shown(last)
    state.requeue(last)
    shown()
    state.claim("worker", "token", 2.0)
    shown()
    last = Snapshot(version=3)
    shown(last)
    shown(last, cancel=True)
    state.cancel(last, 3.0)
    shown()
    state.delete()
    shown()
    assert seen == sorted(set(seen))


# Progress


def test_progress_record_keeps_its_snapshot():
    snapshot = Snapshot(3, 1_700_000_000.1, 4, 10, "text", 2, 50.0, True, ("line",))
    progress = Progress()
    progress.snapshot = snapshot
    copy = Progress()
    copy.__setstate__(progress.__getstate__())
    assert copy.snapshot == snapshot


@pytest.mark.parametrize(
    "snapshot",
    [
        NOTHING,
        Snapshot(1),
        Snapshot(1, 2.5),
        Snapshot(1, 2.5, 0, 0),
        Snapshot(log=("",)),
        Snapshot(1, 2.5, 3, since=1_700_000_000.1),
        Snapshot(1, 2.5, 3, since=1.5, base=2),
    ],
)
def test_snapshot_is_packed_without_loss(snapshot):
    assert unpacked(packed(snapshot)) == snapshot


def test_packed_snapshot_has_no_defaults_at_its_end():
    assert packed(NOTHING) == ()
    assert packed(Snapshot(1, 2.5, 3)) == (1, 25, 3)


def test_snapshot_of_a_record_before_counts_had_a_begin_is_read():
    kept = (1, 25, 3, 10, "text", 2, 50.0, True, ("line",), (), 1.5)
    snapshot = unpacked(kept)
    assert (snapshot.current, snapshot.started) == (3, 1.5)
    assert (snapshot.since, snapshot.base) == (None, 0)
    assert packed(snapshot) == kept


@pytest.mark.parametrize(
    ("current", "total", "percent"),
    [
        (0, 100, 0.0),
        (1, 3, 33.3),
        (0.45, 1, 45.0),
        (150, 100, 100.0),
        (-5, 100, 0.0),
        (5, 0, None),
        (5, -10, None),
        (5, None, None),
        (None, 10, None),
        (1e308, 1e-300, 100.0),
    ],
)
def test_percentage_has_one_decimal_and_stays_in_bounds(current, total, percent):
    assert percentage(current, total) == percent


def test_reading_never_made_a_record(make_site):
    site = make_site(talk)
    process_id = site.run("/talk")["process_id"]
    site.engine.close(5)
    before = site.db.lastTransaction()
    for name in ("completed", "processing", "result", "events"):
        site.app.get(f"/talk/{name}?process_id={process_id}")
    assert site.db.lastTransaction() == before > p64(0)
