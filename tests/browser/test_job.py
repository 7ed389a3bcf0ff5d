"""A job as its user sees it, from the form to the result."""

import re

from playwright.sync_api import expect

from asyncview import BaseAsyncView
from browser.pages import BAR
from browser.pages import at_the_result
from browser.pages import is_cancelled
from browser.pages import shows
from browser.pages import start


class Asking(BaseAsyncView):
    label = "Yearly report"

    def initial_page(self):
        return (
            "<!DOCTYPE html><html lang='en'><title>Which?</title><form method='post'>"
            f"<input type='hidden' name='csrf_token' value='{self.token}'>"
            "<label>Year <input name='year'></label><button>Make it</button></form>"
        )

    @property
    def token(self):
        return self.request.session.get_csrf_token()

    def __run__(self):
        self.request.registry.work.run(self)
        year = self.request.POST["year"]
        return f"The report of {year}"


def test_form_spinner_bar_and_result(serve, tab):
    place = serve(lambda config: config.add_async_view(Asking, "asking"))
    tab.goto(f"{place.url}/asking")
    tab.get_by_label("Year").fill("2026")
    tab.get_by_role("button", name="Make it").click()
    bar = tab.get_by_role("progressbar", name="Yearly report")
    expect(bar).to_be_visible()
    assert bar.get_attribute("value") is None
    place.work.progress(25, 100, "Reading")
    shows(tab, 25)
    expect(tab.get_by_text("Reading")).to_be_visible()
    place.work.progress(75, message="Writing")
    shows(tab, 75)
    expect(tab.get_by_text("Writing")).to_be_visible()
    place.work.finish()
    expect(tab.get_by_text("The report of 2026")).to_be_visible()
    assert "/asking/result?process_id=" in tab.url


def test_title_tells_how_far_the_job_is(place, tab):
    start(place, tab)
    expect(tab).to_have_title("Yearly report")
    place.work.progress(45, 100)
    expect(tab).to_have_title("(45%) Yearly report")
    tab.reload()
    expect(tab).to_have_title("(45%) Yearly report")
    place.work.progress(45.9)
    place.work.progress(message="Nearly a half")
    expect(tab.get_by_text("Nearly a half")).to_be_visible()
    expect(tab).to_have_title("(45%) Yearly report")


def test_bar_never_goes_back(place, tab):
    start(place, tab)
    place.work.progress(60, 100)
    shows(tab, 60)
    place.work.progress(10, message="Once more from the start")
    expect(tab.get_by_text("Once more from the start")).to_be_visible()
    shows(tab, 60)
    tab.reload()
    shows(tab, 60)
    place.work.progress(70)
    shows(tab, 70)


def test_hundred_percent_only_when_the_result_is_there(place, tab):
    start(place, tab)
    place.work.progress(100, 100)
    shows(tab, 99.9)
    expect(tab).to_have_title("(99%) Yearly report")
    # The page goes on half a second after the end; until then it says so.
    with tab.expect_navigation():
        place.work.finish()
        expect(tab).to_have_title("✓ Yearly report")
        shows(tab, 100)
    at_the_result(tab)


def test_back_from_the_result_is_the_form(place, tab):
    start(place, tab)
    place.work.finish()
    at_the_result(tab)
    tab.go_back()
    expect(tab.get_by_role("button", name="Start")).to_be_visible()
    assert tab.url.endswith("/report")


def test_two_tabs_of_one_user_reach_the_end(place, tab, new_tab):
    start(place, tab)
    other = new_tab(beside=tab)
    other.goto(tab.url)
    place.work.progress(30, 100)
    shows(tab, 30)
    shows(other, 30)
    place.work.finish()
    at_the_result(tab)
    # A tab behind another one goes on when it is looked at.
    other.bring_to_front()
    at_the_result(other)


def test_another_user_sees_nothing_of_it(place, tab, new_tab):
    start(place, tab)
    stranger = new_tab()
    answer = stranger.goto(tab.url)
    assert answer.status == 404
    expect(stranger.get_by_role("heading")).to_have_text("Not found")


def test_place_in_the_queue_is_shown(serve, tab, new_tab):
    place = serve(asyncview__threads="1")
    start(place, tab)
    second, third = new_tab(), new_tab()
    for each in (second, third):
        each.goto(f"{place.url}/report")
        each.get_by_role("button", name="Start").click()
    expect(second.get_by_text("Next in the queue")).to_be_visible()
    expect(third.get_by_text("1 job is ahead of yours")).to_be_visible()
    place.work.finish()
    expect(third.get_by_text("Next in the queue")).to_be_visible()
    place.work.finish()
    at_the_result(second)
    place.work.finish()
    at_the_result(third)


# Cancelling


def test_running_job_is_cancelled(place, tab):
    start(place, tab)
    place.work.progress(20, 100)
    shows(tab, 20)
    tab.get_by_role("button", name="Cancel").click()
    stopping = tab.get_by_role("button", name="Stopping")
    expect(stopping).to_be_visible()
    expect(stopping).to_be_disabled()
    # A job notices it when it next looks.
    place.work.progress(21)
    is_cancelled(tab)


def test_queued_job_is_cancelled_at_once(serve, tab, new_tab):
    place = serve(asyncview__threads="1")
    start(place, tab)
    second = new_tab()
    second.goto(f"{place.url}/report")
    second.get_by_role("button", name="Start").click()
    expect(second.get_by_text("Next in the queue")).to_be_visible()
    second.get_by_role("button", name="Cancel").click()
    is_cancelled(second)


def test_cancelling_needs_the_keyboard_only(place, tab):
    tab.goto(f"{place.url}/report")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    expect(tab.locator(BAR)).to_be_visible()
    assert place.work.entered.wait(30)
    tab.keyboard.press("Tab")
    expect(tab.get_by_role("button", name="Cancel")).to_be_focused()
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("button", name="Stopping")).to_be_visible()
    place.work.progress(1)
    is_cancelled(tab)


# Failing


def test_failure_is_told_with_its_reference_only(place, tab, caplog):
    start(place, tab)
    place.work.progress(20, 100)
    shows(tab, 20)
    with tab.expect_navigation():
        place.work.fail(ValueError("the secret of the house"))
        alert = tab.get_by_role("alert")
        expect(alert).to_contain_text("Reference: ")
        reference = alert.locator("p").last.inner_text().removeprefix("Reference: ")
        expect(tab).to_have_title("✗ Yearly report")
    assert "/report/result?process_id=" in tab.url
    expect(tab.locator("main")).to_have_attribute("data-status", "failed")
    expect(tab.locator("main code")).to_have_text(reference)
    page = tab.content()
    assert "secret" not in page
    assert "Traceback" not in page
    # The one place where the rest is to be found, by the reference.
    assert any(reference in message for message in caplog.messages)
    assert "the secret of the house" in caplog.text
    tab.get_by_role("link", name="Try again").click()
    expect(tab.get_by_role("button", name="Start")).to_be_visible()


def test_messages_and_labels_are_text(place, tab):
    start(place, tab)
    evil = "<img src=x onerror=alert(1)>"
    place.work.do(lambda view: view.log.info(evil))
    place.work.progress(1, 2, evil)
    expect(tab.get_by_text(evil).first).to_be_visible()
    assert tab.locator("main img").count() == 0
    tab.reload()
    expect(tab.get_by_text(evil).first).to_be_visible()
    assert tab.locator("main img").count() == 0


# Without JavaScript


def test_without_javascript_the_page_reaches_the_result(place, new_tab):
    tab = new_tab(java_script_enabled=False)
    start(place, tab)
    place.work.progress(50, 100)
    expect(tab).to_have_title("(50%) Yearly report")
    assert tab.locator(BAR).get_attribute("value") == "50.0"
    expect(tab.get_by_role("link", name="Check again")).to_be_visible()
    place.work.finish()
    at_the_result(tab)


def test_without_javascript_the_page_need_not_refresh(place, new_tab):
    tab = new_tab(java_script_enabled=False)
    start(place, tab)
    tab.get_by_role("link", name="Stop refreshing this page").click()
    tab.wait_for_url("**/processing?*refresh=0")
    assert tab.locator("meta[http-equiv]").count() == 0
    place.work.finish()
    place.site.wait(re.search(r"process_id=([\w-]+)", tab.url)[1])
    tab.get_by_role("link", name="Check again").click()
    at_the_result(tab)


def test_without_javascript_a_job_is_cancelled(place, new_tab):
    tab = new_tab(java_script_enabled=False)
    start(place, tab)
    tab.get_by_role("button", name="Cancel").click()
    expect(tab.get_by_role("button", name="Stopping")).to_be_disabled()
    place.work.progress(1)
    is_cancelled(tab)
