"""Files on their way into a job: in chunks, past what may happen to the connection."""

import hashlib
import random
import re
import threading

import pytest
from playwright.sync_api import expect
from pyramid.events import NewRequest
from pyramid.httpexceptions import HTTPServiceUnavailable
from pyramid.renderers import render_to_response

from asyncview import BaseAsyncView
from browser.conftest import PATIENCE
from browser.pages import BAR

MIB = 2**20
CHUNK = 8 * MIB

PAGE = """<!DOCTYPE html>
<html metal:use-macro="layout">
<head>
  <title metal:fill-slot="title">Import</title>
  <metal:head fill-slot="head"><metal:x use-macro="upload_macro"/></metal:head>
</head>
<main metal:fill-slot="main" class="av-card">
  <h1 class="av-label">Import</h1>
  <p role="alert" tal:condition="view.error">${view.error}</p>
  <form method="post" enctype="multipart/form-data" tal:attributes="view.following">
    <input type="hidden" name="csrf_token" value="${get_csrf_token()}">
    <p tal:repeat="name view.uploads"><label for="${name}">${name}</label>
    <input type="file" id="${name}" name="${name}" required="required"
           tal:attributes="multiple 'multiple' if view.many else None"
           data-asyncview-upload="${view.endpoint}"></p>
    <label for="note">Note</label> <input id="note" name="note">
    <button type="submit" class="av-button">Import it</button>
  </form>
</main>
</html>
"""


class Import(BaseAsyncView):
    """Says of each field what it was given: a name, a size and a digest."""

    label = "Import of files"
    uploads = ("file",)
    many = False
    endpoint = "/uploads"
    following = {}  # noqa: RUF012 - read, never changed
    error = None

    def initial_page(self):
        page = self.request.registry.page
        return render_to_response(page, {"view": self}, self.request)

    def run_process(self):
        if not super().run_process():
            return False
        if self.request.POST["note"] == "wrong":
            self.error = "This note is wrong."
        return self.error is None

    def __run__(self):
        self.request.registry.work.run(self)
        lines = [
            self.describe(value)
            for name in self.uploads
            for value in self.request.POST.getall(name)
        ]
        return "\n".join([*lines, f"{self.request.content_length} bytes"])

    def describe(self, value):
        if not isinstance(value, str):
            return f"plain {value.filename} {digest(value.file.read())}"
        upload = self.request.asyncview.get_upload(value)
        with upload.open() as file:
            return f"{upload.file_name} {digest(file.read())}"


class Followed(Import):
    following = {"data-asyncview-follow": "main"}  # noqa: RUF012


class Several(Import):
    uploads = ("first", "second")
    many = True


class Elsewhere(Import):
    endpoint = "/nowhere"


def digest(data):
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}"


class Line:
    """What is between the browser and the endpoint, as a test wants it.

    It lets a number of chunks pass; the next is held until the test says `open`, and
    then is lost.
    """

    def __init__(self):
        self.passing = None
        self.seen = []
        self.held = threading.Event()
        self._opened = threading.Event()

    def hold_after(self, chunks):
        self.passing = chunks

    def open(self):
        self.passing = None
        self._opened.set()

    @property
    def offsets(self):
        """At which bytes the chunks began."""
        return [offset for method, offset in self.seen if method == "PATCH"]

    @property
    def methods(self):
        return [method for method, _ in self.seen]

    def __call__(self, event):
        request = event.request
        if not request.path.startswith("/uploads"):
            return
        offset = int(request.headers.get("Upload-Offset", 0))
        self.seen.append((request.method, offset))
        if request.method != "PATCH" or self.passing is None:
            return
        if self.passing:
            self.passing -= 1
            return
        self.held.set()
        assert self._opened.wait(PATIENCE)
        raise HTTPServiceUnavailable()


@pytest.fixture
def line(complaints):
    line = Line()
    yield line
    line.open()
    # Those are its own.
    complaints[:] = [text for text in complaints if not text.startswith("503 ")]


@pytest.fixture
def place(serve, line, tmp_path):
    def configure(config):
        config.include("pyramid_chameleon")
        page = tmp_path / "page.pt"
        page.write_text(PAGE)
        config.registry.page = str(page)
        config.add_upload_endpoint("/uploads")
        config.add_subscriber(line, NewRequest)
        for view in (Import, Followed, Several, Elsewhere):
            config.add_async_view(view, view.__name__.lower())

    return serve(configure, asyncview__upload_max_size=str(64 * MIB))


@pytest.fixture
def make_file(tmp_path):
    def make_file(size, name="rows.bin"):
        path = tmp_path / "files" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(random.Random(name).randbytes(size))
        return path

    return make_file


def row(tab, name="rows.bin"):
    return tab.locator(".av-upload-file", has_text=name)


def is_there(tab, name="rows.bin"):
    expect(row(tab, name)).to_have_attribute("data-state", "done")


def choose(tab, *paths, field="file"):
    tab.locator(f"#{field}").set_input_files([str(path) for path in paths])


def submit(tab):
    tab.get_by_role("button", name="Import it").click()


def result(place, tab):
    """The lines that the job answers."""
    place.work.finish()
    tab.wait_for_url("**/result?*")
    return tab.locator("pre").inner_text().splitlines()


def described(path):
    return f"{path.name} {digest(path.read_bytes())}"


def leave_anyway(tab):
    tab.on("dialog", lambda dialog: dialog.accept())


def test_file_goes_in_chunks_and_its_id_with_the_form(place, line, tab, make_file):
    path = make_file(2 * CHUNK + 5)
    tab.goto(f"{place.url}/import")
    choose(tab, path)
    is_there(tab)
    assert line.offsets == [0, CHUNK, 2 * CHUNK]
    submit(tab)
    first, last = result(place, tab)
    assert first == described(path)
    assert int(last.split()[0]) < 2000


def test_bar_shows_the_bytes_and_never_goes_back(place, line, tab, make_file):
    line.hold_after(1)
    tab.goto(f"{place.url}/import")
    tab.evaluate(
        """window.sent = [];
        addEventListener("asyncview:upload", (event) => sent.push(event.detail.sent))"""
    )
    choose(tab, make_file(4 * CHUNK))
    bar = tab.get_by_role("progressbar", name="rows.bin")
    assert line.held.wait(PATIENCE)
    # One chunk is there; of the next the browser knows no more than what it has sent.
    tab.wait_for_function("sent.at(-1) >= 8 * 2 ** 20")
    assert 25 <= bar.evaluate("bar => bar.value") <= 50
    expect(row(tab)).to_contain_text("of 33.6 MB")
    line.open()
    is_there(tab)
    sent = tab.evaluate("sent")
    assert sent == sorted(sent)
    assert sent[-1] == 4 * CHUNK
    expect(row(tab)).to_contain_text("Uploaded · 33.6 MB")


def test_form_that_is_sent_early_waits_for_its_upload(place, line, tab, make_file):
    path = make_file(CHUNK + 1)
    line.hold_after(1)
    tab.goto(f"{place.url}/import")
    choose(tab, path)
    submit(tab)
    expect(tab.get_by_text("will be sent when the upload is complete")).to_be_visible()
    assert tab.url.endswith("/import")
    line.open()
    expect(tab.locator(BAR)).to_be_visible()
    assert result(place, tab)[0] == described(path)


def test_same_page_shows_the_job(place, tab, make_file, axe):
    path = make_file(5)
    tab.goto(f"{place.url}/followed")
    tab.evaluate("window.same = true")
    choose(tab, path)
    submit(tab)
    expect(tab.get_by_role("heading", name="Import of files")).to_be_focused()
    place.work.progress(3, 4, "Reading")
    expect(tab.locator(BAR)).to_have_js_property("value", 75)
    assert tab.evaluate("window.same")
    expect(tab.locator("form input[type=file]")).to_have_count(0)
    expect(tab).to_have_title("(75%) Import of files")
    assert axe(tab) == []
    # It is the job's own page also for those who reload it, or come back.
    assert "/followed/processing?process_id=" in tab.url
    tab.reload()
    expect(tab.locator(BAR)).to_have_js_property("value", 75)
    assert result(place, tab)[0] == described(path)


def test_back_from_the_job_is_the_form(place, tab, make_file):
    tab.goto(f"{place.url}/followed")
    choose(tab, make_file(5))
    submit(tab)
    expect(tab.locator(BAR)).to_be_visible()
    tab.go_back()
    expect(tab.get_by_role("button", name="Import it")).to_be_visible()


@pytest.mark.parametrize("view", ["import", "followed"])
def test_form_that_is_refused_says_why(place, tab, make_file, complaints, view):
    path = make_file(5)
    tab.goto(f"{place.url}/{view}")
    choose(tab, path)
    tab.get_by_label("Note").fill("wrong")
    submit(tab)
    expect(tab.get_by_role("alert").first).to_have_text("This note is wrong.")
    # The same file again costs nothing: it is there already.
    choose(tab, path)
    is_there(tab)
    submit(tab)
    expect(tab.locator(BAR)).to_be_visible()
    assert result(place, tab)[0] == described(path)


def test_upload_goes_on_after_a_reload(place, line, tab, make_file):
    leave_anyway(tab)
    path = make_file(3 * CHUNK)
    line.hold_after(1)
    tab.goto(f"{place.url}/import")
    choose(tab, path)
    assert line.held.wait(PATIENCE)
    tab.reload()
    expect(tab.get_by_text("The upload of rows.bin stopped at 33%.")).to_be_visible()
    line.open()
    choose(tab, path)
    is_there(tab)
    assert line.offsets == [0, CHUNK, CHUNK, 2 * CHUNK]
    submit(tab)
    expect(tab.locator(BAR)).to_be_visible()
    assert result(place, tab)[0] == described(path)


def test_what_was_there_before_is_not_taken_for_speed(place, line, tab, make_file):
    leave_anyway(tab)
    path = make_file(3 * CHUNK)
    line.hold_after(1)
    tab.goto(f"{place.url}/import")
    choose(tab, path)
    assert line.held.wait(PATIENCE)
    tab.reload()
    line.open()
    network = tab.context.new_cdp_session(tab)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1}
    network.send("Network.enable")
    network.send(
        "Network.emulateNetworkConditions", slow | {"uploadThroughput": MIB // 4}
    )
    choose(tab, path)
    rate = re.compile(r"[\d.]+ (\wB)/s")
    expect(row(tab)).to_contain_text(rate, timeout=1000 * PATIENCE)
    assert rate.search(row(tab).inner_text()).group(1) == "kB"
    tab.get_by_role("button", name="Cancel").click()


def test_what_an_earlier_visit_left_can_be_discarded(place, line, tab, make_file):
    leave_anyway(tab)
    line.hold_after(1)
    tab.goto(f"{place.url}/import")
    choose(tab, make_file(2 * CHUNK))
    assert line.held.wait(PATIENCE)
    tab.reload()
    with tab.expect_response(lambda answer: answer.request.method == "DELETE"):
        tab.get_by_role("button", name="Discard").click()
    expect(tab.get_by_text("stopped at")).to_have_count(0)
    tab.reload()
    expect(tab.get_by_text("stopped at")).to_have_count(0)
    expect(tab.locator("#file")).to_be_visible()


def test_connection_that_is_lost_is_waited_for(place, line, tab, make_file):
    path = make_file(3 * CHUNK)
    line.hold_after(1)
    tab.goto(f"{place.url}/import")
    choose(tab, path)
    assert line.held.wait(PATIENCE)
    tab.context.set_offline(True)
    line.open()
    expect(row(tab)).to_contain_text("Connection lost, trying again")
    tab.context.set_offline(False)
    is_there(tab)
    submit(tab)
    expect(tab.locator(BAR)).to_be_visible()
    assert result(place, tab)[0] == described(path)


def test_cancelled_upload_leaves_nothing(place, line, tab, make_file):
    line.hold_after(1)
    tab.goto(f"{place.url}/import")
    choose(tab, make_file(2 * CHUNK))
    assert line.held.wait(PATIENCE)
    with tab.expect_response(lambda answer: answer.request.method == "DELETE"):
        row(tab).get_by_role("button", name="Cancel").click()
    expect(row(tab)).to_have_count(0)
    expect(tab.locator("#file")).to_be_focused()
    assert tab.locator("#file").evaluate("input => input.files.length") == 0
    line.open()
    tab.reload()
    expect(tab.get_by_text("stopped at")).to_have_count(0)


def test_keyboard_is_enough(place, line, tab, make_file):
    line.hold_after(1)
    tab.goto(f"{place.url}/import")
    choose(tab, make_file(2 * CHUNK))
    assert line.held.wait(PATIENCE)
    tab.locator("#file").focus()
    tab.keyboard.press("Tab")
    pause = row(tab).get_by_role("button", name="Pause")
    expect(pause).to_be_focused()
    tab.keyboard.press("Enter")
    expect(row(tab)).to_contain_text("Paused")
    expect(tab.get_by_role("status").first).to_have_text("rows.bin: Paused")
    expect(row(tab).get_by_role("button", name="Resume")).to_be_focused()
    line.open()
    tab.keyboard.press("Enter")
    is_there(tab)
    tab.keyboard.press("Shift+Tab")
    expect(tab.locator("#file")).to_be_focused()


def dragged(tab, *names):
    return tab.evaluate_handle(
        """(names) => {
            const data = new DataTransfer();
            for (const name of names) data.items.add(new File(["of " + name], name));
            return data;
        }""",
        list(names),
    )


def test_file_may_be_dropped_anywhere(place, tab):
    tab.goto(f"{place.url}/import")
    data = dragged(tab, "a.txt", "b.txt")
    tab.dispatch_event("h1", "dragover", {"dataTransfer": data})
    expect(tab.locator(".av-upload")).to_have_class(re.compile("av-upload-over"))
    tab.dispatch_event("h1", "drop", {"dataTransfer": data})
    expect(tab.locator(".av-upload")).not_to_have_class(re.compile("av-upload-over"))
    # There is place for one.
    is_there(tab, "a.txt")
    expect(tab.locator(".av-upload-file")).to_have_count(1)
    submit(tab)
    expect(tab.locator(BAR)).to_be_visible()
    assert result(place, tab)[0] == f"a.txt {digest(b'of a.txt')}"


def test_several_files_in_several_fields_keep_their_order(place, tab, make_file):
    paths = [make_file(size, f"{size}.bin") for size in (3, 0, CHUNK + 1)]
    tab.goto(f"{place.url}/several")
    choose(tab, paths[0], paths[1], field="first")
    tab.dispatch_event(
        "#second", "drop", {"dataTransfer": dragged(tab, "a.txt", "b.txt")}
    )
    is_there(tab, "b.txt")
    choose(tab, paths[2], field="second")
    expect(row(tab, "a.txt")).to_have_count(0)
    tab.dispatch_event("#second", "drop", {"dataTransfer": dragged(tab, "c.txt")})
    tab.dispatch_event("h1", "drop", {"dataTransfer": dragged(tab, "nowhere.txt")})
    row(tab, "3.bin").get_by_role("button", name="Remove").click()
    submit(tab)
    expect(tab.locator(BAR)).to_be_visible()
    assert result(place, tab)[:-1] == [
        described(paths[1]),
        described(paths[2]),
        f"c.txt {digest(b'of c.txt')}",
    ]


def test_file_that_is_too_large_is_refused_before_a_byte_of_it(
    place, line, tab, make_file, complaints
):
    tab.goto(f"{place.url}/import")
    choose(tab, make_file(64 * MIB + 1))
    expect(row(tab)).to_contain_text("it is too large")
    expect(tab.get_by_role("alert")).to_contain_text("rows.bin: The site does not take")
    submit(tab)
    expect(row(tab)).to_contain_text("it is too large")
    assert tab.url.endswith("/import")
    assert set(line.methods) == {"POST"}
    assert all(text.startswith("413") for text in complaints)
    complaints.clear()


def test_file_goes_with_the_form_where_there_is_no_endpoint(
    place, tab, make_file, complaints
):
    path = make_file(1000)
    tab.goto(f"{place.url}/elsewhere")
    choose(tab, path)
    expect(row(tab)).to_contain_text("Will be sent with the form")
    submit(tab)
    expect(tab.locator(BAR)).to_be_visible()
    assert result(place, tab)[0] == f"plain {described(path)}"
    assert [text.split()[0] for text in complaints] == ["404"]
    complaints.clear()


def test_it_works_without_javascript(place, new_tab, make_file):
    path = make_file(1000)
    tab = new_tab(java_script_enabled=False)
    tab.goto(f"{place.url}/import")
    assert tab.locator(".av-upload").count() == 0
    choose(tab, path)
    submit(tab)
    expect(tab.locator("main")).to_contain_text("Import of files")
    place.work.finish()
    expect(tab.locator("pre")).to_contain_text(f"plain {described(path)}")


def held(place, line, tab, make_file):
    line.hold_after(1)
    choose(tab, make_file(2 * CHUNK, "a name of some length that has to be broken.csv"))
    assert line.held.wait(PATIENCE)
    expect(tab.locator(".av-upload-note")).to_contain_text("16.8 MB")


def nothing(place, line, tab, make_file):
    pass


def paused(place, line, tab, make_file):
    held(place, line, tab, make_file)
    tab.get_by_role("button", name="Pause").click()


def done(place, line, tab, make_file):
    choose(tab, make_file(1))
    is_there(tab)


@pytest.mark.parametrize(
    "to", [nothing, held, paused, done], ids=lambda to: to.__name__
)
def test_upload_is_accessible_fits_on_a_phone_and_stands_still(
    place, line, new_tab, make_file, axe, to
):
    tab = new_tab(
        viewport={"width": 320, "height": 640},
        reduced_motion="reduce",
        color_scheme="dark",
    )
    tab.goto(f"{place.url}/import")
    to(place, line, tab, make_file)
    assert axe(tab) == []
    tab.emulate_media(color_scheme="light")
    assert axe(tab) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= 320
    moving = "document.getAnimations().filter((a) => a.playState === 'running').length"
    assert tab.evaluate(moving) == 0
