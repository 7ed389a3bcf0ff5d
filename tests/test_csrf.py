"""What another site may not do in a user's name."""

import pytest
from people import Work
from people import job_that_is
from people import working
from pyramid.csrf import CookieCSRFStoragePolicy
from pyramid.session import SignedCookieSessionFactory

CROSS_SITE = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "http://localhost:8080"},
    {"Origin": "http://[evil"},
]
SAME_SITE = [
    {},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "http://localhost"},
    {"Origin": "http://LOCALHOST:80"},
    # Behind a proxy that ends TLS.
    {"Origin": "https://localhost"},
    {"Origin": "https://localhost:443"},
]


class Open(Work):
    cross_site = True


def plain(config):
    working(config)
    config.add_async_view(Open, "open")
    config.add_async_view(Work, "checked", require_csrf=True)


def with_sessions(config):
    plain(config)
    config.set_session_factory(SignedCookieSessionFactory("secret"))


def with_cookies(config):
    plain(config)
    config.set_csrf_storage_policy(CookieCSRFStoragePolicy())


def with_defaults(config):
    with_sessions(config)
    config.set_default_csrf_options(require_csrf=True, token="proof", header="X-Proof")
    config.add_async_view(Work, "unchecked", require_csrf=False)


@pytest.fixture(scope="module")
def site(make_shared_site):
    return make_shared_site(plain)


@pytest.fixture(scope="module")
def session_site(make_shared_site):
    return make_shared_site(with_sessions)


@pytest.fixture(scope="module")
def default_site(make_shared_site):
    return make_shared_site(with_defaults)


def token_of(page, name="csrf_token"):
    return page.text.partition(f'name="{name}" value="')[2].partition('"')[0]


# The start


@pytest.mark.parametrize("headers", CROSS_SITE)
def test_another_site_starts_nothing(site, headers):
    site.engine.prepare()
    before = site.db.lastTransaction()
    page = site.app.post("/work", headers=headers, status=403)
    assert "another site" in page.text
    accept = {"Accept": "application/json"}
    document = site.app.post("/work", headers={**headers, **accept}, status=403)
    assert document.json["error"]
    assert site.db.lastTransaction() == before


@pytest.mark.parametrize("headers", SAME_SITE)
def test_the_site_itself_starts_jobs(site, headers):
    site.app.post("/work", headers=headers, status=303)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("example.com", "https://example.com"),
        ("example.com:443", "https://example.com"),
        ("example.com:80", "http://example.com"),
        ("example.com:8080", "http://example.com:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_default_ports_are_the_same_site(site, host, origin):
    headers = {"Host": host, "Origin": origin}
    site.app.post("/work", headers=headers, status=303)


@pytest.mark.parametrize("headers", CROSS_SITE)
def test_a_view_may_let_other_sites_start_it(site, headers):
    site.app.post("/open", headers=headers, status=303)


@pytest.mark.parametrize("headers", CROSS_SITE)
def test_a_get_from_another_site_shows_the_page(site, headers):
    site.app.get("/work", headers=headers, status=200)


def test_a_start_is_checked_as_the_view_says(session_site):
    site = session_site
    browser = site.browser()
    browser.post("/checked", status=400)
    token = token_of(browser.get("/checked"))
    assert token
    browser.post("/checked", {"csrf_token": "wrong"}, status=400)
    browser.post("/checked", {"csrf_token": token}, status=303)
    browser.post("/checked", headers={"X-CSRF-Token": token}, status=303)
    site.browser().post("/checked", {"csrf_token": token}, status=400)
    # A token is proof enough, wherever the form was.
    browser.post("/checked", {"csrf_token": token}, CROSS_SITE[0], status=303)


def test_a_start_is_checked_as_the_application_says(default_site):
    browser = default_site.browser()
    browser.post("/work", status=400)
    token = token_of(browser.get("/work"), "proof")
    browser.post("/work", {"proof": token}, status=303)
    browser.post("/work", headers={"X-Proof": token}, status=303)
    browser.post("/unchecked", status=303)
    browser.post("/unchecked", headers=CROSS_SITE[0], status=403)


# cancel and delete


@pytest.mark.parametrize("subview", ["cancel", "delete"])
@pytest.mark.parametrize("headers", CROSS_SITE)
def test_another_site_changes_nothing(site, subview, headers):
    for path in ("/work", "/open"):
        process_id = job_that_is(site, "completed", path=path)
        url = f"{path}/{subview}?process_id={process_id}"
        site.app.post(url, headers=headers, status=403)
        assert site.status(path, process_id)["status"] == "completed"


@pytest.mark.parametrize("subview", ["cancel", "delete"])
@pytest.mark.parametrize("headers", SAME_SITE)
def test_the_site_itself_may(site, subview, headers):
    process_id = job_that_is(site, "completed")
    url = f"/work/{subview}?process_id={process_id}"
    site.app.post(url, headers=headers, status=303)


@pytest.mark.parametrize("subview", ["cancel", "delete"])
def test_where_there_are_sessions_a_token_is_asked_for(session_site, subview):
    site, browser = session_site, session_site.browser()
    process_id = site.run("/work", app=browser)["process_id"]
    url = f"/work/{subview}?process_id={process_id}"
    browser.post(url, status=400)
    browser.post(url, {"csrf_token": "wrong"}, status=400)
    browser.post(url, headers={"Origin": "http://localhost"}, status=400)
    assert site.status("/work", process_id, browser)["status"] == "completed"
    token = token_of(browser.get("/work"))
    if subview == "cancel":
        browser.post(url, headers={"X-CSRF-Token": token}, status=303)
    browser.post(url, {"csrf_token": token}, status=303)


@pytest.mark.parametrize("subview", ["cancel", "delete"])
def test_the_token_is_named_as_the_application_names_it(default_site, subview):
    site, browser = default_site, default_site.browser()
    token = token_of(browser.get("/work"), "proof")
    process_id = site.run("/work", {"proof": token}, app=browser)["process_id"]
    url = f"/work/{subview}?process_id={process_id}"
    browser.post(url, {"csrf_token": token}, status=400)
    browser.post(url, {"proof": token}, status=303)


def test_a_storage_of_tokens_is_used_without_sessions(make_site):
    site = make_site(with_cookies)
    process_id = site.run("/work")["process_id"]
    site.app.reset()
    url = f"/work/cancel?process_id={process_id}"
    site.app.post(url, status=400)
    token = token_of(site.app.get("/work"))
    site.app.post(url, {"csrf_token": token}, status=303)


@pytest.mark.parametrize("subview", ["processing", "result"])
def test_a_form_without_an_action_comes_to_the_view(session_site, subview):
    browser = session_site.browser()
    process_id = session_site.run("/checked", app=browser, params=proof(browser))
    url = f"/checked/{subview}?process_id={process_id['process_id']}"
    browser.post(url, proof(browser), status=307)
    browser.post(url, status=400)


def proof(browser, path="/checked"):
    return {"csrf_token": token_of(browser.get(path))}


def test_the_stock_pages_carry_the_token(make_site, gate):
    def configure(config):
        working(config, gate)
        config.set_session_factory(SignedCookieSessionFactory("secret"))

    site = make_site(configure)
    start = site.app.get("/work")
    page = start.form.submit()
    process_id = page.location.rpartition("=")[2]
    page = page.follow()
    if page.status_int == 200:
        assert token_of(page) == token_of(start)
    site.wait(process_id)
    process_id = job_that_is(site, "running")
    page = site.app.get(f"/work/processing?process_id={process_id}")
    assert token_of(page)
    assert page.form.submit().status_int == 303
    site.wait(process_id)
    assert site.status("/work", process_id)["status"] == "cancelled"


def test_pages_without_sessions_carry_no_token(site):
    assert "csrf_token" not in site.app.get("/work").text
