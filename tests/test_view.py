"""What an author may write, and how a view may be registered."""

import math
import time
from datetime import timedelta
from decimal import Decimal

import pytest
from conftest import PATIENCE
from conftest import eventually
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.i18n import TranslationString
from pyramid.request import Request
from pyramid.response import Response
from pyramid.view import view_config
from webtest import TestApp
from webtest import TestRequest

from asyncview import AsyncViewError
from asyncview import BaseAsyncView
from asyncview import NoSuchProcessError
from asyncview.store import reading
from asyncview.store import store_of


class Hello(BaseAsyncView):
    def __run__(self, process_id=None, *args, **kwargs):
        return f"hello {process_id == self.process_id}"


@view_config(name="scanned", renderer="json")
class Scanned(BaseAsyncView):
    def __run__(self):
        return {"path": self.request.path}


def text_of(site, path):
    doc = site.run(path)
    assert doc["status"] == "completed", doc
    return site.result(path, doc["process_id"]).text


def test_a_view_is_registered_by_the_plain_api(make_site):
    def configure(config):
        config.add_view(Hello, name="added")
        config.add_view("test_view.Hello", name="dotted")
        config.add_route("one", "/one")
        config.add_route("below", "/one/*subpath")
        config.add_view(Hello, route_name="one")
        config.add_view(Hello, route_name="below")
        config.add_async_view(Hello, pattern="/two/{number}")
        config.scan("test_view")

    site = make_site(configure)
    for path in ("/added", "/dotted", "/one", "/two/7"):
        assert text_of(site, path) == "hello True"
    assert text_of(site, "/scanned") == '{"path": "/scanned"}'


@pytest.mark.parametrize(
    "page",
    [
        lambda self, process_id: process_id,
        lambda self, id: id,
        lambda self, **kw: kw["process_id"],
        lambda self, *args, process_id: process_id,
    ],
)
def test_a_processing_page_is_given_the_id_as_it_takes_it(make_site, gate, page):
    class Waiting(BaseAsyncView):
        processing_page = page

        def __run__(self):
            gate.wait(PATIENCE)

    site = make_site(lambda config: config.add_async_view(Waiting, "waiting"))
    process_id = site.start("/waiting")
    answer = site.app.get(f"/waiting/processing?process_id={process_id}")
    assert answer.text == process_id


def test_the_stock_button_asks_for_what_its_page_was_asked_for(make_site):
    class Year(BaseAsyncView):
        def __run__(self):
            return self.request.params["year"]

    site = make_site(lambda config: config.add_async_view(Year, "year"))
    query = "year=20%2025&x=%22%3E"
    page = site.app.get(f"/year?{query}")
    assert page.form.action == f"/year?{query}"
    process_id = page.form.submit(status=303).location.rpartition("=")[2]
    site.wait(process_id)
    assert site.result("/year", process_id).text == "20 25"
    # What no browser sends, neither.
    odd = TestRequest.blank("/year", environ={"QUERY_STRING": 'a="><b>'})
    page = site.app.request(odd)
    assert page.form.action == "/year?a=%22%3E%3Cb%3E"


def test_who_forgets_the_include_hears_of_it():
    with Configurator() as config:
        config.add_view(Hello, name="added")
    app = TestApp(config.make_wsgi_app())
    with pytest.raises(AsyncViewError, match=r'config\.include\("asyncview"\)'):
        app.post("/added")
    with pytest.raises(AsyncViewError, match=r'config\.include\("asyncview"\)'):
        app.get("/added/completed?process_id=x")


def test_the_id_is_given_to_those_who_take_it(make_site):
    class Without(BaseAsyncView):
        def __run__(self):
            return "none"

    class Named(BaseAsyncView):
        def __run__(self, process_id):
            return str(process_id == self.process_id)

    class Any(BaseAsyncView):
        def __run__(self, *args, **kwargs):
            return f"{args} {sorted(kwargs)}"

    def configure(config):
        for view in (Without, Named, Any):
            config.add_async_view(view, view.__name__)

    site = make_site(configure)
    assert text_of(site, "/Without") == "none"
    assert text_of(site, "/Named") == "True"
    assert text_of(site, "/Any") == "() ['process_id']"


def test_a_view_without_work_says_so_at_the_start_and_stores_nothing(make_site, caplog):
    class Empty(BaseAsyncView):
        pass

    site = make_site(lambda config: config.add_async_view(Empty, "e"))
    assert site.app.get("/e", status=200)
    with pytest.raises(NotImplementedError, match=r"Empty has no __run__"):
        site.app.post("/e")
    with pytest.raises(NotImplementedError):
        Empty(None, Request.blank("/")).__run__()
    with reading(site.db) as connection:
        assert store_of(connection, "tests").crowd() == 0
    assert caplog.text == ""


def test_work_runs_without_a_job_too():
    class Quick(BaseAsyncView):
        def __run__(self, process_id=None):
            assert self.process_id is None
            self.progress.update(1, 2, "half")
            for _ in self.progress.track([1, 2]):
                self.set_progress(process_id, 50)
            self.checkpoint()
            self.refresh()
            self.log.info("a %s", "line")
            return process_id

    view = Quick(None, Request.blank("/"))
    assert view.__run__() is None
    assert view.on_end("completed") is None


@pytest.mark.parametrize(
    "value",
    [-0.1, 100.1, math.nan, math.inf, "5", None, 1j, Decimal("NaN")],
)
def test_a_percentage_is_a_number_from_0_to_100(value):
    view = Hello(None, Request.blank("/"))
    with pytest.raises(ValueError, match="percentage"):
        view.set_progress(None, value)


def test_progress_is_set_for_the_own_job_only():
    view = Hello(None, Request.blank("/"))
    with pytest.raises(NoSuchProcessError):
        view.set_progress("another", 50)


def test_pages_lie_beside_the_class_that_names_them(make_site, gate):
    def configure(config):
        config.registry.gate = gate
        config.add_async_view("elsewhere.views.Inheriting", "beside")

    import elsewhere.views

    # A subclass in another package inherits the address with the page.
    elsewhere.views.Inheriting = type("Inheriting", (elsewhere.views.Beside,), {})
    elsewhere.views.Inheriting.__module__ = "test_view"
    site = make_site(configure)
    assert "the first page" in site.app.get("/beside").text
    id = site.start("/beside")
    page = site.app.get(f"/beside/processing?process_id={id}")
    assert f"waiting for {id}" in page.text
    gate.set()
    site.wait(id)
    assert "<p>done</p>" in site.result("/beside", id).text


def test_a_page_may_be_named_on_the_instance(make_site):
    class Choosing(BaseAsyncView):
        def run_process(self):
            self.initial_page = "elsewhere:first.pt"
            return False

    site = make_site(lambda config: config.add_async_view(Choosing, "c"))
    assert "the first page" in site.app.get("/c").text


@pytest.mark.parametrize("renderer", [None, "json", "elsewhere:first.pt"])
def test_the_first_page_can_be_the_result(make_site, renderer):
    class Again(BaseAsyncView):
        def __run__(self):
            if self.request.params.get("plain"):
                return self()
            return self(no_process=True, message="done")

    site = make_site(
        lambda config: config.add_async_view(Again, "again", renderer=renderer)
    )
    doc = site.run("/again")
    assert doc["status"] == "completed"
    assert "done" in site.result("/again", doc["process_id"]).text
    # Inside the job it never starts or recurses.
    assert site.run("/again", {"plain": "1"})["status"] == "completed"


def test_what_was_set_on_the_requests_response_stays(make_site):
    class Setting(BaseAsyncView):
        def __run__(self):
            response = self.request.response
            response.status = 203
            response.headers["X-Own"] = "kept"
            response.content_type = "text/csv"
            return "a,ü"

    site = make_site(lambda config: config.add_async_view(Setting, "s"))
    id = site.run("/s")["process_id"]
    response = site.result("/s", id)
    assert response.status_int == 203
    assert response.headers["X-Own"] == "kept"
    assert (response.content_type, response.text) == ("text/csv", "a,ü")


def test_terms_may_be_properties_or_set_in_the_work(make_site):
    class Saying(BaseAsyncView):
        label = "At first"
        tags = ("a",)
        success_url = "/fixed"

        @property
        def success_msg(self):
            return f"of {self.request.params.get('name')}"

        def __run__(self):
            self.label = "At last"
            self.keep = 5
            if self.request.params.get("fail"):
                self.error_url = "/failed"
                raise ValueError("failed")

    site = make_site(lambda config: config.add_async_view(Saying, "s"))
    id = site.start("/s", {"name": "Ann"})
    site.wait(id)
    doc = site.status("/s", id)
    assert (doc["label"], doc["tags"], doc["next_url"]) == ("At last", ["a"], "/fixed")
    assert doc["message"] == "of Ann"
    failed = site.run("/s", {"fail": "1"})
    assert (failed["label"], failed["next_url"]) == ("At last", "/failed")


WRONG = [
    ("keep", math.nan),
    ("keep", -1),
    ("keep", "soon"),
    ("max_runtime", timedelta(minutes=5)),
    ("max_attempts", 0),
    ("max_attempts", None),
    ("restartable", "often"),
    ("tags", None),
    ("tasks", ["read", "write"]),
    ("tasks", {5: "Read"}),
    ("success_url", "https://evil.example/"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_what_can_not_be_kept_is_refused_by_its_name(make_site, name, value):
    plain = type("Plain", (Hello,), {name: value})
    with pytest.raises(ConfigurationError, match=rf"Plain\.{name} = "):
        make_site(lambda config: config.add_async_view(plain, "plain"))
    # What a property says is known when it is asked.
    computed = type("Computed", (Hello,), {name: property(lambda view: value)})
    site = make_site(lambda config: config.add_async_view(computed, "computed"))
    with pytest.raises(ValueError, match=rf"Computed\.{name} = "):
        site.app.post("/computed")


def test_a_job_may_be_kept_for_ever(make_site):
    class Kept(Hello):
        keep = math.inf

    site = make_site(lambda config: config.add_async_view(Kept, "kept"))
    id = site.run("/kept")["process_id"]

    def filed():
        with reading(site.db) as connection:
            return id in store_of(connection, "tests").finished

    eventually(filed)
    site.engine.pulse.stop()
    site.engine.runner.clock = lambda: time.time() + 50 * 365 * 86400
    site.engine.pulse.sweep()
    assert site.status("/kept", id)["status"] == "completed"


def test_one_tag_may_be_a_text(make_site):
    class Tagged(Hello):
        tags = "report"

    site = make_site(lambda config: config.add_async_view(Tagged, "tagged"))
    assert site.run("/tagged")["tags"] == ["report"]


def test_what_people_read_of_a_job_is_in_the_language_of_its_start(make_site):
    def text(id, default):
        return TranslationString(id, default=default)

    class Spoken(BaseAsyncView):
        label = text("label_report", "Yearly report")
        tasks = {"read": text("task_read", "Reading"), "send": "Sending"}  # noqa: RUF012
        success_msg = text("msg_done", "It is done.")

        def __run__(self):
            return "done"

    site = make_site(lambda config: config.add_async_view(Spoken, "spoken"))
    doc = site.run("/spoken")
    assert (doc["label"], doc["message"]) == ("Yearly report", "It is done.")
    assert [task["name"] for task in doc["tasks"]] == ["Reading", "Sending"]


def test_a_label_is_for_a_line(make_site):
    class Long(Hello):
        @property
        def label(self):
            return self.request.params["name"]

    site = make_site(lambda config: config.add_async_view(Long, "long"))
    assert site.run("/long", {"name": 1000 * "é"})["label"] == 200 * "é"


def test_an_address_of_another_site_is_refused_where_it_is_set(make_site, caplog):
    class Leading(BaseAsyncView):
        def __run__(self):
            self.success_url = "//evil.example"

    site = make_site(lambda config: config.add_async_view(Leading, "l"))
    assert site.run("/l")["status"] == "failed"
    assert "evil.example" in caplog.text


def test_methods_about_jobs_say_what_the_subviews_say(make_site, gate):
    seen = {}

    class Asking(BaseAsyncView):
        def __run__(self):
            self.progress.update(1, 4)
            if self.request.params.get("fail"):
                raise ValueError("no")
            gate.wait(30)
            return "done"

    def ask(context, request):
        view = Asking(context, request)
        request.path_info = "/asking"
        for name in ("completed", "result"):
            try:
                seen[name] = getattr(view, name)(request.params["process_id"])
            except Exception as error:
                seen[name] = type(error).__name__
        return Response("")

    def configure(config):
        config.add_async_view(Asking, "asking")
        config.add_view(ask, name="ask")

    site = make_site(configure)
    id = site.start("/asking")
    site.app.get(f"/ask?process_id={id}")
    assert seen["result"] is None
    gate.set()
    site.wait(id)
    site.app.get(f"/ask?process_id={id}")
    assert (seen["completed"], seen["result"].text) == (100, "done")
    failed = site.run("/asking", {"fail": "1"})["process_id"]
    site.app.get(f"/ask?process_id={failed}")
    assert set(seen.values()) == {"ThreadDiedBeforeCompletionError"}
    site.app.get("/ask?process_id=unknown")
    assert set(seen.values()) == {"NoSuchProcessError"}


def test_the_log_of_a_job_is_kept_with_it(make_site):
    class Logging(BaseAsyncView):
        def __run__(self):
            self.log.debug("not this")
            self.log.info("read %d of %s", 3, "seven")
            self.log.warning("100 %")

    site = make_site(lambda config: config.add_async_view(Logging, "l"))
    assert site.run("/l")["log"] == ["read 3 of seven", "100 %"]
