"""Servers on a FileStorage, one at a time, and what ends them."""

from collections import Counter

import pytest

from chaos.clients import Clients
from chaos.oracle import judge
from chaos.points import POINTS
from chaos.rampage import Rampage
from chaos.rampage import quiet
from chaos.servers import wait_until
from chaos.turns import killed_in_turn

#: Seconds; a dead worker is noticed within two of these.
LEASE = 0.3

#: Threads that a server runs jobs with.
THREADS = 4

JOBS = 40


def killed(world, rounds, patience=30.0):
    return Rampage(world).run(rounds).settle(patience)


def restarted(world, patience=30.0):
    """Killed in the middle of two jobs, with a third in the queue."""
    server = world.start(asyncview__threads=2).ready()
    for number in range(3):
        server.post(key=f"key-{number}", gate=1, restartable=number % 2)
    wait_until(lambda: len(world.entered()) == 2, "two jobs are entered")
    server.kill()
    server = world.start().ready()
    world.open_gate(server)
    left = quiet(world, [server], patience)
    verdict = judge(world)
    verdict.expect(left is None, f"after {patience} s there are still {left}")
    verdict.expect(verdict.numbers["completed"] == 2, "jobs were not run (again)")
    verdict.expect(verdict.numbers["interrupted"] == 1, "a job was not given up")
    return verdict


def without_answers(world, jobs, patience=30.0):
    """Every third commit fails for who made it, and is stored all the same."""
    server = world.start(lose_answers=3).ready()
    kinds = {"plain": 4, "restartable": 2, "failing": 1, "big": 1}
    clients = Clients(lambda: server, limit=jobs, kinds=kinds)
    clients.join()
    left = quiet(world, [server], patience)
    verdict = judge(world, clients)
    verdict.expect(left is None, f"after {patience} s there are still {left}")
    # A request that fails three times in a row is told so.
    verdict.expect(len(clients.answered) > jobs * 0.8, f"refused: {clients.refused}")
    verdict.expect(not verdict.numbers["interrupted"], "jobs lost their workers")
    return verdict


def exiting(world, patience=30.0):
    """More jobs that exit than there are threads, and then one that does not."""
    server = world.start(asyncview__threads=THREADS).ready()
    for number in range(THREADS + 1):
        server.post(key=f"key-{number}", mode="exiting")
    server.post(key="last")
    left = quiet(world, [server], patience)
    verdict = judge(world)
    verdict.expect(left is None, f"after {patience} s there are still {left}")
    verdict.expect(
        verdict.numbers["exception"] == THREADS + 1, "who exits has not failed by that"
    )
    return verdict


def test_nothing_is_lost_and_nothing_done_twice_when_servers_are_killed(
    make_world, long, report
):
    # Few threads: the queue grows, and there is something to claim ahead.
    world = make_world(asyncview__lease=LEASE, asyncview__threads=2)
    verdict = report(killed(world, 520 if long else len(POINTS)))
    assert not verdict.wrong
    at_least = 10 if long else 1
    # A reaper may find nothing to do in a short life.
    points = POINTS if long else set(POINTS) - {"reaping", "reaped"}
    assert {point for point in points if verdict.points[point] < at_least} == set()


def test_doubtful_commits_lead_to_one_job_one_start_and_one_end(
    make_world, long, report
):
    world = make_world(asyncview__lease=LEASE)
    verdict = report(without_answers(world, 400 if long else JOBS))
    assert not verdict.wrong


def test_jobs_of_a_killed_server_are_the_next_ones(make_world):
    assert not restarted(make_world(asyncview__lease=LEASE)).wrong


def test_jobs_whose_turn_had_not_come_are_run_by_the_next_server(make_world):
    assert not killed_in_turn(make_world(asyncview__lease=LEASE)).wrong


def test_worker_outlives_a_job_that_exits(make_world):
    assert not exiting(make_world(asyncview__lease=LEASE)).wrong


def test_job_that_kills_its_server_is_not_run_for_ever(make_world):
    world = make_world(asyncview__lease=LEASE)
    server = world.start().ready()
    # Behind a gate, or it dies before its answer is heard.
    id = server.post(key="one", mode="fatal", restartable=1, gate=1)
    world.open_gate(server)
    server.gone()
    server = world.start().ready()
    server.request("GET", "/rest")
    world.open_gate(server)
    server.gone()
    server = world.start().ready()
    wait_until(
        lambda: server.status(id)[1]["status"] == "failed", "it is given up at last"
    )
    document = server.status(id)[1]
    assert document["error"]["reason"] == "interrupted"
    assert server.request("GET", f"/work/result?process_id={id}")[0] == 500
    assert quiet(world, [server]) is None
    assert not judge(world).wrong
    assert Counter(entry["id"] for entry in world.entered()) == {id: 2}


@pytest.mark.parametrize(
    ("mutant", "trial"),
    [
        ("no_sweep", lambda world: restarted(world, 3 * LEASE)),
        ("except_exception", lambda world: exiting(world, 3 * LEASE)),
        ("new_id_per_attempt", lambda world: without_answers(world, JOBS, 3 * LEASE)),
        ("all_to_come", killed_in_turn),
        ("none_to_come", killed_in_turn),
    ],
)
def test_these_trials_find_a_defect(make_world, mutant, trial, report):
    """Who finds no defect proves nothing."""
    assert report(trial(make_world(mutant=mutant, asyncview__lease=LEASE))).wrong
