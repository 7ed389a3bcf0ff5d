"""What the systems before this one could do, and what was wrong: a test for each."""

import inspect
import re

import pytest
from tables import HERE
from tables import NAME
from tables import lines
from tables import missing
from tables import misspelt

import asyncview

TABLE = (HERE / "seeds.rst").read_text("utf-8")


def sections():
    """By system, what it could do and what was wrong with it."""
    parts = re.split(r"^([^\n]+)\n=+\n\n(?=What)", TABLE, flags=re.MULTILINE)[1:]
    for system, text in zip(parts[::2], parts[1::2], strict=True):
        _, could, wrong = re.split(r"^What .+\n-+\n", text, flags=re.MULTILINE)
        yield f"{system} could", could
        yield f"{system} could not", wrong


def test_every_test_that_is_named_is_there():
    assert missing(TABLE) == []


def test_what_is_no_test_is_found():
    text = "``test_seeds.py::test_nothing``, ``test_none.py::test_x``"
    assert missing(text) == ["test_seeds.py::test_nothing", "test_none.py::test_x"]


SECTIONS = dict(sections())


def test_each_of_the_five_is_there():
    assert len(SECTIONS) == 10


@pytest.mark.parametrize("section", SECTIONS)
def test_every_line_names_a_test(section):
    found = lines(SECTIONS[section])
    assert len(found) > 8
    for line in found:
        assert NAME.search(line), line


def test_what_is_named_is_written_so_that_it_is_found():
    assert misspelt(TABLE) == 0


@pytest.mark.parametrize("name", asyncview.__all__)
def test_public_names_are_their_own(name):
    thing = getattr(asyncview, name)
    methods = vars(thing).items() if inspect.isclass(thing) else ()
    public = [each for each in methods if inspect.isfunction(each[1])]
    for own, function in [(name, thing), *public]:
        assert function.__name__ == own
        assert not hasattr(function, "__wrapped__")
