"""The demo, as somebody goes through it who has just installed the package."""

import pytest
from playwright.sync_api import expect

import asyncview
from asyncview.demo import main
from browser.conftest import served
from browser.pages import BAR
from browser.pages import SEEN


@pytest.fixture
def demo(tmp_path):
    """The address of the demo, which is looked at more often than usual."""
    app = main(
        **{
            "zodbconn.uri": f"file://{tmp_path}/Data.fs?blobstorage_dir={tmp_path}/b",
            "asyncview.poll_interval": "0.1",
            "asyncview.progress_interval": "0.05",
        }
    )
    with served(app) as url:
        yield url
    asyncview.close(app.registry, drain=5)


@pytest.fixture
def tab(tab, demo):
    tab.goto(demo)
    return tab


def is_fine(tab, axe):
    """Nothing for axe to find, in light and in dark, and no line that is too long."""
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        assert axe(tab) == []
    tab.set_viewport_size({"width": 320, "height": 640})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 320
    tab.set_viewport_size({"width": 1280, "height": 720})


def test_catalogue_of_the_library_runs_to_its_report(tab, axe):
    bars = []
    tab.on(
        "console",
        lambda message: (
            bars.append(message.text.removeprefix(SEEN).strip())
            if message.text.startswith(SEEN)
            else None
        ),
    )
    tab.get_by_role("link", name="Catalogue", exact=True).click()
    is_fine(tab, axe)
    tab.get_by_role("button", name="Make the catalogue").click()
    expect(tab.locator(BAR)).to_be_visible()
    files = tab.locator("#files")
    # Thousands of files are hashed; a slow machine may take its time.
    expect(files).to_be_visible(timeout=240_000)
    moved = [float(bar) for bar in bars if bar != "null"]
    assert moved == sorted(moved)
    assert len(set(moved)) > 3
    count = int(files.inner_text())
    assert count > 1000
    is_fine(tab, axe)
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Download all as CSV").click()
    lines = download.value.path().read_bytes().splitlines()
    assert lines[0] == b"path,size,sha256"
    assert len(lines) == count + 1


def test_fibonacci_shows_its_answer_on_the_form(tab, axe):
    tab.get_by_role("link", name="Fibonacci", exact=True).click()
    is_fine(tab, axe)
    tab.get_by_role("textbox").or_(tab.get_by_role("spinbutton")).fill("7")
    tab.locator("form button").click()
    expect(tab.get_by_text("13")).to_be_visible()
    is_fine(tab, axe)


def test_job_that_fails_says_so(tab, axe):
    tab.get_by_role("link", name="A job that fails").click()
    is_fine(tab, axe)
    tab.locator("form button").click()
    expect(tab.locator("main")).to_have_attribute("data-status", "failed")
    expect(tab.locator("main")).to_contain_text("Nothing was changed")
    is_fine(tab, axe)


def test_job_with_conflicts_comes_through(tab, axe):
    tab.get_by_role("link", name="A job with conflicts").click()
    is_fine(tab, axe)
    tab.locator("form button").click()
    expect(tab.locator("main")).to_contain_text("3")
    assert "/conflicting/result?" in tab.url
    is_fine(tab, axe)


def test_first_page_and_the_source_are_fine(tab, axe):
    is_fine(tab, axe)
    tab.get_by_role("link", name="catalogue.py").click()
    expect(tab.get_by_text("class CatalogueView")).to_be_visible()
    is_fine(tab, axe)


def download_sample(tab, rows, folder):
    tab.get_by_role("link", name="Import", exact=True).click()
    tab.get_by_label("Rows").fill(str(rows))
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Download a sample").click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_sample_is_uploaded_imported_and_reported(tab, axe, tmp_path):
    path = download_sample(tab, 2000, tmp_path)
    is_fine(tab, axe)
    tab.evaluate("window.same = true")
    tab.get_by_label("CSV file").set_input_files(path)
    tab.get_by_role("button", name="Import the file").click()
    expect(tab.locator(BAR).or_(tab.locator("#imported"))).to_be_visible()
    expect(tab.locator("#imported")).to_have_text("1980")
    expect(tab.locator("#rejected")).to_have_text("20")
    is_fine(tab, axe)
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Download the rejected rows").click()
    assert len(download.value.path().read_bytes().splitlines()) == 21


def test_wrong_file_is_an_error_on_the_form(tab, axe, complaints):
    tab.get_by_role("link", name="Import", exact=True).click()
    wrong = {"name": "wrong.csv", "mimeType": "text/csv", "buffer": b"a,b\n1,2\n"}
    tab.get_by_label("CSV file").set_input_files(wrong)
    tab.get_by_role("button", name="Import the file").click()
    expect(tab.get_by_text("The first line of the file has to be")).to_be_visible()
    is_fine(tab, axe)
    # The script asked first, and then the browser itself.
    assert [text.split()[0] for text in complaints] == ["422"]
    complaints.clear()
