"""Several servers on one ZEO, and its server killed too."""

import signal

import pytest
from persistent.mapping import PersistentMapping
from transaction import TransactionManager
from ZEO.ClientStorage import ClientStorage
from ZODB.DB import DB
from ZODB.POSException import ConflictError

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

#: Jobs in the middle of which a server is frozen.
FROZEN = 10

#: More than a ZEO server hands out at a time.
MANY = 150


def storm(world, processes, threads, jobs, patience=60.0):
    """Jobs of all processes increment what they share; gives the verdict."""
    servers = [
        world.start(asyncview__threads=threads).ready() for _ in range(processes)
    ]
    turns = iter(range(10**9))
    clients = Clients(
        lambda: servers[next(turns) % processes],
        number=2 * processes,
        limit=jobs,
        kinds={"plain": 1},
        counters=1,
    )
    clients.join()
    left = quiet(world, servers, patience)
    verdict = judge(world, clients)
    verdict.expect(left is None, f"after {patience} s there are still {left}")
    verdict.expect(not clients.refused, f"starts were refused: {clients.refused}")
    done = verdict.numbers["completed"]
    verdict.expect(done == jobs, f"{done} of {jobs} are completed")
    found = counters(world)
    verdict.expect(found == jobs, f"the counters say {found}, not {jobs}")
    return verdict


def test_nothing_is_lost_when_servers_and_zeo_are_killed(make_world, zeo, long, report):
    world = make_world(zeo.uri, asyncview__lease=1.5)
    rounds = 520 if long else 9
    verdict = report(Rampage(world, 3, zeo).run(rounds).settle())
    assert not verdict.wrong


def test_frozen_servers_are_fenced(make_world, zeo, long, report):
    verdict = report(
        freeze_and_thaw(make_world(zeo.uri, asyncview__lease=LEASE), FROZEN)
    )
    assert not verdict.wrong


def test_sums_are_exact_and_no_start_is_refused(make_world, zeo, long, report):
    world = make_world(zeo.uri, asyncview__lease=10)
    verdict = report(storm(world, 4, 8, 10_000 if long else 200))
    assert not verdict.wrong


@pytest.mark.parametrize(
    ("mutant", "trial"),
    [
        ("no_fence", lambda world: freeze_and_thaw(world, FROZEN, 5.0)),
        ("no_token_check", lambda world: freeze_and_thaw(world, FROZEN, 5.0)),
    ],
)
def test_these_trials_find_a_defect(make_world, zeo, mutant, trial, report):
    """Who finds no defect proves nothing."""
    world = make_world(zeo.uri, mutant=mutant, asyncview__lease=LEASE)
    assert report(trial(world)).wrong


# Object ids


@pytest.fixture
def make_client(zeo):
    """Makes clients of one server."""
    made = []

    def make():
        storage = ClientStorage(("127.0.0.1", zeo.port), wait_timeout=30)
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


def test_engine_cures_the_storages_of_all_databases(make_site, zeo, tmp_path):
    """Also of those that hold the application's own objects."""
    uri = f"{zeo.uri}&database_name=main"
    site = make_site(
        storage=uri,
        zodbconn__uri__other="memory://?database_name=other",
    )
    assert isinstance(site.db.storage._oids, Oids)
    assert not hasattr(site.db.databases["other"].storage, "_oids")


def test_id_of_before_a_restart_is_a_conflict_where_it_was_given_to_another(
    zeo, make_client
):
    """And not two objects in one place: the transaction is tried again."""
    first, second = make_client(), make_client()
    cure(first)
    cure(second)
    dbs = DB(first), DB(second)
    tms = TransactionManager(explicit=True), TransactionManager(explicit=True)
    connections = [db.open(tm) for db, tm in zip(dbs, tms, strict=True)]
    for tm, connection in zip(tms, connections, strict=True):
        tm.begin()
        connection.root()
    early = PersistentMapping()
    connections[0].add(early)
    restart(zeo, (first, second))
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
