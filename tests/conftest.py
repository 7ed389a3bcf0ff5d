"""Real databases and real applications, made for each test and closed after it."""

import os
import shutil
import threading
import time
from importlib.util import find_spec

import pytest
from chameleon.loader import ModuleLoader
from chameleon.template import BaseTemplate
from pyramid.config import Configurator
from webtest import TestApp

import asyncview

#: Seconds a test waits for what happens in another thread before it fails.
PATIENCE = 30.0

#: Of Chromium.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_addoption(parser):
    parser.addoption(
        "--browser",
        action="store_true",
        help="run tests/browser too: needs Playwright, Chromium and axe-core",
    )
    parser.addoption(
        "--clients",
        action="store_true",
        help="run tests/clients too: needs node, Chromium, and clients for uploads",
    )
    parser.addoption(
        "--chaos",
        choices=("short", "long"),
        default="short",
        help="how long tests/chaos kills servers: some seconds, or half an hour",
    )


def pytest_ignore_collect(collection_path, config):
    # Not skipped: what is asked for must run, and what is not is no news.
    name = collection_path.name
    if name in ("browser", "clients") and not config.getoption(f"--{name}"):
        return True
    if name == "test_zeo.py" and without_zeo():
        return True
    return None


def without_zeo():
    """Whether what needs ZEO is left out; with ASYNCVIEW_CI=1 it fails instead."""
    return os.environ.get("ASYNCVIEW_CI") != "1" and find_spec("ZEO") is None


def pytest_report_header():
    if without_zeo():
        return (
            "ZEO is not installed: tests/chaos/test_zeo.py is left out"
            " (pip install -e '.[chaos]')"
        )
    return None


@pytest.fixture(scope="session", autouse=True)
def compiled_templates(tmp_path_factory):
    """Compile a template once, and not once an application: that took most of the time.

    As CHAMELEON_CACHE does it on a site, here and in the processes that tests start.
    """
    folder = str(tmp_path_factory.mktemp("templates"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHAMELEON_CACHE", folder)
        patch.setattr(BaseTemplate, "loader", ModuleLoader(folder))
        yield


class Site:
    """An application on a FileStorage with blobs, and a browser for it."""

    def __init__(self, config, wsgi):
        self.registry = config.registry
        self.wsgi = wsgi
        self.app = TestApp(wsgi)
        self.engine = config.registry.asyncview.engine
        self.db = self.engine.db

    def by_hand(self):
        """Have the pulse beat and sweep when the test says so, and at no other time.

        A long interval is not enough: each start wakes a pulse that rests.
        """
        self.engine.pulse.start = lambda: None
        return self

    def beats(self, times=1):
        """Wait until the pulse has beaten so often from now on, each time as a whole.

        Its own thread does it: two that beat at once would get in each other's way.
        """
        pulse, beaten = self.engine.pulse, threading.Semaphore(0)
        beat = pulse.beat

        def counted():
            beat()
            beaten.release()

        pulse.beat = counted
        for _ in range(times):
            self.engine.start()
            assert beaten.acquire(timeout=PATIENCE), "the pulse does not beat"
        pulse.beat = beat

    def browser(self, **environ):
        """Another user with cookies of their own."""
        return TestApp(self.wsgi, extra_environ=environ)

    def start(self, path, params="", app=None, **kw):
        """POST as a browser does; gives the process_id."""
        response = (app or self.app).post(path, params, status=303, **kw)
        return response.location.rpartition("process_id=")[2]

    def status(self, path, process_id, app=None, status=200):
        """The status document."""
        return (
            (app or self.app)
            .get(
                f"{path}/completed?process_id={process_id}&output_json=1", status=status
            )
            .json
        )

    def wait(self, process_id):
        """Until the job has ended in this process."""
        with self.engine.live.watching(process_id) as ended:
            # In this order: a job is live before it waits no more.
            if (
                self.engine.executor.waiting(process_id)
                or process_id in self.engine.live
            ):
                assert ended.wait(PATIENCE), "the job does not end"

    def run(self, path, params="", app=None, **kw):
        """POST, wait for the end, give the status document."""
        process_id = self.start(path, params, app, **kw)
        self.wait(process_id)
        return self.status(path, process_id, app)

    def result(self, path, process_id, app=None, **kw):
        return (app or self.app).get(f"{path}/result?process_id={process_id}", **kw)


@pytest.fixture
def make_site(tmp_path):
    """Makes applications; the argument of the call configures them."""
    yield from sites_under(lambda: tmp_path)


@pytest.fixture(scope="module")
def make_shared_site(tmp_path_factory):
    """The same for what all tests of a module share, each on its own storage."""
    yield from sites_under(lambda: tmp_path_factory.mktemp("shared"))


def sites_under(directory):
    made = []

    def make(configure=None, root_factory=None, storage=None, **settings):
        settings = {name.replace("__", "."): value for name, value in settings.items()}
        settings.setdefault("asyncview.name", "tests")
        # Only what is waited for ends quickly: most tests do not want the page.
        settings.setdefault("asyncview.grace", "0")
        settings.setdefault("asyncview.progress_interval", "0.02")
        path = directory()
        settings["zodbconn.uri"] = storage or (
            f"file://{path}/Data.fs?blobstorage_dir={path}/blobs"
        )
        config = Configurator(settings=settings, root_factory=root_factory or root_of)
        try:
            config.include("asyncview")
            if configure is not None:
                configure(config)
            site = Site(config, config.make_wsgi_app())
        except BaseException:
            # What is refused leaves nothing open behind.
            for database in getattr(config.registry, "_zodb_databases", {}).values():
                database.close()
            raise
        made.append(site)
        return site

    yield make
    for site in made:
        asyncview.close(site.registry, drain=5)


def root_of(request):
    """The root of the request's database, with a place for what tests write."""
    from pyramid_zodbconn import get_connection

    return Root(get_connection(request).root())


class Root(dict):
    """A traversable root that is not persistent."""

    def __init__(self, data):
        self.data = data


@pytest.fixture
def gate():
    """An event that tests and jobs wait on, opened at the end in any case."""
    event = threading.Event()
    yield event
    event.set()


def in_time(call):
    """What ``call`` gives, from a thread of its own: it may wait for ever."""
    given = []
    thread = threading.Thread(target=lambda: given.append(call()), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert given, "this does not come back"
    return given[0]


def writable_after(make_site, configure):
    """As `make_site`; at the end whoever had the commit lock has given it back.

    ``configure`` is what a site has unless the test says otherwise.
    """
    made = []

    def make(configure=configure, **settings):
        made.append(make_site(configure, **settings))
        return made[-1]

    yield make
    for site in made:
        # On another thread: this one may have a transaction of its own.
        db = site.db
        assert in_time(lambda db=db: touched(db))


def touched(db):
    with db.transaction() as connection:
        connection.root()["touched"] = True
    return True


def eventually(condition, patience=PATIENCE):
    """Poll what another process or the pulse will make true."""
    deadline = time.monotonic() + patience
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "this did not come true"
        pause.wait(0.01)


@pytest.fixture(scope="session")
def chromium():
    """A real Chromium; one for all tests, as Playwright starts only once."""
    # Only who asks for the tests that need it has it.
    from playwright.sync_api import sync_playwright

    executable = os.environ.get("ASYNCVIEW_CHROMIUM") or shutil.which("chromium")
    if not executable:
        pytest.fail("there is no chromium on the PATH, and ASYNCVIEW_CHROMIUM is empty")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, headless=True, args=FLAGS
        )
        yield browser
        browser.close()
