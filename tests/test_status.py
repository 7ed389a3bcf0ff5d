"""The status document: what it has, and that it never goes back."""

import json
import threading
import time
from datetime import datetime
from datetime import timezone

import pytest
from conftest import PATIENCE
from conftest import eventually
from people import job_that_is
from people import let_go
from people import working
from pyramid.i18n import TranslationString
from transaction.interfaces import TransientError

from asyncview import BaseAsyncView
from asyncview.progress import Snapshot
from asyncview.pyramid.answers import dumps
from asyncview.pyramid.status import label_of
from asyncview.pyramid.status import rate

NUMBER = (int, float)
NONE = type(None)
SHAPE = {
    "progress_message": str,
    "process_id": str,
    "status": str,
    "label": str,
    "tags": list,
    "owner": (str, NONE),
    "queue_position": (int, NONE),
    "percent": (float, NONE),
    "current": (*NUMBER, NONE),
    "total": (*NUMBER, NONE),
    "message": str,
    "estimated": bool,
    "rate": (float, NONE),
    "tasks": list,
    "log": list,
    "version": int,
    "created": str,
    "started": (str, NONE),
    "updated": (str, NONE),
    "finished": (str, NONE),
    "attempt": int,
    "cancel_requested": bool,
    "error": (dict, NONE),
    "next_url": (str, NONE),
    "links": dict,
}
LINKS = {"processing", "completed", "result", "events", "cancel", "delete"}
STAGES = ["started", "running", "completed", "failed", "aborted", "cancelled"]


class Told(BaseAsyncView):
    """Takes steps as the test says: each is a function of the view."""

    tags = ("a", "b")
    success_url = "/there"

    def __run__(self):
        registry = self.request.registry
        while True:
            step = registry.steps.get(timeout=PATIENCE)
            if step is None:
                return "done"
            step(self)
            registry.taken.release()


def telling(config):
    import queue

    config.registry.steps = queue.Queue()
    config.registry.taken = threading.Semaphore(0)
    config.add_async_view(Told, "told")


@pytest.fixture(scope="module")
def shared(make_shared_site):
    def configure(config):
        working(config)
        telling(config)

    return make_shared_site(configure)


@pytest.fixture
def site(shared):
    yield shared
    shared.registry.steps.put(None)
    let_go(shared)
    while not shared.registry.steps.empty():
        shared.registry.steps.get()


def tell(site, step):
    site.registry.steps.put(step)
    assert site.registry.taken.acquire(timeout=PATIENCE)


def told(site, process_id):
    return site.status("/told", process_id)


def shown(site, process_id, **wanted):
    """The document, once it shows this."""

    def is_shown():
        doc = told(site, process_id)
        return all(doc[name] == value for name, value in wanted.items())

    eventually(is_shown)
    return told(site, process_id)


def finish(site, process_id):
    site.registry.steps.put(None)
    site.wait(process_id)
    return told(site, process_id)


def document_at(site, stage):
    if stage == "started":
        headers = {"Accept": "application/json"}
        return site.app.post("/work", headers=headers, status=202).json
    return site.status("/work", job_that_is(site, stage))


@pytest.mark.parametrize("stage", STAGES)
def test_the_document_has_all_keys_always(site, stage):
    doc = document_at(site, stage)
    netsight = {"completed", "progress"}
    assert set(doc) == set(SHAPE) | netsight
    for name, types in SHAPE.items():
        assert isinstance(doc[name], types), name
        if types is int or types == (int, NONE):
            assert not isinstance(doc[name], bool), name
    assert doc["completed"] == doc["progress"]
    assert set(doc["links"]) == LINKS
    assert all(link.startswith("/work/") for link in doc["links"].values())
    ended = stage not in ("started", "running")
    assert (doc["finished"] is not None) == ended
    assert (doc["next_url"] is not None) == ended
    if stage in ("failed", "aborted"):
        assert set(doc["error"]) == {"id", "reason", "message"}
        assert all(isinstance(value, str) for value in doc["error"].values())
    else:
        assert doc["error"] is None


@pytest.mark.parametrize("stage", STAGES)
def test_times_are_iso_8601_in_utc(site, stage):
    doc = document_at(site, stage)
    for name in ("created", "started", "updated", "finished"):
        if doc[name] is None:
            continue
        assert doc[name].endswith("Z")
        moment = datetime.fromisoformat(doc[name].replace("Z", "+00:00"))
        now = datetime.now(timezone.utc)
        assert abs((now - moment).total_seconds()) < 3600
    if doc["finished"]:
        assert doc["created"] <= doc["started"] <= doc["finished"]


def test_a_job_says_what_it_is(site):
    process_id = site.start("/told")
    doc = told(site, process_id)
    assert (doc["label"], doc["tags"], doc["owner"]) == ("Told", ["a", "b"], None)


def test_before_there_is_progress_it_is_false(site):
    process_id = site.start("/told")
    doc = told(site, process_id)
    assert doc["completed"] is False
    assert (doc["percent"], doc["current"], doc["total"]) == (None, None, None)


def test_progress_without_a_total_has_no_percent(site):
    process_id = site.start("/told")
    tell(site, lambda view: view.progress.update(7, message="seven"))
    doc = shown(site, process_id, message="seven")
    assert (doc["current"], doc["percent"], doc["completed"]) == (7, None, False)
    # Numbers were given, so at the end it is one.
    assert finish(site, process_id)["completed"] == 100


def test_progress_without_numbers_ends_with_true(site):
    process_id = site.start("/told")
    tell(site, lambda view: view.progress.update(message="on"))
    shown(site, process_id, message="on")
    doc = finish(site, process_id)
    assert doc["completed"] is True
    assert doc["percent"] is None
    assert doc["progress_message"] == "Completed"


def test_a_running_job_is_never_shown_as_whole(site):
    process_id = site.start("/told")
    tell(site, lambda view: view.progress.update(4, 4))
    doc = shown(site, process_id, current=4)
    assert (doc["completed"], doc["percent"]) == (99.9, 99.9)
    assert doc["progress_message"] == "99.9% completed..."
    doc = finish(site, process_id)
    assert (doc["completed"], doc["percent"]) == (100, 100.0)
    assert type(doc["completed"]) is int
    assert doc["progress_message"] == "100% completed..."


def test_whole_percents_are_whole_numbers(site):
    process_id = site.start("/told")
    tell(site, lambda view: view.set_progress(None, 45.04))
    doc = shown(site, process_id, completed=45)
    assert type(doc["completed"]) is int
    assert doc["percent"] == 45.0
    assert doc["progress_message"] == "45% completed..."


def test_a_failed_job_is_not_whole(site):
    def fail(view):
        view.progress.update(1, 1)
        view.request.registry.taken.release()
        raise ZeroDivisionError

    process_id = site.start("/told")
    tell(site, fail)
    site.wait(process_id)
    doc = told(site, process_id)
    assert (doc["completed"], doc["percent"]) == ("ERROR", 99.9)
    assert doc["progress_message"] == "Failed"
    # `None` of error_url: success_url where that is set.
    assert doc["next_url"] == "/there"


def test_next_url_is_where_the_view_sends_its_user(site):
    process_id = site.start("/told")
    assert finish(site, process_id)["next_url"] == "/there"
    response = site.app.get(f"/told/processing?process_id={process_id}", status=303)
    assert response.location == "http://localhost/there"


def test_next_url_of_a_failure_is_error_url(site):
    def fail(view):
        view.error_url = "/back"
        view.request.registry.taken.release()
        raise ZeroDivisionError

    process_id = site.start("/told")
    tell(site, fail)
    site.wait(process_id)
    assert told(site, process_id)["next_url"] == "/back"


def test_the_rate_is_a_second(site):
    process_id = site.start("/told")
    tell(site, lambda view: view.progress.update(1000, 2000))
    doc = shown(site, process_id, current=1000)
    assert doc["rate"] > 0


@pytest.mark.parametrize(
    ("snapshot", "expected"),
    [
        # With the job, which began at 1000, and at 1016 of itself.
        (Snapshot(1, 1020.0, 200), 10.0),
        (Snapshot(1, 1020.0, 200, since=1016.0), 50.0),
        (Snapshot(1, 1020.0, 200, since=1016.0, base=180), 5.0),
        # It has just begun, as far as is seen.
        (Snapshot(1, 1020.0, 200, since=1020.0, base=200), None),
        (Snapshot(1, 1020.0, 0, since=1020.0), None),
        (Snapshot(1, 1020.0, None), None),
        (Snapshot(1, None, 200), None),
        (Snapshot(1, 1020.0, -200), None),
        (Snapshot(1, 1000.0, 10**308), None),
    ],
)
def test_the_rate_counts_from_when_the_count_began(snapshot, expected):
    assert rate(1000.0, snapshot) == expected
    assert rate(None, Snapshot(1, 1020.0, 200)) is None


@pytest.fixture
def long_ago(site, monkeypatch):
    """The id of a job that began, and counted, a thousand seconds ago."""
    runner = site.engine.runner
    with monkeypatch.context() as context:
        context.setattr(runner, "clock", lambda: time.time() - 1000)
        process_id = site.start("/told")
        tell(site, lambda view: view.progress.update(20, 20, "Reading"))
        shown(site, process_id, current=20)
    return process_id


def test_the_rate_of_a_second_loop_is_its_own(site, long_ago):
    def write(view):
        next(view.progress.track(range(6000), message="Writing"))
        view.progress.advance(2000)

    tell(site, write)
    doc = shown(site, long_ago, current=2000)
    assert doc["rate"] > 20
    assert doc["percent"] == 99.9
    assert finish(site, long_ago)["rate"] == doc["rate"]


def test_the_rate_of_a_new_attempt_is_its_own(site, long_ago):
    def conflict(view):
        view.request.registry.taken.release()
        raise TransientError

    tell(site, conflict)
    tell(site, lambda view: view.progress.update(2000, 6000))
    doc = shown(site, long_ago, attempt=2, current=2000)
    assert doc["rate"] > 20


def test_the_last_log_lines_are_shown(site):
    process_id = site.start("/told")
    tell(site, lambda view: view.log.info("line %d", 1))
    assert shown(site, process_id, log=["line 1"])
    assert finish(site, process_id)["log"] == ["line 1"]


HOSTILE = "</script><b> \u2028 \u2029 \x00 \udcff \U0001f600 \"'\\"


def test_any_message_makes_strict_json(site):
    process_id = site.start("/told")

    def say(view):
        view.label = HOSTILE
        view.log.info("%s", HOSTILE)
        view.progress.update(float("nan"), float("inf"), HOSTILE)

    tell(site, say)
    for each in ("completed", "events"):
        url = f"/told/{each}?process_id={process_id}&output_json=1"
        eventually(lambda url=url: b"script>" in site.app.get(url).body)
        body = site.app.get(url).body
        text = body.decode("utf-8", "strict").rpartition("data: ")[2]
        assert "<" not in text
        assert "\u2028" not in text
        assert "\u2029" not in text

        def refuse(constant):
            raise AssertionError(constant)

        doc = json.loads(text, parse_constant=refuse)
        assert doc["message"] == HOSTILE.replace("\udcff", "?")
        assert doc["current"] is None
    page = site.app.get(f"/told/processing?process_id={process_id}")
    assert "<b>" not in page.text
    assert finish(site, process_id)["label"] == HOSTILE.replace("\udcff", "?")
    site.app.get(f"/told/result?process_id={process_id}", status=200)


def test_halves_of_characters_do_not_break_the_failure_page(site):
    def fail(view):
        view.label = view.error_msg = HOSTILE
        view.success_url = None
        view.request.registry.taken.release()
        raise ZeroDivisionError(HOSTILE)

    process_id = site.start("/told")
    tell(site, fail)
    site.wait(process_id)
    page = site.app.get(f"/told/result?process_id={process_id}", status=500)
    assert "<b>" not in page.text


def test_nan_is_refused_and_not_sent():
    with pytest.raises(ValueError, match="JSON"):
        dumps(float("nan"))


def test_the_version_only_grows(site):
    versions = []

    def look():
        doc = told(site, process_id)
        versions.append((doc["version"], doc["status"]))
        return doc["version"]

    headers = {"Accept": "application/json"}
    doc = site.app.post("/told", headers=headers, status=202).json
    process_id = doc["process_id"]
    versions.append((doc["version"], doc["status"]))
    eventually(lambda: told(site, process_id)["status"] == "running")
    before = look()
    for number in range(3):
        tell(site, lambda view, number=number: view.progress.update(number, 10))
        shown(site, process_id, current=number)
        assert look() > before
        before = look()
    site.engine.live.session(process_id)
    site.app.post(f"/told/cancel?process_id={process_id}", status=303)
    assert look() > before
    site.registry.steps.put(lambda view: view.progress.update())
    site.wait(process_id)
    assert told(site, process_id)["status"] == "cancelled"
    assert look() > versions[-2][0]
    numbers = [version for version, _ in versions]
    assert numbers == sorted(numbers)
    assert versions[0] == (1, "queued")


def test_the_version_does_not_go_back_with_a_new_attempt(site):
    class Busy(TransientError):
        pass

    process_id = site.start("/told")
    for number in range(3):
        tell(site, lambda view, number=number: view.progress.update(number, 10))
        shown(site, process_id, current=number)
    before = told(site, process_id)["version"]

    def conflict(view):
        view.request.registry.taken.release()
        raise Busy

    tell(site, conflict)
    tell(site, lambda view: view.progress.update(1, 20))
    doc = shown(site, process_id, total=20)
    assert doc["attempt"] == 2
    assert doc["version"] > before
    assert finish(site, process_id)["version"] > doc["version"]


def test_the_end_looks_the_same_before_and_after_it_was_filed(site):
    process_id = job_that_is(site, "running")
    site.app.post(f"/work/cancel?process_id={process_id}", status=303)
    site.wait(process_id)
    first = site.status("/work", process_id)
    assert first["cancel_requested"] is True
    store = site.db.open().root()["asyncview:tests"]

    def is_filed():
        store._p_jar.sync()
        return process_id not in store.shard(process_id).entries

    eventually(is_filed)
    store._p_jar.close()
    assert site.status("/work", process_id) == first


def test_the_place_in_the_queue_counts_down(make_site, gate):
    site = make_site(lambda config: working(config, gate), asyncview__threads="1")
    job_that_is(site, "running")
    headers = {"Accept": "application/json"}
    docs = [site.app.post("/work", headers=headers, status=202).json for _ in range(3)]
    assert [doc["queue_position"] for doc in docs] == [0, 1, 2]
    ids = [doc["process_id"] for doc in docs]
    now = [site.status("/work", each) for each in ids]
    assert [doc["queue_position"] for doc in now] == [0, 1, 2]
    assert {doc["progress_message"] for doc in now} == {"Waiting in the queue"}
    site.app.post(f"/work/cancel?process_id={ids[0]}")
    eventually(
        lambda: (
            [site.status("/work", each)["queue_position"] for each in ids]
            == [None, 0, 1]
        )
    )


def test_the_document_speaks_the_readers_language(site):
    process_id = job_that_is(site, "completed")
    url = f"/work/completed?process_id={process_id}&output_json=1"
    german = site.app.get(f"{url}&_LOCALE_=de")
    english = site.app.get(url)
    assert german.json["progress_message"] != english.json["progress_message"]
    assert german.headers["ETag"] != english.headers["ETag"]


@pytest.mark.parametrize(
    ("language", "percent"),
    [
        ("en", "99.9"),
        ("de", "99,9"),
        ("es", "99,9"),
        ("fr", "99,9"),
        ("it", "99,9"),
        ("ja", "99.9"),
    ],
)
def test_a_percentage_is_written_as_the_reader_writes_it(site, language, percent):
    process_id = site.start("/told")
    tell(site, lambda view: view.progress.update(4, 4))
    shown(site, process_id, current=4)
    url = f"/told/completed?process_id={process_id}&output_json=1&_LOCALE_={language}"
    doc = site.app.get(url).json
    assert doc["progress_message"].startswith(percent)
    assert doc["completed"] == doc["progress"] == doc["percent"] == 99.9
    finish(site, process_id)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("YearlyReport", "Yearly report"),
        ("PDFReport", "PDF report"),
        ("MyHTTPView", "My HTTP view"),
        ("HTML5Export", "HTML5 export"),
        ("ExportUserIDs", "Export user IDs"),
        ("MakeAReport", "Make a report"),
        ("GetIDsOfUsers", "Get IDs of users"),
        ("OAuthJob", "OAuth job"),
        ("IPv6Scan", "IPv6 scan"),
        ("Fibonacci2", "Fibonacci2"),
        ("import_csv", "Import csv"),
        ("_", ""),
    ],
)
def test_a_view_without_a_label_is_called_as_its_class(name, label):
    assert label_of(type(name, (BaseAsyncView,), {})(None, None)) == label


def test_a_job_speaks_the_language_of_who_started_it(site):
    running = TranslationString("Running", "asyncview")
    process_id = site.start("/told?_LOCALE_=de")

    def translated(view):
        view.progress.update(message=view.request.localizer.translate(running))

    tell(site, translated)
    shown(site, process_id, message="Wird ausgeführt")
    tell(site, lambda view: view.progress.update(message=running))
    shown(site, process_id, message="Running")
    finish(site, process_id)


def test_a_kept_document_is_as_fresh_as_the_records(site):
    process_id = site.start("/told")
    for number in range(4):
        tell(site, lambda view, number=number: view.progress.update(number, 10))
        assert shown(site, process_id, current=number)["percent"] == 10.0 * number
