"""How it fits what is around it: subclasses, cookies, proxies, restarts."""

import os
import threading

import pytest
from conftest import PATIENCE
from conftest import eventually
from pyramid.exceptions import ConfigurationError
from pyramid.request import Request
from pyramid.response import Response
from pyramid.session import SignedCookieSessionFactory

from asyncview import BaseAsyncView
from asyncview import UploadIncomplete
from asyncview import UploadNotFound
from asyncview.body import sweep
from asyncview.pulse import Pulse
from asyncview.runner import Runner
from asyncview.standalone import NoExecutor
from asyncview.store import reading
from asyncview.store import store_of

PUBLIC = {
    "checkpoint",
    "completed",
    "context",
    "cross_site",
    "error_msg",
    "error_url",
    "exclusive",
    "initial_page",
    "keep",
    "keep_request",
    "label",
    "log",
    "max_attempts",
    "max_runtime",
    "on_end",
    "process_id",
    "processing",
    "processing_page",
    "progress",
    "refresh",
    "request",
    "restartable",
    "result",
    "run_process",
    "set_progress",
    "success_msg",
    "success_url",
    "tags",
    "tasks",
    "upload",
    "uploads",
}


class Ported(BaseAsyncView):
    """Has helpers of its own, with names that one would give them."""

    success_msg = "Well done"

    def __run__(self):
        return self._run() + self._page() + self._start() + self._document()

    def _run(self):
        return "a"

    def _page(self):
        return "b"

    def _start(self):
        return "c"

    def _document(self):
        return "d"


def test_the_class_has_no_names_but_the_contract():
    """A method of a subclass must never take the place of one of ours."""
    view = BaseAsyncView(None, Request.blank("/"))
    names = {name for name in dir(view) if not name.startswith("__")}
    assert names == PUBLIC


def test_helpers_of_a_subclass_are_its_own(make_site):
    site = make_site(lambda config: config.add_async_view(Ported, "work"))
    doc = site.run("/work")
    assert site.result("/work", doc["process_id"]).text == "abcd"


def test_messages_of_many_jobs_fit_into_a_cookie(make_site):
    def fill(request):
        request.session["basket"] = "x" * 1500
        return Response()

    def flashes(request):
        return Response(" ".join(request.session.pop_flash()))

    def configure(config):
        config.set_session_factory(SignedCookieSessionFactory("secret"))
        config.add_async_view(Ported, "work")
        config.add_view(fill, name="fill")
        config.add_view(flashes, name="flashes")

    site = make_site(configure)
    site.app.get("/fill")
    for _ in range(30):
        doc = site.run("/work")
        site.result("/work", doc["process_id"], status=200)
        assert site.app.get("/flashes").text == "Well done"
        site.result("/work", doc["process_id"], status=200)
        assert site.app.get("/flashes").text == ""


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 303),
        ({"Sec-Fetch-Site": "none", "Origin": "https://other.example"}, 303),
        ({"Sec-Fetch-Site": "same-site", "Origin": "https://other.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_the_browser_is_believed_about_its_own_site(make_site, headers, status):
    site = make_site(lambda config: config.add_async_view(Ported, "work"))
    site.app.post("/work", headers=headers, status=status)


def test_cancel_checks_the_origin_only_where_the_application_does(make_site):
    def configure(config):
        config.set_session_factory(SignedCookieSessionFactory("secret"))
        config.set_default_csrf_options(require_csrf=True, check_origin=False)
        config.add_async_view(Ported, "work")

    site = make_site(configure)
    site.app.extra_environ["wsgi.url_scheme"] = "https"
    form = site.app.get("/work").form
    started = form.submit(headers={"Origin": "https://proxy.example"}, status=303)
    process_id = started.location.rpartition("process_id=")[2]
    site.wait(process_id)
    site.app.post(
        f"/work/delete?process_id={process_id}",
        {"csrf_token": form["csrf_token"].value},
        headers={"Origin": "https://proxy.example"},
        status=303,
    )


def test_a_pattern_may_be_the_root(make_site):
    site = make_site(lambda config: config.add_async_view(Ported, pattern="/"))
    started = site.app.post("/", status=303)
    assert started.location.startswith("http://localhost/processing?process_id=")
    site.wait(started.location.rpartition("=")[2])
    done = started.follow(status=303)
    assert done.follow(status=200).text == "abcd"


@pytest.mark.parametrize(
    ("error", "status"), [(UploadNotFound, 404), (UploadIncomplete, 409)]
)
def test_errors_of_uploads_have_their_status(make_site, error, status):
    def view(request):
        raise error("x")

    site = make_site(lambda config: config.add_view(view, name="view"))
    site.app.get("/view", status=status)


def test_without_a_job_the_first_page_is_its_values():
    class Quick(BaseAsyncView):
        def __run__(self):
            return self(no_process=True, answer=42)

    assert Quick(None, Request.blank("/")).__run__() == {"answer": 42}


def test_a_process_id_that_is_positional_only_is_not_given_by_name(make_site):
    class Odd(BaseAsyncView):
        def __run__(self, process_id=None, /):
            return str(process_id)

    site = make_site(lambda config: config.add_async_view(Odd, "odd"))
    doc = site.run("/odd")
    assert site.result("/odd", doc["process_id"]).text == "None"


@pytest.mark.parametrize("name", ["success_url", "error_url"])
def test_a_wrong_address_is_refused_when_the_view_is_registered(make_site, name):
    wrong = type("Wrong", (BaseAsyncView,), {name: "//other.example"})
    with pytest.raises(ConfigurationError, match=name):
        make_site(lambda config: config.add_async_view(wrong, "wrong"))


def test_times_are_in_order(make_site):
    class Told(BaseAsyncView):
        def __run__(self):
            self.progress.update(1, 2)

    def configure(config):
        config.add_async_view(Told, "told")
        config.add_async_view(Ported, "work")

    site = make_site(configure)
    for path in ("/told", "/work"):
        doc = site.run(path)
        assert doc["created"] <= doc["started"] <= doc["updated"] <= doc["finished"]


def test_files_of_bodies_that_a_killed_process_left_go_after_a_day(make_site):
    site = make_site()
    folder = site.db.storage.temporaryDirectory()
    path = os.path.join(folder, "asyncview-left.body")
    with open(path, "wb") as file:
        file.write(b"x")
    now = os.stat(path).st_mtime
    sweep(site.db, now + 3600)
    assert os.path.exists(path)
    sweep(site.db, now + 86401)
    assert not os.path.exists(path)


class Hung(BaseAsyncView):
    """Runs until the test is over."""

    entered = threading.Event()
    go_on = threading.Event()

    def __run__(self):
        self.entered.set()
        self.go_on.wait(PATIENCE)


def test_a_job_of_a_dead_process_has_failed_within_two_leases(make_site, tmp_path):
    """Counted from the first request of the process that finds it."""
    Hung.entered.clear()
    Hung.go_on.clear()
    site = make_site(lambda config: config.add_async_view(Hung, "hung")).by_hand()
    process_id = site.start("/hung")
    assert Hung.entered.wait(PATIENCE)
    # Its last: from now on it is as good as dead.
    site.engine.pulse.beat()
    clock = [0.0]
    # A second process on the same file, whose clock is ours to move.
    other = site.engine.pulse

    runner = Runner(
        site.db, "tests", site.engine.runner.front, type(site.engine.live)()
    )
    pulse = Pulse(
        runner,
        other.settings,
        site.engine.ids,
        lambda id: None,
        lambda id: None,
        lambda: False,
        NoExecutor(),
        monotonic=lambda: clock[0],
    )
    lease = other.settings.lease

    def status():
        with reading(site.db) as connection:
            return store_of(connection, "tests").find(process_id).job.state.status

    # As its thread does: a sweep whenever one is due.
    while status() == "running" and clock[0] < 3 * lease:
        if clock[0] >= pulse._due:
            pulse.sweep()
        clock[0] += lease / 100
    Hung.go_on.set()
    assert status() == "failed"
    assert clock[0] <= 2 * lease
    eventually(lambda: process_id not in site.engine.live)
