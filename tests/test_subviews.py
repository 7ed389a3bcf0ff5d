"""Every address of a view, for browsers and for API clients, at every stage."""

import json
import threading

import pytest
from conftest import PATIENCE
from conftest import eventually
from people import Work
from people import job_that_is
from people import let_go
from people import working

from asyncview import BaseAsyncView
from asyncview.store import reading
from asyncview.store import store_of

SUBVIEWS = ["processing", "completed", "result", "events", "cancel", "delete"]
READING = SUBVIEWS[:4]
API = {"Accept": "application/json"}
ENDS = ["completed", "failed", "aborted", "cancelled"]


@pytest.fixture(scope="module")
def shared(make_shared_site):
    return make_shared_site(working)


@pytest.fixture
def site(shared):
    yield shared
    let_go(shared)


def address(subview, process_id):
    return f"/work/{subview}?process_id={process_id}"


def path_of(response):
    assert response.location.startswith("http://localhost/")
    return response.location.removeprefix("http://localhost")


def assert_private(response, cache="private, no-store"):
    assert response.headers["Cache-Control"] == cache
    assert response.headers["Vary"] == "Cookie, Accept-Language"
    assert response.headers["Referrer-Policy"] == "same-origin"
    assert "Expires" not in response.headers


NO_ID = [
    "",
    "?process_id=",
    "?process_id=a%20b",
    "?process_id=%00",
    "?process_id=%22%3E%3Cb%3E",
    "?process_id=..%2F..",
    "?process_id=" + 65 * "a",
    "?id=abc",
]

# The view itself


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_get_shows_the_first_page_and_starts_nothing(make_site, method):
    site = make_site(working)
    response = site.app.request("/work", method=method, status=200)
    assert response.content_type == "text/html"
    assert ("<form" in response.text) == (method == "GET")
    assert_private(response)
    with reading(site.db) as connection:
        assert store_of(connection, "tests") is None


def test_a_browser_that_starts_a_job_is_sent_to_its_page(site):
    response = site.app.post("/work", status=303)
    path, _, process_id = path_of(response).partition("?process_id=")
    assert path == "/work/processing"
    assert len(process_id) == 32
    assert_private(response)


@pytest.mark.parametrize(
    "headers",
    [
        {"Accept": "application/json"},
        {"Accept": "application/json;q=0.9, text/plain"},
        {"Prefer": "respond-async"},
        {"Prefer": "wait=5, Respond-Async", "Accept": "text/html"},
    ],
)
def test_an_api_client_that_starts_a_job_gets_its_document(site, headers):
    response = site.app.post("/work", {"mode": "running"}, headers, status=202)
    doc = response.json
    assert doc["status"] == "queued"
    assert doc["queue_position"] == 0
    assert path_of(response) == doc["links"]["completed"] + "&output_json=1"
    assert int(response.headers["Retry-After"]) >= 1
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert_private(response)
    assert site.status("/work", doc["process_id"])["process_id"] == doc["process_id"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Accept": "*/*"},
        {"Accept": "text/html, application/json"},
        {"Prefer": "return=minimal"},
    ],
)
def test_who_takes_pages_is_a_browser(site, headers):
    site.app.post("/work", headers=headers, status=303)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
def test_the_view_answers_no_other_methods(site, method):
    response = site.app.request("/work", method=method, status=405)
    assert response.headers["Allow"] == "GET, HEAD, POST"


# Any subview


@pytest.mark.parametrize(
    "path",
    ["nothing", "processing/more", "completed/completed", "Result", "result.pdf"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_subpath_is_not_found(site, path, method):
    process_id = job_that_is(site, "completed")
    site.app.request(f"/work/{path}?process_id={process_id}", method=method, status=404)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "POST"])
@pytest.mark.parametrize("subview", READING)
def test_what_is_read_takes_no_other_methods(site, subview, method):
    process_id = job_that_is(site, "completed")
    if method == "POST" and subview in ("processing", "result"):
        # A form without an action, on a page that was shown there.
        response = site.app.post(address(subview, process_id), status=307)
        assert path_of(response) == "/work"
    else:
        url = address(subview, process_id)
        response = site.app.request(url, method=method, status=405)
        assert response.headers["Allow"] == "GET, HEAD"
    assert_private(response)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("subview", ["cancel", "delete"])
def test_what_changes_something_is_posted(site, subview, method):
    process_id = job_that_is(site, "completed")
    url = address(subview, process_id)
    response = site.app.request(url, method=method, status=405)
    assert response.headers["Allow"] == "POST"
    assert_private(response)
    assert site.status("/work", process_id)["status"] == "completed"


def test_a_method_that_is_not_allowed_is_said_in_the_callers_language(site):
    assert "error" in site.app.get("/work/cancel", headers=API, status=405).json
    page = site.app.get("/work/cancel", status=405)
    assert "<h1" in page.text


@pytest.mark.parametrize("subview", SUBVIEWS)
@pytest.mark.parametrize("query", NO_ID)
def test_a_process_id_that_none_can_be_is_a_bad_request(site, subview, query):
    method = "POST" if subview in ("cancel", "delete") else "GET"
    url = f"/work/{subview}{query}"
    document = site.app.request(url, method=method, headers=API, status=400)
    assert document.json["error"]
    page = site.app.request(url, method=method, status=400)
    if subview in ("completed", "events"):
        assert page.json["error"]
    else:
        assert page.content_type == "text/html"
    assert_private(page)


@pytest.mark.parametrize("subview", ["cancel", "delete"])
def test_an_uploaded_file_is_no_process_id(site, subview):
    upload = [("process_id", "name", b"content")]
    site.app.post(f"/work/{subview}", upload_files=upload, status=400)


@pytest.mark.parametrize("subview", ["cancel", "delete"])
def test_a_post_may_carry_the_process_id_in_its_body(site, subview):
    process_id = job_that_is(site, "completed")
    site.app.post(f"/work/{subview}", {"process_id": process_id}, status=303)


@pytest.mark.parametrize("subview", READING)
def test_a_head_is_a_get_without_a_body(site, subview):
    process_id = job_that_is(site, "completed")
    got = site.app.get(address(subview, process_id))
    headed = site.app.head(address(subview, process_id))
    assert (headed.status, headed.body) == (got.status, b"")
    assert headed.headers == got.headers


def test_http_cache_of_the_view_is_not_for_its_jobs(make_site, gate):
    def configure(config):
        working(config, gate)
        config.add_async_view(Work, "cached", http_cache=3600)

    site = make_site(configure)
    for mode in ("running", "completed"):
        process_id = job_that_is(site, mode, path="/cached")
        for subview in (*READING, "completed?output_json=1&"):
            separator = "" if subview.endswith("&") else "?"
            url = f"/cached/{subview}{separator}process_id={process_id}"
            response = site.app.get(url)
            assert response.headers["Cache-Control"].startswith("private, no-")
            assert "Expires" not in response.headers
    assert_private(site.app.get("/cached"))


def test_the_page_of_a_renderer_is_private_as_well(make_site):
    class Shown(Work):
        def initial_page(self, **kw):
            return {"some": "page"}

    site = make_site(
        lambda config: config.add_async_view(
            Shown, "shown", renderer="json", http_cache=3600
        )
    )
    response = site.app.get("/shown")
    assert response.json == {"some": "page"}
    assert_private(response)


def test_an_author_says_how_a_first_page_may_be_kept(make_site):
    class Kept(Work):
        def initial_page(self, **kw):
            self.request.response.headers["Cache-Control"] = "max-age=5"
            return {}

    site = make_site(
        lambda config: config.add_async_view(Kept, "kept", renderer="json")
    )
    assert site.app.get("/kept").headers["Cache-Control"] == "max-age=5"


def test_an_author_says_how_a_result_may_be_kept(make_site):
    class Kept(Work):
        def __run__(self):
            self.request.response.cache_control.max_age = 5
            return "kept"

    site = make_site(
        lambda config: config.add_async_view(Kept, "kept", http_cache=3600)
    )
    doc = site.run("/kept")
    response = site.result("/kept", doc["process_id"])
    assert response.headers["Cache-Control"] == "max-age=5"


def test_addresses_have_the_script_name(site):
    app = site.browser(SCRIPT_NAME="/my site")
    response = app.post("/work", {"mode": "running"}, status=303)
    process_id = response.location.rpartition("=")[2]
    assert path_of(response) == f"/my%20site/work/processing?process_id={process_id}"
    doc = site.status("/work", process_id, app)
    assert doc["links"] == {
        name: f"/my%20site/work/{name}?process_id={process_id}" for name in SUBVIEWS
    }
    page = app.get(address("processing", process_id))
    assert f"/my%20site/work/cancel?process_id={process_id}" in page.text
    response = app.post(address("cancel", process_id), status=303)
    assert path_of(response).startswith("/my%20site/work/processing")
    site.wait(process_id)
    doc = site.status("/work", process_id, app)
    assert doc["next_url"] == f"/my%20site/work/result?process_id={process_id}"
    assert path_of(app.post(address("delete", process_id))) == "/my%20site/work"


# processing


def test_processing_shows_the_page_while_the_job_runs(site):
    process_id = job_that_is(site, "running")
    response = site.app.get(address("processing", process_id), status=200)
    assert "Some work" in response.text
    assert_private(response)
    assert response.headers["X-Frame-Options"] == "SAMEORIGIN"


@pytest.mark.parametrize("mode", ENDS)
def test_processing_leads_to_the_result_at_the_end(site, mode):
    process_id = job_that_is(site, mode)
    response = site.app.get(address("processing", process_id), status=303)
    assert path_of(response) == address("result", process_id)
    assert_private(response)


def test_processing_waits_a_moment_for_a_quick_job(make_site):
    site = make_site(working, **{"asyncview.grace": "30"})
    process_id = job_that_is(site, "running")
    waiting = site.engine.live.grace

    # Opened by another thread as soon as this one waits.
    def open_gate():
        while not waiting.locked():
            threading.Event().wait(0.005)
        site.registry.gate.set()

    thread = threading.Thread(target=open_gate, daemon=True)
    thread.start()
    site.app.get(address("processing", process_id), status=303)
    thread.join(30)


def test_only_one_request_of_a_process_waits_for_a_quick_job(make_site, gate):
    site = make_site(
        lambda config: working(config, gate), **{"asyncview.grace": "3600"}
    )
    process_id = job_that_is(site, "running")
    with site.engine.live.grace:
        site.app.get(address("processing", process_id), status=200)


# completed


def test_completed_is_text(site):
    process_id = job_that_is(site, "running")
    url = address("completed", process_id)
    eventually(lambda: site.app.get(url).text == "25")
    response = site.app.get(url)
    assert response.content_type == "text/plain"
    assert_private(response)


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("completed", "True"),
        ("failed", "ERROR"),
        ("aborted", "ERROR"),
        ("cancelled", "ERROR"),
    ],
)
def test_completed_says_how_it_ended(site, mode, text):
    process_id = job_that_is(site, mode)
    assert site.app.get(address("completed", process_id)).text == text


def test_a_job_that_is_not_there_is_an_error_for_programs(site):
    url = address("completed", 32 * "a")
    response = site.app.get(f"{url}&output_json=1", status=404)
    assert response.json == {"completed": "ERROR", "progress": "ERROR"}
    for subview in READING:
        response = site.app.get(address(subview, 32 * "a"), headers=API, status=404)
        assert response.json == {"completed": "ERROR", "progress": "ERROR"}


@pytest.mark.parametrize("value", ["0", "", "false", "False", "no"])
def test_completed_is_text_where_json_is_declined(site, value):
    process_id = job_that_is(site, "completed")
    url = address("completed", process_id) + f"&output_json={value}"
    assert site.app.get(url).text == "True"


@pytest.mark.parametrize("mode", ["running", *ENDS])
def test_the_document_is_answered_whatever_became_of_the_job(site, mode):
    process_id = job_that_is(site, mode)
    url = address("completed", process_id) + "&output_json=1"
    response = site.app.get(url, status=200)
    status = "failed" if mode == "aborted" else mode
    assert response.json["status"] == status
    assert response.content_type == "application/json"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert ("Retry-After" in response.headers) == (mode == "running")
    assert_private(response, "private, no-cache")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_document_that_is_known_is_not_sent_again(site, method):
    process_id = job_that_is(site, "completed")
    url = address("completed", process_id) + "&output_json=1"
    etag = site.app.get(url).headers["ETag"]
    assert etag.startswith('"')
    for known in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        headers = {"If-None-Match": known}
        response = site.app.request(url, method=method, headers=headers, status=304)
        assert response.body == b""
        assert response.headers["ETag"] == etag
        assert "Content-Type" not in response.headers
        assert "Content-Length" not in response.headers
        assert_private(response, "private, no-cache")
    site.app.get(url, headers={"If-None-Match": '"other"'}, status=200)


def test_the_etag_changes_with_the_document(site):
    process_id = job_that_is(site, "running")
    url = address("completed", process_id) + "&output_json=1"
    before = site.app.get(url)
    site.app.post(address("cancel", process_id), status=303)
    site.wait(process_id)
    after = site.app.get(
        url, headers={"If-None-Match": before.headers["ETag"]}, status=200
    )
    assert after.headers["ETag"] != before.headers["ETag"]


# events


def event_of(response):
    assert response.content_type == "text/event-stream"
    assert response.text.endswith("\n\n")
    return dict(line.split(": ", 1) for line in response.text.strip().split("\n"))


@pytest.mark.parametrize("mode", ["running", *ENDS])
def test_a_stream_is_one_snapshot(site, mode):
    process_id = job_that_is(site, mode)
    response = site.app.get(address("events", process_id))
    event = event_of(response)
    doc = json.loads(event["data"])
    assert event["id"] == str(doc["version"])
    assert event["event"] == ("progress" if mode == "running" else doc["status"])
    assert int(event["retry"]) >= 1000
    assert_private(response)


@pytest.mark.parametrize("mode", ENDS)
def test_a_stream_that_has_shown_the_end_is_over(site, mode):
    process_id = job_that_is(site, mode)
    seen = event_of(site.app.get(address("events", process_id)))["id"]
    url = address("events", process_id)
    response = site.app.get(url, headers={"Last-Event-ID": seen}, status=204)
    assert_private(response)
    site.app.get(url, headers={"Last-Event-ID": str(int(seen) - 1)}, status=200)
    site.app.get(url, headers={"Last-Event-ID": "x"}, status=200)


def test_a_stream_goes_on_while_the_job_runs(site):
    process_id = job_that_is(site, "running")
    url = address("events", process_id)
    seen = event_of(site.app.get(url))["id"]
    site.app.get(url, headers={"Last-Event-ID": seen}, status=200)


# result


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_result_that_is_not_there_yet(site, method):
    process_id = job_that_is(site, "running")
    url = address("result", process_id)
    response = site.app.request(url, method=method, status=303)
    assert path_of(response) == address("processing", process_id)
    assert_private(response)
    response = site.app.request(url, method=method, headers=API, status=202)
    assert int(response.headers["Retry-After"]) >= 1
    if method == "GET":
        assert response.json["status"] == "running"


def test_the_result_is_what_the_job_returned(site):
    process_id = job_that_is(site, "completed")
    for headers in ({}, API):
        response = site.app.get(address("result", process_id), headers=headers)
        assert (response.status, response.text) == ("200 OK", "it is completed")
        assert_private(response)


def test_a_failed_job_has_a_page_without_details(site):
    process_id = job_that_is(site, "failed")
    response = site.app.get(address("result", process_id), status=500)
    doc = site.status("/work", process_id)
    assert doc["error"]["id"] in response.text
    assert "Something went wrong." in response.text
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert_private(response)
    assert (
        site.app.get(address("result", process_id), headers=API, status=500).json == doc
    )


def test_an_aborted_job_answers_as_it_said(site):
    process_id = job_that_is(site, "aborted")
    for headers in ({}, API):
        response = site.app.get(
            address("result", process_id), headers=headers, status=403
        )
        assert "not today" in response.text
        assert_private(response)


def test_a_cancelled_job_is_gone(site):
    process_id = job_that_is(site, "cancelled")
    response = site.app.get(address("result", process_id), status=410)
    assert "Some work" in response.text
    assert_private(response)
    document = site.app.get(address("result", process_id), headers=API, status=410)
    assert document.json == site.status("/work", process_id)


# cancel


def test_a_running_job_is_cancelled(site):
    process_id = job_that_is(site, "running")
    response = site.app.post(address("cancel", process_id), status=303)
    assert path_of(response) == address("processing", process_id)
    assert_private(response)
    site.wait(process_id)
    assert site.status("/work", process_id)["status"] == "cancelled"


def test_a_wish_to_stop_that_is_not_noticed_changes_no_end(make_site, gate):
    class Deaf(BaseAsyncView):
        def __run__(self):
            self.request.registry.entered.release()
            gate.wait(PATIENCE)
            return "as it ends"

    def configure(config):
        working(config, gate)
        config.add_async_view(Deaf, "deaf")

    site = make_site(configure)
    process_id = site.start("/deaf")
    assert site.registry.entered.acquire(timeout=PATIENCE)
    site.app.post(f"/deaf/cancel?process_id={process_id}", status=303)
    assert site.status("/deaf", process_id)["cancel_requested"] is True
    gate.set()
    site.wait(process_id)
    assert site.status("/deaf", process_id)["status"] == "completed"
    assert site.result("/deaf", process_id).text == "as it ends"


def test_an_api_client_hears_that_the_job_will_stop(site):
    process_id = job_that_is(site, "running")
    url = address("cancel", process_id)
    doc = site.app.post(url, headers=API, status=202).json
    assert doc["process_id"] == process_id
    assert doc["cancel_requested"] is True
    site.wait(process_id)


@pytest.mark.parametrize("mode", ENDS)
def test_cancelling_what_has_ended_changes_nothing(site, mode):
    process_id = job_that_is(site, mode)
    before = site.status("/work", process_id)
    site.app.post(address("cancel", process_id), status=303)
    doc = site.app.post(address("cancel", process_id), headers=API, status=202).json
    assert doc == before == site.status("/work", process_id)


def test_a_queued_job_has_ended_when_cancel_answers(make_site, gate):
    site = make_site(lambda config: working(config, gate), **{"asyncview.threads": "1"})
    job_that_is(site, "running")
    process_id = site.start("/work")
    assert site.status("/work", process_id)["status"] == "queued"
    doc = site.app.post(address("cancel", process_id), headers=API, status=202).json
    assert doc["status"] == "cancelled"
    assert doc["cancel_requested"] is True


# delete


@pytest.mark.parametrize("mode", ENDS)
def test_a_finished_job_can_be_forgotten(site, mode):
    process_id = job_that_is(site, mode)
    response = site.app.post(address("delete", process_id), status=303)
    assert path_of(response) == "/work"
    assert_private(response)
    for subview in READING:
        site.app.get(address(subview, process_id), status=404)
    site.app.post(address("delete", process_id), status=404)


def test_an_api_client_hears_that_the_job_is_gone(site):
    process_id = job_that_is(site, "completed")
    response = site.app.post(address("delete", process_id), headers=API, status=204)
    assert response.body == b""
    assert_private(response)


def test_a_live_job_is_not_forgotten(site):
    process_id = job_that_is(site, "running")
    site.app.post(address("delete", process_id), status=409)
    document = site.app.post(address("delete", process_id), headers=API, status=409)
    assert document.json["error"]
    assert site.status("/work", process_id)["status"] == "running"
