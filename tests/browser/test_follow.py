"""What the script does for pages that are not ours: any source, any work, any bar."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect
from pyramid.response import Response

from browser.pages import SEEN
from browser.pages import start

DOCS = Path(__file__).parent.parent.parent / "docs" / "progress.rst"

FOLLOW = """
    ([url, options]) => {
        window.seen = [];
        const waiting = [];
        window.until = (test) => new Promise((resolve) => {
            const look = () => window.seen.some(test) && resolve();
            waiting.push(look);
            look();
        });
        window.heard = 0;
        document.addEventListener("asyncview:update", () => { window.heard += 1; });
        const ended = (how) => (doc, status) => window.done([how, doc, status]);
        window.ended = new Promise((resolve) => { window.done = resolve; });
        window.following = asyncview.follow(url, Object.assign({
            interval: 0.1,
            onUpdate: (doc) => {
                window.seen.push(doc);
                waiting.forEach((look) => look());
            },
            onComplete: ended("complete"),
            onError: ended("error"),
        }, options));
    }
"""


def lines(request):
    session = request.asyncview.get_session(request.GET["id"])
    told = (line.encode() for line in session.stream(0.05))
    return Response(app_iter=told, content_type="application/x-ndjson")


def own_page(request):
    script = request.static_path("asyncview:static/asyncview.js")
    return Response(
        "<!DOCTYPE html><html lang='en'><title>Mine</title>"
        f"<script src='{script}'></script><div id='here'>"
        "<progress data-asyncview='bar' max='100' aria-label='All'></progress>"
        "<p data-asyncview='message'></p></div></html>"
    )


def begin(request):
    """Work in a thread of the application's own, with the page of its session."""
    session = request.asyncview.create_session(
        label="Import",
        tasks={"read": "Reading", "send": "Sending"},
        success_msg="All imported",
        success_url="/after",
        error_url="/own",
    )
    work = request.registry.work
    request.asyncview.run_in_thread(session, lambda conn, told: work.run(told))
    return request.asyncview.show_progress(session)


def nowhere(request):
    """The same, without an address for its end."""
    session = request.asyncview.create_session(label="Import", success_msg="All in")
    work = request.registry.work
    request.asyncview.run_in_thread(session, lambda conn, told: work.run(told))
    return request.asyncview.show_progress(session)


def after(request):
    said = ", ".join(request.session.pop_flash())
    return Response(f"<!DOCTYPE html><html lang='en'><title>x</title><h1>{said}</h1>")


def named(request):
    """Work in the request itself, under an id that the page has."""
    session = request.asyncview.create_session(request.GET["id"], owner=None)
    session.update(1, 2)
    session.finish()
    return Response("done")


def configure(config):
    config.add_progress_view("/progress")
    for view in (lines, own_page, begin, nowhere, named, after):
        name = view.__name__.removesuffix("_page")
        config.add_route(name, f"/{name}")
        config.add_view(view, route_name=name)


@pytest.fixture
def place(serve):
    return serve(configure)


def source(place, tab, kind):
    """To a page of one's own, with the address where a job is to be followed."""
    start(place, tab)
    url = place.poll_url(tab)
    id = re.search(r"process_id=([\w-]+)", url)[1]
    tab.goto(f"{place.url}/own")
    return {
        "document": url,
        "events": f"/report/events?process_id={id}",
        "lines": f"/lines?id={id}",
        "progress view": f"/progress?progress_id={id}",
    }[kind]


def percents(tab):
    return tab.evaluate("seen.map((doc) => doc.percent ?? doc.overall_percent ?? null)")


def next_look(tab):
    """Waits until the page has asked, and has shown what it got."""
    return tab.expect_console_message(lambda message: message.text.startswith(SEEN))


SOURCES = ["document", "events", "lines", "progress view"]


@pytest.mark.parametrize("kind", SOURCES)
def test_whatever_the_source_each_step_is_told_and_the_end(place, tab, kind):
    url = source(place, tab, kind)
    tab.evaluate(FOLLOW, [url, {"redirect": False}])
    place.work.progress(50, 100, "Half of it")
    tab.evaluate("until((doc) => doc.message === 'Half of it')")
    assert 50 in percents(tab)
    place.work.finish()
    how, doc, _ = tab.evaluate("window.ended")
    assert (how, doc["message"]) == ("complete", "Half of it")
    assert tab.evaluate("heard") == tab.evaluate("seen.length")
    assert tab.evaluate("location.pathname") == "/own"


@pytest.mark.parametrize("kind", SOURCES)
def test_whatever_the_source_a_failure_is_told(place, tab, kind):
    url = source(place, tab, kind)
    tab.evaluate(FOLLOW, [url, {"redirect": False}])
    place.work.fail(ValueError("x"))
    how, doc, status = tab.evaluate("window.ended")
    assert (how, status) == ("error", None)
    assert doc["status"] in ("failed", "error")


@pytest.mark.parametrize("kind", SOURCES)
def test_whatever_the_source_a_lost_connection_is_not_the_end(
    place, tab, kind, complaints
):
    url = source(place, tab, kind)
    refused = []

    def refuse(route):
        refused.append(1)
        route.abort()

    tab.route(re.compile("/(completed|events|lines|progress)[?]"), refuse, times=2)
    place.work.progress(10, 100)
    tab.evaluate(FOLLOW, [url, {"redirect": False}])
    tab.evaluate("until((doc) => true)")
    assert len(refused) == 2
    place.work.finish()
    assert tab.evaluate("window.ended")[0] == "complete"
    complaints.clear()


def test_stream_that_breaks_off_is_opened_again(place, tab):
    url = source(place, tab, "lines")
    broken = (
        '{"session_id": "x", "status": "error", "overall_percent": 10,'
        ' "message": "", "tasks": {}}\n{"session_id": '
    )
    tab.route(
        re.compile("/lines[?]"),
        lambda route: route.fulfill(
            body='{"status": "running", "message": "cut"}\n' + broken,
            content_type="application/x-ndjson",
        ),
        times=1,
    )
    tab.evaluate(FOLLOW, [url, {"redirect": False}])
    place.work.progress(50, 100, "Half of it")
    tab.evaluate("until((doc) => doc.message === 'Half of it')")
    place.work.finish()
    assert tab.evaluate("window.ended")[0] == "complete"


def test_session_that_is_yet_to_be_made_is_waited_for(place, tab):
    """A form that follows its own POST may look before that has arrived."""
    tab.goto(f"{place.url}/own")
    with tab.expect_response(re.compile("/progress[?]")) as look:
        url = "/progress?progress_id=given-out-before"
        tab.evaluate(FOLLOW, [url, {"redirect": False}])
    assert look.value.json() == {"status": "unknown"}
    tab.evaluate("fetch('/named?id=given-out-before').then((answer) => answer.text())")
    assert tab.evaluate("window.ended")[0] == "complete"
    assert "unknown" not in tab.evaluate("seen.map((doc) => doc.status)")


def test_page_goes_where_it_is_told_at_the_end(place, tab):
    url = source(place, tab, "lines")
    tab.evaluate(FOLLOW, [url, {"redirect": "/after", "redirectDelay": 0}])
    place.work.finish()
    tab.wait_for_url(f"{place.url}/after")


def test_bar_of_ones_own_is_filled_and_tells_its_page(place, tab):
    url = source(place, tab, "lines")
    tab.evaluate(
        """(url) => asyncview.follow(
            url, {element: document.getElementById("here"), redirect: false})""",
        url,
    )
    place.work.progress(50, 100, "Half of it")
    bar = tab.get_by_role("progressbar", name="All")
    expect(bar).to_have_js_property("value", 50)
    expect(tab.get_by_text("Half of it")).to_be_visible()
    place.work.finish()
    expect(bar).to_have_js_property("value", 100)


# The page of a session


def task(tab, name):
    return tab.locator(f".av-task[data-id={name}]")


def test_page_of_a_session_shows_its_tasks_and_goes_on_with_its_message(place, tab):
    tab.goto(f"{place.url}/begin")
    for name in ("read", "send"):
        expect(task(tab, name)).to_have_attribute("data-status", "pending")
        expect(task(tab, name).get_by_role("progressbar")).to_have_js_property(
            "value", 0
        )
    place.work.do(lambda told: told.task("read").update(1, 4, "The first"))
    bar = task(tab, "read").get_by_role("progressbar")
    expect(bar).to_have_js_property("value", 25)
    expect(task(tab, "read").get_by_text("1 of 4")).to_be_visible()
    expect(task(tab, "read").get_by_text("The first")).to_be_visible()
    place.work.do(lambda told: told.complete("read"))
    place.work.do(lambda told: told.error("send", "The post is shut"))
    expect(bar).to_have_js_property("value", 100)
    expect(task(tab, "read")).to_have_attribute("data-status", "complete")
    expect(task(tab, "send").get_by_text("The post is shut")).to_be_visible()
    expect(task(tab, "send").get_by_role("progressbar")).to_have_js_property("value", 0)
    place.work.finish()
    expect(tab.get_by_role("heading")).to_have_text("All imported")
    assert tab.url == f"{place.url}/after"


@pytest.mark.parametrize("failed", [False, True])
def test_page_of_a_session_that_leads_nowhere_stays_where_it_is(place, tab, failed):
    tab.goto(f"{place.url}/nowhere")
    place.work.do(lambda told: told.update(1, 4, "The first"))
    expect(tab.get_by_text("The first")).to_be_visible()
    if failed:
        place.work.fail(ValueError("x"))
        expect(tab.get_by_role("alert")).to_contain_text("Something went wrong.")
    else:
        place.work.finish()
    expect(tab.locator("[data-asyncview=state]")).to_have_text(
        "Failed" if failed else "Completed"
    )
    assert tab.url == f"{place.url}/nowhere"
    expect(tab.locator("[data-asyncview=next]")).to_be_hidden()


def test_page_of_a_session_says_what_is_an_estimate(place, tab):
    tab.goto(f"{place.url}/begin")
    place.work.do(lambda told: told.task("read", expected=3600).start() and None)
    expect(task(tab, "read").locator("[data-task=percent]")).to_have_text("about 0%")
    expect(tab.locator("[data-asyncview=percent]")).to_have_text("about 0%")
    # The page as the server makes it; that address has begun the work.
    page = place.poll_url(tab).replace("&output_json=1", "")
    tab.goto(f"{place.url}{page}")
    expect(task(tab, "read").locator("[data-task=percent]")).to_have_text("about 0%")
    place.work.do(lambda told: told.task("read").update(1, 4))
    expect(task(tab, "read").locator("[data-task=percent]")).to_have_text("25%")


def test_time_that_is_left_is_told_after_five_seconds_and_two_updates(serve, tab):
    place = serve(asyncview__poll_interval="5")
    tab.clock.install(time=0)
    tab.clock.pause_at(1)
    start(place, tab)
    url = place.poll_url(tab)
    document = tab.evaluate("(url) => fetch(url).then((r) => r.json())", url)
    told = []
    tab.route(re.compile("/completed[?]"), lambda route: route.fulfill(json=told[-1]))

    def left(pause, second, percent):
        """What is said to be left after a look that finds so many percent."""
        updated = f"2026-01-01T10:00:{second:02}.000Z"
        version = 100 + second
        told.append(
            {**document, "version": version, "percent": percent, "updated": updated}
        )
        with next_look(tab):
            tab.clock.run_for(1000 * pause)
        expect(tab.locator("progress").first).to_have_js_property("value", percent)
        return tab.locator("[data-asyncview=eta]").inner_text()

    assert left(1, 0, 10) == ""
    # One update, though six seconds later.
    assert left(1, 6, 16) == ""
    # 78 percent are left, at 1.6 a second: recent ones count more.
    assert left(5, 8, 22) == "about 50 sec left"
    assert left(5, 9, 95) == "a few seconds left"


def test_time_that_is_left_is_not_told_in_the_first_seconds(serve, tab):
    place = serve(asyncview__poll_interval="5")
    tab.clock.install(time=0)
    tab.clock.pause_at(1)
    start(place, tab)
    url = place.poll_url(tab)
    document = tab.evaluate("(url) => fetch(url).then((r) => r.json())", url)
    told = []
    tab.route(re.compile("/completed[?]"), lambda route: route.fulfill(json=told[-1]))
    for second, pause in enumerate((1, 1, 5, 5)):
        updated = f"2026-01-01T10:00:{second:02}.000Z"
        told.append({**document, "percent": 10 * second, "updated": updated})
        told[-1]["version"] = 100 + second
        with next_look(tab):
            tab.clock.run_for(1000 * pause)
        expect(tab.locator("[data-asyncview=eta]")).to_be_empty()


def test_time_that_is_left_goes_by_the_rate_where_the_counts_are_what_is_shown(
    serve, tab
):
    """Two loops, one after another: the second has to catch up with the percentage."""
    place = serve(asyncview__poll_interval="5")
    tab.clock.install(time="2026-01-01T09:59:59Z")
    tab.clock.pause_at("2026-01-01T10:00:00Z")
    start(place, tab)
    url = place.poll_url(tab)
    document = tab.evaluate("(url) => fetch(url).then((r) => r.json())", url)
    told = []
    tab.route(re.compile("/completed[?]"), lambda route: route.fulfill(json=told[-1]))

    def left(pause, second, percent, current, total=6000, rate=99.0, **values):
        """What is said to be left after a look, with a rate that is of so many."""
        updated = f"2026-01-01T10:00:{second:02}.000Z"
        counts = {"current": current, "total": total, "rate": rate}
        version = 100 + len(told)
        told.append({**document, **counts, **values, "version": version})
        told[-1] |= {"percent": percent, "updated": updated}
        with next_look(tab):
            tab.clock.run_for(1000 * pause)
        expect(tab.locator("progress").first).to_have_js_property("value", percent)
        return tab.locator("[data-asyncview=eta]").inner_text()

    # Of nine seconds: who comes late need not look for as long again.
    assert left(1, 1, 90, 18, 20, 2.0) == "a few seconds left"
    assert left(1, 2, 90, 198) == ""
    assert left(5, 7, 90, 693) == ""
    # Just before it has caught up, and then.
    assert left(5, 12, 90, 5396) == ""
    assert left(5, 17, 90, 5400, rate=20.0) == "about 30 sec left"
    # Recent ones count more: 0.35 percent a second.
    assert left(5, 22, 92, 5520, rate=22.0) == "about 30 sec left"
    # A task has begun anew; one that has ended is what it is.
    task = {"id": "a", "name": "A", "message": "", "estimated": False, "tasks": []}
    ended = {**task, "status": "error", "percent": 50.0, "current": 1, "total": 10}
    task |= {"status": "running", "percent": 92.0, "current": 1, "total": 10}
    assert left(5, 27, 93, 1, tasks=[ended, task]) == ""
    task["current"] = 9.2
    assert left(5, 32, 94, 1, tasks=[ended, task]) == ""
    assert left(5, 37, 95, 1, tasks=[ended, task]) == ""
    assert left(5, 42, 96, 1, tasks=[ended, task]) == "about 20 sec left"


@pytest.mark.parametrize(
    ("rate", "updated", "expected"),
    [
        (2.0, "10:00:01", "about 50 sec left"),
        # It has just begun.
        (2.5, "10:00:01", ""),
        # It has stalled.
        (1.0, "09:59:45", ""),
        (None, "10:00:01", ""),
    ],
)
def test_time_that_is_left_goes_by_a_rate_that_is_known_and_of_now(
    serve, tab, rate, updated, expected
):
    place = serve(asyncview__poll_interval="5")
    tab.clock.install(time="2026-01-01T09:59:59Z")
    tab.clock.pause_at("2026-01-01T10:00:00Z")
    start(place, tab)
    url = place.poll_url(tab)
    document = tab.evaluate("(url) => fetch(url).then((r) => r.json())", url)
    document |= {"percent": 9.1, "current": 10, "total": 110, "version": 100}
    document |= {"rate": rate, "updated": f"2026-01-01T{updated}Z"}
    tab.route(re.compile("/completed[?]"), lambda route: route.fulfill(json=document))
    with next_look(tab):
        tab.clock.run_for(1000)
    expect(tab.locator("progress").first).to_have_js_property("value", 9.1)
    expect(tab.locator("[data-asyncview=eta]")).to_have_text(expected)


# Without our script


def test_example_with_htmx_follows_a_session(serve, tab, node):
    """The block of the documentation, before htmx itself."""
    text = DOCS.read_text("utf-8")
    block = text.rpartition(".. code-block:: python\n\n")[2]
    names = {}
    exec(re.sub(r"(?m)^    ", "", block), names)
    htmx = (node / "htmx.org" / "dist" / "htmx.min.js").read_text("utf-8")

    def page(request):
        # What a strict policy asks of htmx.
        asked = '{"includeIndicatorStyles": false, "allowEval": false}'
        return Response(
            "<!DOCTYPE html><html lang='en'><title>x</title>"
            f"<meta name='htmx-config' content='{asked}'>"
            "<script src='/htmx.js'></script>"
            + f'<p hx-get="/bar?id={request.GET["id"]}" hx-trigger="load"'
            ' hx-swap="outerHTML"></p></html>'
        )

    def both(config):
        configure(config)
        config.add_view(page, name="page")
        config.add_view(names["bar"], name="bar")
        config.add_view(
            lambda request: Response(htmx, content_type="text/javascript"),
            name="htmx.js",
        )

    place = serve(both)
    start(place, tab)
    id = re.search(r"process_id=([\w-]+)", tab.url)[1]
    place.work.progress(1, 4, "The first")
    tab.goto(f"{place.url}/page?id={id}")
    expect(tab.get_by_text("The first")).to_be_visible()
    bar = tab.get_by_role("progressbar")
    expect(bar).to_have_js_property("value", 25)
    place.work.progress(2)
    expect(bar).to_have_js_property("value", 50)
    place.work.finish()
    expect(bar).to_have_js_property("value", 100)
    # It asks no more.
    expect(tab.locator("[hx-get]")).to_have_count(0)
