"""A real Chromium, before real applications on a real waitress.

Jobs do what the test tells them, step by step, so that nothing here has to sleep.
To run these: Chromium on the PATH, ``pip install -e '.[browser]'``, ``npm ci`` in this
folder, and ``pytest --browser tests/browser``.
"""

import os
import queue
import threading
from contextlib import ExitStack
from contextlib import contextmanager
from pathlib import Path

import pytest
import waitress
from ending import end
from playwright.sync_api import expect
from pyramid.events import NewResponse
from pyramid.response import Response
from pyramid.session import SignedCookieSessionFactory

from asyncview import BaseAsyncView
from browser.pages import SEEN

#: Seconds until what a test waits for counts as not happening.
PATIENCE = 30.0

#: What a careful site sends with every page.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)

#: Run in every page before its own scripts.
WITNESS = """
    document.addEventListener("securitypolicyviolation", (event) => console.error(
        `violation of ${event.violatedDirective} by ${event.blockedURI}`));
    document.addEventListener("asyncview:update", () => {
        const bar = document.querySelector("progress");
        console.debug("SEEN", bar && bar.hasAttribute("value") ? bar.value : null);
    });
""".replace("SEEN", SEEN)


HERE = Path(__file__).parent

# Its own five seconds are too few on a machine that has other things to do.
expect.set_options(timeout=PATIENCE * 1000)


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def node():
    """The folder of what the tests need from npm."""
    folder = Path(os.environ.get("ASYNCVIEW_NODE", HERE), "node_modules")
    if not folder.exists():
        pytest.fail(f"there is no {folder}: run 'npm ci' in tests/browser")
    return folder


# The browser


@pytest.fixture(scope="session")
def axe(node):
    """Gives what axe-core finds on a page: one line a fault."""
    source = (node / "axe-core" / "axe.min.js").read_text("utf-8")

    def axe(page):
        page.evaluate(source)
        found = page.evaluate(
            "axe.run(document, {resultTypes: ['violations']})"
            ".then((result) => result.violations)"
        )
        return [
            f"{rule['id']}: {node['html']}: {node['failureSummary']}"
            for rule in found
            for node in rule["nodes"]
        ]

    return axe


@pytest.fixture
def complaints():
    """What the browser complained of in any page; there must be nothing at the end."""
    found = []
    yield found
    assert found == []


@pytest.fixture
def new_tab(chromium, complaints):
    """Opens a tab; of a visitor of its own, or beside another tab."""
    contexts = []

    def new_tab(beside=None, **options):
        context = beside.context if beside is not None else None
        if context is None:
            context = chromium.new_context(**options)
            context.set_default_timeout(PATIENCE * 1000)
            context.add_init_script(WITNESS)
            contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: hear(message, complaints))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("response", lambda response: look(response, complaints))
        return page

    yield new_tab
    for context in contexts:
        context.close()


def hear(message, complaints):
    # That a page was answered with 404 is what some tests are about.
    if message.type in ("error", "warning") and "Failed to load" not in message.text:
        complaints.append(message.text)


def look(response, complaints):
    if response.status >= 400 and response.request.resource_type != "document":
        complaints.append(f"{response.status} {response.url}")


@pytest.fixture
def tab(new_tab):
    return new_tab()


# The application


class Work:
    """What jobs do: one step after the other, as the test hands them in."""

    def __init__(self):
        self._steps = queue.Queue()
        self._stopped = False
        self.entered = threading.Event()

    def do(self, step):
        """Have the job call ``step(view)``; the job ends with what is not None."""
        self._steps.put(step)

    def progress(self, *args, **kw):
        self.do(lambda view: view.progress.update(*args, **kw))

    def finish(self, text="The report"):
        self.do(lambda view: html(text))

    def fail(self, error):
        def step(view):
            raise error

        self.do(step)

    def stop(self):
        """Have no job wait any longer."""
        self._stopped = True
        self.finish("The test is over")

    def run(self, view):
        self.entered.set()
        answer = None
        while answer is None and not self._stopped:
            answer = self._steps.get(timeout=PATIENCE)(view)
        return answer


class Report(BaseAsyncView):
    label = "Yearly report"

    def __run__(self):
        return self.request.registry.work.run(self)


def html(body, title="Report"):
    return Response(
        f"<!DOCTYPE html><html lang='en'><title>{title}</title><h1>{body}</h1></html>"
    )


class Place:
    """A served application: its address, and what its jobs do."""

    def __init__(self, site, url):
        self.site = site
        self.url = url
        self.work = site.registry.work

    def poll_url(self, tab):
        """What the page of a job asks."""
        shown = tab.locator("[data-asyncview-url]")
        return shown.get_attribute("data-asyncview-url")


@contextmanager
def served(app):
    """The address of an application, on a waitress of its own."""
    server = waitress.create_server(app, host="127.0.0.1", port=0, threads=8, map={})
    thread = threading.Thread(
        target=server.asyncore.loop,
        kwargs={"map": server._map, "timeout": PATIENCE},
        name="waitress",
    )
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}"
    finally:
        end(server, thread)


@pytest.fixture
def serve(make_site):
    """Serves an application with sessions, CSRF tokens and a strict policy."""
    with ExitStack() as stack:

        def serve(configure=None, **settings):
            work = Work()

            def configured(config):
                config.registry.work = work
                config.set_session_factory(SignedCookieSessionFactory("a secret"))
                config.set_default_csrf_options(require_csrf=True)
                config.add_subscriber(set_policy, NewResponse)
                config.add_async_view(Report, "report")
                if configure is not None:
                    configure(config)

            settings.setdefault("asyncview__poll_interval", "0.1")
            site = make_site(configured, **settings)
            url = stack.enter_context(served(site.wsgi))
            stack.callback(work.stop)
            return Place(site, url)

        yield serve


def set_policy(event):
    event.response.headers["Content-Security-Policy"] = POLICY


@pytest.fixture
def place(serve):
    return serve()
