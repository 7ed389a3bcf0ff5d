"""What is promised, and the tests that show it: promises.rst is true to the suite."""

import pytest
from tables import HERE
from tables import NAME
from tables import lines
from tables import missing
from tables import misspelt
from tables import sections
from test_exits import EXITS

TABLE = (HERE / "promises.rst").read_text("utf-8")

#: How many lines each section has.
LINES = {
    "The way of a job": 25,
    "When processes die": 21,
    "Limits, ends and what is kept": 19,
    "Trouble": 13,
    "What the log says": 6,
    "Ways out of the work": 51,
    "Who may see and start what": 15,
    "What is shown": 17,
    "What is kept of users": 8,
    "What an operator can rely on": 8,
}


def test_every_test_that_is_named_is_there():
    assert missing(TABLE) == []
    assert misspelt(TABLE) == 0


def test_no_line_got_lost():
    found = {title: len(lines(text)) for title, text in sections(TABLE)}
    assert {title: number for title, number in found.items() if number} == LINES


@pytest.mark.parametrize("section", LINES)
def test_every_line_has_a_test(section):
    for line in lines(dict(sections(TABLE))[section]):
        assert NAME.search(line), line


def test_every_exit_has_a_line():
    test = "test_exits.py::test_every_exit_ends_the_job_as_promised"
    assert [e.name for e in EXITS if f"``{test}[{e.name}]``" not in TABLE] == []


@pytest.mark.parametrize(
    "lost",
    [
        "``test_exits.py::test_none``",
        "``test_nowhere.py::test_every_exit_ends_the_job_as_promised``",
        "``test_exits.py::test_every_exit_ends_the_job_as_promised[by the roof]``",
    ],
)
def test_what_is_not_there_is_noticed(lost):
    assert missing(lost) == [lost.strip("`")]


def test_what_could_not_be_read_is_noticed():
    assert misspelt("`test_exits.py::test_none`") == 1
