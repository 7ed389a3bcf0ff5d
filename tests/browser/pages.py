"""What tests do on the pages, and what they look for there."""

from playwright.sync_api import expect

BAR = "progress[data-asyncview=bar]"

#: What the witness in each page writes to the console when a page was updated.
SEEN = "asyncview:update seen"


def start(place, tab):
    """To the page of a job that runs."""
    tab.goto(f"{place.url}/report")
    tab.get_by_role("button", name="Start").click()
    expect(tab.locator(BAR)).to_be_visible()
    assert place.work.entered.wait(30)


def shows(tab, percent):
    expect(tab.locator(BAR)).to_have_js_property("value", percent)


def at_the_result(tab, text="The report"):
    expect(tab.get_by_role("heading")).to_have_text(text)
    assert "/report/result?process_id=" in tab.url


def is_cancelled(tab):
    expect(tab.locator("main")).to_have_attribute("data-status", "cancelled")
    assert "/report/result?process_id=" in tab.url


def hide(tab, hidden=True):
    """Have a page believe that its tab is behind others; it then goes nowhere."""
    tab.evaluate(
        """(hidden) => {
            Object.defineProperty(
                document, "hidden", {get: () => hidden, configurable: true});
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )
