"""The demo, example by example in a browser's shoes, and its command as a process."""

import contextlib
import csv
import gc
import hashlib
import http.cookiejar
import io
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

import pytest
import webtest
from BTrees.LOBTree import LOBucket

import asyncview
from asyncview import JobCancelled
from asyncview import ProgressSession
from asyncview import cli
from asyncview import demo
from asyncview.demo.catalogue import measure
from asyncview.demo.catalogue import problem_with
from asyncview.demo.failing import Failing
from asyncview.demo.fibonacci import Fibonacci
from asyncview.demo.importing import Importing
from asyncview.demo.importing import take
from asyncview.demo.index import SOURCES
from asyncview.demo.sample import blocks

BYTES = "application/offset+octet-stream"


def make_app(var, **settings):
    uri = f"file://{var}/Data.fs?blobstorage_dir={var}/blobs"
    return demo.main(**{"zodbconn.uri": uri, **settings})


@pytest.fixture
def app(tmp_path, monkeypatch):
    monkeypatch.setattr(Fibonacci, "rest", 0)
    monkeypatch.setattr(Failing, "rest", 0)
    app = make_app(tmp_path, **{"asyncview.progress_interval": "0.05"})
    yield app
    asyncview.close(app.registry)


@pytest.fixture
def browser(app):
    return webtest.TestApp(app)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "files"
    (folder / "sub").mkdir(parents=True)
    (folder / "one.txt").write_bytes(b"same")
    (folder / "sub" / "two.txt").write_bytes(b"same")
    (folder / "big.bin").write_bytes(b"x" * 3_000_000)
    (folder / "=odd, \N{SNOWMAN}.TXT").write_bytes(b"")
    (folder / "link").symlink_to("one.txt")
    os.mkfifo(folder / "pipe")
    return folder


def end_of(browser, started, seconds=30):
    """Wait until the job that a POST started has ended; return its document."""
    assert started.status_code == 303
    assert "/processing?process_id=" in started.location
    url = started.location.replace("/processing?", "/completed?") + "&output_json=1"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        document = browser.get(url).json
        if document["finished"]:
            return document
        threading.Event().wait(0.02)
    raise AssertionError(f"the job has not ended: {document}")


def post(browser, path, **fields):
    form = browser.get(path).form
    for name, value in fields.items():
        form[name] = value
    return form.submit()


def test_index_links_to_each_example_and_to_its_source(browser):
    page = browser.get("/")
    for name, source in [
        ("catalogue", "catalogue"),
        ("fibonacci", "fibonacci"),
        ("failing", "failing"),
        ("conflicting", "conflicting"),
        ("import", "importing"),
    ]:
        browser.get("/").click(href=rf"^/{name}$")
        assert f'href="/source/{source}.py"' in page


@pytest.mark.parametrize("name", SOURCES)
def test_source_is_shown_as_text(browser, name):
    page = browser.get(f"/source/{name}")
    assert page.html.find("pre").text.startswith('"""')


@pytest.mark.parametrize("name", ["", "models.pyc", "../cli.py", "nothing.py"])
def test_other_files_are_not_shown(browser, name):
    browser.get(f"/source/{name}", status=404)


@pytest.mark.parametrize(
    "path", ["/", "/catalogue", "/fibonacci", "/failing", "/conflicting", "/import"]
)
def test_pages_keep_to_their_own_content_security_policy(browser, path):
    page = browser.get(path)
    policy = page.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert_nothing_inline(page)


def assert_nothing_inline(page):
    assert all(script.get("src") for script in page.html.find_all("script"))
    assert not page.html.find_all("style")
    for tag in page.html.find_all(True):
        assert "style" not in tag.attrs
        assert not [name for name in tag.attrs if name.startswith("on")]


def test_catalogue_reports_what_is_in_the_folder(browser, folder):
    document = end_of(browser, post(browser, "/catalogue", folder=str(folder)))
    assert document["status"] == "completed"
    assert document["label"] == f"Catalogue of {folder}"
    assert (document["current"], document["total"]) == (4, 4)
    report = browser.get(document["next_url"])
    assert report.html.find(id="files").text == "4"
    assert report.html.find(id="skipped").text == "0"
    assert "sub/two.txt" in report
    assert "\N{SNOWMAN}" in report
    assert_nothing_inline(report)
    assert "4 files catalogued." in browser.get("/")


def test_catalogue_comes_as_csv(browser, folder):
    end_of(browser, post(browser, "/catalogue", folder=str(folder)))
    answer = browser.get("/").click("CSV")
    assert answer.content_type == "text/csv"
    head, *rows = csv.reader(io.StringIO(answer.text, newline=""))
    assert head == ["path", "size", "sha256"]
    same = hashlib.sha256(b"same").hexdigest()
    assert [str(folder / "one.txt"), "4", same] in rows
    assert len(rows) == 4


def test_there_is_no_csv_before_there_is_a_catalogue(browser):
    browser.get("/catalogue.csv", status=404)
    assert "catalogue.csv" not in browser.get("/")


def test_csv_gives_its_connection_back_when_the_browser_goes_away(app, browser, folder):
    end_of(browser, post(browser, "/catalogue", folder=str(folder)))
    db = app.registry._zodb_databases[""]
    before = len(db.connectionDebugInfo())
    request = webtest.TestRequest.blank("/catalogue.csv")
    stream = request.get_response(app).app_iter
    next(iter(stream))
    opened = [info["opened"] for info in db.connectionDebugInfo()]
    stream.close()
    closed = [info["opened"] for info in db.connectionDebugInfo()]
    assert sum(map(bool, opened)) == sum(map(bool, closed)) + 1
    assert len(closed) <= before + 1


def test_bad_folder_shows_the_form_with_the_error(browser, folder):
    form = browser.get("/catalogue").form
    form["folder"] = "/no/such/<folder>"
    page = form.submit(status=422)
    assert "no such folder" in page.html.find(role="alert").text
    assert page.form["folder"].value == "/no/such/<folder>"
    browser.get("/catalogue.csv", status=404)


@pytest.mark.parametrize("text", ["", "usr", "\0", "/nowhere", "/dev/null"])
def test_folder_that_cannot_be_catalogued_is_named(text):
    assert problem_with(text).endswith(".")


def test_folder_of_this_python_can_be_catalogued(browser):
    assert problem_with(browser.get("/catalogue").form["folder"].value) is None


def test_unreadable_files_are_counted_and_left_out(browser, folder, monkeypatch):
    # The tests may run as root, whom no permission bit keeps out.
    def measure(path, progress):
        if path.endswith("big.bin"):
            raise PermissionError(path)
        return 1, "0" * 64

    monkeypatch.setattr("asyncview.demo.catalogue.measure", measure)
    document = end_of(browser, post(browser, "/catalogue", folder=str(folder)))
    report = browser.get(document["next_url"])
    assert report.html.find(id="files").text == "3"
    assert report.html.find(id="skipped").text == "1"


def test_cancelled_catalogue_does_not_read_a_file_to_its_end(folder):
    session = ProgressSession("id")
    assert measure(folder / "big.bin", session)[0] == 3_000_000
    session.stop()
    with pytest.raises(JobCancelled):
        measure(folder / "big.bin", session)


def test_file_of_the_system_that_says_no_size_is_not_read_to_its_end():
    with pytest.raises(OSError, match="has no size"):
        measure("/proc/self/status", ProgressSession("id"))


def test_fibonacci_shows_its_answer_in_the_form(browser):
    document = end_of(browser, post(browser, "/fibonacci", number="90"))
    assert (document["completed"], document["progress"]) == (100, 100)
    page = browser.get(document["next_url"])
    assert page.html.find(id="answer").text == "2880067194370816120"
    assert page.form["number"].value == "90"


def test_form_on_the_result_page_starts_the_next_one(browser):
    document = end_of(browser, post(browser, "/fibonacci", number="3"))
    form = browser.get(document["next_url"]).form
    form["number"] = "10"
    document = end_of(browser, form.submit())
    assert browser.get(document["next_url"]).html.find(id="answer").text == "55"


@pytest.mark.parametrize("number", ["", "x", "-1", "1001", "9" * 5000])
def test_fibonacci_of_something_else_is_an_error_on_the_form(browser, number):
    form = browser.get("/fibonacci").form
    form["number"] = number
    page = form.submit(status=422)
    assert "from 0 to 1000" in page.html.find(role="alert").text


def test_failing_job_shows_a_safe_sentence_and_leaves_nothing(browser):
    document = end_of(browser, post(browser, "/failing"))
    assert document["status"] == "failed"
    assert document["error"]["reason"] == "exception"
    assert document["error"]["message"] == Failing.error_msg
    page = browser.get(document["next_url"], status=500)
    assert document["error"]["id"] in page
    assert "ValueError" not in page
    assert "step 4" not in page
    assert browser.get("/failing").html.find(id="failures").text == "0"
    assert browser.get("/").html.find(role="alert").text == Failing.error_msg
    assert not browser.get("/").html.find(role="alert")


def test_conflicting_job_is_done_once_at_its_third_attempt(browser):
    for value in ("1", "2"):
        document = end_of(browser, post(browser, "/conflicting"))
        assert (document["status"], document["attempt"]) == ("completed", 3)
        page = browser.get(document["next_url"])
        assert page.html.find(id="attempts").text == "3"
        assert page.html.find(id="value").text == value


def import_file(browser, content, name="customers.csv", **kw):
    form = browser.get("/import").forms["import"]
    form["file"] = webtest.Upload(name, content)
    return form.submit(**kw)


HEAD = b"number,name,email,born\r\n"


def test_import_reports_rows_and_what_is_wrong(browser):
    rows = [
        b"1,Ada,ada@example.org,1815-12-10",
        b"1,Twice,twice@example.org,1815-12-10",
        b"x,No number,x@example.org,1815-12-10",
        b"\xd9\xa1,No ASCII,x@example.org,1815-12-10",
        b'2,"Grace\nHopper",grace@example.org,1906-12-09',
        b"3, ,x@example.org,1906-12-09",
        b"4,Nobody,nobody,1906-12-09",
        b"5,No day,x@example.org,30.2.1906",
        b"6,Too many,x@example.org,1906-12-09,1",
        b"",
        b"7,Not \xff UTF-8,x@example.org,1906-12-09",
    ]
    started = import_file(browser, b"\xef\xbb\xbf" + HEAD + b"\n".join(rows))
    document = end_of(browser, started)
    assert document["status"] == "completed"
    # Lines, of which a row may have more than one.
    assert document["current"] == document["total"] == 13
    report = browser.get(document["next_url"])
    assert report.html.find("h1").text == "Import of customers.csv"
    assert report.html.find(id="imported").text == "3"
    assert report.html.find(id="rejected").text == "7"
    assert_nothing_inline(report)
    head, *lines = csv.reader(
        io.StringIO(report.click("Download the rejected").text, newline="")
    )
    assert head == ["line", "problem", "number", "name", "email", "born"]
    assert [line[:2] for line in lines] == [
        ["3", "number used twice"],
        ["4", "no number"],
        ["5", "no number"],
        ["8", "no name"],
        ["9", "no e-mail address"],
        ["10", "no date of birth"],
        ["11", "not 4 columns"],
    ]
    assert lines[-1][2:] == ["6", "Too many", "x@example.org", "1906-12-09", "1"]
    assert "3 customers imported." in browser.get("/")


def test_chunked_upload_is_imported_like_a_plain_one(browser):
    form = browser.get("/import").forms["import"]
    content = HEAD + b"1,Ada,ada@example.org,1815-12-10\n"
    tus = {
        "Tus-Resumable": "1.0.0",
        "X-CSRF-Token": form["csrf_token"].value,
        "Upload-Length": str(len(content)),
    }
    place = browser.post("/uploads", headers=tus, status=201).headers["Location"]
    for offset in range(0, len(content), 20):
        part = {"Upload-Offset": str(offset), "Content-Type": BYTES}
        browser.patch(place, content[offset : offset + 20], tus | part, status=204)
    fields = {"csrf_token": form["csrf_token"].value, "file": place.split("/")[-1]}
    document = end_of(browser, browser.post("/import", fields))
    assert browser.get(document["next_url"]).html.find(id="imported").text == "1"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "The first line of the file has to be number,name,email,born"),
        (b"name,number\n1,2\n", "The first line of the file has to be"),
        (b"\0" * 1_000_000, "The first line of the file has to be"),
        (None, "Please choose a file."),
    ],
)
def test_file_that_cannot_be_imported_is_an_error_on_the_form(
    browser, content, sentence
):
    if content is None:
        page = browser.get("/import").forms["import"].submit(status=422)
    else:
        page = import_file(browser, content, status=422)
    assert sentence in page.html.find(role="alert").text
    assert page.forms["import"]["csrf_token"].value


def test_import_replaces_the_customers_or_leaves_them(app, browser, monkeypatch):
    def imported():
        with app.registry._zodb_databases[""].transaction() as connection:
            return list(connection.root()["demo"].customers.by_number)

    end_of(browser, import_file(browser, HEAD + b"1,A,a@example.org,2000-01-01\n"))
    assert imported() == [1]
    end_of(browser, import_file(browser, HEAD + b"2,B,b@example.org,2000-01-01\n"))
    assert imported() == [2]
    # A field that csv refuses, after what was put into a temporary file already.
    monkeypatch.setattr("asyncview.demo.importing.BATCH", 1)
    content = HEAD + b"3,C,c@example.org,2000-01-01\n4," + b"x" * 200_000
    document = end_of(browser, import_file(browser, content))
    assert document["status"] == "failed"
    assert document["error"]["message"] == Importing.error_msg
    assert imported() == [2]


def test_sample_is_what_the_import_expects(browser):
    form = browser.get("/import").forms["sample"]
    form["rows"] = "2500"
    sample = form.submit()
    assert sample.content_disposition == 'attachment; filename="customers-2500.csv"'
    assert sample.body == browser.get("/sample.csv?rows=2500").body
    document = end_of(browser, import_file(browser, sample.body))
    report = browser.get(document["next_url"])
    assert report.html.find(id="imported").text == "2475"
    assert report.html.find(id="rejected").text == "25"
    assert len(report.html.find(id="first").find_all("tr")) == 21


@pytest.mark.parametrize("rows", ["", "x", "0", "-1", "50000001", "9" * 5000])
def test_sample_of_another_size_is_refused(browser, rows):
    browser.get("/sample.csv", {"rows": rows}, status=400)


def test_import_does_not_keep_its_rows_in_memory(app, browser, monkeypatch):
    held = []

    def watched(row, customers):
        # Just before what was made goes to the temporary file.
        if row[0].endswith("999"):
            held.append(sum(map(is_held, gc.get_objects())))
        return take(row, customers)

    monkeypatch.setattr("asyncview.demo.importing.take", watched)
    monkeypatch.setattr("asyncview.demo.importing.BATCH", 1000)
    app.registry._zodb_databases[""].setCacheSize(20)
    document = end_of(browser, import_file(browser, b"".join(blocks(20_000))))
    assert document["status"] == "completed"
    assert len(held) == 20
    assert max(held) < len(list(buckets_of(app))) / 3


def is_held(thing):
    """Whether it is a bucket of a BTree, and not a ghost of one."""
    return type(thing) is LOBucket and thing._p_changed is not None


def buckets_of(app):
    with app.registry._zodb_databases[""].transaction() as connection:
        bucket = connection.root()["demo"].customers.by_number._firstbucket
        while bucket is not None:
            yield bucket
            bucket = bucket._next


@pytest.mark.parametrize(
    "path", ["/catalogue", "/fibonacci", "/failing", "/conflicting", "/import"]
)
def test_start_without_a_token_is_refused(browser, path):
    browser.post(path, {"number": "1"}, status=400)


def test_job_of_one_browser_is_not_there_for_another(app, browser):
    document = end_of(browser, post(browser, "/fibonacci", number="1"))
    other = webtest.TestApp(app)
    other.get(document["links"]["result"], status=404)
    other.get("/")
    other.get(document["links"]["result"], status=404)


class Demo:
    """The ``asyncview demo`` of a subprocess."""

    def __init__(self, var, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "asyncview", "demo", "--var", str(var), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A buffer would keep from `communicate` what came with the first line.
            bufsize=0,
            # Pyramid's, of the newest setuptools that it works with.
            env=os.environ | {"PYTHONWARNINGS": "ignore:pkg_resources is deprecated"},
        )
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.opener = urllib.request.build_opener(cookies)

    def wait_until_it_serves(self):
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        assert ready
        line = self.process.stdout.readline().decode()
        if not line:
            raise AssertionError(self.process.communicate()[1].decode())
        self.url = re.fullmatch(r"The demo is at (http://localhost:\d+)\n", line)[1]
        return self

    def get(self, path, data=None):
        with self.opener.open(self.url + path, data, timeout=30) as answer:
            return answer.read().decode()

    def end(self, number):
        """Send a signal; return exit code, stdout and stderr."""
        self.process.send_signal(number)
        return self.result()

    def result(self):
        output, errors = self.process.communicate(timeout=60)
        return self.process.returncode, output.decode(), errors.decode()


@pytest.fixture
def start(tmp_path):
    with contextlib.ExitStack() as stack:

        def start(*arguments, var=tmp_path / "var"):
            server = Demo(var, *arguments)
            stack.enter_context(server.process)
            stack.callback(server.process.kill)
            return server

        yield start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_serves_until_a_signal_and_leaves_a_clean_terminal(start, number):
    server = start("--port", "0").wait_until_it_serves()
    assert "asyncview" in server.get("/")
    code, output, errors = server.end(number)
    assert (code, errors) == (0, "")
    assert "Ctrl-C" in output


def test_job_that_was_taken_has_ended_when_the_command_has(start, tmp_path, folder):
    server = start("--port", "0").wait_until_it_serves()
    token = re.search(r'name="csrf_token" value="(\w+)"', server.get("/catalogue"))[1]
    fields = {"csrf_token": token, "folder": str(folder)}
    server.get("/catalogue", urllib.parse.urlencode(fields).encode())
    assert server.end(signal.SIGTERM)[0] == 0
    app = make_app(tmp_path / "var")
    try:
        assert "CSV of" in webtest.TestApp(app).get("/")
    finally:
        asyncview.close(app.registry)


def test_second_start_on_one_folder_is_a_sentence(start):
    start("--port", "0").wait_until_it_serves()
    code, output, errors = start("--port", "0").result()
    assert (code, output) == (1, "")
    assert "is in use by another process" in errors
    assert "Traceback" not in errors


def test_second_start_on_one_port_is_a_sentence(start, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, output, errors = start("--port", port).result()
    assert (code, output) == (1, "")
    assert f"cannot listen on 127.0.0.1 port {port}" in errors
    assert "Traceback" not in errors


def test_folder_that_cannot_be_made_is_a_sentence(start, tmp_path):
    (tmp_path / "file").write_text("")
    code, output, errors = start(var=tmp_path / "file" / "var").result()
    assert (code, output) == (1, "")
    assert "cannot be used" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("port", ["x", "-1", "65536"])
def test_port_that_is_none_is_refused(capsys, port):
    with pytest.raises(SystemExit) as caught:
        cli.main(["demo", "--port", port])
    assert caught.value.code == 2
    assert "from 0 to 65535" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(["--help"], "demo"), (["demo", "--help"], "--var"), (["--version"], "0.")],
)
def test_command_says_what_it_can_do(capsys, arguments, text):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 0
    assert text in capsys.readouterr().out
