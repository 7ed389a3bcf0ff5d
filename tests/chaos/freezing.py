"""Freezes a server in the middle of its jobs, until another has taken them over."""

import signal
import threading
import time
from contextlib import suppress

from chaos.oracle import judge
from chaos.rampage import quiet
from chaos.servers import wait_until

LEASE = 1.0

#: Leases for which a server stays frozen.
FROZEN = 4

#: What a worker logs when it finds that its job is another's.
FENCED = "was taken away from this worker"


def freeze_and_thaw(world, jobs, patience=30.0):
    """Half of the jobs may be run again, half may not; gives the verdict.

    Its number ``fenced`` is that of the jobs whose first worker was refused.
    """
    first = world.start(asyncview__threads=jobs).ready()
    ids = []
    for number in range(jobs):
        fields = {"key": f"key-{number}", "gate": 1, "restartable": number % 2}
        ids.append(first.post(**fields))
    wait_until(lambda: len(world.entered()) == jobs, "all jobs are entered")
    line = first.send_freeze()
    frozen = time.monotonic()

    second = world.start(asyncview__threads=jobs).ready()
    for id in ids[::2]:
        wait_until(
            lambda id=id: second.status(id)[1]["status"] == "failed",
            "the jobs of the frozen server fail",
        )
    wait_until(
        lambda: len(world.entered()) == jobs + len(ids[1::2]),
        "those that may be run again are",
    )
    threading.Event().wait(max(frozen + FROZEN * LEASE - time.monotonic(), 0))

    # The first wants to end its jobs while the second is in the middle of them.
    world.open_gate(first)
    first.signal(signal.SIGCONT)
    with line:
        line.recv(1000)

    def fenced():
        return first.log.read_text().count(FENCED)

    with suppress(AssertionError):
        wait_until(lambda: fenced() == jobs, "all are fenced", patience)
    world.open_gate(second)
    # It is a server as any other again.
    last = first.post(key="last")
    with suppress(AssertionError):
        wait_until(
            lambda: first.status(last)[1]["status"] == "completed", "it works", patience
        )
    left = quiet(world, [first, second], patience)
    verdict = judge(world)
    verdict.expect(left is None, f"after {patience} s there are still {left}")
    verdict.expect(fenced() == jobs, f"{fenced()} of {jobs} were fenced")
    verdict.expect(
        verdict.numbers["completed"] == len(ids[1::2]) + 1, "of the others, some failed"
    )
    verdict.numbers["fenced"] = fenced()
    return verdict
