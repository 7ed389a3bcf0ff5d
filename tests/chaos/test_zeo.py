"""Several servers on one ZEO, and its server killed too."""

import signal
import threading
from pathlib import Path

import pytest
from BTrees.Length import Length
from conftest import PATIENCE
from conftest import root_of
from persistent.mapping import PersistentMapping
from transaction import TransactionManager
from ZEO.ClientStorage import ClientStorage
from ZODB.blob import Blob
from ZODB.DB import DB
from ZODB.POSException import ConflictError
from ZODB.POSException import POSKeyError

from asyncview import BaseAsyncView
from asyncview.zeo import Oids
from asyncview.zeo import cure
from chaos.clients import Clients
from chaos.freezing import LEASE
from chaos.freezing import freeze_and_thaw
from chaos.oracle import counters
from chaos.oracle import judge
from chaos.rampage import Rampage
from chaos.rampage import quiet
from chaos.servers import wait_until
from chaos.turns import frozen_in_turn

#: Jobs in the middle of which a server is frozen.
FROZEN = 10

#: More than a ZEO server hands out at a time.
MANY = 150


def storm(world, processes, threads, jobs, patience=60.0):
    """Jobs of all processes increment what they share; gives the verdict.

    No POST is tried a second time.
    """
    servers = [
        world.start(asyncview__threads=threads, chaos__once="yes").ready()
        for _ in range(processes)
    ]
    turns = iter(range(10**9))
    clients = Clients(
        lambda: servers[next(turns) % processes],
        number=2 * processes,
        limit=jobs,
        kinds={"plain": 1},
        counters=1,
    )
    clients.join(patience)
    left = quiet(world, servers, patience)
    verdict = judge(world, clients)
    verdict.expect(left is None, f"after {patience} s there are still {left}")
    verdict.refused = clients.refused
    verdict.expect(not clients.refused, f"starts were refused: {clients.refused}")
    done = verdict.numbers["completed"]
    verdict.expect(done == jobs, f"{done} of {jobs} are completed")
    found = counters(world)
    verdict.expect(found == jobs, f"the counters say {found}, not {jobs}")
    return verdict


def test_nothing_is_lost_when_servers_and_zeo_are_killed(make_world, zeo, long, report):
    # One thread each, so that there is something to claim ahead.
    world = make_world(zeo.uri, asyncview__lease=LEASE, asyncview__threads=1)
    rounds, zeo_every = (520, 12) if long else (6, 3)
    verdict = report(Rampage(world, 3, zeo, zeo_every).run(rounds).settle())
    assert not verdict.wrong
    assert verdict.numbers["kills of ZEO"] == rounds // zeo_every


def test_frozen_servers_are_fenced(make_world, zeo, turn, report):
    verdict = report(
        freeze_and_thaw(make_world(zeo.uri, asyncview__lease=LEASE), FROZEN)
    )
    assert not verdict.wrong


def test_frozen_server_begins_nothing_that_another_has_run(make_world, zeo, report):
    world = make_world(zeo.uri, asyncview__lease=LEASE)
    assert not report(frozen_in_turn(world)).wrong


def test_sums_are_exact_and_no_start_is_refused(make_world, zeo, long, report):
    world = make_world(zeo.uri, asyncview__lease=10)
    patience = 1200.0 if long else 60.0
    verdict = report(storm(world, 4, 8, 10_000 if long else 120, patience))
    assert not verdict.wrong


@pytest.mark.long
@pytest.mark.parametrize("mutant", ["no_fence", "no_token_check"])
def test_a_frozen_server_shows_a_defect(make_world, zeo, mutant, report):
    """Who finds no defect proves nothing."""
    world = make_world(zeo.uri, mutant=mutant, asyncview__lease=LEASE)
    assert report(freeze_and_thaw(world, FROZEN, 5.0)).wrong


@pytest.mark.long
def test_a_frozen_server_shows_that_turns_are_not_checked(make_world, zeo, report):
    """Who finds no defect proves nothing."""
    world = make_world(zeo.uri, mutant="no_turn_check", asyncview__lease=LEASE)
    assert report(frozen_in_turn(world, 5.0)).wrong


# Object ids


@pytest.fixture
def make_client(zeo):
    """Makes clients of one server."""
    made = []

    def make():
        storage = ClientStorage(
            ("127.0.0.1", zeo.port),
            wait_timeout=30,
            blob_dir=zeo.blobs,
            shared_blob_dir=True,
        )
        made.append(storage)
        return storage

    yield make
    for storage in made:
        storage.close()


def restart(zeo, storages):
    """The server comes back, and its clients notice."""
    before = [storage._connection_generation for storage in storages]
    zeo.end(signal.SIGTERM)
    zeo.start()
    for storage, generation in zip(storages, before, strict=True):
        # Lost, and made again.
        wait_until(
            lambda s=storage, g=generation: s._connection_generation >= g + 2,
            "a client is connected again",
        )
        wait_until(storage.is_connected, "a client is connected again")


def oids_after_restart(zeo, make_client, prepare):
    clients = [make_client(), make_client()]
    for each in clients:
        prepare(each)
        each.new_oid()
    restart(zeo, clients)
    return [each.new_oid() for each in clients for _ in range(MANY)]


def test_no_object_id_is_used_twice_after_a_restart(zeo, make_client):
    oids = oids_after_restart(zeo, make_client, cure)
    assert len(set(oids)) == len(oids) == 2 * MANY


def test_without_the_cure_object_ids_are_used_twice(zeo, make_client):
    """When this fails, ZEO has its own cure."""
    oids = oids_after_restart(zeo, make_client, lambda storage: None)
    assert len(set(oids)) < len(oids)


def test_engine_cures_the_storages_of_all_databases(zeo, make_site):
    """Also of those that hold the application's own objects."""
    uri = f"{zeo.uri}&database_name=main"
    site = make_site(
        storage=uri,
        zodbconn__uri__other="memory://?database_name=other",
    )
    assert isinstance(site.db.storage._oids, Oids)
    assert not hasattr(site.db.databases["other"].storage, "_oids")


# Several processes


class Task(BaseAsyncView):
    def __run__(self):
        return "done"


def test_job_that_another_process_has_just_stored_is_found(zeo, make_site):
    """Also by a request that had begun before: a page that gets a 404 asks no more."""

    def configure(config):
        config.add_async_view(Task, "task")

    def post(request):
        # Its snapshot is made here, and is an old one when the job is stored.
        root = root_of(request)
        root.data.keys()
        thread = threading.Thread(
            target=lambda: request.GET.update(process_id=first.start("/task"))
        )
        thread.start()
        thread.join(PATIENCE)
        return root

    first = make_site(configure, storage=zeo.uri)
    second = make_site(configure, root_factory=post, storage=zeo.uri)
    first.run("/task")
    answer = second.app.get("/task/completed?process_id=x&output_json=1")
    assert answer.json["process_id"] != "x"


def test_id_of_before_a_restart_is_a_conflict_where_it_was_given_to_another(
    zeo, make_client
):
    """And not two objects in one place: the transaction is tried again."""
    # One after the other: it makes the root object.
    dbs = DB(make_client()), DB(make_client())
    storages = [db.storage for db in dbs]
    for each in storages:
        cure(each)
    tms = TransactionManager(), TransactionManager()
    connections = [db.open(tm) for db, tm in zip(dbs, tms, strict=True)]
    for tm, connection in zip(tms, connections, strict=True):
        tm.begin()
        connection.root()
    early = PersistentMapping()
    connections[0].add(early)
    restart(zeo, storages)
    late = None
    while late != early._p_oid:
        each = PersistentMapping()
        connections[1].add(each)
        late = each._p_oid
    connections[1].root()["late"] = each
    tms[1].commit()
    connections[0].root()["early"] = early
    with pytest.raises(ConflictError):
        tms[0].commit()
    tms[0].abort()
    for connection, db in zip(connections, dbs, strict=True):
        connection.close()
        db.close()


# Blobs


def commit_blob_in_conflict(make_client, prepare):
    """Commits a blob along with a conflict that resolves; gives where it is."""
    dbs = DB(make_client()), DB(make_client())
    tms = TransactionManager(), TransactionManager()
    connections = [db.open(tm) for db, tm in zip(dbs, tms, strict=True)]
    try:
        with tms[0]:
            connections[0].root()["length"] = Length()
        prepare(dbs[1].storage)
        wait_until(
            lambda: dbs[1].lastTransaction() == dbs[0].lastTransaction(), "it is seen"
        )
        for tm, connection in zip(tms, connections, strict=True):
            tm.begin()
            connection.root()["length"].change(1)
        tms[0].commit()
        blob = connections[1].root()["blob"] = Blob(b"content")
        tms[1].commit()
        with tms[1]:
            return Path(blob.committed())
    finally:
        for tm, connection, db in zip(tms, connections, dbs, strict=True):
            tm.abort()
            connection.close()
            db.close()


RESOLVING = pytest.mark.parametrize(
    "zeo", ["client-conflict-resolution true"], indirect=True
)


@RESOLVING
def test_a_blob_is_stored_or_its_transaction_is_tried_again(make_client):
    with pytest.raises(ConflictError):
        commit_blob_in_conflict(make_client, cure)


@RESOLVING
def test_without_the_cure_the_file_of_a_blob_gets_lost(make_client):
    """When this fails, ZEO has its own cure."""
    with pytest.raises(POSKeyError):
        commit_blob_in_conflict(make_client, lambda storage: None)


def test_a_server_that_knows_asyncview_resolves_blobs_and_all(make_client):
    assert commit_blob_in_conflict(make_client, cure).read_bytes() == b"content"
