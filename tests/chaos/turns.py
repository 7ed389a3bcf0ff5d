"""Ends or freezes a server that has claimed jobs which wait for their turn."""

import signal
from contextlib import suppress

from chaos.freezing import FENCED
from chaos.oracle import judge
from chaos.rampage import quiet
from chaos.servers import wait_until

#: Quick jobs that a server has to see before it claims more than one at a time.
WARM = 3


def claimed_at_once(world, *requests):
    """A server whose one thread has claimed these in one commit, in their order."""
    server = world.start(asyncview__threads=1, chaos__quick=600).ready()
    for number in range(WARM):
        server.post(key=f"warm-{number}")
    first = server.post(key="first", gate=1)
    _until_entered(world, first)
    ids = [
        server.post(key=f"key-{number}", **fields)
        for number, fields in enumerate(requests)
    ]
    world.open_gate(server, 1)
    return server, ids


def _until_entered(world, id):
    wait_until(
        lambda: any(each["id"] == id for each in world.entered()), "a job is entered"
    )


def killed_in_turn(world, patience=30.0):
    """Killed in the middle of the second; the third was claimed along with it."""
    server, ids = claimed_at_once(world, {}, {"gate": 2}, {})
    _until_entered(world, ids[1])
    server.kill()
    server = world.start().ready()
    world.open_gate(server, 2)
    left = quiet(world, [server], patience)
    verdict = judge(world)
    verdict.expect(left is None, f"after {patience} s there are still {left}")
    verdict.expect(
        verdict.numbers["completed"] == WARM + 3, "what had not begun was not run"
    )
    verdict.expect(verdict.numbers["interrupted"] == 1, "one had begun")
    return verdict


def frozen_in_turn(world, patience=30.0):
    """Frozen in the middle of the first; another server runs the others."""
    first, ids = claimed_at_once(world, {"gate": 2}, {}, {})
    _until_entered(world, ids[0])
    line = first.send_freeze()
    second = world.start().ready()
    for id, status in zip(ids, ("failed", "completed", "completed"), strict=True):
        with suppress(AssertionError):
            wait_until(
                lambda id=id, status=status: second.status(id)[1]["status"] == status,
                f"a job is {status}",
                patience,
            )
    world.open_gate(first, 2)
    first.signal(signal.SIGCONT)
    with line:
        line.recv(1000)

    def fenced():
        return first.log.read_text().count(FENCED)

    # All three: what it had begun, and what it believes that it may begin.
    with suppress(AssertionError):
        wait_until(lambda: fenced() == len(ids), "all are fenced", patience)
    left = quiet(world, [first, second], patience)
    verdict = judge(world)
    verdict.expect(left is None, f"after {patience} s there are still {left}")
    verdict.expect(fenced() == len(ids), f"{fenced()} of {len(ids)} were fenced")
    verdict.expect(verdict.numbers["interrupted"] == 1, "one had begun")
    return verdict
