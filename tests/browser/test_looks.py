"""Every page: nothing that a strict policy forbids, and nobody is shut out by it.

Each is gone to as a user does, and looked at in light and in dark.
"""

import pytest
from playwright.sync_api import expect

from asyncview import BaseAsyncView
from browser.pages import hide
from browser.pages import is_cancelled
from browser.pages import shows
from browser.pages import start

PHONE = {"width": 320, "height": 640}


def start_page(place, tab):
    tab.goto(f"{place.url}/report")


def running_without_numbers(place, tab):
    start(place, tab)


def running(place, tab):
    start(place, tab)
    place.work.do(lambda view: view.log.info("read the list of members"))
    place.work.progress(1234, 5000, "Reading members")
    expect(tab.get_by_text("1,234 of 5,000")).to_be_visible()
    tab.get_by_text("Log", exact=True).click()
    expect(tab.get_by_text("read the list of members")).to_be_visible()


def tasks(place, tab):
    """Done, current with parts, pending and failed ones."""

    def step(view):
        told = view.progress
        told.task("read", "Reading the list of members").complete("5,000 members")
        told.task("check", "Checking addresses", expected=3600).start()
        parts = told.task("send", "Sending")
        parts.task("members", "To members").update(120, 400, "a" * 60)
        parts.task("guests", "To guests").error("The post is shut")
        told.task("archive", "Into the archive").update(message="Copying")
        told.task("report", "Writing the report")

    start(place, tab)
    place.work.do(step)
    expect(tab.get_by_text("120 of 400")).to_be_visible()


def queued(place, tab):
    other = tab.context.new_page()
    start(place, other)
    other.close()
    tab.goto(f"{place.url}/report")
    tab.get_by_role("button", name="Start").click()
    expect(tab.get_by_text("Next in the queue")).to_be_visible()


def stopping(place, tab):
    start(place, tab)
    tab.get_by_role("button", name="Cancel").click()
    expect(tab.get_by_role("button", name="Stopping")).to_be_visible()


def completed(place, tab):
    start(place, tab)
    hide(tab)
    place.work.progress(1, 2)
    place.work.finish()
    expect(tab).to_have_title("✓ Yearly report")
    shows(tab, 100)


def failing(place, tab):
    start(place, tab)
    hide(tab)
    place.work.fail(ValueError())
    expect(tab.get_by_role("alert")).to_contain_text("Reference")


def lost(place, tab):
    start(place, tab)
    tab.route("**/completed?*", lambda route: route.abort())
    expect(tab.get_by_role("alert")).to_contain_text("Connection lost")


def failed(place, tab):
    start(place, tab)
    place.work.fail(ValueError())
    expect(tab.locator("main")).to_have_attribute("data-status", "failed")


def cancelled(place, tab):
    stopping(place, tab)
    place.work.progress(1)
    is_cancelled(tab)


def not_found(place, tab):
    answer = tab.goto(f"{place.url}/report/processing?process_id=nobody-s")
    assert answer.status == 404


def bad_request(place, tab):
    answer = tab.goto(f"{place.url}/report/processing")
    assert answer.status == 400


def wrong_method(place, tab):
    answer = tab.goto(f"{place.url}/report/cancel?process_id=nobody-s")
    assert answer.status == 405


PAGES = [
    start_page,
    running_without_numbers,
    running,
    tasks,
    queued,
    stopping,
    completed,
    failing,
    lost,
    failed,
    cancelled,
    not_found,
    bad_request,
    wrong_method,
]


@pytest.fixture(params=PAGES, ids=lambda to: to.__name__)
def to(request):
    return request.param


@pytest.fixture
def place(serve):
    return serve(asyncview__threads="1")


def test_page_is_accessible_and_keeps_to_the_policy(
    place, new_tab, axe, to, complaints
):
    tab = new_tab(color_scheme="light")
    to(place, tab)
    assert axe(tab) == []
    tab.emulate_media(color_scheme="dark")
    assert axe(tab) == []


def test_page_fits_on_a_phone_and_stands_still_if_asked_to(place, new_tab, to):
    tab = new_tab(viewport=PHONE, reduced_motion="reduce")
    to(place, tab)
    width = tab.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE["width"]
    moving = "document.getAnimations().filter((a) => a.playState === 'running').length"
    assert tab.evaluate(moving) == 0


def lightness(tab, name):
    """Of a colour of the page, from 0 to 765."""
    colour = tab.evaluate(f"getComputedStyle(document.body).{name}")
    return sum(map(int, colour[4:-1].split(",")))


#: Where the texts of the facts begin in each line, from where the list does.
BEGINNINGS = """
    const facts = document.querySelector(".av-facts");
    const start = facts.getBoundingClientRect().left;
    const lines = {};
    facts.querySelectorAll("li:not(:empty)").forEach((item) => {
        const range = document.createRange();
        range.selectNodeContents(item);
        const box = range.getBoundingClientRect();
        const line = Math.round(box.top);
        lines[line] = Math.min(lines[line] ?? Infinity, box.left - start);
    });
    return Object.values(lines);
"""


def test_no_line_of_the_facts_begins_with_what_parts_them(place, new_tab):
    tab = new_tab(viewport=PHONE)
    start(place, tab)
    place.work.progress(1234567, 5000000, "Reading members")
    expect(tab.get_by_text("1,234,567 of 5,000,000")).to_be_visible()
    expect(tab.get_by_text("/s")).to_be_visible()
    beginnings = tab.evaluate(f"() => {{ {BEGINNINGS} }}")
    assert len(beginnings) > 1
    assert max(map(abs, beginnings)) < 1


def test_a_percentage_has_no_rate(place, tab):
    start(place, tab)
    place.work.progress(25, 100, "A quarter")
    expect(tab.get_by_text("A quarter")).to_be_visible()
    place.work.progress(50, 100, "Half")
    expect(tab.get_by_text("Half")).to_be_visible()
    expect(tab.get_by_text("50%", exact=True)).to_be_visible()
    # Of what would it be so many a second?
    expect(tab.get_by_text("/s")).to_have_count(0)


def test_print_has_the_bar_and_no_buttons(place, tab):
    start(place, tab)
    place.work.progress(1, 2, "Half")
    expect(tab.get_by_text("Half")).to_be_visible()
    tab.emulate_media(media="print")
    # Backgrounds are not printed by themselves, and a bar is nothing else.
    adjusted = "getComputedStyle(document.querySelector('progress')).printColorAdjust"
    assert tab.evaluate(adjusted) == "exact"
    expect(tab.get_by_role("button", name="Cancel")).to_be_hidden()


def test_print_is_dark_on_light_for_who_reads_light_on_dark(place, new_tab):
    tab = new_tab(color_scheme="dark")
    start_page(place, tab)
    assert lightness(tab, "color") > 600
    tab.emulate_media(media="print")
    assert lightness(tab, "color") < 150


def test_waiting_bar_moves(place, tab):
    start(place, tab)
    assert tab.evaluate("document.getAnimations().length") > 0


def test_dark_is_dark(place, new_tab):
    grounds = []
    for scheme in ("light", "dark"):
        tab = new_tab(color_scheme=scheme)
        start_page(place, tab)
        grounds.append(lightness(tab, "backgroundColor"))
    assert grounds[0] > 600
    assert grounds[1] < 150


@pytest.mark.parametrize(
    ("language", "button"),
    [
        ("de-CH", "Starten"),
        ("fr", "Démarrer"),
        ("it", "Avvia"),
        ("es", "Iniciar"),
        ("en", "Start"),
        ("nl", "Start"),
    ],
)
def test_page_speaks_the_language_of_the_browser(serve, new_tab, language, button):
    def configure(config):
        languages = ["en", "de", "fr", "it", "es"]
        config.set_locale_negotiator(
            lambda request: request.accept_language.lookup(languages, default="en")
        )

    place = serve(configure)
    tab = new_tab(locale=language)
    start_page(place, tab)
    expect(tab.get_by_role("button", name=button)).to_be_visible()
    assert tab.locator("html").get_attribute("lang") == (
        language[:2] if language != "nl" else "en"
    )


# The witnesses themselves


class Careless(BaseAsyncView):
    def initial_page(self):
        return "<title>x</title><img src='x'><script>alert(1)</script>"


def test_witnesses_see_what_is_wrong(serve, tab, axe, complaints):
    place = serve(lambda config: config.add_async_view(Careless, "careless"))
    tab.goto(f"{place.url}/careless")
    faults = "\n".join(axe(tab))
    assert "image-alt" in faults
    assert "html-has-lang" in faults
    assert any("script-src" in text for text in complaints)
    complaints.clear()
