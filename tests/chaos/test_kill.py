"""One server on a FileStorage, killed again and again."""

import pytest

from chaos.points import POINTS
from chaos.rampage import Rampage

#: Seconds; a dead worker is noticed within two of these.
LEASE = 0.4


def test_nothing_is_lost_and_nothing_done_twice_when_servers_are_killed(
    make_world, long, report
):
    rounds = 520 if long else len(POINTS)
    world = make_world(asyncview__lease=LEASE)
    verdict = Rampage(world, points=POINTS).run(rounds).settle()
    report(verdict)
    assert not verdict.wrong
    assert set(verdict.points) >= set(POINTS) - {"reaping", "reaped"}


def test_a_job_that_kills_its_server_is_run_as_often_as_it_may_be(make_world):
    """Not for ever."""
