"""Several servers on one ZEO, and its server killed too."""

import signal

import pytest

from asyncview.zeo import Oids
from asyncview.zeo import cure
from chaos.app import COUNTERS
from chaos.clients import Clients
from chaos.freezing import LEASE
from chaos.freezing import freeze_and_thaw
from chaos.oracle import counters
from chaos.oracle import judge
from chaos.rampage import Rampage
from chaos.rampage import quiet

#: Jobs in the middle of which a server is frozen.
FROZEN = 10


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
