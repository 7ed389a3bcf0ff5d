"""Quick jobs are claimed several at a time, and nothing else is different for them."""

import threading
import time
from collections import Counter
from itertools import pairwise

import pytest
from conftest import PATIENCE
from conftest import eventually
from transaction.interfaces import TransientError
from waiting import waiting
from ZODB.Connection import Connection

from asyncview.dispatch import Live
from asyncview.executors import threads
from asyncview.executors.batches import Batches
from asyncview.pulse import Pulse
from asyncview.rescue import Claim
from asyncview.runner import Runner
from asyncview.standalone import NoExecutor
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.store import transact
from asyncview.ticket import token_in


@pytest.fixture
def runs():
    """How often each job was entered, in the order in which they were first."""
    return Counter()


@pytest.fixture
def make(make_site, gate, runs):
    """A site whose jobs wait for the gate, or do not, and whose pulse beats by hand."""

    def make(**settings):
        settings.setdefault("asyncview__threads", "1")
        return make_site(waiting(gate, runs), **settings).by_hand()

    return make


def start(site, *requests):
    """All in the queue before a thread looks, and claimed at once as quick ones are."""
    executor = site.engine.executor
    with executor._changed:
        executor._stride = threads.AHEAD
        return [site.start(*request) for request in requests]


def start_behind(site, runs, *requests):
    """The first is one that waits for the gate; the others come after it."""
    first, *others = start(site, ("/waits",), *requests)
    eventually(lambda: runs[first] == 1)
    return first, others


def state_of(site, process_id):
    with reading(site.db) as connection:
        state = store_of(connection, "tests").find(process_id).job.state
        facts = state.status, state.attempt, state.restarts, state.started is not None
        return facts, state._p_serial


def facts(site, process_id):
    """Status, attempt, restarts, and whether it is known when it began."""
    return state_of(site, process_id)[0]


WAITING = ("running", 1, 0, False)
GIVEN_BACK = ("queued", 0, 0, False)
DONE = ("completed", 1, 0, True)
QUICK = ("/quick",)


def slow(site):
    """Wait until the job that runs is not a quick one."""
    eventually(lambda: site.engine.executor._stuck())


# Claim


def test_quick_jobs_are_claimed_in_one_commit(make, gate, runs):
    site = make()
    first, others = start_behind(site, runs, *[QUICK] * 7)
    serials = {state_of(site, id)[1] for id in (first, *others)}
    assert len(serials) == 1
    gate.set()
    for id in (first, *others):
        site.wait(id)
    assert list(runs) == [first, *others]
    assert set(runs.values()) == {1}
    assert {facts(site, id) for id in (first, *others)} == {DONE}


def test_one_that_is_claimed_ahead_is_shown_in_the_queue_and_then_as_it_ran(
    make, gate, runs
):
    site = make()
    first, others = start_behind(site, runs, QUICK, QUICK)
    last = site.start("/quick")
    documents = [site.status("/quick", id) for id in (*others, last)]
    assert [each["status"] for each in documents] == ["queued"] * 3
    assert [each["queue_position"] for each in documents] == [0, 1, 2]
    assert {each["started"] for each in documents} == {None}
    assert {each["progress_message"] for each in documents} == {"Waiting in the queue"}
    session = site.engine.keeper.get(others[0])
    assert session.status == "pending"
    gate.set()
    for id in (*others, last):
        site.wait(id)
    documents = [site.status("/waits", first)]
    documents += [site.status("/quick", id) for id in others]
    for before, after in pairwise(documents):
        assert before["started"] <= before["finished"] <= after["started"]
        assert after["started"] <= after["updated"] <= after["finished"]


def test_one_that_was_claimed_ahead_is_seen_to_run_from_the_next_beat_on(
    make, gate, runs
):
    site = make()
    # Behind a quick one, which has ended when the second begins.
    first, second = start(site, QUICK, ("/waits",))
    eventually(lambda: runs[second] == 1)
    assert facts(site, second) == WAITING
    # Whatever others of the site wait.
    assert site.engine.executor.position(second) == 0
    site.engine.pulse.beat()
    document = site.status("/waits", second)
    assert document["status"] == "running"
    assert document["started"] >= site.status("/quick", first)["finished"]
    assert document["queue_position"] is None
    gate.set()
    site.wait(second)
    assert site.status("/waits", second)["started"] == document["started"]


def test_each_thread_takes_its_share_of_what_there_is(make, gate, runs):
    site = make(asyncview__threads="2")
    ids = start(site, *[("/waits",)] * 4)
    eventually(lambda: len(runs) == 2)
    # Who comes second finds two, or three if both have come at once.
    assert 1 <= len(site.engine.executor.ahead()) <= 2
    gate.set()
    for id in ids:
        site.wait(id)
    assert runs == Counter(dict.fromkeys(ids, 1))


def test_stride_grows_with_quick_jobs_and_falls_with_a_slow_one(
    make, runs, monkeypatch
):
    site = make()
    executor = site.engine.executor
    seen = []
    for _ in range(5):
        site.run("/quick")
        eventually(lambda: executor._hungry == 1)
        seen.append(executor._stride)
    assert seen == [2, 4, 8, 8, 8]
    monkeypatch.setattr(threads, "QUICK", -1.0)
    site.run("/quick")
    eventually(lambda: executor._hungry == 1)
    assert executor._stride == 1


def test_max_runtime_counts_from_when_it_runs(make, gate, runs):
    site = make()
    _, (second,) = start_behind(site, runs, ("/waits", {"most": "5"}))
    assert site.engine.live.overdue(float("inf")) == []
    before = time.monotonic()
    gate.set()
    gate.clear()
    eventually(lambda: runs[second] == 1)
    assert site.engine.live.overdue(before + 4.99) == []
    (session,) = site.engine.live.overdue(time.monotonic() + 5)
    assert session.id == second
    gate.set()


def test_claim_that_was_stored_though_it_failed_is_found(make, runs, monkeypatch):
    monkeypatch.setattr(threads, "PATIENCE", 0.0)
    site = make()
    site.run("/quick")
    runs.clear()
    fail_after(monkeypatch, OSError("gone before it answered"), "asyncview-", 1)
    monkeypatch.setattr(
        "asyncview.claims.Claims._is_mine", staticmethod(lambda *arguments: False)
    )
    ids = start(site, *[QUICK] * 4)
    for id in ids:
        site.wait(id)
    assert runs == Counter(dict.fromkeys(ids, 1))
    assert {facts(site, id) for id in ids} == {DONE}


def fail_after(monkeypatch, error, thread, times):
    """Have commits of a thread be stored, and fail all the same."""
    finish = Connection.tpc_finish
    left = [None] * times

    def tpc_finish(self, transaction):
        finish(self, transaction)
        if threading.current_thread().name.startswith(thread) and left:
            left.pop()
            raise error

    monkeypatch.setattr(Connection, "tpc_finish", tpc_finish)


# Give back


def test_what_waits_behind_a_slow_job_is_given_back_by_the_beat(make, gate, runs):
    site = make()
    first, others = start_behind(site, runs, QUICK, QUICK)
    last = site.start("/quick")
    slow(site)
    site.engine.pulse.beat()
    assert {facts(site, id) for id in others} == {GIVEN_BACK}
    positions = [site.engine.executor.position(id) for id in (*others, last)]
    assert positions == [0, 1, 2]
    gate.set()
    for id in (*others, last):
        site.wait(id)
    assert list(runs) == [first, *others, last]
    assert set(runs.values()) == {1}
    assert {facts(site, id) for id in others} == {DONE}


def test_other_process_may_take_what_was_given_back(make, gate, runs):
    site = make()
    _, (second,) = start_behind(site, runs, QUICK)
    slow(site)
    other = Runner(site.db, "tests", site.engine.runner.front, Live())
    assert other.claims.take([second]) == []
    site.engine.executor.give_back()
    (ticket,) = other.claims.take([second])
    other.run(ticket)
    assert facts(site, second) == DONE
    gate.set()
    eventually(lambda: not site.engine.executor.busy())
    assert runs[second] == 1


def test_what_waits_behind_a_quick_job_stays(make, gate, runs, monkeypatch):
    monkeypatch.setattr(threads, "QUICK", PATIENCE)
    site = make()
    _, (second,) = start_behind(site, runs, QUICK)
    site.engine.pulse.beat()
    assert facts(site, second) == WAITING
    gate.set()
    site.wait(second)


def test_idle_thread_runs_what_waits_behind_a_slow_job(make, gate, runs):
    """Without any beat."""
    site = make(asyncview__threads="2")
    first, second, third, fourth = start(site, ("/waits",), QUICK, QUICK, QUICK)
    for id in (second, third, fourth):
        site.wait(id)
    assert not gate.is_set()
    assert runs == Counter(dict.fromkeys((first, second, third, fourth), 1))
    gate.set()
    site.wait(first)


def test_what_can_not_be_given_back_is_run_here(make, gate, runs, monkeypatch, caplog):
    site = make()
    first, others = start_behind(site, runs, QUICK, QUICK)
    slow(site)

    def fail(tickets):
        raise OSError(28, "the disk is full")

    monkeypatch.setattr(site.engine.runner.claims, "give_back", fail)
    site.engine.pulse.beat()
    assert "could not be given back yet" in caplog.text
    assert {facts(site, id) for id in others} == {WAITING}
    assert site.engine.executor.ahead() == others
    gate.set()
    for id in others:
        site.wait(id)
    assert list(runs) == [first, *others]


def test_what_can_not_be_given_back_in_time_is_run_here(
    make, gate, runs, monkeypatch, caplog
):
    """The job before it ends meanwhile."""
    site = make()
    first, others = start_behind(site, runs, QUICK, QUICK)
    slow(site)

    def fail(tickets):
        gate.set()
        site.wait(first)
        eventually(lambda: site.engine.executor._hungry == 1)
        raise OSError(28, "the disk is full")

    monkeypatch.setattr(site.engine.runner.claims, "give_back", fail)
    site.engine.pulse.beat()
    for id in others:
        site.wait(id)
    assert list(runs) == [first, *others]
    assert set(runs.values()) == {1}


@pytest.mark.parametrize("error", [OSError, type("Lost", (TransientError,), {})])
def test_give_back_that_was_stored_though_it_failed_is_one(
    make, gate, runs, monkeypatch, error
):
    site = make()
    _, others = start_behind(site, runs, QUICK, QUICK)
    slow(site)
    fail_after(monkeypatch, error(), threading.current_thread().name, 1)
    site.engine.executor.give_back()
    assert {facts(site, id) for id in others} == {GIVEN_BACK}
    gate.set()
    for id in others:
        site.wait(id)
    assert {facts(site, id) for id in others} == {DONE}
    assert set(runs.values()) == {1}


def give_back_in_doubt(site, monkeypatch):
    """Have it stored, and fail for this process."""
    give_back = site.engine.runner.claims.give_back

    def doubt(tickets):
        give_back(tickets)
        raise OSError("nobody knows")

    monkeypatch.setattr(site.engine.runner.claims, "give_back", doubt)
    site.engine.executor.give_back()


def test_give_back_that_is_not_known_to_be_stored_runs_nothing_twice(
    make, gate, runs, monkeypatch, caplog
):
    site = make()
    _, (second,) = start_behind(site, runs, QUICK)
    slow(site)
    give_back_in_doubt(site, monkeypatch)
    assert facts(site, second) == GIVEN_BACK
    # This process believes that it has it; another takes it.
    other = Runner(site.db, "tests", site.engine.runner.front, Live())
    (ticket,) = other.claims.take([second])
    gate.set()
    eventually(lambda: not site.engine.executor.busy())
    assert runs[second] == 0
    other.run(ticket)
    assert runs[second] == 1


def test_give_back_of_doubt_is_claimed_again_here(make, gate, runs, monkeypatch):
    site = make()
    _, (second,) = start_behind(site, runs, QUICK)
    slow(site)
    give_back_in_doubt(site, monkeypatch)
    gate.set()
    eventually(lambda: facts(site, second) == DONE)
    assert runs[second] == 1


class Held:
    """Holds the commits that give back, until they may go on or fail."""

    def __init__(self, site, monkeypatch):
        self.begun, self.go, self.calls = threading.Event(), threading.Event(), 0
        self.error = None
        give_back = site.engine.runner.claims.give_back

        def held(tickets):
            self.calls += 1
            self.begun.set()
            assert self.go.wait(PATIENCE)
            if self.error is not None:
                raise self.error
            return give_back(tickets)

        monkeypatch.setattr(site.engine.runner.claims, "give_back", held)


def aside(target, *arguments):
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread


def test_nothing_begins_while_one_before_it_in_its_batch_is_given_back(
    make, gate, runs, monkeypatch
):
    """Or a sweep could believe, of a process that dies now, that it has not begun."""
    monkeypatch.setattr(threads, "QUICK", PATIENCE)
    site = make()
    first, (second, third) = start_behind(site, runs, QUICK, QUICK)
    held = Held(site, monkeypatch)
    transact(site.db, lambda each: store_of(each, "tests").ask_cancel(second))
    cancel = aside(site.engine.settle_cancel, second)
    assert held.begun.wait(PATIENCE)
    gate.set()
    site.wait(first)
    eventually(lambda: site.engine.executor._hungry == 1)
    assert third not in runs
    assert facts(site, second) == WAITING
    held.go.set()
    cancel.join(PATIENCE)
    site.wait(third)
    assert facts(site, second)[0] == "cancelled"
    assert runs == Counter((first, third))


def test_what_fails_to_be_given_back_comes_before_what_was_behind_it(
    make, gate, runs, monkeypatch
):
    monkeypatch.setattr(threads, "QUICK", PATIENCE)
    site = make()
    first, (second, third) = start_behind(site, runs, QUICK, QUICK)
    held = Held(site, monkeypatch)
    held.error = OSError(28, "the disk is full")
    back = aside(site.engine.executor.give_back, second)
    assert held.begun.wait(PATIENCE)
    gate.set()
    site.wait(first)
    held.go.set()
    back.join(PATIENCE)
    site.wait(second)
    site.wait(third)
    assert list(runs) == [first, second, third]


def test_what_can_not_be_given_back_is_not_tried_again_at_once(
    make, gate, runs, monkeypatch
):
    """Or each of the idle threads would have the others try again."""
    site = make(asyncview__threads="3")
    monkeypatch.setattr(threads, "PATIENCE", PATIENCE)
    held = Held(site, monkeypatch)
    held.error = OSError(28, "the disk is full")
    held.go.set()
    first, *others = start(site, ("/waits",), QUICK, QUICK, QUICK)
    eventually(lambda: held.calls)
    site.engine.executor.give_back()
    with site.engine.executor._changed:
        site.engine.executor._changed.notify_all()
    eventually(lambda: site.engine.executor._hungry == 2)
    site.engine.executor.give_back()
    assert held.calls == 1
    gate.set()
    for id in (first, *others):
        site.wait(id)


def test_what_waits_for_a_thread_that_was_to_be_free_is_given_back(make, gate, runs):
    """It was committing when they were claimed, and met a conflict."""
    site = make(asyncview__threads="2")
    first = site.start("/waits")
    eventually(lambda: runs[first] == 1)
    (ticket,) = site.engine.executor._working
    ticket.finishing = True
    second, third, fourth, fifth = start(site, ("/waits",), QUICK, QUICK, QUICK)
    eventually(lambda: runs[second] == 1)
    assert site.engine.executor.ahead() == [third, fifth]
    slow(site)
    eventually(lambda: len(site.engine.executor._stuck()) == 2)
    site.engine.pulse.beat()
    assert site.engine.executor.ahead() == []
    assert {facts(site, id) for id in (third, fifth)} == {GIVEN_BACK}
    gate.set()
    for id in (first, second, third, fourth, fifth):
        site.wait(id)
    assert set(runs.values()) == {1}


# Cancel


def test_one_that_is_claimed_ahead_is_cancelled_at_once(make, gate, runs):
    site = make()
    _, (second, third) = start_behind(site, runs, QUICK, QUICK)
    site.app.post(f"/quick/cancel?process_id={second}", status=303)
    assert facts(site, second) == ("cancelled", 1, 0, False)
    assert not site.engine.executor.waiting(second)
    assert site.engine.executor.position(third) == 0
    gate.set()
    site.wait(third)
    assert runs[second] == 0
    assert facts(site, third) == DONE


def test_wish_of_another_process_ends_it_at_the_next_beat(
    make, gate, runs, monkeypatch
):
    monkeypatch.setattr(threads, "QUICK", PATIENCE)
    site = make()
    _, (second,) = start_behind(site, runs, QUICK)
    transact(site.db, lambda each: store_of(each, "tests").ask_cancel(second))
    site.engine.pulse.beat()
    assert facts(site, second) == ("cancelled", 1, 0, False)
    gate.set()
    eventually(lambda: not site.engine.executor.busy())
    assert runs[second] == 0


def test_wish_of_another_process_ends_it_at_the_beat_that_gives_it_back(
    make, gate, runs
):
    """And not only when a thread is free for it."""
    site = make()
    _, (second, third) = start_behind(site, runs, QUICK, QUICK)
    transact(site.db, lambda each: store_of(each, "tests").ask_cancel(second))
    slow(site)
    site.engine.pulse.beat()
    assert facts(site, second) == ("cancelled", 1, 0, False)
    assert facts(site, third) == GIVEN_BACK
    assert not site.engine.executor.waiting(second)
    assert site.engine.executor.position(third) == 0
    gate.set()
    site.wait(third)
    assert runs[second] == 0


def test_one_that_is_just_given_back_is_cancelled_at_once(
    make, gate, runs, monkeypatch
):
    site = make()
    _, (second,) = start_behind(site, runs, QUICK)
    slow(site)
    held = Held(site, monkeypatch)
    beat = aside(site.engine.executor.give_back)
    assert held.begun.wait(PATIENCE)
    transact(site.db, lambda each: store_of(each, "tests").ask_cancel(second))
    cancel = aside(site.engine.settle_cancel, second)
    held.go.set()
    for thread in (beat, cancel):
        thread.join(PATIENCE)
    assert facts(site, second) == ("cancelled", 1, 0, False)
    gate.set()
    eventually(lambda: not site.engine.executor.busy())
    assert runs[second] == 0


# The end of a process


def test_stopped_executor_gives_back_what_has_not_begun(make, gate, runs):
    site = make()
    first, others = start_behind(site, runs, QUICK, QUICK)
    site.engine.executor.stop()
    assert {facts(site, id) for id in others} == {GIVEN_BACK}
    assert not any(site.engine.executor.waiting(id) for id in others)
    gate.set()
    assert site.engine.executor.join(PATIENCE)
    assert facts(site, first)[0] == "completed"
    assert set(runs) == {first}


def test_what_is_claimed_while_it_stops_is_given_back(make, runs, monkeypatch):
    site = make()
    runner, executor = site.engine.runner, site.engine.executor
    claim, claimed, hold = runner.claims.take, threading.Event(), threading.Event()

    def late(ids, stride):
        tickets = claim(ids, stride)
        claimed.set()
        assert hold.wait(PATIENCE)
        return tickets

    monkeypatch.setattr(runner.claims, "take", late)
    first, second = start(site, QUICK, QUICK)
    assert claimed.wait(PATIENCE)
    executor.stop()
    hold.set()
    assert executor.join(PATIENCE)
    assert facts(site, first) == DONE
    assert facts(site, second) == GIVEN_BACK
    assert not executor.waiting(second)


def test_what_waits_behind_one_that_takes_too_long_goes_to_another_thread(
    make, gate, runs
):
    site = make()
    first, second = start(site, ("/waits", {"most": "0.001"}), QUICK)
    eventually(lambda: runs[first] == 1)
    eventually(lambda: site.engine.live.overdue(time.monotonic()))
    site.engine.pulse.beat()
    site.wait(second)
    assert facts(site, first)[0] == "failed"
    assert facts(site, second) == DONE
    assert site.status("/waits", first)["started"] is not None
    gate.set()


def test_started_is_known_of_one_that_took_too_long_before_any_beat(make, gate, runs):
    site = make()
    _, second = start(site, QUICK, ("/waits", {"most": "0.001"}))
    eventually(lambda: runs[second] == 1)
    eventually(lambda: site.engine.live.overdue(time.monotonic()))
    site.engine.pulse.beat()
    assert facts(site, second) == ("failed", 1, 0, True)
    gate.set()


def test_nothing_follows_on_an_end_that_is_not_recorded(make, gate, runs, monkeypatch):
    """Or a sweep could believe that it has not begun."""
    site = make()
    monkeypatch.setattr(
        site.engine.runner,
        "_attempts",
        lambda ticket: gate.wait(PATIENCE) and 1 / 0,
    )
    first, second = start(site, QUICK, QUICK)
    eventually(lambda: first in site.engine.live)
    gate.set()
    eventually(lambda: not site.engine.executor.busy())
    assert facts(site, second) == WAITING
    assert not runs
    pulse = sweeping(site)
    pulse.sweep()
    assert facts(site, first)[0] == "failed"
    assert facts(site, second) == GIVEN_BACK


# The death of a process


class Dead:
    """What another process has claimed, before it died."""

    def __init__(self, site, ids):
        self.runner = Runner(site.db, "tests", site.engine.runner.front, Live())
        self.tickets = self.runner.claims.take(ids, threads.AHEAD)


@pytest.fixture
def die(make, gate):
    """A process claims jobs and dies, when it has run so many of them."""

    def die(site, number, count=3, again=0):
        gate.set()
        executor, submit = site.engine.executor, site.engine.executor.submit
        executor.submit = lambda id: None
        ids = [site.start("/waits", {"again": again}) for _ in range(count)]
        executor.submit = submit
        dead = Dead(site, ids)
        for ticket in dead.tickets[:number]:
            dead.runner.run(ticket)
        return dead, ids

    return die


def sweeping(site):
    """A pulse for which a lease has passed, that submits nothing."""
    clock = [0.0]
    pulse = Pulse(
        site.engine.runner,
        site.engine.settings,
        site.engine.ids,
        lambda id: None,
        lambda id: None,
        lambda: False,
        NoExecutor(),
        monotonic=lambda: clock[0],
    )
    pulse.sweep()
    clock[0] += site.engine.settings.lease + 1
    return pulse


def test_job_of_a_dead_process_whose_turn_had_not_come_is_queued_again(make, die, runs):
    site = make()
    _, ids = die(site, 0)
    sweeping(site).sweep()
    assert [facts(site, id) for id in ids] == [
        ("failed", 1, 0, True),
        GIVEN_BACK,
        GIVEN_BACK,
    ]
    for id in ids[1:]:
        site.engine.submit(id)
        site.wait(id)
    assert {facts(site, id) for id in ids[1:]} == {DONE}
    assert runs == Counter(ids[1:])


def test_job_of_a_dead_process_whose_turn_may_have_come_is_interrupted(make, die, runs):
    site = make()
    _, ids = die(site, 1)
    sweeping(site).sweep()
    assert facts(site, ids[0]) == DONE
    assert facts(site, ids[1]) == ("failed", 1, 0, False)
    assert facts(site, ids[2]) == GIVEN_BACK


def test_job_of_a_dead_process_that_was_seen_to_begin_is_interrupted(make, die, runs):
    """Whatever is said of those before it."""
    site = make()
    _, ids = die(site, 0, count=2)

    def begin(connection):
        entry = store_of(connection, "tests").find(ids[1])
        entry.progress.snapshot = entry.snapshot._replace(started=1.0)

    transact(site.db, begin)
    sweeping(site).sweep()
    assert facts(site, ids[1]) == ("failed", 1, 0, True)


def test_restart_is_counted_only_where_a_turn_may_have_come(make, die, runs):
    site = make()
    _, ids = die(site, 1, again=2)
    sweeping(site).sweep()
    assert facts(site, ids[1]) == ("queued", 1, 1, False)
    assert facts(site, ids[2]) == GIVEN_BACK


def test_one_that_was_asked_to_stop_is_cancelled_when_its_process_is_dead(
    make, die, runs
):
    """And not only when a thread is free for it."""
    site = make()
    _, ids = die(site, 0, count=2)
    transact(site.db, lambda each: store_of(each, "tests").ask_cancel(ids[1]))
    sweeping(site).sweep()
    assert facts(site, ids[0])[0] == "failed"
    assert facts(site, ids[1]) == ("cancelled", 1, 0, False)


def test_one_that_is_thought_dead_enters_nothing_that_was_queued_again(
    make, die, runs, caplog
):
    site = make()
    dead, ids = die(site, 0)
    sweeping(site).sweep()
    assert dead.runner.run(dead.tickets[1]) == "fenced"
    assert not runs
    assert facts(site, ids[1]) == GIVEN_BACK
    assert "was taken away from this worker" in caplog.text


def test_turn_that_comes_while_the_job_is_taken_is_noticed(
    make, die, runs, monkeypatch
):
    """The worker is alive after all, and ends the job before it just now."""
    site = make()
    dead, ids = die(site, 0, count=2)
    pulse = sweeping(site)
    with reading(site.db) as connection:
        store = store_of(connection, "tests")
        claims = [
            Claim(id, ticket.token, dead.runner.worker)
            for id, ticket in zip(ids, dead.tickets, strict=True)
        ]
        found = pulse.rescue.dead(store, claims)
    assert [each.job_id for each in found] == ids[::-1]
    guard = Connection.readCurrent
    seen = []

    def late(self, object):
        guard(self, object)
        # The first is that of the rescue.
        if not seen:
            seen.append(object)
            dead.runner.run(dead.tickets[0])

    monkeypatch.setattr(Connection, "readCurrent", late)
    assert pulse.rescue.rescue(found[0]) == "failed"
    assert seen
    assert facts(site, ids[0]) == DONE
    assert dead.runner.run(dead.tickets[1]) == "fenced"
    assert runs == Counter(ids[:1])


# Batches


class Claimed:
    """As much of a ticket as a batch looks at."""

    begun = 0.0

    def __init__(self, batch, place):
        self.token = token_in(batch, place)
        self.ahead = place > 0


def tickets(batch, count):
    return [Claimed(batch, place) for place in range(count)]


def test_batch_that_is_put_back_is_in_its_order():
    batches, me, other = Batches(), threading.Thread(), threading.Thread()
    one, two = tickets("one", 4), tickets("two", 2)
    batches.add([*one, *two])
    assert [batches.next(me), batches.next(other)] == [one[0], two[0]]
    batches.restore(batches.take([one[2], two[1]]))
    assert batches.ahead() == [*one[1:], two[1]]
    assert batches.stuck({one[0]: me}, 1.0) == []
    one[0].begun = 0.5
    assert batches.stuck({one[0]: me, two[0]: other}, 1.0) == one[1:]


def test_nothing_is_put_back_behind_an_end_that_is_not_recorded():
    batches, me = Batches(), threading.Thread()
    batches.add(mine := tickets("one", 3))
    assert batches.next(me) is mine[0]
    taken = batches.take([mine[2]])
    assert batches.drop(me) == [mine[1]]
    assert batches.restore(taken) == [mine[2]]
    assert batches.ahead() == []
    assert batches.next(me) is None
