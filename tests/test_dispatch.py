"""What a process knows in plain memory: who runs, who waits, who has a gate."""

import os
import sys
import threading

import pytest
from conftest import PATIENCE
from conftest import eventually

from asyncview import AsyncViewError
from asyncview import BaseAsyncView
from asyncview import ProgressSession
from asyncview.dispatch import Gates
from asyncview.dispatch import Live
from asyncview.forks import ForkGuard


@pytest.fixture
def in_thread():
    """Starts threads, and joins them at the end."""
    threads = []

    def start(function):
        thread = threading.Thread(target=function)
        threads.append(thread)
        thread.start()
        return thread

    yield start
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


# Live


def test_end_of_a_job_wakes_all_who_watch_it():
    live = Live()
    live.begin(ProgressSession("id"))
    with (
        live.watching("id") as first,
        live.watching("id") as second,
        live.watching("other") as other,
    ):
        live.end("id")
        assert first.is_set()
        assert second.is_set()
        assert not other.is_set()
    assert "id" not in live
    assert list(live.ended) == ["id"]


def test_watcher_that_leaves_late_disturbs_nobody():
    live = Live()
    with live.watching("id") as second:
        pass
    watching = live.watching("id")
    watching.__enter__()
    live.end("id")
    with live.watching("id") as second:
        # The first leaves while the list is another one.
        watching.__exit__(None, None, None)
        live.end("id")
        assert second.is_set()


def test_new_attempt_takes_the_place_of_the_one_before():
    live = Live()
    live.begin(ProgressSession("id"))
    second = ProgressSession("id", 2)
    live.begin(second)
    assert live.sessions() == [second]
    assert live.session("id") is second
    assert len(live) == 1


def test_job_is_overdue_when_its_deadline_has_passed():
    live = Live()
    session = ProgressSession("id")
    live.begin(session, 10.0)
    live.begin(ProgressSession("other"))
    assert live.overdue(9.9) == []
    assert live.overdue(10.0) == [session]
    live.end("id")
    assert live.overdue(11.0) == []


@pytest.fixture
def interval():
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield 0.005
    sys.setswitchinterval(before)


def test_switch_interval_is_short_while_any_job_runs_and_then_as_before(interval):
    live = Live(0.0005)
    live.begin(ProgressSession("a"))
    live.begin(ProgressSession("b"))
    assert sys.getswitchinterval() == pytest.approx(0.0005)
    live.begin(ProgressSession("a", 2))
    live.end("a")
    assert sys.getswitchinterval() == pytest.approx(0.0005)
    live.end("b")
    assert sys.getswitchinterval() == pytest.approx(interval)
    live.end("b")
    assert sys.getswitchinterval() == pytest.approx(interval)


@pytest.mark.parametrize("wanted", [0, 0.1])
def test_switch_interval_is_left_alone_if_so_said_or_short_already(interval, wanted):
    live = Live(wanted)
    live.begin(ProgressSession("a"))
    assert sys.getswitchinterval() == pytest.approx(interval)
    live.end("a")
    assert sys.getswitchinterval() == pytest.approx(interval)


def test_switch_interval_of_a_site_is_restored_after_its_jobs(make_site, interval):
    seen = []

    class Look(BaseAsyncView):
        def __run__(self, process_id=None):
            seen.append(sys.getswitchinterval())

    site = make_site(lambda config: config.add_async_view(Look, "look"))
    site.run("/look")
    assert seen == [pytest.approx(0.0005)]
    assert sys.getswitchinterval() == pytest.approx(interval)


# Gates


def test_job_that_wants_to_be_alone_waits_for_those_inside(in_thread):
    gates = Gates()
    order, leave, inside = [], threading.Event(), threading.Event()

    def other():
        with gates.enter("context", alone=False):
            inside.set()
            leave.wait(PATIENCE)
            order.append("other")

    def alone():
        with gates.enter("context", alone=True):
            order.append("alone")

    in_thread(other)
    assert inside.wait(PATIENCE)
    waiting = in_thread(alone)
    eventually(lambda: gates._alone.get("context"))
    # Another context is nobody's business.
    with gates.enter("another", alone=True):
        order.append("another")
    leave.set()
    waiting.join(PATIENCE)
    assert order == ["another", "other", "alone"]
    assert (gates._inside, gates._alone) == ({}, {})


def test_newcomers_wait_for_the_one_that_is_alone(in_thread):
    gates = Gates()
    order, leave, inside = [], threading.Event(), threading.Event()

    def alone():
        with gates.enter("context", alone=True):
            inside.set()
            leave.wait(PATIENCE)
            order.append("alone")

    def newcomer():
        entering.set()
        with gates.enter("context", alone=False):
            order.append("newcomer")

    entering = threading.Event()
    in_thread(alone)
    assert inside.wait(PATIENCE)
    waiting = in_thread(newcomer)
    assert entering.wait(PATIENCE)
    leave.set()
    waiting.join(PATIENCE)
    assert order == ["alone", "newcomer"]


def test_wait_at_a_gate_is_bounded():
    gates = Gates(patience=0.01)
    with (
        gates.enter("context", alone=False),
        gates.enter("context", alone=True),
        gates.enter("context", alone=False),
    ):
        assert gates._inside == {"context": 3}
    assert (gates._inside, gates._alone) == ({}, {})


def test_gate_is_left_also_by_an_exception():
    gates = Gates()
    with pytest.raises(KeyError), gates.enter("context", alone=True):
        raise KeyError
    assert (gates._inside, gates._alone) == ({}, {})


# Forks


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_fork_is_noticed_in_the_child_alone():
    guard = ForkGuard()
    guard.check()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        answer = b"nothing was raised"
        try:
            guard.check()
        except AsyncViewError as error:
            answer = str(error).encode()
        os.write(write, answer)
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as answer:
        assert "forked after the database was opened" in answer.read()
    guard.check()
