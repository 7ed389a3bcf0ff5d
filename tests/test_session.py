"""The progress session: what a job says of itself, as cheap as an attribute."""

import logging
import math
import time
from decimal import Decimal
from fractions import Fraction

import pytest
from translationstring import TranslationString

from asyncview import JobCancelled
from asyncview import ProgressSession
from asyncview import said
from asyncview.progress import NOTHING
from asyncview.progress import Snapshot
from asyncview.pyramid.joblog import JobLog
from asyncview.session import LOG_LINES
from asyncview.session import LOG_WIDTH
from asyncview.session import MESSAGE_WIDTH

LOGGER = logging.getLogger("asyncview.test")

HELLO = TranslationString("msg_id", "x", "Hello ${n}", {"n": 5})


@pytest.fixture
def session():
    return ProgressSession("id")


def taken(session, now=1000.0):
    snapshot = session.take(now)
    assert snapshot is not None
    return snapshot


def numbers(session):
    snapshot = taken(session)
    return snapshot.current, snapshot.total, snapshot.share


# What is said


def test_update_leaves_as_it_is_what_is_omitted(session):
    session.update(1, 10, "first")
    session.update(current=2)
    session.update(message="second")
    snapshot = taken(session)
    assert (snapshot.current, snapshot.total, snapshot.message) == (2, 10, "second")


def test_nothing_is_taken_where_nothing_changed(session):
    assert session.take(1.0) is None
    session.update(1, 10)
    first = taken(session, 1.0)
    assert session.take(2.0) is None
    session.update(1, 10)
    assert session.take(3.0) is None
    session.update(2)
    second = taken(session, 4.0)
    assert (first.version, first.updated) == (1, 1.0)
    assert (second.version, second.updated) == (2, 4.0)
    assert session.snapshot is second


def test_advance_counts_from_nothing(session):
    session.advance()
    session.advance(3)
    session.update(total=10)
    assert numbers(session) == (4, 10, 40.0)


@pytest.mark.parametrize(
    ("current", "total", "expected"),
    [
        (45.678, 100, (45.7, 100, 45.7)),
        (45.0, 100.0, (45, 100, 45.0)),
        (0.45, 1, (0.45, 1, 45.0)),
        (1, 3, (1, 3, 33.3)),
        (Decimal("2.50"), 10, (2.5, 10, 25.0)),
        (Fraction(1, 3), 1, (1 / 3, 1, 33.3)),
        (True, 2, (1, 2, 50.0)),
        (0.1 + 0.2, None, (0.3, None, None)),
        (12, 10, (12, 10, 100.0)),
        (-1, 10, (-1, 10, 0.0)),
        (5, 0, (5, 0, None)),
        (5, -1, (5, -1, None)),
        (5, 0.04, (5, 0.04, 100.0)),
        (10**300, None, (10**300, None, None)),
    ],
)
def test_numbers_are_rounded_where_that_changes_no_percentage(
    session, current, total, expected
):
    session.update(current, total)
    shown = numbers(session)
    assert shown == expected
    assert [type(each) for each in shown] == [type(each) for each in expected]


@pytest.mark.parametrize(
    "nonsense",
    [math.nan, math.inf, -math.inf, "12", b"12", object(), 10**400, [1], 1 + 2j],
)
def test_what_is_no_number_is_dropped_and_logged_once(session, caplog, nonsense):
    session.update(3, 10)
    taken(session)
    with caplog.at_level(logging.WARNING, "asyncview.session"):
        for _ in range(3):
            session.update(nonsense, message="on")
            session.take(2.0)
            session.update(total=nonsense)
            session.take(2.0)
    assert numbers_of(session.snapshot) == (3, 10, 30.0)
    assert len(caplog.records) == 1


def numbers_of(snapshot):
    return snapshot.current, snapshot.total, snapshot.share


def test_advance_goes_on_after_nonsense(session):
    session.update(3, 10)
    taken(session)
    session.advance(math.nan)
    assert session.take(2.0) is None
    session.advance()
    assert numbers(session) == (4, 10, 40.0)


def test_numbers_that_were_given_by_any_call_are_remembered(session):
    session.update(message="no number yet")
    assert not taken(session).numeric
    session.advance()
    assert taken(session).numeric
    for _ in session.track(iter("a")):
        pass
    session.update(message="later")
    assert taken(session).numeric


def test_percent_never_goes_back(session):
    shares = []
    for current, total in ((1, 10), (9, 10), (5, 10), (1, 100), (95, 100), (0, 0)):
        session.update(current, total)
        shares.append(taken(session).share)
    assert shares == [10.0, 90.0, 90.0, 90.0, 95.0, None]


def test_attempt_starts_afresh_but_for_its_version(session):
    session.update(9, 10, "first attempt")
    session.log("a line")
    last = taken(session)
    second = ProgressSession("id", 2, last)
    snapshot = taken(second)
    assert (snapshot.attempt, snapshot.version) == (2, last.version + 1)
    assert (snapshot.current, snapshot.message, snapshot.log) == (None, "", ())
    second.update(1, 10)
    assert numbers(second) == (1, 10, 10.0)


# When the count began


@pytest.fixture
def clock(monkeypatch):
    """What ``time.time`` gives: a list of one number."""
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


@pytest.fixture
def started(session):
    """A session of a job that began at 1000."""
    session.facts = session.facts._replace(started=1000.0)
    return session


def beginning(session, now):
    session.take(now)
    return session.snapshot.since, session.snapshot.base


def test_nothing_is_kept_of_when_a_count_began_that_did_so_with_the_job(started, clock):
    clock[0] = 1000.1
    tracked = started.track("abc")
    assert beginning(started, 1000.5) == (None, 0)
    next(tracked)
    next(tracked)
    assert beginning(started, 1001.5) == (None, 0)


def test_count_of_update_began_with_the_job_where_nobody_looked_before(started):
    started.update(5, 10)
    assert beginning(started, 1003.0) == (None, 0)


def test_each_track_begins_a_count(started, clock):
    for _ in started.track("abc"):
        pass
    assert beginning(started, 1009.0) == (None, 0)
    clock[0] = 1010.04
    tracked = started.track("abcd")
    next(tracked)
    assert beginning(started, 1011.0) == (1010.0, 0)
    next(tracked)
    assert beginning(started, 1012.0) == (1010.0, 0)


def test_each_stage_of_a_factory_begins_a_count(started, clock):
    factory = started.as_factory()
    factory("first", 10).update(10)
    assert beginning(started, 1009.0) == (None, 0)
    clock[0] = 1010.0
    factory("second", 10).update(1)
    assert beginning(started, 1011.0) == (1010.0, 0)


def test_steps_of_a_track_ask_no_clock(session, monkeypatch):
    tracked = session.track("abc")
    monkeypatch.setattr(time, "time", None)
    assert list(tracked) == ["a", "b", "c"]
    session.update(1)
    session.advance()


def test_inner_track_begins_no_count(started, clock):
    for _ in started.track("ab"):
        clock[0] += 10
        for _ in started.track("xyz"):
            assert beginning(started, clock[0]) == (None, 0)


def test_count_that_goes_down_began_anew_as_far_as_is_seen(started):
    started.update(20, 20)
    assert beginning(started, 1010.0) == (None, 0)
    started.update(3, 6000)
    assert beginning(started, 1011.0) == (1011.0, 3)
    started.update(103)
    assert beginning(started, 1012.0) == (1011.0, 3)
    started.advance(-1)
    assert beginning(started, 1013.0) == (1013.0, 102)


def test_count_that_goes_down_at_once_is_not_that_of_the_job(started):
    started.update(20, 20)
    taken(started, 1000.0)
    started.update(3, 6000)
    assert beginning(started, 1000.1) == (1000.1, 3)


def test_total_that_grows_begins_no_count(started):
    for number in range(1, 5):
        started.update(10 * number, 20 * number)
        assert beginning(started, 1000.0 + number) == (None, 0)
    started.update(total=1)
    assert beginning(started, 1009.0) == (None, 0)


def test_first_number_after_a_look_began_a_count_since_then(started):
    started.update(message="Looking around")
    assert beginning(started, 1010.0) == (None, 0)
    started.update(3, 10)
    assert beginning(started, 1011.0) == (1010.0, 0)


def test_what_is_no_number_begins_no_count(started):
    started.update(3, 10)
    taken(started, 1001.0)
    started.update(math.nan)
    assert beginning(started, 1002.0) == (None, 0)


def test_count_of_a_later_attempt_began_in_it(clock):
    session = ProgressSession("id", 2, since=1050.0)
    session.facts = session.facts._replace(started=1000.0)
    session.update(3, 10)
    assert beginning(session, 1051.0) == (1050.0, 0)
    clock[0] = 1060.0
    tracked = session.track("abc")
    next(tracked)
    assert beginning(session, 1061.0) == (1060.0, 0)


def test_count_of_a_job_that_was_claimed_ahead_began_with_it_where_it_did(clock):
    session = ProgressSession("id")
    session.facts = session.facts._replace(started=900.0)
    session.began = 1000.0
    session.track("abc")
    assert beginning(session, 1001.0) == (None, 0)


def test_session_that_is_taken_over_goes_on_with_the_count(clock):
    session = ProgressSession("id")
    session.facts = session.facts._replace(started=900.0)
    session.resume(Snapshot(7, 990.0, 5, 10, since=950.0, base=2))
    session.advance()
    assert beginning(session, 1001.0) == (950.0, 2)
    session.update(3)
    assert beginning(session, 1002.0) == (1002.0, 3)


def test_first_word_of_who_took_over_may_begin_a_count(clock):
    for begin in (
        lambda session: session.update(1),
        lambda session: next(session.track("abc", total=10)),
    ):
        session = ProgressSession("id")
        session.facts = session.facts._replace(started=900.0)
        session.resume(Snapshot(7, 990.0, 5, 10))
        begin(session)
        since, base = beginning(session, 1000.0)
        assert (since, base) == (1000.0, session.snapshot.current)


# Text


class Unspeakable:
    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("x" * 1000, "x" * MESSAGE_WIDTH),
        (12, "12"),
        ("lone \ud800", "lone ?"),
        (Unspeakable(), ""),
        (HELLO, "Hello 5"),
        (TranslationString("Hello ${n}", mapping={"n": 6}), "Hello 6"),
        (TranslationString("hello", default="x" * 1000), "x" * MESSAGE_WIDTH),
    ],
)
def test_message_is_a_bounded_text_that_every_page_can_show(session, message, shown):
    session.update(1, message=message)
    text = taken(session).message
    assert text == shown
    assert type(text) is str


class Living:
    """As a persistent object: it may be asked in the thread that gives it, only."""

    given = False

    def __str__(self):
        assert not self.given
        return "hello"


def within(session, message):
    steps = session.track("a")
    next(steps)
    inner = session.track("b", message=message)
    next(inner)
    return steps, inner


SAYING = {
    "update": lambda session, it: session.update(message=it),
    "track": lambda session, it: session.track("ab", message=it),
    "track within": within,
    "factory": lambda session, it: session.as_factory()(it, 2),
    "finish": lambda session, it: session.finish(it),
    "fail": lambda session, it: session.fail(it),
    "log": lambda session, it: session.log(it),
    "logger": lambda session, it: JobLog(LOGGER, session).info(it),
    "logger's argument": lambda session, it: JobLog(LOGGER, session).info("%s", it),
    "name": lambda session, it: session.task("t", it),
    "name of a part": lambda session, it: session.task("t").task("p", it),
    "update of a task": lambda session, it: session.task("t").update(message=it),
    "track of a task": lambda session, it: session.task("t").track("ab", message=it),
    "end of a task": lambda session, it: session.task("t").complete(it),
    "error of a task": lambda session, it: session.task("t").error(it),
}


@pytest.mark.parametrize("say", SAYING.values(), ids=SAYING)
def test_what_is_said_is_text_before_anybody_else_looks(say):
    session, living = ProgressSession(), Living()
    kept = say(session, living)
    living.given = True
    shown = taken(session) if session.snapshot == NOTHING else session.snapshot
    assert "hello" in repr(shown), shown
    del kept


def test_texts_yet_to_be_translated_are_told_as_they_read(session):
    session.log(HELLO)
    JobLog(LOGGER, session).info(HELLO)
    task = session.task("greet", HELLO)
    task.update(message=HELLO)
    snapshot = taken(session)
    assert snapshot.log == ("Hello 5", "Hello 5")
    assert (snapshot.tasks[0].name, snapshot.tasks[0].message) == ("Hello 5",) * 2
    assert said.label(HELLO) == "Hello 5"
    assert said.tasks({"greet": HELLO}) == (("greet", "Hello 5"),)


def test_log_keeps_the_last_lines_and_bounds_each(session):
    for number in range(LOG_LINES + 5):
        session.log(f"{number} " + "x" * 1000)
    lines = taken(session).log
    assert len(lines) == LOG_LINES
    assert lines[-1].startswith(f"{LOG_LINES + 4} ")
    assert {len(line) for line in lines} == {LOG_WIDTH}


# Track


def test_track_yields_the_items_and_counts_those_that_are_done(session):
    seen = []
    for item in session.track("abc", message="Spelling"):
        seen.append((item, *numbers_of(session.take(1.0) or session.snapshot)))
    assert seen == [("a", 0, 3, 0.0), ("b", 1, 3, 33.3), ("c", 2, 3, 66.7)]
    snapshot = taken(session)
    assert (snapshot.current, snapshot.message) == (3, "Spelling")


def test_track_takes_a_total_where_there_is_no_length(session):
    for _ in session.track(iter("ab"), total=4):
        pass
    assert numbers(session) == (2, 4, 50.0)


def test_track_of_a_generator_has_no_total_also_after_one_that_had(session):
    for _ in session.track("ab"):
        pass
    for _ in session.track(letter for letter in "abc"):
        pass
    assert numbers(session) == (3, None, None)


def test_track_stopped_by_break_stays_where_it_was(session):
    for item in session.track("abcd"):
        if item == "c":
            break
    assert numbers(session) == (2, 4, 50.0)
    for _ in session.track("ab"):
        pass
    assert numbers(session) == (2, 2, 100.0)


def test_track_that_raises_stays_where_it_was(session):
    def fail():
        for item in session.track([1, 0]):
            1 / item

    with pytest.raises(ZeroDivisionError):
        fail()
    assert numbers(session) == (1, 2, 50.0)


def test_outermost_of_nested_tracks_counts_and_the_inner_says_what_it_does(session):
    seen = []
    for _ in session.track("ab", message="outer"):
        for _ in session.track("xyz", message="inner"):
            snapshot = session.take(1.0) or session.snapshot
            seen.append((snapshot.current, snapshot.total, snapshot.message))
        snapshot = session.take(1.0) or session.snapshot
        assert snapshot.message == "outer"
    assert seen == [(0, 2, "inner")] * 3 + [(1, 2, "inner")] * 3
    assert numbers(session) == (2, 2, 100.0)


def test_inner_track_left_by_break_gives_its_message_back(session):
    for _ in session.track("ab", message="outer"):
        for _ in session.track("xyz", message="inner"):
            break
    assert taken(session).message == "outer"


def test_track_of_nothing(session):
    assert list(session.track([])) == []
    assert numbers(session) == (0, 0, None)


# Stop


def test_each_call_of_a_stopped_session_raises_each_time(session):
    session.stop()
    session.stop()
    calls = (session.update, session.advance, lambda: session.track("abc"))
    for call in calls * 2:
        with pytest.raises(JobCancelled):
            call()


def test_job_cancelled_is_not_caught_by_except_exception(session):
    session.stop()

    def work():
        try:
            session.update(1)
        except Exception:
            pytest.fail("this is for errors only")

    with pytest.raises(JobCancelled):
        work()


def test_track_in_the_middle_notices_the_stop_after_its_item(session):
    seen = []

    def work():
        for item in session.track("abc"):
            seen.append(item)
            session.stop()

    with pytest.raises(JobCancelled):
        work()
    assert seen == ["a"]
    assert numbers(session) == (0, 3, 0.0)


def test_inner_track_in_the_middle_notices_it_too(session):
    seen = []

    def work():
        for _ in session.track("ab"):
            for item in session.track("xyz", message="inner"):
                seen.append(item)
                session.stop()

    with pytest.raises(JobCancelled):
        work()
    assert seen == ["x"]


def test_stopped_session_can_be_taken_and_logged_to(session, caplog):
    session.update(math.nan, 10, "last words")
    session.stop()
    session.log("a line")
    snapshot = taken(session)
    assert (snapshot.message, snapshot.log) == ("last words", ("a line",))
    assert "dropped" in caplog.text


def test_track_left_after_the_stop_is_closed_without_a_word(session):
    tracked = session.track("abc")
    next(tracked)
    session.stop()
    tracked.close()
