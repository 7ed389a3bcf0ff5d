"""The README says what is so: its examples run, and its tables match the code."""

import doctest
import importlib
import json
import re
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import webtest
from pyramid.config import Configurator

import asyncview
from asyncview.settings import Settings

README = Path(__file__).parent.parent / "README.rst"

# What the examples need around them: templates, and an object that has members.
FILES = {
    "import_form.pt": "<form enctype='multipart/form-data' method='post'>"
    "<input type='file' name='file'/></form>",
    "import.pt": "<p>${count} members</p>",
    "fibonacci.pt": "<form method='post'><input name='number'/></form>"
    "<p>${answer | ''}</p>",
}


class Club:
    def __init__(self, request):
        pass

    def add_member(self, line):
        assert line.startswith(b"member")


def blocks(language):
    """Return the README's code blocks in a language, without their indentation."""
    pattern = rf"^\.\. code-block:: {language}\n\n((?:(?: +.*)?\n)+)"
    found = re.findall(pattern, README.read_text("utf-8"), re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


def block(word):
    """Return the one Python block that has a word."""
    (text,) = [text for text in blocks("python") if word in text]
    return text


@pytest.fixture
def settings(tmp_path):
    uri = f"file://{tmp_path}/Data.fs?blobstorage_dir={tmp_path}/blobs"
    return {"zodbconn.uri": uri}


@pytest.fixture
def serve():
    """Return a browser for an application; its jobs are ended with the test."""
    apps = []

    def serve(app):
        apps.append(app)
        return webtest.TestApp(app)

    yield serve
    for app in apps:
        asyncview.close(app.registry)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return a block as a module with its templates beside it."""

    def module(word):
        package = tmp_path / f"readme_{word.rpartition('.')[2].lower()}"
        (package / "templates").mkdir(parents=True)
        (package / "__init__.py").write_text(block(word))
        for name, text in FILES.items():
            (package / "templates" / name).write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        return importlib.import_module(package.name)

    yield module
    for name in [name for name in sys.modules if name.startswith("readme_")]:
        del sys.modules[name]


@pytest.fixture
def first_example(module, settings, serve):
    """Return a browser for the application of the first block."""
    return serve(module("config.add_async_view").main(**settings))


@pytest.fixture
def example(module, settings, serve):
    """Return a browser for a block that is a view of somebody's application."""

    def example(word):
        views = module(word)
        with Configurator(
            settings=settings, package=views, root_factory=Club
        ) as config:
            config.include("pyramid_chameleon")
            config.include("asyncview")
            config.scan(views)
            return serve(config.make_wsgi_app())

    return example


def document_at_the_end(browser, started):
    url = started.location.replace("/processing?", "/completed?") + "&output_json=1"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        document = browser.get(url).json
        if document["finished"]:
            return document
        threading.Event().wait(0.02)
    raise AssertionError(f"the job has not ended: {document}")


def result(browser, started):
    return browser.get(document_at_the_end(browser, started)["next_url"])


def test_small_facts_are_so():
    outcome = doctest.testfile(str(README), module_relative=False, encoding="utf-8")
    assert outcome.attempted
    assert not outcome.failed


def test_first_example_is_an_application(first_example):
    started = first_example.get("/report").form.submit()
    assert started.status_code == 303
    assert result(first_example, started).text == "The sum is 333833500."


def test_example_with_a_form_is_an_application(example):
    browser = example("Import")
    form = browser.get("/import").form
    form["file"] = webtest.Upload("members", b"member 1\nmember 2\n")
    assert "2 members" in result(browser, form.submit())


def test_ported_example_is_an_application(example):
    browser = example("Fibonacci")
    form = browser.get("/fibonacci").form
    form["number"] = "10"
    assert "55" in result(browser, form.submit())


def test_every_python_block_is_run_by_a_test():
    assert len(blocks("python")) == 3


def test_table_has_each_setting_and_its_default():
    rows = re.findall(
        r"^``asyncview\.(\w+)`` +(\S+)", README.read_text("utf-8"), re.MULTILINE
    )
    defaults = Settings.read({}, name="root").__dict__ | {"name": "root"}
    assert [name for name, _ in rows] == list(defaults)
    for name, text in rows:
        default = defaults[name]
        if isinstance(default, float | int):
            assert float(text) == default, name
        elif default and name != "name":
            assert text.strip("`") == default, name


def test_status_document_has_the_keys_that_are_shown(first_example):
    (text,) = blocks("javascript")
    shown = json.loads(re.sub(r" //.*", "", text))
    started = first_example.get("/report").form.submit()
    document = document_at_the_end(first_example, started)
    assert set(shown) == set(document)
    assert set(shown["links"]) == set(document["links"])


@pytest.mark.parametrize(
    "line",
    [
        "run:   python3 -m venv .venv && .venv/bin/pip install -e . && "
        ".venv/bin/asyncview demo",
        "test:  python3 -m venv .venv && .venv/bin/pip install -e '.[testing]' && "
        ".venv/bin/pytest",
    ],
)
def test_two_commands_come_first(line):
    head = README.read_text("utf-8").split("A view\n======")[0]
    assert f"    {line}\n" in head
