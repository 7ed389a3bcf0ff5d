"""One job at a time, and no more jobs than there may be."""

import threading

import pytest
from conftest import PATIENCE
from conftest import eventually
from people import Policy
from people import Work
from people import job_that_is
from people import let_go
from people import working
from pyramid.response import Response
from pyramid.session import SignedCookieSessionFactory

from asyncview import NoSuchProcessError
from asyncview import QueueFull
from asyncview.store import reading
from asyncview.store import store_of

API = {"Accept": "application/json"}


class One(Work):
    @property
    def exclusive(self):
        return self.request.params.get("key", "key")


class Late(One):
    """Its start waits, after its transaction has begun, while the test says so."""

    def run_process(self):
        starts = super().run_process()
        if starts and self.request.params.get("late"):
            self.request.registry.asked.release()
            assert self.request.registry.go_on.wait(PATIENCE)
        return starts


def configure(config):
    working(config)
    config.registry.asked = threading.Semaphore(0)
    config.registry.go_on = threading.Event()
    config.set_security_policy(Policy())
    config.add_async_view(One, "one")
    config.add_async_view(One, "two")
    config.add_async_view(type("Any", (Work,), {"exclusive": False}), "any")
    config.add_async_view(Late, "late")


@pytest.fixture(scope="module")
def shared(make_shared_site):
    return make_shared_site(configure)


@pytest.fixture
def site(shared):
    yield shared
    let_go(shared)


@pytest.fixture(scope="module")
def shared_web(make_shared_site):
    def with_sessions(config):
        configure(config)
        config.set_session_factory(SignedCookieSessionFactory("secret"))

    return make_shared_site(with_sessions)


@pytest.fixture
def web(shared_web):
    yield shared_web
    let_go(shared_web)


def at_once(*calls):
    """Run them in threads that go off together; gives what they returned."""
    barrier = threading.Barrier(len(calls))
    results = [None] * len(calls)

    def run(number, call):
        barrier.wait(PATIENCE)
        results[number] = call()

    threads = [
        threading.Thread(target=run, args=each, daemon=True)
        for each in enumerate(calls)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    return results


def test_a_double_click_starts_one_job(site):
    ann = [site.browser(REMOTE_USER="ann") for _ in range(6)]
    ids = at_once(
        *(lambda app=app: site.start("/one", {"mode": "running"}, app) for app in ann)
    )
    assert len(set(ids)) == 1
    # And so does another click, later.
    assert site.start("/one", {"mode": "running"}, ann[0]) == ids[0]
    again = ann[0].post("/one", headers=API, status=202).json
    assert again["process_id"] == ids[0]


def test_anothers_click_is_told_to_wait(site):
    ann, bob = (site.browser(REMOTE_USER=name) for name in ("ann", "bob"))
    job_that_is(site, "running", ann, "/one")
    page = bob.post("/one", status=409)
    assert int(page.headers["Retry-After"]) >= 1
    assert "Somebody else" in page.text
    # There are not too many, there is this one.
    assert page.html.h1.string == "Not yet"
    document = bob.post("/one", headers=API, status=409)
    assert "Somebody else" in document.json["error"]


def test_of_two_owners_at_once_one_gets_the_job(site):
    def click(name):
        browser = site.browser(REMOTE_USER=name)
        return browser.post("/one", {"mode": "running"}, expect_errors=True).status_int

    codes = at_once(lambda: click("ann"), lambda: click("bob"))
    assert sorted(codes) == [303, 409]


def test_another_web_session_is_another_owner(web):
    one, other = web.browser(), web.browser()
    process_id = job_that_is(web, "running", one, "/one")
    assert web.start("/one", app=one) == process_id
    other.post("/one", status=409)


@pytest.mark.parametrize("mode", ["completed", "failed", "cancelled"])
def test_the_key_is_free_when_the_job_has_ended(site, mode):
    ids = {job_that_is(site, mode, path="/one") for _ in range(4)}
    assert len(ids) == 4


def test_a_key_is_one_within_its_view(site):
    job_that_is(site, "running", path="/one")
    job_that_is(site, "running", path="/two")
    assert len(site.engine.live) == 2


def test_false_is_no_key(site):
    one, other = (job_that_is(site, "running", path="/any") for _ in range(2))
    assert one != other


def test_another_key_is_another_job(site):
    first = site.start("/one", {"mode": "running", "key": "1"})
    second = site.start("/one", {"mode": "running", "key": "2"})
    assert first != second


def test_a_late_click_starts_a_job_of_its_own_when_the_first_has_ended(make_site):
    """Its transaction began before the first job was even there."""
    site = make_site(configure).by_hand()
    ids = []
    late = threading.Thread(
        target=lambda: ids.append(
            site.start("/late", {"late": "1"}, site.browser(REMOTE_USER="ann"))
        ),
        daemon=True,
    )
    # There is a registry, and the shard is not new.
    job_that_is(site, "completed", site.browser(REMOTE_USER="ann"), "/late")
    late.start()
    assert site.registry.asked.acquire(timeout=PATIENCE)
    first = job_that_is(site, "completed", site.browser(REMOTE_USER="ann"), "/late")
    site.registry.go_on.set()
    late.join(PATIENCE)
    assert len(ids) == 1
    assert ids[0] != first


def test_a_late_click_finds_the_job_that_came_before(make_site, gate):
    site = make_site(configure)
    site.registry.gate = gate
    ids = []
    late = threading.Thread(
        target=lambda: ids.append(
            site.start("/late", {"late": "1"}, site.browser(REMOTE_USER="ann"))
        ),
        daemon=True,
    )
    late.start()
    assert site.registry.asked.acquire(timeout=PATIENCE)
    first = job_that_is(site, "running", site.browser(REMOTE_USER="ann"), "/late")
    site.registry.go_on.set()
    late.join(PATIENCE)
    assert ids == [first]


# Limits


def limited(config):
    configure(config)
    config.set_session_factory(SignedCookieSessionFactory("secret"))


def test_a_full_queue_is_503(make_site, gate):
    site = make_site(configure, asyncview__max_queued="2", asyncview__threads="1")
    site.registry.gate = gate
    job_that_is(site, "running")
    queued = [site.start("/work") for _ in range(2)]
    page = site.app.post("/work", status=503)
    assert int(page.headers["Retry-After"]) >= 1
    assert "The queue is full" in page.text
    assert page.headers["Cache-Control"] == "private, no-store"
    document = site.app.post("/work", headers=API, status=503)
    assert "full" in document.json["error"]
    # What has ended takes no place, also where it stands there still.
    site.app.post(f"/work/cancel?process_id={queued[0]}")
    site.app.post("/work", status=303)
    site.app.post("/work", status=503)


def test_one_owner_may_have_so_many(make_site, gate):
    site = make_site(limited, asyncview__max_per_owner="2")
    site.registry.gate = gate
    ann, bob = (site.browser(REMOTE_USER=name) for name in ("ann", "bob"))
    ids = [job_that_is(site, "running", ann) for _ in range(2)]
    page = ann.post("/work", status=429)
    assert int(page.headers["Retry-After"]) >= 1
    assert "as many jobs" in page.text
    assert "error" in ann.post("/work", headers=API, status=429).json
    job_that_is(site, "running", bob)
    job_that_is(site, "running", bob)
    gate.set()
    site.wait(ids[0])
    ann.post("/work", status=303)


def test_one_web_session_may_have_so_many(make_site, gate):
    site = make_site(limited, asyncview__max_per_owner="1")
    site.registry.gate = gate
    one, other = site.browser(), site.browser()
    job_that_is(site, "running", one)
    one.post("/work", status=429)
    job_that_is(site, "running", other)


def test_clicks_at_once_do_not_pass_the_owners_limit(make_site, gate):
    site = make_site(limited, asyncview__max_per_owner="2")
    site.registry.gate = gate

    def click():
        browser = site.browser(REMOTE_USER="ann")
        return browser.post("/work", {"mode": "running"}, expect_errors=True).status_int

    codes = at_once(*[click] * 5)
    assert sorted(codes) == [303, 303, 429, 429, 429]


# The exception views


def own_not_found(error, request):
    return Response(f"own: {error.process_id}", status=404)


def own_full(error, request):
    return Response(f"own: {error.status}", status=503)


def own_views(config):
    config.add_exception_view(own_not_found, context=NoSuchProcessError)
    config.add_exception_view(own_full, context=QueueFull)


def of_everything(config):
    config.add_exception_view(lambda error, request: Response("of all"), Exception)


@pytest.mark.parametrize("included", [True, False])
def test_the_applications_own_exception_views_come_first(make_site, gate, included):
    def with_own(config):
        configure(config)
        if included:
            # At the same depth as ours, so neither overrides the other.
            config.include(own_views)
        else:
            own_views(config)

    site = make_site(with_own, asyncview__max_queued="1", asyncview__threads="1")
    site.registry.gate = gate
    job_that_is(site, "running")
    site.start("/work")
    assert site.app.post("/work", status=503).text == "own: 503"
    page = site.app.get("/work/result?process_id=abc", status=404)
    assert page.text == "own: abc"


def test_ours_come_before_a_view_of_all_exceptions(make_site):
    def with_own(config):
        configure(config)
        config.include(of_everything)

    site = make_site(with_own)
    page = site.app.get("/work/result?process_id=abc", status=404)
    assert "no such process" in page.text


def test_no_refused_start_leaves_a_job(make_site, gate):
    site = make_site(configure, asyncview__max_queued="1", asyncview__threads="1")
    site.registry.gate = gate
    job_that_is(site, "running")
    site.start("/work")
    for _ in range(3):
        site.app.post("/work", status=503)
    with reading(site.db) as connection:
        assert len(list(store_of(connection, "tests").unfinished())) == 2
    eventually(lambda: len(site.engine.live) == 1)
