"""How the page's script asks: when it goes on, and when it gives up.

The clock of the page is the test's, where a test is about what does not happen.
"""

import pytest
from playwright.sync_api import expect
from pyramid.response import Response

from browser.pages import SEEN
from browser.pages import at_the_result
from browser.pages import hide
from browser.pages import shows
from browser.pages import start

LOOKS = "**/report/completed?*"
HALF_A_MINUTE = 30 * 1000
AN_HOUR = 3600 * 1000


@pytest.fixture
def looks(tab):
    """The status of each answer to a poll of the tab."""
    found = []
    tab.on(
        "response",
        lambda response: (
            found.append(response.status) if "/completed?" in response.url else None
        ),
    )
    return found


def next_look(tab):
    """Waits until the page has asked, got a document, and set its timer again."""
    return tab.expect_console_message(lambda message: message.text.startswith(SEEN))


def test_polls_cost_nothing_while_nothing_changes(place, tab):
    start(place, tab)
    place.work.progress(10, 100)
    shows(tab, 10)
    with tab.expect_response(LOOKS) as look:
        pass
    # Chromium says 200, for the copy that it has; nothing came over the network.
    assert look.value.request.sizes()["responseBodySize"] == 0


@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_refusal_ends_the_polling(place, tab, looks, complaints, status):
    tab.clock.install()
    start(place, tab)
    tab.route(LOOKS, lambda route: route.fulfill(status=status, json={}))
    alert = tab.locator("[role=alert]")
    gone = "no such job any more" if status in (404, 410) else "may no longer see"
    expect(alert).to_contain_text(gone)
    before = list(looks)
    assert before[-1] == status
    tab.clock.run_for(AN_HOUR)
    tab.evaluate("fetch('/report')")
    assert looks == before
    assert all(text.startswith(str(status)) for text in complaints)
    complaints.clear()


def test_job_that_is_deleted_ends_the_polling(place, tab, new_tab, complaints):
    start(place, tab)
    tab.route(LOOKS, lambda route: route.abort())
    other = new_tab(beside=tab)
    other.goto(tab.url)
    place.work.finish()
    at_the_result(other)
    other.evaluate(
        """async (url) => {
            const page = await (await fetch("/report")).text();
            const token = /name="csrf_token" value="([^"]+)"/.exec(page)[1];
            await fetch(url, {method: "POST", body: new URLSearchParams(
                {csrf_token: token}), headers: {Accept: "application/json"}});
        }""",
        other.url.replace("/result?", "/delete?"),
    )
    tab.unroute(LOOKS)
    expect(tab.locator("[role=alert]")).to_contain_text("no such job any more")
    complaints.clear()


@pytest.mark.parametrize("answer", ["500", "503", "offline", "a login page"])
def test_trouble_does_not_end_the_polling(place, tab, looks, complaints, answer):
    tab.clock.install()
    start(place, tab)
    place.work.progress(10, 100)
    shows(tab, 10)

    def trouble(route):
        if answer == "offline":
            route.abort()
        elif answer == "a login page":
            route.fulfill(status=200, body="<html>Who are you?</html>")
        else:
            route.fulfill(status=int(answer))

    tab.route(LOOKS, trouble)
    alert = tab.locator("[role=alert]")
    expect(alert).to_contain_text("Connection lost")
    shows(tab, 10)
    place.work.progress(20)
    tab.unroute(LOOKS)
    # It waits longer from time to time, but never for more than half a minute.
    tab.clock.fast_forward(HALF_A_MINUTE)
    shows(tab, 20)
    expect(alert).to_be_empty()
    place.work.finish()
    at_the_result(tab)
    complaints.clear()


def test_polls_come_after_one_second_and_one_more_then_as_often_as_it_is_set(
    serve, tab, looks
):
    place = serve(asyncview__poll_interval="5")
    tab.clock.install(time=0)
    tab.clock.pause_at(1)
    start(place, tab)
    for seconds in (1, 1, 5, 5):
        del looks[:]
        tab.clock.run_for(1000 * seconds - 1)
        assert looks == []
        with next_look(tab):
            tab.clock.run_for(1)


def test_hidden_tab_looks_four_times_slower_and_at_once_when_it_is_shown(
    serve, tab, looks
):
    place = serve(asyncview__poll_interval="5")
    tab.clock.install(time=0)
    tab.clock.pause_at(1)
    start(place, tab)
    for _ in range(2):
        with next_look(tab):
            tab.clock.run_for(1000)
    hide(tab)
    with next_look(tab):
        tab.clock.run_for(5000)
    del looks[:]
    tab.clock.run_for(19_999)
    tab.evaluate("fetch('/report')")
    assert looks == []
    with next_look(tab):
        tab.clock.run_for(1)
    with next_look(tab):
        hide(tab, False)


def test_hidden_tab_goes_to_the_result_when_it_is_shown(place, tab):
    start(place, tab)
    hide(tab)
    place.work.finish()
    expect(tab).to_have_title("✓ Yearly report")
    hide(tab, False)
    at_the_result(tab)


def test_page_of_ones_own_follows_a_job(serve, tab):
    def own_page(request):
        script = request.static_path("asyncview:static/asyncview.js")
        return Response(
            "<!DOCTYPE html><html lang='en'><title>Mine</title>"
            f"<script src='{script}'></script></html>"
        )

    def configure(config):
        config.add_route("own", "/own")
        config.add_view(own_page, route_name="own")

    place = serve(configure)
    start(place, tab)
    url = place.poll_url(tab)
    tab.goto(f"{place.url}/own")
    tab.evaluate(
        """(url) => {
            window.half = new Promise((half) => {
                window.end = new Promise((resolve, reject) => asyncview.follow(url, {
                    interval: 0.1,
                    redirect: false,
                    onUpdate: (doc) => doc.percent === 50 && half(doc.status),
                    onComplete: resolve,
                    onError: reject,
                }));
            });
        }""",
        url,
    )
    place.work.progress(50, 100)
    assert tab.evaluate("window.half") == "running"
    place.work.finish()
    assert tab.evaluate("window.end")["status"] == "completed"
    assert tab.evaluate("location.pathname") == "/own"


def test_focus_stays_where_the_user_put_it(place, tab):
    start(place, tab)
    assert tab.evaluate("document.activeElement === document.body")
    cancel = tab.get_by_role("button", name="Cancel")
    cancel.focus()
    place.work.do(lambda view: view.log.info("a line"))
    place.work.progress(10, 100, "Reading")
    shows(tab, 10)
    place.work.progress(20, message="Writing")
    shows(tab, 20)
    expect(cancel).to_be_focused()
