"""The registry: unrelated jobs never conflict, and what is written stays small."""

import os
import threading
from contextlib import suppress

import pytest
from transaction import TransactionManager
from transaction.interfaces import NoTransaction
from ZODB.DB import DB
from ZODB.FileStorage import FileStorage
from ZODB.POSException import ConflictError

from asyncview import BaseAsyncView
from asyncview.dispatch import Ids
from asyncview.job import Job
from asyncview.job import new_id
from asyncview.outcome import Outcome
from asyncview.progress import NOTHING
from asyncview.request import StoredRequest
from asyncview.shard import SHARDS
from asyncview.shard import shard_of
from asyncview.store import prepare
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.store import transact


@pytest.fixture
def db(tmp_path):
    db = DB(FileStorage(str(tmp_path / "Data.fs")))
    prepare(db, "tests")
    yield db
    db.close()


def make_job(id=None, **terms):
    return Job(
        id or new_id(),
        view="/view",
        context=None,
        owner=None,
        visitor=None,
        created=1.0,
        terms=terms,
        request=StoredRequest({}, b"", 0, None),
    )


def ids_of_one_shard(count, shard=7):
    found = []
    while len(found) < count:
        id = new_id()
        if shard_of(id) == shard:
            found.append(id)
    return found


class Both:
    """Two connections with one snapshot; both change, then both commit."""

    def __init__(self, db):
        self.db = db

    def __call__(self, first, second):
        managers = [TransactionManager(explicit=True) for _ in range(2)]
        connections = [self.db.open(tm) for tm in managers]
        try:
            for tm in managers:
                tm.begin()
            for connection, change in zip(connections, (first, second), strict=True):
                change(store_of(connection, "tests"))
            for tm in managers:
                tm.commit()
        finally:
            for tm, connection in zip(managers, connections, strict=True):
                with suppress(NoTransaction):
                    tm.abort()
                connection.close()


@pytest.fixture
def both(db):
    return Both(db)


def stored(db, *ids, **kw):
    """Jobs that are there already."""

    def add(connection):
        for id in ids:
            store_of(connection, "tests").add(make_job(id), **kw)

    transact(db, add)


def unfinished(db):
    with reading(db) as connection:
        store = store_of(connection, "tests")
        return {id: entry.cancel for id, entry in store.items()}


def end(store, id):
    state = store.find(id).job.state
    state.claim("worker", "token", 1.0)
    state.complete(Outcome("200 OK", (), b"", 0), NOTHING, 2.0)


def file(id):
    return lambda store: store.file(id, lambda job: 10.0)


# Two who write one shard


def test_two_additions_to_one_shard_are_both_kept(db, both):
    first, second = ids_of_one_shard(2)
    both(
        lambda store: store.add(make_job(first)),
        lambda store: store.add(make_job(second)),
    )
    assert set(unfinished(db)) == {first, second}


def test_addition_and_removal_in_one_shard_are_both_kept(db, both):
    gone, new = ids_of_one_shard(2)
    stored(db, gone)
    both(lambda store: store.drop(gone), lambda store: store.add(make_job(new)))
    assert set(unfinished(db)) == {new}
    stored(db, gone)
    both(lambda store: store.drop(new), lambda store: store.drop(gone))
    assert not unfinished(db)


def test_one_job_removed_twice_is_no_conflict(db, both):
    gone, stays = ids_of_one_shard(2)
    stored(db, gone, stays)
    both(lambda store: store.drop(gone), lambda store: store.drop(gone))
    assert set(unfinished(db)) == {stays}


def test_wish_to_cancel_outlives_what_others_do_to_its_shard(db, both):
    asked, gone, new = ids_of_one_shard(3)
    stored(db, asked, gone)
    both(
        lambda store: store.ask_cancel(asked),
        lambda store: (store.add(make_job(new)), store.drop(gone)),
    )
    assert unfinished(db) == {asked: True, new: False}


def test_wish_to_cancel_counts_whoever_commits_first(db, both):
    asked, other = ids_of_one_shard(2)
    stored(db, asked, other)
    both(lambda store: store.ask_cancel(other), lambda store: store.ask_cancel(asked))
    assert unfinished(db) == {asked: True, other: True}


def test_wish_to_cancel_comes_too_late_for_a_job_that_is_filed(db, both):
    asked, other = ids_of_one_shard(2)
    stored(db, asked, other)
    both(lambda store: store.drop(asked), lambda store: store.ask_cancel(asked))
    assert unfinished(db) == {other: False}


def running(db, id):
    """Store a job that runs; gives what a store is told for its progress."""
    stored(db, id)
    transact(
        db,
        lambda connection: (
            store_of(connection, "tests")
            .find(id)
            .job.state.claim("worker", "token", 1.0)
        ),
    )

    def say(store):
        store.find(id).progress.snapshot = NOTHING._replace(version=1)

    return say


def test_wish_to_cancel_meets_progress_and_the_end_without_a_conflict(db, both):
    (id,) = ids_of_one_shard(1)
    say = running(db, id)
    both(say, lambda store: store.ask_cancel(id))
    both(
        lambda store: store.find(id).job.state.cancel(NOTHING, 2.0),
        lambda store: store.shard(id).put(id, store.find(id)._replace(key="k")),
    )
    assert unfinished(db) == {id: True}


def test_progress_and_the_end_of_a_job_do_not_meet(db, both):
    (id,) = ids_of_one_shard(1)
    say = running(db, id)
    both(say, lambda store: store.find(id).job.state.cancel(NOTHING, 2.0))
    with reading(db) as connection:
        assert store_of(connection, "tests").find(id).snapshot == NOTHING


def test_two_jobs_with_one_exclusive_key_are_a_conflict(db, both):
    first, second = ids_of_one_shard(2)
    with pytest.raises(ConflictError):
        both(
            lambda store: store.add(make_job(first), "key"),
            lambda store: store.add(make_job(second), "key"),
        )
    assert set(unfinished(db)) == {first}


def test_jobs_with_other_exclusive_keys_are_none(db, both):
    first, second = ids_of_one_shard(2)
    both(
        lambda store: store.add(make_job(first), "key"),
        lambda store: store.add(make_job(second), "another"),
    )
    assert set(unfinished(db)) == {first, second}


def test_one_id_added_twice_is_a_conflict(db, both):
    (id,) = ids_of_one_shard(1)
    with pytest.raises(ConflictError):
        both(
            lambda store: store.add(make_job(id)), lambda store: store.add(make_job(id))
        )


def test_exclusive_key_is_kept_by_a_merge(db, both):
    key = "key"
    ids = Ids()
    mine, other = ids.pick_beside(key), ids.pick_beside(key)
    assert shard_of(mine) == shard_of(key)
    both(
        lambda store: store.add(make_job(mine), key),
        lambda store: store.add(make_job(other)),
    )
    with reading(db) as connection:
        assert store_of(connection, "tests").holder(key).job.id == mine
    transact(db, lambda connection: end(store_of(connection, "tests"), mine))
    with reading(db) as connection:
        assert store_of(connection, "tests").holder(key) is None


def test_key_that_was_freed_and_a_wish_to_cancel_are_both_kept(db, both):
    key = "key"
    id = Ids().pick_beside(key)
    stored(db, id, key=key)
    transact(db, lambda connection: end(store_of(connection, "tests"), id))
    for first, second in (("free", "cancel"), ("cancel", "free")):
        changes = {
            "free": lambda store: store.free(key),
            "cancel": lambda store: store.ask_cancel(id),
        }
        both(changes[first], changes[second])
        with reading(db) as connection:
            entry = store_of(connection, "tests").find(id)
            assert (entry.key, entry.cancel) == (None, True)
        transact(
            db,
            lambda connection: (
                store_of(connection, "tests")
                .shard(id)
                .put(id, entry_of(connection, id)._replace(key=key, cancel=False))
            ),
        )


def entry_of(connection, id):
    return store_of(connection, "tests").find(id)


def test_of_two_claims_one_conflicts(db, both):
    (id,) = ids_of_one_shard(1)
    stored(db, id)
    with pytest.raises(ConflictError):
        both(
            lambda store: store.find(id).job.state.claim("one", "token 1", 1.0),
            lambda store: store.find(id).job.state.claim("two", "token 2", 1.0),
        )


def test_requeued_job_stays_where_it_is_while_others_come_and_go(db, both):
    id, other = ids_of_one_shard(2)
    stored(db, id)
    transact(
        db,
        lambda connection: (
            store_of(connection, "tests")
            .find(id)
            .job.state.claim("worker", "token", 1.0)
        ),
    )
    both(
        lambda store: store.find(id).job.state.requeue(NOTHING),
        lambda store: store.add(make_job(other)),
    )
    with reading(db) as connection:
        store = store_of(connection, "tests")
        assert store.find(id).job.state.status == "queued"
        assert store.find(id).progress is None
        assert store.crowd() == 2


# Where a job is found


def test_ended_job_is_found_before_and_after_it_is_filed(db):
    (id,) = ids_of_one_shard(1)
    stored(db, id)
    transact(db, lambda connection: end(store_of(connection, "tests"), id))
    for _ in range(2):
        with reading(db) as connection:
            store = store_of(connection, "tests")
            assert store.find(id).job.state.status == "completed"
        transact(db, lambda connection: file(id)(store_of(connection, "tests")))
    with reading(db) as connection:
        store = store_of(connection, "tests")
        assert (store.crowd(), list(store.expiry)) == (0, [(10, id)])


def test_job_that_has_not_ended_is_not_filed(db):
    (id,) = ids_of_one_shard(1)
    stored(db, id)
    transact(db, lambda connection: file(id)(store_of(connection, "tests")))
    assert set(unfinished(db)) == {id}


def test_deleted_job_is_found_nowhere(db):
    first, second = ids_of_one_shard(2)
    stored(db, first, second)

    def bury(connection):
        store = store_of(connection, "tests")
        end(store, first)
        end(store, second)
        file(second)(store)
        for id in (first, second):
            store.find(id).job.state.delete()
            assert store.find(id) is None
            file(id)(store)

    transact(db, bury)
    with reading(db) as connection:
        store = store_of(connection, "tests")
        assert (store.crowd(), len(store.finished)) == (0, 0)


def test_expired_jobs_are_told_without_loading_one(db):
    ids = [new_id() for _ in range(30)]
    stored(db, *ids)

    def fill(connection):
        store = store_of(connection, "tests")
        for number, id in enumerate(ids):
            end(store, id)
            store.file(id, lambda job, number=number: 100.0 + number)

    transact(db, fill)
    with reading(db) as connection:
        store = store_of(connection, "tests")
        db.cacheMinimize()
        assert [id for _, id in store.expired(110, 5)] == ids[:5]
        assert [id for _, id in store.expired(110)] == ids[:10]
        assert store.expired(99) == []
        names = {type(each).__name__ for each in loaded(connection)}
        assert not names & {"Job", "State"}


def loaded(connection):
    """The objects whose state a connection holds."""
    return [
        each for _, each in connection._cache.lru_items() if each._p_changed is not None
    ]


def test_tree_nodes_stay_small_whatever_is_kept(db, tmp_path):
    def fill(connection):
        store = store_of(connection, "tests")
        for number in range(2000):
            id = new_id()
            store.add(make_job(id))
            end(store, id)
            store.file(id, lambda job, number=number: 100.0 + number)

    transact(db, fill)
    sizes = [
        len(record.data)
        for transaction in db.storage.iterator()
        for record in transaction
        if b"SmallTree" in record.data or b"SmallSet" in record.data
    ]
    assert len(sizes) > 100
    assert max(sizes) < 3000


# The registry


def test_registry_is_made_once(db):
    before = db.lastTransaction()
    prepare(db, "tests")
    assert db.lastTransaction() == before


def test_names_have_registries_of_their_own(db):
    prepare(db, "other")
    stored(db, new_id())
    with reading(db) as connection:
        assert store_of(connection, "other").crowd() == 0
        assert store_of(connection, "tests").crowd() == 1
        assert store_of(connection, "nobody") is None


def test_registries_made_at_once_by_many_are_one(tmp_path):
    db = DB(FileStorage(str(tmp_path / "Other.fs")))
    barrier = threading.Barrier(4)

    def make():
        barrier.wait(30)
        prepare(db, "tests")

    in_threads(make, 4)
    with reading(db) as connection:
        assert store_of(connection, "tests").crowd() == 0
    db.close()


def in_threads(function, count, *arguments):
    """Run it in so many threads; raise what one of them raised."""
    errors = []

    def run(*arguments):
        try:
            function(*arguments)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=arguments) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]


def test_transact_gives_up_after_so_many_tries_and_raises_the_conflict(db):
    tries, pauses = [], []

    def change(connection):
        tries.append(1)
        raise ConflictError("always")

    with pytest.raises(ConflictError, match="always"):
        transact(db, change, tries=4, sleep=pauses.append)
    assert len(tries) == 4
    assert len(pauses) == 3
    assert all(0 <= pause <= 0.25 for pause in pauses)


def test_transact_does_not_repeat_what_is_no_conflict(db):
    tries = []

    def change(connection):
        tries.append(1)
        connection.root()["half"] = 1
        raise KeyError("half")

    with pytest.raises(KeyError):
        transact(db, change)
    assert len(tries) == 1
    with reading(db) as connection:
        assert "half" not in connection.root()


def test_connections_are_closed_whatever_happens(db):
    with pytest.raises(KeyError), reading(db):
        raise KeyError
    with pytest.raises(KeyError):
        transact(db, lambda connection: {}["nothing"])
    assert all(each["opened"] is None for each in db.connectionDebugInfo())


# Ids


def test_ids_do_not_share_a_shard_with_an_open_transaction():
    ids = Ids()
    began = ids.begin()
    picked = [ids.pick(began) for _ in range(SHARDS)]
    assert {shard_of(id) for id in picked} == set(range(SHARDS))


def test_shard_that_was_freed_after_a_transaction_began_is_not_for_it():
    ids = Ids()
    early = ids.begin()
    *_others, freed = [ids.pick(early) for _ in range(SHARDS - 1)]
    ids.release(freed)
    # Two shards are free now: the one that never was in use, and that one.
    assert shard_of(ids.pick(early)) != shard_of(freed)
    assert shard_of(ids.pick(ids.begin())) == shard_of(freed)


def test_pulse_takes_only_shards_that_nobody_writes():
    ids = Ids()
    id = ids.pick(ids.begin())
    free = new_id()
    while shard_of(free) == shard_of(id):
        free = new_id()
    with ids.using([id, free]) as taken:
        assert taken == [free]
        assert shard_of(ids.pick(ids.begin())) != shard_of(free)
    ids.release(id)
    with ids.using([id]) as taken:
        assert taken == [id]


class Quick(BaseAsyncView):
    def __run__(self, process_id=None):
        self.progress.update(1, 2)
        return "done"


def add_quick(config):
    config.add_async_view(Quick, "quick")


def test_posts_do_not_fail_on_a_storage_that_merges_nothing(make_site):
    site = make_site(add_quick, storage="memory://", asyncview__threads=2)
    left = list(range(40))
    started = []

    def post():
        app = site.browser()
        while left:
            try:
                left.pop()
            except IndexError:
                return
            started.append(site.start("/quick", app=app))

    in_threads(post, 8)
    assert len(set(started)) == 40
    for process_id in started:
        site.wait(process_id)
        assert site.status("/quick", process_id)["status"] == "completed"


# Bytes


@pytest.mark.parametrize("stored", [0, 1000])
def test_job_that_does_nothing_appends_little_whatever_is_stored(
    make_site, tmp_path, stored
):
    """POST with 1 kB of body, claim, end, and its move to the finished ones."""
    # By hand, or the pulse's turn would be measured now and then, or not.
    site = make_site(add_quick).by_hand()
    pulse = site.engine.pulse
    site.run("/quick")
    pulse.beat()

    def fill(connection):
        store = store_of(connection, "tests")
        for number in range(stored):
            id = new_id()
            store.add(make_job(id))
            end(store, id)
            store.file(id, lambda job, number=number: 100.0 + number)

    if stored:
        transact(site.db, fill)
    count = 60
    before = os.path.getsize(tmp_path / "Data.fs")
    for _ in range(count):
        process_id = site.start("/quick", "b" * 1000)
        site.wait(process_id)
        pulse.beat()
    appended = (os.path.getsize(tmp_path / "Data.fs") - before) / count
    with reading(site.db) as connection:
        store = store_of(connection, "tests")
        assert (store.crowd(), len(store.finished)) == (0, stored + count + 1)
    assert appended < 4096
