"""Whose a job is: what is not yours does not exist, on any subview."""

from contextlib import ExitStack

import pytest
from conftest import PATIENCE
from people import Policy
from people import Work
from people import job_that_is
from people import let_go
from people import working
from persistent.mapping import PersistentMapping
from pyramid.request import Request
from pyramid.scripting import prepare
from pyramid.session import SignedCookieSessionFactory
from pyramid_zodbconn import get_connection

from asyncview.store import store_of
from asyncview.store import transact

READING = ["processing", "completed", "result", "events"]
SUBVIEWS = [*READING, "cancel", "delete"]
METHODS = {
    **{name: ["GET", "HEAD"] for name in READING},
    "cancel": ["POST"],
    "delete": ["POST"],
}
REQUESTS = [(name, method) for name in SUBVIEWS for method in METHODS[name]]
FORBIDDEN = 403


class Guarded(Work):
    """The same, for those who may view."""


class Folder(PersistentMapping):
    """A context that is persistent."""

    __name__ = __parent__ = None


def folders(request):
    """Two folders under a root that is one itself."""
    data = get_connection(request).root()
    if "folders" not in data:
        data["folders"] = Folder({"a": Folder(), "b": Folder()})
    return data["folders"]


def configure(config, sessions=False, policy=True):
    working(config)
    config.add_async_view(Work, "other")
    config.add_async_view(Guarded, "guarded", permission="view")
    if policy:
        config.set_security_policy(Policy())
    if sessions:
        config.set_session_factory(SignedCookieSessionFactory("secret"))


@pytest.fixture(scope="module")
def with_sessions(make_shared_site):
    return make_shared_site(lambda config: configure(config, sessions=True))


@pytest.fixture(scope="module")
def without_sessions(make_shared_site):
    return make_shared_site(configure, root_factory=folders)


@pytest.fixture(scope="module")
def without_policy(make_shared_site):
    return make_shared_site(lambda config: configure(config, policy=False))


@pytest.fixture
def site(without_sessions):
    yield without_sessions
    let_go(without_sessions)


@pytest.fixture
def web(with_sessions):
    yield with_sessions
    let_go(with_sessions)


def ask(site, app, subview, method, process_id, path="/work", **kw):
    """The answer to that request, by a browser with the token of its session."""
    url = f"{path}/{subview}?process_id={process_id}"
    headers = {}
    if method == "POST":
        page = app.get(path, expect_errors=True)
        if "csrf_token" in page.text:
            token = page.text.partition('name="csrf_token" value="')[2]
            headers["X-CSRF-Token"] = token.partition('"')[0]
    return app.request(url, method=method, headers=headers, expect_errors=True, **kw)


def assert_unknown(site, app, subview, method, process_id, path="/work"):
    """What is not there and what is not theirs are answered alike."""
    theirs = ask(site, app, subview, method, process_id, path)
    nobodys = ask(site, app, subview, method, 32 * "a", path)
    assert theirs.status_int == nobodys.status_int == 404
    assert theirs.body == nobodys.body
    ignored = ("Set-Cookie", "Date")
    headers = [
        {name: value for name, value in each.headers.items() if name not in ignored}
        for each in (theirs, nobodys)
    ]
    assert headers[0] == headers[1]


def assert_allowed(site, app, subview, method, process_id, path="/work"):
    response = ask(site, app, subview, method, process_id, path)
    assert response.status_int < 400, response


def nothing_happened(site, owner, process_id):
    doc = site.status("/work", process_id, owner)
    return doc["status"] == "completed" and not doc["cancel_requested"]


@pytest.mark.parametrize(("subview", "method"), REQUESTS)
def test_the_owner_may(site, subview, method):
    ann = site.browser(REMOTE_USER="ann")
    process_id = job_that_is(site, "completed", ann)
    assert_allowed(site, ann, subview, method, process_id)


@pytest.mark.parametrize("user", ["bob", "Ann", "ann ", "int:1", None])
@pytest.mark.parametrize(("subview", "method"), REQUESTS)
def test_nobody_else_may(site, subview, method, user):
    ann = site.browser(REMOTE_USER="ann")
    process_id = job_that_is(site, "completed", ann)
    other = site.browser(**({"REMOTE_USER": user} if user else {}))
    assert_unknown(site, other, subview, method, process_id)
    assert nothing_happened(site, ann, process_id)


@pytest.mark.parametrize(("subview", "method"), REQUESTS)
def test_users_of_another_type_are_others(site, subview, method):
    number = site.browser(REMOTE_USER="int:1")
    text = site.browser(REMOTE_USER="1")
    process_id = job_that_is(site, "completed", number)
    assert_unknown(site, text, subview, method, process_id)
    assert_allowed(site, number, subview, method, process_id)


@pytest.mark.parametrize(("subview", "method"), REQUESTS)
def test_an_admin_may(site, subview, method):
    process_id = job_that_is(site, "completed", site.browser(REMOTE_USER="ann"))
    admin = site.browser(REMOTE_USER="admin")
    assert_allowed(site, admin, subview, method, process_id)


@pytest.mark.parametrize(("subview", "method"), REQUESTS)
def test_an_anonymous_job_is_whoevers_has_its_id_without_sessions(
    site, subview, method
):
    process_id = job_that_is(site, "completed")
    assert_allowed(site, site.browser(), subview, method, process_id)


@pytest.mark.parametrize(("subview", "method"), REQUESTS)
def test_an_anonymous_job_is_its_web_sessions(web, subview, method):
    one, other = web.browser(), web.browser()
    process_id = job_that_is(web, "completed", one)
    assert_unknown(web, other, subview, method, process_id)
    ann = web.browser(REMOTE_USER="ann")
    assert_unknown(web, ann, subview, method, process_id)
    # One that has a secret of its own.
    job_that_is(web, "completed", other)
    assert_unknown(web, other, subview, method, process_id)
    assert_allowed(web, one, subview, method, process_id)


def test_an_anonymous_job_is_still_ones_own_after_a_login(web):
    one = web.browser()
    process_id = job_that_is(web, "completed", one)
    one.extra_environ["REMOTE_USER"] = "ann"
    assert web.status("/work", process_id, one)["status"] == "completed"


@pytest.mark.parametrize(("subview", "method"), REQUESTS)
def test_without_a_security_policy_nobody_is_admin(without_policy, subview, method):
    # What the policy of old let in was written down for somebody.
    site = without_policy
    process_id = job_that_is(site, "completed")

    def give(connection):
        job = store_of(connection, "tests").find(process_id).job
        job.owner = ("str", "ann")
        job._p_changed = True

    transact(site.db, give)
    assert_unknown(site, site.app, subview, method, process_id)


@pytest.mark.parametrize(("subview", "method"), REQUESTS)
def test_another_views_job_does_not_exist(site, subview, method):
    process_id = job_that_is(site, "completed")
    assert_unknown(site, site.app, subview, method, process_id, "/other")
    assert nothing_happened(site, site.app, process_id)


@pytest.mark.parametrize(("subview", "method"), REQUESTS)
def test_another_contexts_job_does_not_exist(site, subview, method):
    process_id = job_that_is(site, "completed", path="/a/work")
    for path in ("/b/work", "/work"):
        assert_unknown(site, site.app, subview, method, process_id, path)
    assert_allowed(site, site.app, subview, method, process_id, "/a/work")


def test_a_context_that_was_replaced_has_none_of_the_jobs(site):
    process_id = job_that_is(site, "completed", path="/a/work")

    def replace(connection):
        connection.root()["folders"]["a"] = Folder()

    transact(site.db, replace)
    assert_unknown(site, site.app, "result", "GET", process_id, "/a/work")


@pytest.mark.parametrize("path", ["/@@work", "/work/", "//work", "///work//"])
def test_one_view_by_other_spellings_of_its_address(site, path):
    process_id = job_that_is(site, "completed")
    url = f"{path}/completed?process_id={process_id}&output_json=1"
    doc = site.app.get(url).json
    assert doc["status"] == "completed"
    # An address that began with two slashes would be another host's.
    base = "/@@work" if "@@" in path else "/work"
    assert doc["next_url"] == f"{base}/result?process_id={process_id}"


def test_an_address_that_no_browser_keeps_starts_nothing(make_site):
    """Its dots would be resolved in all links, which then were another view's."""
    site = make_site(configure, root_factory=folders)
    site.app.get("/work")
    site.engine.prepare()
    before = site.db.lastTransaction()
    for path in ("/a/../work", "/./work", "/a/./work", "/a/b/../../work"):
        for accept in ("text/html", "application/json"):
            site.app.post(path, headers={"Accept": accept}, status=400)
        # Who looks is shown the page, with a form that leads to the view.
        site.app.get(path)
    assert site.db.lastTransaction() == before
    assert site.run("/a/work")["status"] == "completed"


@pytest.mark.parametrize(("subview", "method"), REQUESTS)
def test_the_views_own_permission_holds(site, subview, method):
    ann = site.browser(REMOTE_USER="ann")
    process_id = job_that_is(site, "completed", ann, path="/guarded")
    banned = site.browser(REMOTE_USER="banned")
    response = ask(site, banned, subview, method, process_id, "/guarded")
    assert response.status_int == FORBIDDEN
    assert_allowed(site, ann, subview, method, process_id, "/guarded")


@pytest.mark.parametrize("sessions", [True, False])
def test_no_get_changes_the_database(make_site, gate, sessions):
    site = make_site(lambda config: configure(config, sessions), asyncview__threads="9")
    site.registry.gate = gate
    browsers = [site.browser(), site.browser(REMOTE_USER="ann")]
    ids = [32 * "a", "", "%00"]
    for browser in browsers:
        for mode in ("running", "completed", "failed", "aborted", "cancelled"):
            ids.append(job_that_is(site, mode, browser))
    # The pulse writes for itself: progress, and what has ended.
    site.engine.pulse.stop(PATIENCE)
    before = site.db.lastTransaction()
    for browser in browsers:
        for subview, method in REQUESTS[:-2]:
            for process_id in ids:
                ask(site, browser, subview, method, f"{process_id}&output_json=1")
                ask(site, browser, subview, method, process_id)
    assert site.db.lastTransaction() == before


def test_an_application_finds_the_jobs_that_one_may_see(site):
    process_id = job_that_is(site, "running", site.browser(REMOTE_USER="ann"))

    def jobs_of(user):
        request = Request.blank("/", environ={"REMOTE_USER": user})
        context = prepare(request=request, registry=site.registry)
        return stack.enter_context(context)["request"].asyncview

    with ExitStack() as stack:
        mine = jobs_of("ann")
        assert mine.get_job(process_id).id == process_id
        assert [each.id for each in mine.running("ann")] == [process_id]
        assert mine.running("ann", tag="none") == []
        assert mine.get_job("nothing") is None
        assert mine.get_job(None) is None
        theirs = jobs_of("bob")
        assert theirs.get_job(process_id) is None
        assert theirs.running("bob") == []
        assert [each.id for each in theirs.running()] == [process_id]
        assert jobs_of("admin").get_job(process_id) is not None
        assert len({mine.new_id() for _ in range(9)}) == 9
