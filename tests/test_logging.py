"""The log has a line for whatever happens to a job, and no user can write to it."""

import logging
import re
import threading

import pytest
from conftest import PATIENCE
from conftest import eventually
from people import Policy
from ZODB.POSException import ConflictError

from asyncview import BaseAsyncView
from asyncview.failure import INTERRUPTED
from asyncview.session import LOG_LINES
from asyncview.session import LOG_WIDTH

SECONDS = r"\d+\.\d{3} s"


class Working(BaseAsyncView):
    entered = 0

    def __run__(self, process_id=None):
        params, registry = self.request.params, self.request.registry
        registry.entered.release()
        if "wait" in params:
            registry.gate.wait(PATIENCE)
        if "fail" in params:
            raise ZeroDivisionError("as it was told")
        if "lose" in params:
            registry.lost.append(1)
            if len(registry.lost) < 3:
                raise ConflictError("first\r\nINFO a line of its own")
        for number in range(int(params.get("lines", 0))):
            self.log.info("line %d <script>%s", number, 1000 * "x")
        self.log.debug("not for the page")
        return b""


class Gated(Working):
    max_runtime = 0.05


@pytest.fixture
def site(make_site, gate, caplog):
    caplog.set_level(logging.INFO, "asyncview")

    def configure(config):
        config.registry.gate, config.registry.lost = gate, []
        config.registry.entered = threading.Semaphore(0)
        config.add_async_view(Working, "working")
        config.add_async_view(Gated, "gated")
        config.set_security_policy(Policy())

    site = make_site(configure, asyncview__threads="1")
    site.ann = site.browser(REMOTE_USER="ann")
    return site


def lines(caplog, process_id, level=logging.INFO):
    """What the log says of a job, its first lines."""
    return [
        record.getMessage().split("\n")[0]
        for record in caplog.records
        if record.levelno >= level and process_id[:6] in record.getMessage()
    ]


def assert_said(caplog, process_id, *patterns):
    said = lines(caplog, process_id)
    assert len(said) == len(patterns), said
    for line, pattern in zip(said, patterns, strict=True):
        assert re.fullmatch(re.escape(process_id[:6]) + "… " + pattern, line), line


def test_job_that_completes_has_a_line_for_its_start_and_one_for_its_end(site, caplog):
    id = site.run("/working", app=site.ann)["process_id"]
    assert_said(
        caplog,
        id,
        rf"/working of ann starts after {SECONDS}, attempt 1",
        rf"/working of ann is completed after {SECONDS}, attempt 1",
    )


def test_job_that_fails_has_its_traceback_under_the_error_id(site, caplog):
    doc = site.run("/working", {"fail": "1"}, app=site.ann)
    error_id = doc["error"]["id"]
    assert_said(
        caplog,
        doc["process_id"],
        rf"/working of ann starts after {SECONDS}, attempt 1",
        rf"/working of ann failed \(exception\), error id {error_id}, attempt 1",
        rf"/working of ann is failed after {SECONDS}, attempt 1",
    )
    (record,) = [r for r in caplog.records if error_id in r.getMessage()]
    assert "ZeroDivisionError: as it was told" in record.getMessage()


def test_traceback_says_what_led_to_the_error_and_nothing_of_pyramid(make_site, caplog):
    class Led(BaseAsyncView):
        def __run__(self):
            try:
                {}["the occasion"]
            except KeyError:
                if "led" in self.request.params:
                    raise ZeroDivisionError("the news")  # noqa: B904 - as authors do
            raise ZeroDivisionError("the news")

    site = make_site(lambda config: config.add_async_view(Led, "led"))
    for params, led in (("", False), ({"led": "1"}, True)):
        error_id = site.run("/led", params)["error"]["id"]
        (said,) = (r.getMessage() for r in caplog.records if error_id in r.getMessage())
        assert said.rstrip().endswith("ZeroDivisionError: the news")
        assert ("KeyError: 'the occasion'" in said) is led
        assert "HTTPNotFound" not in said


def test_job_that_is_tried_again_has_a_line_for_each_attempt(site, caplog):
    id = site.run("/working", {"lose": "1"}, app=site.ann)["process_id"]
    again = r"/working of ann is tried again after a conflict, attempt {}: .*"
    assert_said(
        caplog,
        id,
        rf"/working of ann starts after {SECONDS}, attempt 1",
        again.format(1),
        again.format(2),
        rf"/working of ann is completed after {SECONDS}, attempt 3",
    )
    # Nor has what an error says.
    assert "\nINFO a line" not in caplog.text.replace("\r", "")


@pytest.mark.parametrize("reason", ["timeout", INTERRUPTED])
def test_job_that_is_given_up_has_a_line_that_says_why(site, caplog, gate, reason):
    path = "/gated" if reason == "timeout" else "/working"
    id = site.start(path, {"wait": "1"}, app=site.ann)
    assert site.registry.entered.acquire(timeout=PATIENCE)
    if reason == INTERRUPTED:
        site.engine.pulse.rescue.take(id, INTERRUPTED)
    eventually(lambda: site.status(path, id, site.ann)["status"] == "failed")
    error_id = site.status(path, id, site.ann)["error"]["id"]
    eventually(lambda: any(error_id in line for line in lines(caplog, id)))
    (line,) = [each for each in lines(caplog, id) if error_id in each]
    assert re.search(
        rf"{path} of ann was taken from its worker after {SECONDS}, attempt 1:"
        rf" it is failed \({reason}, error id",
        line,
    )
    gate.set()


def test_queued_job_that_is_cancelled_has_a_line(site, caplog, gate):
    running = site.start("/working", {"wait": "1"}, app=site.ann)
    assert site.registry.entered.acquire(timeout=PATIENCE)
    id = site.start("/working", app=site.ann)
    site.ann.post(f"/working/cancel?process_id={id}", status=303)
    assert_said(
        caplog, id, rf"/working of ann is cancelled after {SECONDS} in the queue"
    )
    gate.set()
    site.wait(running)


def test_no_whole_id_is_in_the_log(site, caplog, gate):
    """Who has the id of an anonymous job may see it."""
    caplog.set_level(logging.DEBUG, "asyncview")
    ids = [
        site.run("/working", params)["process_id"]
        for params in ({}, {"fail": "1"}, {"lose": "1"})
    ]
    ids.append(site.start("/gated", {"wait": "1"}))
    ids.append(site.start("/working", {"wait": "1"}))
    ids.append(site.start("/working", {"wait": "1"}))
    site.app.post(f"/working/cancel?process_id={ids[-1]}")
    gate.set()
    for id in ids:
        site.wait(id)
        assert lines(caplog, id)
        assert id not in caplog.text


@pytest.mark.parametrize(
    "evil",
    ["a\r\nERROR root all is lost", "a\x1b[2J", "a\u2028b", "a\x85b", 5000 * "a"],
)
def test_no_user_and_no_address_can_begin_a_line(make_site, caplog, evil):
    caplog.set_level(logging.INFO, "asyncview")

    class Folder(dict):
        def __getitem__(self, name):
            if name == "working":
                raise KeyError(name)
            return Folder()

    class Anybody(Policy):
        def authenticated_userid(self, request):
            return evil

    def configure(config):
        config.add_async_view(Plain, "working")
        config.set_security_policy(Anybody())

    class Plain(BaseAsyncView):
        def __run__(self):
            raise ZeroDivisionError("as it was told")

    site = make_site(configure, root_factory=lambda request: Folder())
    path = f"/{evil}/working"
    environ = {"PATH_INFO": path.encode().decode("latin-1")}
    response = site.app.post("/x", status=303, extra_environ=environ)
    site.wait(response.location.rpartition("process_id=")[2])
    for record in caplog.records:
        head = record.getMessage().split("\nTraceback")[0]
        assert len(head) < 700
        assert head.rstrip("\n").isprintable(), head


def test_last_lines_of_a_job_are_kept_bounded_and_escaped(site, gate):
    params = {"lines": "50", "wait": "1"}
    gate.set()
    doc = site.run("/working", params, app=site.ann)
    assert len(doc["log"]) == LOG_LINES
    assert doc["log"][-1].startswith("line 49 <script>xxx")
    assert {len(line) for line in doc["log"]} == {LOG_WIDTH}


def test_log_lines_on_the_page_are_text(make_site, gate):
    said = threading.Event()

    class Saying(BaseAsyncView):
        def __run__(self):
            self.log.info("<script>alert(1)</script>")
            said.set()
            gate.wait(PATIENCE)
            return b""

    site = make_site(lambda config: config.add_async_view(Saying, "saying"))
    id = site.start("/saying")
    assert said.wait(PATIENCE)
    eventually(lambda: site.status("/saying", id)["log"])
    page = site.app.get(f"/saying/processing?process_id={id}")
    assert "&lt;script&gt;alert(1)" in page.text
    assert "<script>alert" not in page.text
    gate.set()
    site.wait(id)
