"""Loops that show how far they are: on the page, on the terminal, or nowhere."""

import io
import subprocess
import sys

import pytest

from asyncview import ConsoleProgress
from asyncview import ProgressSession
from asyncview import progress_loop


class Recorder:
    """A factory that remembers what it was told."""

    def __init__(self):
        self.calls = []

    def __call__(self, message, total):
        self.calls.append((message, total))
        return self

    def update(self, i):
        self.calls.append(i)

    def finish(self):
        self.calls.append("finish")


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def session():
    return ProgressSession("id")


def ignore(item, i):
    pass


# The loop


def test_loop_calls_with_each_item_and_its_number_from_one(recorder):
    seen = []
    progress_loop(lambda *each: seen.append(each), "abc", recorder, "Spelling")
    assert seen == [("a", 1), ("b", 2), ("c", 3)]
    assert recorder.calls == [("Spelling", 3), 1, 2, 3, "finish"]


def test_loop_without_a_factory_is_a_loop():
    seen = []
    assert progress_loop(lambda *each: seen.append(each), iter("ab"), None) is None
    assert seen == [("a", 1), ("b", 2)]


def test_loop_over_nothing_begins_and_finishes(recorder):
    progress_loop(pytest.fail, [], recorder)
    assert recorder.calls == [(None, 0), "finish"]


def test_generators_have_no_total_and_work(recorder):
    progress_loop(ignore, (letter for letter in "ab"), recorder)
    assert recorder.calls == [(None, None), 1, 2, "finish"]


def test_loop_finishes_also_where_an_item_raises(recorder):
    with pytest.raises(ZeroDivisionError):
        progress_loop(lambda item, i: 1 / item, [1, 0], recorder)
    assert recorder.calls == [(None, 2), 1, "finish"]


def test_loop_finishes_also_where_the_items_raise(recorder):
    def items():
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        progress_loop(ignore, items(), recorder)
    assert recorder.calls[-1] == "finish"


# On the page


def test_loop_of_a_session_counts_there(session):
    shown = []

    def look(item, i):
        last = session.look(1.0)
        shown.append((last.message, last.current, last.total))

    progress_loop(look, "ab", session.as_factory(), "Spelling")
    assert shown == [("Spelling", 0, 2), ("Spelling", 1, 2)]
    assert session.overall_percent == 100


def test_end_of_a_stage_is_not_the_end_of_the_session(session):
    progress_loop(ignore, "ab", session.as_factory(), "First")
    assert (session.status, session.is_complete) == ("running", False)
    progress_loop(ignore, iter("abc"), session.as_factory(), "Second")
    last = session.look(1.0)
    # The total of the first would be a lie here.
    assert (last.message, last.current, last.total) == ("Second", 3, None)


def test_loops_of_several_stages_have_a_task_each(session):
    for id in ("read", "send"):
        with session.task(id) as task:
            progress_loop(ignore, "abcd", task.as_factory())
    assert session.overall_percent == 100
    assert session.is_complete


def test_total_need_not_be_a_whole_number(session):
    session.as_factory()("Halves", 2.5).update(1.25)
    assert session.overall_percent == 50


# On the terminal


def shown(work):
    stream = io.StringIO()
    work(lambda message, total: ConsoleProgress(message, total, stderr=stream))
    return stream.getvalue()


def test_console_shows_message_and_counts_on_the_given_stream(capsys):
    text = shown(lambda factory: progress_loop(ignore, range(3), factory, "Reading"))
    assert "Reading" in text
    assert "3/3" in text
    assert capsys.readouterr() == ("", "")


def test_console_goes_to_stderr_by_itself(capsys):
    progress_loop(ignore, range(3), ConsoleProgress, "Reading")
    assert "3/3" in capsys.readouterr().err


def test_console_takes_the_number_that_it_is_given():
    def work(factory):
        progress = factory("Reading", 100)
        progress.update(99)
        progress.finish()

    assert "99/100" in shown(work)


def test_console_tells_the_part_that_is_done_and_the_time_that_is_left(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])

    def work(factory):
        progress = factory("Reading", 8)
        now[0] += 60
        progress.update(2)
        progress.finish()

    text = shown(work)
    assert " 25%|" in text
    # A minute for two of eight.
    assert "[01:00<03:00" in text


@pytest.mark.parametrize("total", [0, None])
def test_console_needs_no_total(total):
    def work(factory):
        progress = factory(None, total)
        progress.update(2)
        progress.finish()

    assert "2" in shown(work)


def test_import_of_the_package_does_not_import_tqdm():
    code = "import asyncview, sys; sys.exit('tqdm' in sys.modules)"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
