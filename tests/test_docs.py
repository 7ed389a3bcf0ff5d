"""The pages of docs/ say what is so: their examples run."""

import json
import linecache
import re
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import PATIENCE
from conftest import eventually
from test_progress_view import KEYS
from ZODB.DB import DB

import asyncview
from asyncview import BaseAsyncView
from asyncview.store import reading

DOCS = Path(__file__).parent.parent / "docs"
SCRIPT = Path(asyncview.__file__).parent / "static" / "asyncview.js"


def blocks(page, language="python"):
    text = (DOCS / f"{page}.rst").read_text("utf-8")
    pattern = rf"^\.\. code-block:: {language}\n\n((?:(?: +.*)?\n)+)"
    return [textwrap.dedent(block) for block in re.findall(pattern, text, re.MULTILINE)]


def run(code):
    """What a block defines."""
    names, file = {"__name__": __name__}, "a block of the documentation"
    # Decorators of Pyramid look at the line that they are on.
    linecache.cache[file] = (len(code), None, code.splitlines(True), file)
    exec(compile(code, file, "exec"), names)
    return SimpleNamespace(**names)


@pytest.fixture
def site_of(make_site):
    """The application of a block, and whatever else a test says."""

    def site_of(module, configure=None):
        def both(config):
            config.include(module.includeme)
            if configure is not None:
                configure(config)

        return make_site(both)

    return site_of


def followed(site, page):
    """What the page of a session leads to at its end."""
    assert site.engine.workers.join(PATIENCE)
    url = re.search(r'data-asyncview-url="([^"]+)"', page.text)[1].replace("&amp;", "&")
    return site.app.get(url).json


def data_of(site):
    with reading(site.db) as connection:
        return dict(connection.root())


# progress.rst


def test_example_with_tasks_is_a_job(make_site):
    module = run(blocks("progress")[0])
    site = make_site(lambda config: config.add_async_view(module.Import, "import"))
    document = site.run("/import")
    assert [task["status"] for task in document["tasks"]] == ["complete"] * 3
    assert document["tasks"][2]["tasks"][0]["name"] == "To members"
    assert site.result("/import", document["process_id"]).text == "The sum is 4950."


def test_example_with_two_loops_has_a_task_for_each(make_site):
    module = run(blocks("progress")[1])
    site = make_site(lambda config: config.add_async_view(module.Copy, "copy"))
    document = site.run("/copy")
    counts = [(task["current"], task["total"]) for task in document["tasks"]]
    assert counts == [(20, 20)] * 2
    assert site.result("/copy", document["process_id"]).text == "190"


def test_example_with_a_thread_shows_its_page_and_goes_on(site_of):
    site = site_of(run(blocks("progress")[2]))
    document = followed(site, site.app.post("/import", {"names": "ann bob"}))
    assert (document["status"], document["percent"]) == ("completed", 100)
    assert site.app.get(document["next_url"]).location.endswith("/members")
    assert data_of(site)["ann"]


def test_example_of_a_script_needs_but_a_connection(capsys):
    db = DB(None)
    with db.transaction() as connection:
        run(blocks("progress")[3]).script(connection, ["a", "b"])
    assert "2/2" in capsys.readouterr().err
    db.close()


def test_example_of_a_stream_and_of_htmx_follow_a_session(site_of):
    stream, bar = run(blocks("progress")[4]), run(blocks("progress")[5])

    def configure(config):
        config.add_view(stream.stream, name="stream")
        config.add_view(bar.bar, name="bar")

    site = site_of(SimpleNamespace(includeme=configure))
    with reading(site.db) as connection:
        session = asyncview.ProgressSession.create(connection, message="<b>", total=4)
    part = site.app.get(f"/bar?id={session.id}")
    assert "hx-trigger" in part.text
    assert "&lt;b&gt;" in part.text
    session.finish("Done")
    assert "hx-" not in site.app.get(f"/bar?id={session.id}").text
    lines = site.app.get(f"/stream?id={session.id}").text.splitlines()
    assert json.loads(lines[-1])["status"] == "complete"


def test_example_of_the_macro_is_a_processing_page(make_site, tmp_path, gate):
    block, own = blocks("progress", "html")
    assert "data-asyncview-url" in own
    page = tmp_path / "waiting.pt"
    page.write_text(block)

    class Work(BaseAsyncView):
        processing_page = str(page)

        def __run__(self):
            self.progress.update(1, 4)
            gate.wait(PATIENCE)

    site = make_site(lambda config: config.add_async_view(Work, "work"))
    process_id = site.start("/work")
    eventually(lambda: site.status("/work", process_id)["percent"])
    text = site.app.get(f"/work/processing?process_id={process_id}").text
    assert "have a tea" in text
    url = re.search(r'data-asyncview-url="([^"]+)"', text)[1].replace("&amp;", "&")
    assert set(site.app.get(url).json) == KEYS


def test_options_of_the_script_are_those_that_it_knows():
    (block,) = blocks("progress", "javascript")
    known = SCRIPT.read_text("utf-8")
    options = re.findall(r"^  (\w+):", block, re.MULTILINE)
    assert len(options) == 6
    for name in options:
        assert f"given.{name}" in known
    assert "asyncview:update" in known


# Coming from


def test_view_of_netsight_async_keeps_its_shape(make_site):
    module = run(blocks("coming_from/netsight_async")[0])
    view = module.Fibonacci
    site = make_site(lambda config: config.add_async_view(view, "fibonacci"))
    document = site.run("/fibonacci", {"number": "10"})
    assert document["progress"] == 100
    assert site.result("/fibonacci", document["process_id"]).text == "55"


def test_bulk_delete_of_wuttaweb_ends_with_its_message_and_address(site_of):
    site = site_of(run(blocks("coming_from/wuttaweb")[0]))
    with site.db.transaction() as connection:
        connection.root().update(one=1, two=2)
    names = [("name", "one"), ("name", "two")]
    document = followed(site, site.app.post("/delete-bulk", names))
    assert (document["current"], document["total"]) == (2, 2)
    assert site.app.get(document["next_url"]).location.endswith("/rows")
    assert not {"one", "two"} & set(data_of(site))
    # Again: there is nothing to delete, and all are told so.
    document = followed(site, site.app.post("/delete-bulk", names))
    assert document["status"] == "failed"
    assert site.app.get(document["next_url"]).location.endswith("/rows?failed")


def test_upload_of_pyams_is_followed_under_the_clients_id(site_of):
    site = site_of(run(blocks("coming_from/pyams")[0]))
    url = "/get-progress-status.json?progress_id=made-by-the-client"
    assert site.app.get(url).json == {"status": "unknown"}
    assert (
        site.app.post("/upload", {"progress_id": "made-by-the-client"}).text == "done"
    )
    for _ in range(2):
        document = site.app.get(url).json
        assert (document["status"], document["message"]) == ("completed", "Image 3")
    assert site.app.get("/tasks").text == ""


def test_tasks_of_django_spire_are_streamed_to_their_end(site_of):
    site = site_of(run(blocks("coming_from/django_spire")[0]))
    id = site.app.post("/start").text
    text = site.app.get(f"/stream?id={id}").text
    last = json.loads(text.splitlines()[-1])
    assert (last["status"], last["message"]) == ("complete", "6 and 4")
    assert {task["status"] for task in last["tasks"].values()} == {"complete"}


@pytest.mark.parametrize("chunked", [True, False])
def test_job_of_gws_runs_with_its_file(site_of, chunked):
    site = site_of(run(blocks("coming_from/gws")[0]))
    if chunked:
        chunk = {
            "uploadUid": "",
            "fileName": "f",
            "totalSize": "13",
            "chunkNumber": "0",
            "chunkCount": "1",
        }
        content = [("content", "blob", b"one two three")]
        uid = site.app.post("/upload", chunk, upload_files=content).json["uploadUid"]
        started = site.app.post("/import", {"file": uid})
    else:
        files = [("file", "f", b"one two three")]
        started = site.app.post("/import", upload_files=files)
    process_id = started.location.rpartition("=")[2]
    site.wait(process_id)
    document = site.status("/import", process_id)
    assert document["log"] == ["one", "two", "three"]
    assert site.result("/import", process_id).text == "3 lines"


PAGES = sorted(each.stem for each in (DOCS / "coming_from").glob("*.rst"))


@pytest.mark.parametrize("page", PAGES)
def test_each_page_has_one_example(page):
    assert len(blocks(f"coming_from/{page}")) == 1


@pytest.mark.parametrize("page", PAGES)
def test_each_page_has_a_table_that_can_be_read(page):
    """What crosses the margin, or is cut in two, is another table on a page."""
    text = (DOCS / "coming_from" / f"{page}.rst").read_text("utf-8")
    rule = re.search("^=+  =+$", text, re.MULTILINE)[0]
    _, head, rows, _ = text.split(rule)
    margin = slice(rule.index(" "), rule.rindex(" ") + 1)
    assert head.split()[-1] == "asyncview"
    rows = rows.strip("\n").split("\n")
    assert len(rows) > 9
    for row in rows:
        assert row[margin].strip() == "", row
        assert row[: margin.start].count("``") % 2 == 0, row
