"""Named tasks: parts of the work, each with a status and counts of its own."""

import logging
import pickle
import threading
import time
from concurrent.futures import CancelledError
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait
from decimal import Decimal
from enum import Enum
from fractions import Fraction

import pytest
from conftest import PATIENCE
from conftest import eventually

from asyncview import BaseAsyncView
from asyncview import InvalidTransition
from asyncview import JobCancelled
from asyncview import ProgressSession
from asyncview.progress import Progress
from asyncview.progress import ease
from asyncview.progress import packed
from asyncview.progress import unpacked


@pytest.fixture
def session():
    return ProgressSession("id", tasks=[("read", "Reading"), ("send", "Sending")])


def tasks(session):
    return session.to_dict()["tasks"]


def statuses(session):
    return [task["status"] for task in tasks(session).values()]


# Statuses


def test_declared_tasks_are_pending_and_so_is_their_session(session):
    assert session.to_dict() == {
        "session_id": "id",
        "status": "pending",
        "overall_percent": 0,
        "message": "",
        "tasks": {
            "read": {
                "name": "Reading",
                "status": "pending",
                "percent": 0,
                "message": "",
            },
            "send": {
                "name": "Sending",
                "status": "pending",
                "percent": 0,
                "message": "",
            },
        },
    }
    assert not session.is_running
    assert not session.is_complete
    assert not session.has_error


def test_task_by_hand_starts_and_completes(session):
    session.start("read")
    assert (session.status, session.is_running) == ("running", True)
    session.complete("read", "All read")
    assert tasks(session)["read"]["message"] == "All read"
    assert tasks(session)["read"]["percent"] == 100
    assert session.overall_percent == 50
    session.complete("send")
    assert (session.status, session.overall_percent) == ("complete", 100)
    assert session.is_complete
    assert not session.is_running


def test_error_of_one_task_counts_more_than_what_runs(session):
    session.start("send")
    session.error("read", "No such file")
    assert (session.status, session.has_error) == ("error", True)
    # The other goes on.
    assert session.is_running
    assert tasks(session)["read"]["message"] == "No such file"
    session.complete("send")
    assert session.status == "error"
    assert not session.is_complete


def test_complete_needs_no_start_and_cannot_hide_an_error(session):
    session.complete("read")
    session.error("send")
    with pytest.raises(ValueError, match="has failed"):
        session.complete("send")
    with pytest.raises(ValueError, match="has failed"):
        session.start("send")
    assert statuses(session) == ["complete", "error"]


def test_start_twice_is_one_start_and_leaves_no_thread(session):
    before = threading.active_count()
    session.start("read")
    session.start("read")
    assert threading.active_count() == before
    assert statuses(session) == ["running", "pending"]


@pytest.mark.parametrize("call", ["start", "complete", "error"])
def test_unknown_task_is_a_key_error_and_makes_none(session, call):
    with pytest.raises(KeyError):
        getattr(session, call)("typo")
    with pytest.raises(KeyError):
        session.add_sequential("typo", pytest.fail)
    with pytest.raises(KeyError):
        session.add_parallel("typo", Future())
    assert set(tasks(session)) == {"read", "send"}


def test_what_is_no_future_starts_no_task(session):
    with pytest.raises(AttributeError):
        session.add_parallel("read", divmod)
    assert statuses(session) == ["pending", "pending"]


def test_session_without_tasks_is_not_complete():
    session = ProgressSession("id")
    assert (session.status, session.overall_percent) == ("pending", 0)
    assert not session.is_complete
    session.update(1, 4)
    assert (session.status, session.overall_percent) == ("running", 25)


# As context manager


def test_context_manager_starts_and_completes():
    session = ProgressSession("id")
    with session.task("read", "Reading", total=4) as task:
        assert tasks(session)["read"]["status"] == "running"
        task.advance()
        assert tasks(session)["read"]["percent"] == 25
    assert tasks(session)["read"]["status"] == "complete"


def test_context_manager_fails_with_what_is_raised(session):
    def work():
        with session.task("read") as task:
            task.update(1, 2)
            raise OSError("a secret")

    with pytest.raises(OSError, match="a secret"):
        work()
    assert tasks(session)["read"]["status"] == "error"
    assert tasks(session)["read"]["percent"] == 50
    assert "secret" not in str(session.to_dict())


def test_context_manager_leaves_an_error_that_was_said(session):
    with session.task("read") as task:
        task.error("Nothing there")
    assert tasks(session)["read"]["status"] == "error"


# Counts


def test_task_counts_as_a_session_does(session):
    task = session.task("read")
    assert list(task.track("abcd", message="Letters")) == list("abcd")
    assert tasks(session)["read"] == {
        "name": "Reading",
        "status": "running",
        "percent": 100,
        "message": "Letters",
    }
    for call in (task.advance, task.complete):
        call()
    assert tasks(session)["read"]["percent"] == 100


def test_task_that_says_something_runs_without_a_start(session):
    session.task("read").update(1, 4)
    assert statuses(session) == ["running", "pending"]
    assert session.status == "running"


def test_percent_is_the_weighted_mean_of_the_tasks(session):
    session.task("read", weight=3).update(1, 2)
    session.task("send").update(1, 10)
    # What the session itself counts is shown, but is not its percentage.
    session.update(99, 100)
    assert session.take(1.0).share == 40.0
    session.task("read", "Reading on")
    session.complete("read")
    assert session.take(2.0).share == 77.5


def test_percent_never_goes_back_when_tasks_are_added(session):
    session.complete("read")
    assert session.overall_percent == 50
    session.task("more")
    session.task("and more")
    assert session.overall_percent == 50
    assert session.take(1.0).share == 50.0


@pytest.mark.parametrize(
    "number", [0, -1, float("nan"), float("inf"), 1e308, "2", object()]
)
def test_weight_and_expectation_are_above_nothing(session, number):
    with pytest.raises(ValueError, match="weight"):
        session.task("read", weight=number)
    with pytest.raises(ValueError, match="expected"):
        session.task("read", expected=number)


def test_weight_of_none_is_nothing_said(session):
    session.task("read", weight=3).complete()
    session.task("read", weight=None)
    assert session.look(1.0).share_at(1.0) == 75.0


def test_weight_may_be_one_again(session):
    session.task("read", weight=3).complete()
    session.task("read")
    assert session.overall_percent == 75
    session.task("send", weight=3)
    session.task("send", weight=1).complete()
    session.task("read", weight=1)
    assert [task.weight for task in session.look(1.0).tasks] == [1, 1]


TOO_LONG = 500 * "x"


@pytest.mark.parametrize(
    "id", [5, None, b"read", ("read",), TOO_LONG + "y", "half \ud800"]
)
def test_id_that_is_no_text_or_too_long_to_be_told_is_refused(session, id):
    # In a document 5 and "5" are one, and of a long text the first 500 characters.
    for give in (session.task, session.task("read").task):
        with pytest.raises(ValueError, match=r"id of a task is a text"):
            give(id)
    assert set(tasks(session)) == {"read", "send"}
    with pytest.raises(ValueError, match=r"id of a task is a text"):
        ProgressSession(tasks=[(id, "Name")])


def test_ids_are_kept_apart_up_to_their_last_character(session):
    for end in "ab":
        session.task(TOO_LONG[1:] + end)
    assert set(tasks(session)) == {"read", "send", *(TOO_LONG[1:] + e for e in "ab")}


def test_id_may_be_the_member_of_an_enumeration(session):
    class Step(str, Enum):
        READ = "read"

    assert session.task(Step.READ) is session.task("read")
    session.start(Step.READ)
    assert statuses(session) == ["running", "pending"]


def test_weight_and_expectation_may_be_any_kind_of_number(session):
    session.task("read", weight=Decimal(3), expected=Decimal(10)).complete()
    session.task("send", weight=Fraction(1), expected=Fraction(10))
    last = session.look(1.0)
    assert last.share_at(1.0) == 75.0
    assert [type(task.weight) for task in last.tasks] == [int, int]


def test_task_given_again_is_the_same(session):
    task = session.task("read", weight=2, total=7)
    assert session.task("read") is task
    session.task("read", "Another name")
    taken = session.take(1.0).tasks[0]
    assert (taken.weight, taken.total, taken.name) == (2, 7, "Another name")


# Tasks within tasks


def test_task_has_tasks_and_is_their_mean(session):
    read = session.task("read").start()
    with read.task("a", weight=3):
        pass
    read.task("b").update(1, 2)
    taken = session.take(1.0).tasks[0]
    assert [(task.id, task.status) for task in taken.tasks] == [
        ("a", "complete"),
        ("b", "running"),
    ]
    assert taken.share(1.0) == 87.5
    # It was started, so that it ends when somebody says so.
    read.task("b").complete()
    assert statuses(session)[0] == "running"


def test_task_that_nobody_started_is_what_its_tasks_are(session):
    read = session.task("read")
    a, b = read.task("a"), read.task("b")
    assert statuses(session)[0] == "pending"
    a.start()
    assert statuses(session)[0] == "running"
    a.complete()
    assert statuses(session)[0] == "running"
    b.complete()
    assert statuses(session)[0] == "complete"
    b.error()
    assert statuses(session)[0] == "error"


@pytest.mark.parametrize("how", ["with", "by hand", "sequential", "parallel"])
def test_task_whose_part_failed_has_failed_when_it_ends(session, how):
    read = session.task("read")
    part = read.task("part")
    with read.task("other"):
        pass
    # While it runs it may be that others go on.
    read.start()
    part.error("No such file")
    assert statuses(session)[0] == "running"
    if how == "with":
        with read:
            pass
    elif how == "by hand":
        read.complete()
    elif how == "sequential":
        session.add_sequential("read", lambda: None)
    else:
        future = Future()
        session.add_parallel("read", future)
        future.set_result(None)
    assert statuses(session)[0] == "error"
    assert session.has_error
    # It is not done, for all that was said.
    assert tasks(session)["read"]["percent"] == 50


def test_part_that_fails_late_is_told_too(session):
    with session.task("read") as read:
        part = read.task("part").start()
    session.complete("send")
    assert session.is_complete
    part.error()
    assert (session.status, session.is_complete) == ("error", False)


def test_nesting_ends_at_one_level(session):
    with pytest.raises(ValueError, match="task of a task"):
        session.task("read").task("a").task("b")


# Sequential and parallel


def test_sequential_runs_now_and_gives_its_result(session):
    def add(a, b=0):
        assert statuses(session) == ["running", "pending"]
        return a + b

    assert session.add_sequential("read", add, 1, b=2).result == 3
    assert statuses(session) == ["complete", "pending"]


def test_sequential_keeps_what_was_raised_and_logs_it(session, caplog):
    def fail():
        raise ZeroDivisionError("a secret")

    done = session.add_sequential("read", fail)
    assert statuses(session) == ["error", "pending"]
    with pytest.raises(ZeroDivisionError, match="a secret"):
        _ = done.result
    assert "a secret" in caplog.text
    assert "secret" not in str(session.to_dict())


def test_later_tasks_get_earlier_results(session):
    first = session.add_sequential("read", lambda: [1, 2])
    assert session.add_sequential("send", sum, first.result).result == 3


def test_parallel_runs_until_its_future_resolves(session, gate):
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(gate.wait, PATIENCE)
        followed = session.add_parallel("read", future)
        assert statuses(session) == ["running", "pending"]
        assert not session.is_complete
        gate.set()
        assert followed.result is True
        wait([future])
    assert statuses(session) == ["complete", "pending"]


def test_parallel_that_raises_is_an_error_and_raises_again(session, caplog):
    with ThreadPoolExecutor(1) as pool:
        followed = session.add_parallel("read", pool.submit(divmod, 1, 0))
    with pytest.raises(ZeroDivisionError):
        _ = followed.result
    assert session.has_error
    assert statuses(session) == ["error", "pending"]
    assert "ZeroDivisionError" in caplog.text


def test_parallel_that_is_cancelled_is_an_error(session):
    future = Future()
    followed = session.add_parallel("read", future)
    assert future.cancel()
    assert statuses(session) == ["error", "pending"]
    with pytest.raises(CancelledError):
        _ = followed.result


def test_parallel_of_a_future_that_is_done_is_done(session):
    future = Future()
    future.set_result("at once")
    assert session.add_parallel("read", future).result == "at once"
    assert statuses(session) == ["complete", "pending"]


def test_task_of_two_futures_runs_until_both_have_resolved(session):
    first, second = Future(), Future()
    session.add_parallel("read", first)
    followed = session.add_parallel("read", second)
    first.set_result(1)
    assert statuses(session) == ["running", "pending"]
    second.set_result(2)
    assert statuses(session) == ["complete", "pending"]
    assert followed.result == 2


@pytest.mark.parametrize("failing", [0, 1])
def test_task_of_two_futures_is_an_error_if_one_of_them_failed(session, failing):
    futures = [Future(), Future()]
    for future in futures:
        session.add_parallel("read", future)
    futures[failing].set_exception(ZeroDivisionError())
    # It shows when nothing of it runs any more, as with tasks of a session.
    assert statuses(session) == ["running", "pending"]
    futures[1 - failing].set_result(None)
    assert statuses(session) == ["error", "pending"]


@pytest.mark.parametrize(("fails", "end"), [(True, "error"), (False, "complete")])
def test_second_future_may_come_when_the_first_has_resolved(session, fails, end):
    first, second = Future(), Future()
    session.add_parallel("read", first)
    if fails:
        first.set_exception(ZeroDivisionError())
    else:
        first.set_result(1)
    # Whether it has done so by now is for nobody to know.
    session.add_parallel("read", second)
    assert statuses(session) == ["running", "pending"]
    second.set_result(2)
    assert statuses(session) == [end, "pending"]


def test_future_given_twice_is_one(session):
    future = Future()
    for _ in range(2):
        session.add_parallel("read", future)
    future.set_result(1)
    assert statuses(session) == ["complete", "pending"]


def test_futures_do_not_take_back_an_end_that_was_said(session):
    session.complete("read")
    with pytest.raises(InvalidTransition):
        session.add_parallel("read", Future())
    future = Future()
    session.add_parallel("send", future)
    session.error("send", "Given up")
    future.set_result(1)
    assert statuses(session) == ["complete", "error"]


def test_end_that_was_said_before_the_future_resolved_is_one(session):
    future = Future()
    session.add_parallel("read", future)
    session.complete("read")
    future.set_result(1)
    with pytest.raises(InvalidTransition):
        session.add_parallel("read", Future())
    assert statuses(session) == ["complete", "pending"]


@pytest.mark.parametrize("how", ["sequential", "with"])
def test_task_waits_for_its_future_whatever_else_is_done_in_it(session, how):
    future = Future()
    if how == "with":
        with session.task("read"):
            session.add_parallel("read", future)
    else:
        session.add_parallel("read", future)
        assert session.add_sequential("read", lambda: 1).result == 1
    assert statuses(session) == ["running", "pending"]
    future.set_result(1)
    assert statuses(session) == ["complete", "pending"]


def test_task_of_many_futures_ends_with_the_last_of_them(session):
    """Each resolves in a thread of its own; what is seen is checked all the while."""
    futures = [Future() for _ in range(200)]
    for future in futures:
        session.add_parallel("read", future)
    begin = threading.Barrier(4)

    def resolve(some):
        begin.wait(PATIENCE)
        for future in some:
            assert statuses(session)[0] == "running"
            future.set_result(None)

    *most, last = futures
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(resolve, [most[i::4] for i in range(4)]))
    assert statuses(session)[0] == "running"
    last.set_exception(ZeroDivisionError())
    assert statuses(session)[0] == "error"


def test_error_of_one_parallel_task_leaves_the_others_running(session):
    futures = {id: Future() for id in ("read", "send")}
    for id, future in futures.items():
        session.add_parallel(id, future)
    futures["read"].set_exception(ZeroDivisionError())
    assert statuses(session) == ["error", "running"]
    assert not session.take(1.0).settled
    futures["send"].set_result(None)
    assert statuses(session) == ["error", "complete"]
    assert session.take(2.0).settled


def test_no_task_takes_longer_than_its_work(session):
    # No pretended completion: it is complete when it says so.
    session.complete("read")
    assert statuses(session)[0] == "complete"


# Estimates


def test_expected_task_eases_when_it_is_read_and_says_so(session):
    session.task("read", expected=10).start()
    snapshot = session.take(1000.0)
    task = snapshot.tasks[0]
    assert task.estimated
    assert snapshot.estimated
    shares = [task.share(task.started + after) for after in (0, 5, 10, 100, 10**9)]
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert 70 < shares[2] < 95
    assert shares[-1] == 95.0
    assert snapshot.share_at(task.started + 10) == round(shares[2] / 2, 1)


def test_estimate_writes_nothing(session):
    session.task("read", expected=10).start()
    assert session.take(1000.0) is not None
    assert session.take(2000.0) is None


def test_clock_of_another_host_makes_no_estimate_negative():
    assert ease(-100, 10) == 0.0


def test_counts_are_better_than_an_estimate(session):
    session.task("read", expected=10).update(1, 4)
    task = session.take(1000.0).tasks[0]
    assert not task.estimated
    assert task.share(10**9) == 25.0


def test_estimate_ends_with_its_task(session):
    session.task("read", expected=10).start()
    started = session.take(1000.0).tasks[0].started
    session.look(started + 10)
    session.error("read")
    failed = session.take(started + 11).tasks[0]
    assert not failed.estimated
    assert failed.share(10**9) == ease(10, 10)
    session.task("send", expected=1).complete()
    assert session.take(started + 12).tasks[1].share(started) == 100.0


# Stop


def test_each_call_of_a_stopped_task_raises(session):
    task = session.task("read")
    part = task.task("part")
    session.stop()
    calls = [
        each
        for one in (task, part)
        for each in (one.update, one.advance, one.complete, one.error, one.start)
    ]
    calls += [lambda: task.track("abc"), lambda: task.task("b"), task.__enter__]
    calls += [lambda: session.task("new"), lambda: session.start("read")]
    calls += [lambda: session.add_sequential("read", pytest.fail)]
    calls += [lambda: session.add_parallel("read", Future())]
    for call in calls * 2:
        with pytest.raises(JobCancelled):
            call()


def test_track_of_a_task_notices_the_stop_after_its_item(session):
    seen = []

    def work():
        with session.task("read") as task:
            for item in task.track("abc"):
                seen.append(item)
                session.stop()

    with pytest.raises(JobCancelled):
        work()
    assert seen == ["a"]
    assert statuses(session) == ["error", "pending"]


def test_future_that_resolves_after_the_stop_says_so_all_the_same(session):
    future = Future()
    session.add_parallel("read", future)
    session.stop()
    future.set_result(1)
    assert statuses(session) == ["complete", "pending"]


# Records


def test_snapshot_comes_back_from_its_record_as_it_was(session):
    session.task("read", weight=2, expected=5).start().task("part").update(1, 3, "x")
    session.error("send", "Refused")
    taken = session.take(1000.0)
    progress = Progress()
    progress.snapshot = taken
    again = Progress.__new__(Progress)
    again.__setstate__(pickle.loads(pickle.dumps(progress.__getstate__())))
    assert again.snapshot == taken
    assert unpacked(packed(taken)) == taken


def test_record_without_tasks_says_nothing_of_them():
    session = ProgressSession("id")
    session.update(1, 2)
    assert len(packed(session.take(1.0))) == 4


# In a job


class Steps(BaseAsyncView):
    tasks = {"read": "Reading", "send": "Sending"}  # noqa: RUF012

    def __run__(self):
        registry = self.request.registry
        with self.progress.task("read", weight=3) as read:
            read.update(1, 2)
            read.task("part", "A part")
            registry.inside.set()
            registry.gate.wait(PATIENCE)
        self.progress.task("send").update(1, 4, "One of them")
        if "fail" in self.request.params:
            raise ZeroDivisionError
        return "done"


@pytest.fixture
def site(make_site, gate):
    def configure(config):
        config.registry.gate, config.registry.inside = gate, threading.Event()
        config.add_async_view(Steps, "steps")

    return make_site(configure, asyncview__threads=1)


def test_tasks_of_a_job_are_in_its_document_and_on_its_page(site, gate):
    process_id = site.start("/steps")
    assert site.registry.inside.wait(PATIENCE)
    waiting = site.start("/steps")
    eventually(
        lambda: site.status("/steps", process_id)["tasks"][0]["status"] == "running"
    )
    document = site.status("/steps", process_id)
    assert [task["id"] for task in document["tasks"]] == ["read", "send"]
    assert set(document["tasks"][0]) == {
        "id",
        "name",
        "status",
        "percent",
        "current",
        "total",
        "message",
        "estimated",
        "tasks",
    }
    assert document["tasks"][0]["tasks"][0]["name"] == "A part"
    assert document["tasks"][1]["percent"] is None
    page = site.app.get(f"/steps/processing?process_id={process_id}")
    assert "Reading" in page.text
    assert 'data-status="running"' in page.text
    # One that waits shows what it will do.
    names = [task["name"] for task in site.status("/steps", waiting)["tasks"]]
    assert names == ["Reading", "Sending"]
    gate.set()
    site.wait(process_id)
    site.wait(waiting)
    document = site.status("/steps", process_id)
    assert (document["status"], document["completed"]) == ("completed", 100)
    # The job's end, whatever its tasks say.
    assert [task["status"] for task in document["tasks"]] == ["complete", "running"]
    assert document["tasks"][1]["message"] == "One of them"


def test_tasks_of_a_failed_job_stay_to_be_seen(site, gate):
    gate.set()
    document = site.run("/steps", {"fail": "1"})
    assert document["status"] == "failed"
    assert document["tasks"][1]["percent"] == 25.0
    # What ran then came to nothing: a page must not show it running.
    assert [task["status"] for task in document["tasks"]] == ["complete", "error"]


def test_estimate_grows_from_poll_to_poll_without_a_write(make_site, gate):
    class Guessing(BaseAsyncView):
        def __run__(self):
            self.progress.task("all", expected=2).start()
            gate.wait(PATIENCE)

    site = make_site(lambda config: config.add_async_view(Guessing, "guessing"))
    process_id = site.start("/guessing")
    eventually(lambda: site.status("/guessing", process_id)["percent"])
    first = site.status("/guessing", process_id)
    assert first["estimated"]
    eventually(
        lambda: site.status("/guessing", process_id)["percent"] > first["percent"]
    )
    assert site.status("/guessing", process_id)["version"] == first["version"]


def test_failure_that_a_task_keeps_is_logged_where_sessions_log(session, caplog):
    with caplog.at_level(logging.ERROR, "asyncview.session"):
        session.add_sequential("read", lambda: 1 / 0)
    assert [record.name for record in caplog.records] == ["asyncview.session"]


def test_estimate_stands_still_after_the_end(make_site, gate, monkeypatch):
    class Guessing(BaseAsyncView):
        def __run__(self):
            self.progress.task("all", expected=3600).start()
            gate.wait(PATIENCE)
            raise ValueError("in the middle")

    site = make_site(lambda config: config.add_async_view(Guessing, "guessing"))
    gate.set()
    process_id = site.run("/guessing")["process_id"]
    told = [site.status("/guessing", process_id)["tasks"]]
    reader = site.engine.keeper.get(process_id)
    lines = [reader.to_dict()]
    later = time.time() + 3600
    monkeypatch.setattr("asyncview.pyramid.status.time.time", lambda: later)
    monkeypatch.setattr(site.engine.runner, "clock", lambda: later)
    site.registry.asyncview.documents._kept.clear()
    told.append(site.status("/guessing", process_id)["tasks"])
    lines.append(reader.to_dict())
    assert told[0] == told[1]
    assert lines[0] == lines[1]
