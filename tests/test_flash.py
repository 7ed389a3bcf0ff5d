"""The messages of a job: shown once, to its owner, in the right order."""

import pytest
from people import Policy
from people import Work
from people import job_that_is
from people import working
from pyramid.response import Response
from pyramid.session import SignedCookieSessionFactory

from asyncview import BaseAsyncView
from asyncview.address import local_path


class Telling(Work):
    success_msg = "It is done."
    error_msg = "It went wrong."

    def __run__(self, process_id=None):
        if self.request.registry.sessions:
            self.request.session.flash("own", "own queue")
            self.request.session.flash("first")
        return super().__run__(process_id)


class Talkative(BaseAsyncView):
    """Says more than a cookie can hold."""

    success_msg = "It is done."

    def __run__(self):
        params = self.request.params
        for number in range(int(params.get("lines", 0))):
            self.request.session.flash(f"line {number}")
        if "text" in params:
            self.success_msg = self.error_msg = params["text"]
        if params.get("mode") == "failed":
            raise ValueError("failed")
        return "done"


def queues(request):
    """Shows, and forgets, what was flashed."""
    session = request.session
    names = ["", "error", "own queue"]
    return Response(json_body={name: session.pop_flash(name) for name in names})


def configure(config, sessions=True):
    working(config)
    config.registry.sessions = sessions
    config.set_security_policy(Policy())
    config.add_async_view(Telling, "telling")
    config.add_async_view(Elsewhere, "elsewhere")
    config.add_async_view(Talkative, "talkative")
    config.add_async_view(Silent, "silent")
    if sessions:
        config.set_session_factory(SignedCookieSessionFactory("secret"))
        config.add_view(queues, name="queues")


class Elsewhere(Telling):
    success_url = "/queues"
    error_url = "/queues?failed"


class Silent(Work):
    error_url = "/queues?failed"


@pytest.fixture(scope="module")
def site(make_shared_site):
    return make_shared_site(configure)


@pytest.fixture(scope="module")
def plain(make_shared_site):
    return make_shared_site(lambda config: configure(config, sessions=False))


def flashed(browser):
    return browser.get("/queues").json


NONE = {"": [], "error": [], "own queue": []}
DONE = {"": ["first", "It is done."], "error": [], "own queue": ["own"]}
WRONG = {"": ["first"], "error": ["It went wrong."], "own queue": ["own"]}


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [("completed", DONE), ("failed", WRONG), ("aborted", WRONG), ("cancelled", WRONG)],
)
@pytest.mark.parametrize("subview", ["processing", "result"])
def test_the_messages_come_with_the_end(site, subview, mode, wanted):
    browser = site.browser()
    process_id = job_that_is(site, mode, browser, "/telling")
    assert flashed(browser) == NONE
    url = f"/telling/{subview}?process_id={process_id}"
    browser.get(url, expect_errors=True)
    assert flashed(browser) == wanted


@pytest.mark.parametrize("mode", ["failed", "aborted", "cancelled", "completed"])
def test_who_is_sent_elsewhere_is_told_that_it_failed(site, mode):
    """The failure page would have said it; by the view's address nobody does."""
    browser = site.browser()
    process_id = job_that_is(site, mode, browser, "/silent")
    browser.get(f"/silent/processing?process_id={process_id}", expect_errors=True)
    error = site.status("/silent", process_id, browser)["error"]
    said = flashed(browser)["error"]
    if mode in ("failed", "aborted"):
        assert said == [f"Something went wrong. Reference: {error['id']}"]
    else:
        # The user knows, or there is nothing to tell.
        assert said == []


def test_the_failure_page_says_it_itself(site):
    browser = site.browser()
    process_id = job_that_is(site, "failed", browser)
    site.result("/work", process_id, browser, status=500)
    assert flashed(browser) == NONE


def test_the_messages_are_shown_once(site):
    browser = site.browser()
    process_id = job_that_is(site, "completed", browser, "/telling")
    for subview in ("processing", "result", "processing", "result"):
        browser.get(f"/telling/{subview}?process_id={process_id}")
    assert flashed(browser) == DONE
    browser.get(f"/telling/result?process_id={process_id}")
    assert flashed(browser) == NONE


def test_each_web_session_of_the_owner_is_told(site):
    one, other = (site.browser(REMOTE_USER="ann") for _ in range(2))
    process_id = job_that_is(site, "completed", one, "/telling")
    for browser in (one, other):
        browser.get(f"/telling/result?process_id={process_id}")
        assert flashed(browser) == DONE


def test_an_admin_is_not_told_what_is_the_owners(site):
    ann, admin = site.browser(REMOTE_USER="ann"), site.browser(REMOTE_USER="admin")
    process_id = job_that_is(site, "completed", ann, "/telling")
    admin.get(f"/telling/result?process_id={process_id}", status=200)
    assert flashed(admin) == NONE


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "completed"),
        ("GET", "events"),
        ("HEAD", "processing"),
        ("HEAD", "result"),
        ("HEAD", "completed"),
    ],
)
def test_nobody_reads_the_messages_there(site, method, path):
    browser = site.browser()
    process_id = job_that_is(site, "completed", browser, "/telling")
    for query in ("", "&output_json=1"):
        url = f"/telling/{path}?process_id={process_id}{query}"
        browser.request(url, method=method)
    assert flashed(browser) == NONE
    browser.get(f"/telling/result?process_id={process_id}")
    assert flashed(browser) == DONE


def test_a_message_is_there_where_the_job_sends_its_user(site):
    for mode, wanted in (("completed", DONE), ("failed", WRONG)):
        browser = site.browser()
        process_id = job_that_is(site, mode, browser, "/elsewhere")
        page = browser.get(f"/elsewhere/processing?process_id={process_id}").follow()
        assert page.json == wanted


def test_messages_of_many_jobs_are_each_shown_once(site):
    browser = site.browser()
    ids = [job_that_is(site, "completed", browser, "/telling") for _ in range(3)]
    for process_id in ids + ids:
        browser.get(f"/telling/result?process_id={process_id}")
    assert flashed(browser)[""] == 3 * DONE[""]


@pytest.mark.parametrize("text", ["x", "é", "\U0001f600", '"'])
@pytest.mark.parametrize("mode", ["completed", "failed"])
def test_messages_are_as_long_as_a_cookie_may_be(site, mode, text):
    browser = site.browser()
    for _ in range(2):
        params = {"mode": mode, "text": 3000 * text}
        process_id = site.start("/talkative", params, browser)
        site.wait(process_id)
        for _ in range(2):
            url = f"/talkative/result?process_id={process_id}"
            page = browser.get(url, expect_errors=True)
            assert page.status_int == (500 if mode == "failed" else 200)
    shown = flashed(browser)["" if mode == "completed" else "error"]
    assert shown[-1].startswith(text)
    assert shown[-1].endswith("…")


def test_what_the_view_says_has_the_first_claim_to_the_room(site):
    browser = site.browser()
    process_id = site.start("/talkative", {"lines": "200"}, browser)
    site.wait(process_id)
    browser.get(f"/talkative/result?process_id={process_id}")
    shown = flashed(browser)[""]
    assert shown[-2:] == ["line 199", "It is done."]
    assert 50 < len(shown) < 200


def test_without_sessions_the_document_and_the_page_say_it(plain):
    process_id = job_that_is(plain, "completed", path="/telling")
    assert plain.status("/telling", process_id)["message"] == "It is done."
    for mode in ("failed", "cancelled"):
        process_id = job_that_is(plain, mode, path="/telling")
        assert plain.status("/telling", process_id)["message"] == "It went wrong."
        url = f"/telling/result?process_id={process_id}"
        assert "It went wrong." in plain.app.get(url, expect_errors=True).text


def test_with_sessions_the_document_does_not_say_it(site):
    browser = site.browser()
    process_id = job_that_is(site, "completed", browser, "/telling")
    assert site.status("/telling", process_id, browser)["message"] == ""


# Where a job sends its user


@pytest.mark.parametrize(
    "address",
    [
        "//evil.example",
        "/\\evil.example",
        "\\/evil.example",
        "https:evil.example",
        "https:///evil.example",
        "https://evil.example",
        "http://good.example@evil.example",
        "http://good.example:8080/",
        "https://good.example\\@evil.example/",
        "javascript:alert(1)",
        "data:text/html,x",
        "/\tevil",
        "/\r\nSet-Cookie: a=b",
        "/\x00",
        "/a b",
        "/\x7f",
        "/\u2028",
        "relative",
        "?query",
        "",
    ],
)
def test_an_address_of_another_site_is_refused(address):
    with pytest.raises(ValueError, match=r"no address|no path of this site"):
        local_path(address, ("good.example",))


@pytest.mark.parametrize(
    ("address", "sent"),
    [
        ("/", "/"),
        ("/done?x=1&y=%20#z", "/done?x=1&y=%20#z"),
        ("/a//b", "/a//b"),
        ("/bücher/☃", "/b%C3%BCcher/%E2%98%83"),
        ("https://good.example/x", "https://good.example/x"),
    ],
)
def test_a_path_of_this_site_is_taken(address, sent):
    assert local_path(address, ("good.example",)) == sent


class Leaving(BaseAsyncView):
    def __run__(self):
        self.success_url = self.request.params["to"]
        return "done"


def test_where_a_job_sends_its_user_is_checked_when_it_says_so(make_site):
    site = make_site(
        lambda config: config.add_async_view(Leaving, "leaving"),
        asyncview__redirect_hosts="good.example other.example",
    )
    doc = site.run("/leaving", {"to": "/☃"})
    response = site.app.get(f"/leaving/processing?process_id={doc['process_id']}")
    assert response.location == "http://localhost/%E2%98%83"
    assert site.run("/leaving", {"to": "//evil.example"})["status"] == "failed"
    doc = site.run("/leaving", {"to": "https://other.example/x"})
    assert doc["next_url"] == "https://other.example/x"


def test_a_view_that_would_send_users_away_starts_nothing(make_site):
    class Away(Work):
        @property
        def success_url(self):
            return "//evil.example"

    def configure(config):
        working(config)
        config.add_async_view(Away, "away")

    site = make_site(configure)
    with pytest.raises(ValueError, match="redirect_hosts"):
        site.app.post("/away")
