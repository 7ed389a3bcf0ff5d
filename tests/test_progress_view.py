"""The progress view and the page of sessions that are no view's job."""

import re
import threading

import pytest
from conftest import PATIENCE
from conftest import eventually
from people import Policy
from people import job_that_is
from people import working
from pyramid.exceptions import ConfigurationConflictError
from pyramid.response import Response
from pyramid.session import SignedCookieSessionFactory

from asyncview import AsyncViewError

KEYS = {
    "completed",
    "progress",
    "progress_message",
    "process_id",
    "status",
    "label",
    "tags",
    "owner",
    "queue_position",
    "percent",
    "current",
    "total",
    "message",
    "estimated",
    "rate",
    "tasks",
    "log",
    "version",
    "created",
    "started",
    "updated",
    "finished",
    "attempt",
    "cancel_requested",
    "error",
    "next_url",
    "links",
}


def begin(request):
    """WuttaWeb's way: start work in a thread, and show how it goes."""
    terms = {
        name: request.params[name]
        for name in ("success_msg", "success_url", "error_msg", "error_url", "label")
        if name in request.params
    }
    session = request.asyncview.create_session(
        id=request.params.get("id"), total=4, tasks={"read": "Reading"}, **terms
    )
    mode = request.params.get("mode", "finish")
    request.asyncview.run_in_thread(session, work, request.registry, mode)
    return request.asyncview.show_progress(session)


def work(connection, session, registry, mode):
    with session.task("read") as task:
        task.update(1, 4, "On it")
        registry.inside.set()
        registry.gate.wait(PATIENCE)
    if mode == "fail":
        raise ZeroDivisionError("a secret")


def flashed(request):
    session = request.session
    return Response(json_body=[session.pop_flash(), session.pop_flash("error")])


def configure(config, sessions=True, progress=True):
    working(config)
    config.set_security_policy(Policy())
    if sessions:
        config.set_session_factory(SignedCookieSessionFactory("secret"))
    if progress:
        config.add_progress_view("/own/progress")
    config.add_view(begin, name="begin")
    config.add_view(flashed, name="flashed")


@pytest.fixture(scope="module")
def shared(make_shared_site):
    return make_shared_site(configure)


@pytest.fixture(scope="module")
def plain(make_shared_site):
    return make_shared_site(lambda config: configure(config, sessions=False))


@pytest.fixture
def site(shared, gate):
    yield fresh(shared, gate)
    ended(shared, gate)


def fresh(site, gate):
    site.registry.gate, site.registry.inside = gate, threading.Event()
    return site


def user(site, name="ann"):
    return site.browser(REMOTE_USER=name)


def document(browser, id, status=200, **kw):
    return browser.get(f"/own/progress?progress_id={id}", status=status, **kw).json


def started(site, browser, **params):
    """The page of new work, and the id of its session."""
    page = browser.post("/begin", params)
    assert site.registry.inside.wait(PATIENCE)
    return page, re.search(r"progress_id=([\w-]+)", page.text)[1]


def ended(site, gate):
    gate.set()
    assert site.engine.workers.join(PATIENCE)


# The document


def test_document_of_a_session_has_all_keys_of_a_jobs(site, gate):
    browser = user(site)
    _, id = started(site, browser, label="Import")
    eventually(lambda: document(browser, id)["percent"] == 25)
    doc = document(browser, id)
    assert set(doc) == KEYS
    assert (doc["status"], doc["label"], doc["owner"]) == ("running", "Import", "ann")
    assert doc["tasks"][0]["message"] == "On it"
    assert doc["next_url"] is None
    assert doc["links"]["completed"] == f"/own/progress?progress_id={id}"
    assert {type(each) for each in doc["links"].values()} == {str}
    ended(site, gate)
    doc = document(browser, id)
    assert set(doc) == KEYS
    assert (doc["status"], doc["completed"]) == ("completed", 100)
    # There is no result to go to.
    assert doc["next_url"] is None


def test_document_of_a_job_has_the_addresses_of_its_view(site):
    browser = user(site)
    id = job_that_is(site, "failed", browser)
    assert document(browser, id) == site.status("/work", id, browser)


def test_end_is_there_for_every_reader_as_often_as_they_ask(site, gate):
    browser = user(site)
    _, id = started(site, browser, success_msg="Done", success_url="/flashed")
    ended(site, gate)
    docs = [document(browser, id) for _ in range(3)]
    assert docs[0] == docs[1] == docs[2]
    assert (docs[0]["status"], docs[0]["next_url"]) == ("completed", "/flashed")
    # A poll flashes nothing.
    assert browser.get("/flashed").json == [[], []]


def test_unknown_session_is_said_to_be_so_without_an_error(site):
    # It may be about to be made, under an id that was given out beforehand.
    for id in ("nothing", "", "../x", "x" * 1000):
        assert document(user(site), id) == {"status": "unknown"}


def test_session_of_another_owner_is_unknown_and_unharmed(site, gate):
    browser = user(site)
    _, id = started(site, browser)
    assert document(user(site, "bob"), id) == {"status": "unknown"}
    assert document(site.app, id) == {"status": "unknown"}
    assert document(user(site, "admin"), id)["owner"] == "ann"
    user(site, "bob").get(f"/own/progress?progress_id={id}&page=1", status=404)
    ended(site, gate)
    assert document(user(site, "bob"), id) == {"status": "unknown"}
    assert document(browser, id)["status"] == "completed"


def test_address_without_the_parameter_is_a_bad_request(site):
    response = user(site).get("/own/progress", status=400)
    assert response.content_type == "application/json"
    assert response.json["error"] == "The address lacks a valid progress_id."
    user(site).get("/own/progress?progressId=1", status=400)


def test_other_methods_are_refused(site):
    response = user(site).post("/own/progress?progress_id=x", status=405)
    assert response.headers["Allow"] == "GET, HEAD"


def test_document_is_private_and_has_a_validator(site, gate):
    browser = user(site)
    _, id = started(site, browser)
    ended(site, gate)
    first = browser.get(f"/own/progress?progress_id={id}")
    assert first.headers["Cache-Control"] == "private, no-cache"
    assert "Cookie" in first.headers["Vary"]
    again = {"If-None-Match": first.headers["ETag"]}
    browser.get(f"/own/progress?progress_id={id}", headers=again, status=304)


def test_there_is_one_progress_view(make_site):
    def configure(config):
        config.add_progress_view("/one")
        config.add_progress_view("/two")

    with pytest.raises(ConfigurationConflictError):
        make_site(configure)


def test_progress_view_may_ask_for_a_permission(make_site):
    def configure(config):
        config.set_security_policy(Policy())
        config.add_progress_view("/own/progress", permission="view")

    site = make_site(configure)
    user(site).get("/own/progress?progress_id=x")
    user(site, "banned").get("/own/progress?progress_id=x", status=403)


def test_lines_of_a_session_are_seen_while_it_runs_and_are_text(site, gate):
    browser = user(site)
    _, id = started(site, browser)
    session = site.engine.live.session(id)
    session.log("<b>é</b> & the first line")
    session.log("the second")
    lines = ["<b>é</b> & the first line", "the second"]
    eventually(lambda: document(browser, id)["log"] == lines)
    text = browser.get(f"/own/progress?progress_id={id}&page=1").text
    assert "&lt;b&gt;é&lt;/b&gt; &amp; the first line\nthe second" in text


# The page


def test_page_shows_the_session_and_polls_the_progress_view(site, gate):
    browser = user(site)
    page, id = started(site, browser, label="Import of members")
    assert "Import of members" in page.text
    assert "Reading" in page.text
    url = re.search(r'data-asyncview-url="([^"]+)"', page.text)[1].replace("&amp;", "&")
    assert set(browser.get(url).json) == KEYS
    # Nobody can cancel what no job is.
    assert page.forms == {}
    # Without a script it comes back by itself, and to a GET.
    again = browser.get(f"/own/progress?progress_id={id}&page=1")
    assert "http-equiv" in again.text
    assert "Import of members" in again.text


def test_page_without_a_label_has_a_heading(site):
    page, _ = started(site, user(site))
    assert re.search(r"<h1[^>]*>Running</h1>", page.text)


@pytest.mark.parametrize(
    ("mode", "said", "where"),
    [
        ("finish", [["All imported"], []], "/flashed?done"),
        ("fail", [[], ["It failed"]], "/flashed?failed"),
    ],
)
def test_page_flashes_once_at_the_end_and_goes_on(site, gate, mode, said, where):
    browser = user(site)
    page, _ = started(
        site,
        browser,
        mode=mode,
        success_msg="All imported",
        success_url="/flashed?done",
        error_msg="It failed",
        error_url="/flashed?failed",
    )
    url = re.search(r'data-asyncview-url="([^"]+)"', page.text)[1].replace("&amp;", "&")
    ended(site, gate)
    doc = browser.get(url).json
    assert browser.get("/flashed").json == [[], []]
    # By way of the page, with a script or without.
    response = browser.get(doc["next_url"], status=303)
    assert response.location == f"http://localhost{where}"
    assert response.follow().json == said
    browser.get(doc["next_url"], status=303)
    assert browser.get("/flashed").json == [[], []]


def test_failure_goes_to_the_success_url_where_there_is_no_other(site, gate):
    browser = user(site)
    _, id = started(site, browser, mode="fail", success_url="/flashed")
    ended(site, gate)
    assert document(browser, id)["next_url"] == "/flashed"
    # And is told apart from a success.
    page = browser.get(f"/own/progress?progress_id={id}&page=1", status=303)
    good, (bad,) = page.follow().json
    assert good == []
    assert bad.startswith("Something went wrong. Reference: ")


@pytest.mark.parametrize("name", ["shared", "plain"])
def test_page_that_leads_nowhere_says_how_it_ended(request, gate, name):
    site = fresh(request.getfixturevalue(name), gate)
    browser = user(site)
    _, id = started(site, browser, success_msg="All imported")
    ended(site, gate)
    page = browser.get(f"/own/progress?progress_id={id}&page=1")
    assert "All imported" in page.text
    assert "null" not in page.text
    assert "http-equiv" not in page.text


def test_failed_page_has_a_reference_and_no_secret(site, gate):
    browser = user(site)
    _, id = started(site, browser, mode="fail", error_msg="It failed")
    ended(site, gate)
    page = browser.get(f"/own/progress?progress_id={id}&page=1")
    assert "It failed" in page.text
    assert document(browser, id)["error"]["id"] in page.text
    assert "secret" not in page.text
    assert "ZeroDivisionError" not in page.text


def test_page_needs_a_progress_view(make_site, gate):
    gate.set()
    site = fresh(make_site(lambda config: configure(config, progress=False)), gate)
    with pytest.raises(AsyncViewError, match="add_progress_view"):
        user(site).post("/begin")


def test_form_can_follow_its_own_synchronous_post(make_site, gate):
    inside = threading.Event()

    def form(request):
        return Response(request.asyncview.new_id())

    def post(request):
        session = request.asyncview.create_session(id=request.POST["progress_id"])
        for i, _ in enumerate(session.track("abcd", message="Working")):
            if i == 2:
                inside.set()
                gate.wait(PATIENCE)
        session.finish("Done")
        return Response("the work is done in the request")

    def configure(config):
        config.add_progress_view("/progress")
        config.add_view(form, name="form")
        config.add_view(post, name="post")

    site = make_site(configure)
    id = site.app.get("/form").text
    url = f"/progress?progress_id={id}"
    assert site.app.get(url).json == {"status": "unknown"}
    browser = site.browser()
    thread = threading.Thread(target=browser.post, args=("/post", {"progress_id": id}))
    thread.start()
    assert inside.wait(PATIENCE)
    eventually(lambda: site.app.get(url).json["percent"] == 50)
    assert site.app.get(url).json["message"] == "Working"
    gate.set()
    thread.join(PATIENCE)
    for _ in range(2):
        assert site.app.get(url).json["status"] == "completed"
