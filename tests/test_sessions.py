"""The web session as a job sees it, and what of it comes back."""

import threading

import pytest
from pyramid.csrf import CookieCSRFStoragePolicy
from pyramid.csrf import LegacySessionCSRFStoragePolicy
from pyramid.csrf import SessionCSRFStoragePolicy
from pyramid.csrf import get_csrf_token
from pyramid.csrf import new_csrf_token
from pyramid.response import Response
from pyramid.security import remember
from pyramid.session import SignedCookieSessionFactory
from test_replay import TicketPolicy

from asyncview import BaseAsyncView

POLICIES = {
    "legacy": LegacySessionCSRFStoragePolicy,
    "session": SessionCSRFStoragePolicy,
    "cookie": CookieCSRFStoragePolicy,
}


class Page(BaseAsyncView):
    """Its result is a page with a form that starts it again."""

    def __run__(self):
        session = self.request.session
        session["written"] = "by the job"
        session.flash("from the job")
        session.flash("to the error queue", "error")
        old = [*session.pop_flash("old"), *(n for n in session if n[:3] == "_f_")]
        lines = [get_csrf_token(self.request), str(session.get("name")), repr(old)]
        return Response("\n".join(lines))


def form(request):
    """As any page that a user comes from."""
    request.session["name"] = "Ann"
    request.session.flash("an old message", "old")
    return Response(get_csrf_token(request))


def look(request):
    session = request.session
    return Response(
        json_body={
            "written": session.get("written"),
            "flash": session.peek_flash(),
            "error": session.peek_flash("error"),
            "old": session.peek_flash("old"),
        }
    )


def configure_with(policy, factory=None):
    def configure(config):
        config.set_session_factory(factory or SignedCookieSessionFactory("secret"))
        if policy is not None:
            config.set_csrf_storage_policy(policy())
        config.set_default_csrf_options(require_csrf=policy is not None)
        config.add_async_view(Page, "page")
        config.add_view(form, name="form")
        config.add_view(look, name="look")

    return configure


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_a_post_with_a_token_is_replayed_and_its_result_can_be_posted(
    make_site, policy
):
    site = make_site(configure_with(policy))
    token = site.app.get("/form").text
    site.app.post("/page", status=400)
    id = site.start("/page", {"csrf_token": token})
    site.wait(id)
    doc = site.status("/page", id)
    assert doc["status"] == "completed"
    shown, name, old = site.result("/page", id).text.splitlines()
    assert name == "Ann"
    assert old == "[]"
    # The form on the result page carries a token that works.
    second = site.run("/page", {"csrf_token": shown})
    assert second["status"] == "completed"


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_a_token_that_is_made_for_a_job_is_one_of_the_user(make_site, policy):
    """Where the first page that carries one is the result."""
    configure = configure_with(policy)

    def lenient(config):
        configure(config)
        config.add_async_view(Page, "open", require_csrf=False)

    site = make_site(lenient)
    id = site.start("/open")
    site.wait(id)
    token = site.result("/open", id).text.splitlines()[0]
    assert site.run("/page", {"csrf_token": token})["status"] == "completed"


def test_the_live_session_stays_as_it_is_but_for_what_was_flashed(make_site):
    site = make_site(configure_with(None))
    site.app.get("/form")
    id = site.start("/page")
    site.wait(id)
    before = site.app.get("/look").json
    assert before == {
        "written": None,
        "flash": [],
        "error": [],
        "old": ["an old message"],
    }
    assert "Set-Cookie" not in {
        name
        for name, _ in site.engine.db.open()
        .root()["asyncview:tests"]
        .find(id)
        .job.state.outcome.headers
    }
    site.result("/page", id)
    site.result("/page", id)
    after = site.app.get("/look").json
    assert after["written"] is None
    assert after["flash"] == ["from the job"]
    assert after["error"] == ["to the error queue"]
    assert after["old"] == ["an old message"]


def test_what_a_job_flashed_and_popped_again_is_not_shown(make_site):
    class Popping(BaseAsyncView):
        def __run__(self):
            session = self.request.session
            session.flash("once")
            session.flash("once", allow_duplicate=False)
            assert session.peek_flash() == ["once"]
            assert session.pop_flash() == ["once"]
            session.invalidate()
            session.changed()
            assert new_csrf_token(self.request) == session.get_csrf_token()
            assert session.new is False
            assert session.created > 0
            return "done"

    def configure(config):
        configure_with(LegacySessionCSRFStoragePolicy)(config)
        config.add_async_view(Popping, "popping", require_csrf=False)

    site = make_site(configure)
    doc = site.run("/popping")
    assert doc["status"] == "completed", doc
    site.result("/popping", doc["process_id"])
    assert site.app.get("/look").json["flash"] == []


class Unreadable(Exception):
    """It can be written, and not read again."""

    def __init__(self, one, two):
        super().__init__(one)


def test_session_values_that_can_not_be_kept_are_left_out(make_site, caplog):
    kept = {}

    class Session(dict):
        """A session in memory, as some servers have."""

        created = 0
        new = False

        def get_csrf_token(self):
            return "token"

    class Reading(BaseAsyncView):
        def __run__(self):
            return Response(",".join(sorted(self.request.session)))

    def factory(request):
        return kept.setdefault(
            "session",
            Session(good=1, lock=threading.Lock(), bad=Unreadable(1, 2)),
        )

    def configure(config):
        config.set_session_factory(factory)
        config.add_async_view(Reading, "r")

    site = make_site(configure)
    doc = site.run("/r")
    assert doc["status"] == "completed"
    names = site.result("/r", doc["process_id"]).text
    assert "good" in names
    assert "lock" not in names
    assert "bad" not in names
    assert "'lock'" in caplog.text


def test_the_session_is_there_before_anything_reads_it(make_site):
    """The security policy, say, which is asked before the view."""
    seen = []

    class Policy(TicketPolicy):
        def authenticated_userid(self, request):
            seen.append(
                (type(request.session).__name__, "asyncview.job" in request.environ)
            )
            return request.session.get("user")

    def configure(config):
        config.set_session_factory(SignedCookieSessionFactory("secret"))
        config.set_security_policy(Policy())
        config.add_async_view(Telling, "tell")

        def login(request):
            request.session["user"] = "jane"
            return Response("")

        config.add_view(login, name="login")

    class Telling(BaseAsyncView):
        def __run__(self):
            return self.request.authenticated_userid

    site = make_site(configure)
    site.app.get("/login")
    doc = site.run("/tell")
    assert doc["owner"] == "jane"
    assert site.result("/tell", doc["process_id"]).text == "jane"
    assert {name for name, replayed in seen if replayed} == {"ReplaySession"}


def test_cookies_of_a_login_are_refused_and_own_cookies_kept(make_site, caplog):
    policy = TicketPolicy()

    class Baking(BaseAsyncView):
        def __run__(self):
            request = self.request
            request.response.headerlist.extend(remember(request, "admin"))
            request.response.set_cookie("own", "kept")
            request.add_response_callback(
                lambda request, response: response.set_cookie("late", "dropped")
            )
            return "done"

    def configure(config):
        config.set_security_policy(policy)
        config.add_async_view(Baking, "b")

    site = make_site(configure)
    id = site.run("/b")["process_id"]
    cookies = site.result("/b", id).headers.getall("Set-Cookie")
    assert [cookie.partition("=")[0] for cookie in cookies] == ["own"]
    assert "must not log in" in caplog.text
