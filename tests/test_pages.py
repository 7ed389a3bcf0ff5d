"""The stock pages, rendered by a small application that hands them their variables."""

import re

import pytest
from pyramid.config import Configurator
from pyramid.events import BeforeRender
from pyramid.renderers import get_renderer
from pyramid.renderers import render
from pyramid.renderers import render_to_response
from pyramid.request import Request
from webtest import TestApp

PAGES = ["start", "processing", "failed", "cancelled", "error"]
EVIL = '<script>alert("x")</script>'


def macros(name):
    return get_renderer(f"asyncview.templates:{name}.pt").implementation().macros


def add_page_variables(event):
    request = event["request"]
    event["layout"] = macros("layout")["layout"]
    event["progress_macro"] = macros("progress")["progress"]
    event["tasks_macro"] = macros("progress")["tasks"]
    event["static"] = lambda name: request.static_path(f"asyncview:static/{name}")
    event["lang"] = request.localizer.locale_name
    event["dir"] = "ltr"


def make_document(**changes):
    verbs = ("processing", "completed", "result", "events", "cancel", "delete")
    return {
        "completed": 45,
        "progress": 45,
        "progress_message": "45% completed...",
        "process_id": "abc",
        "status": "running",
        "label": "Yearly report",
        "tags": [],
        "owner": None,
        "queue_position": None,
        "percent": 45.0,
        "current": 1204,
        "total": 5000,
        "message": "Reading",
        "estimated": False,
        "rate": None,
        "tasks": [],
        "log": [],
        "version": 3,
        "created": "2026-01-01T10:00:00Z",
        "started": "2026-01-01T10:00:01Z",
        "updated": "2026-01-01T10:00:09Z",
        "finished": None,
        "attempt": 1,
        "cancel_requested": False,
        "error": None,
        "next_url": None,
        "links": {verb: f"/report/{verb}?process_id=abc" for verb in verbs},
        **changes,
    }


def make_task(id, **changes):
    return {
        "id": id,
        "name": id.title(),
        "status": "pending",
        "percent": None,
        "current": None,
        "total": None,
        "message": "",
        "estimated": False,
        "tasks": [],
        **changes,
    }


def make_variables(page, **changes):
    document = make_document(**changes.pop("doc", {}))
    variables = {
        "start": {
            "label": "Yearly report",
            "action": "/report",
            "csrf_token": "secret",
            "csrf_name": "csrf_token",
            "message": None,
        },
        "processing": {
            "doc": document,
            "poll_url": "/report/completed?process_id=abc&output_json=1",
            "poll_interval": 5,
            "refresh": True,
            "refresh_url": "/report/processing?process_id=abc",
            "still_url": "/report/processing?process_id=abc&refresh=0",
            "csrf_token": "secret",
            "csrf_name": "csrf_token",
            "page_title": "(45%) Yearly report",
            "can_cancel": True,
        },
        "failed": {
            "label": "Yearly report",
            "message": None,
            "error_id": "7f3a",
            "reason": "exception",
            "back_url": "/report",
        },
        "cancelled": {
            "label": "Yearly report",
            "message": None,
            "back_url": "/report",
        },
        "error": {"title": "Not found", "message": "Not here.", "back_url": "/"},
    }
    return variables[page] | changes


@pytest.fixture(scope="module")
def show():
    """Renders a page in an application and gives its response."""
    config = Configurator(settings={"available_languages": "en de fr it es"})
    config.include("pyramid_chameleon")
    config.add_translation_dirs("asyncview:locale")
    config.add_subscriber(add_page_variables, BeforeRender)
    config.add_static_view("_static", "asyncview:static")
    config.add_route("page", "/{page}")
    asked = {}

    def view(request):
        page = request.matchdict["page"]
        variables = make_variables(page, **asked)
        spec = f"asyncview.templates:{page}.pt"
        return render_to_response(spec, variables, request)

    config.add_view(view, route_name="page")
    app = TestApp(config.make_wsgi_app())

    def show(page, _locale="en", **changes):
        asked.clear()
        asked.update(changes)
        return app.get(f"/{page}", {"_LOCALE_": _locale})

    show.app = app
    return show


def without_space(text):
    return " ".join(text.split())


@pytest.mark.parametrize("page", PAGES)
def test_page_is_a_whole_page_in_its_language(show, page):
    html = show(page).text
    assert html.startswith("<!DOCTYPE html>")
    assert 'lang="en"' in html
    assert 'dir="ltr"' in html
    assert html.count("<main") == html.count("<h1") == 1
    assert "i18n:" not in html
    assert "tal:" not in html
    assert "metal:" not in html
    assert "None" not in html


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_inline(show, page):
    html = show(page).text
    assert re.findall(r"<script(?![^>]* src=)", html) == []
    assert re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", html) == []
    assert html.count("<script") == 1
    assert html.count('rel="stylesheet"') == 1


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_are_there(show, page):
    names = re.findall(r'"(/_static/[^"]+)"', show(page).text)
    assert len(names) >= 3
    for name in names:
        show.app.get(name, status=200)


@pytest.mark.parametrize(
    ("page", "changes"),
    [
        ("start", {"label": EVIL, "message": EVIL, "action": EVIL}),
        ("failed", {"label": EVIL, "message": EVIL, "error_id": EVIL}),
        ("cancelled", {"label": EVIL, "message": EVIL, "back_url": EVIL}),
        ("error", {"title": EVIL, "message": EVIL}),
        ("processing", {"page_title": EVIL, "csrf_token": EVIL, "poll_url": EVIL}),
        (
            "processing",
            {
                "doc": {
                    "label": EVIL,
                    "message": EVIL,
                    "progress_message": EVIL,
                    "log": [EVIL],
                    "tasks": [make_task("a", name=EVIL, message=EVIL)],
                }
            },
        ),
        (
            "processing",
            {
                "doc": {
                    "status": "failed",
                    "error": {"id": EVIL, "reason": "exception", "message": EVIL},
                }
            },
        ),
    ],
)
def test_what_comes_from_outside_is_escaped(show, page, changes):
    html = show(page, **changes).text
    assert html.count("<script") == 1
    assert "&lt;script&gt;" in html


def test_start_page_is_one_form_with_the_token(show):
    response = show("start", message="It takes a while.")
    form = response.form
    assert (form.method, form.action) == ("post", "/report")
    assert form["csrf_token"].value == "secret"
    assert "It takes a while." in response.text
    assert "<title>Yearly report</title>" in response.text


@pytest.mark.parametrize("page", ["start", "processing"])
def test_there_is_no_token_where_there_is_none(show, page):
    form = show(page, csrf_token=None).form
    assert "csrf_token" not in form.fields


def test_processing_page_shows_what_is_known(show):
    response = show("processing")
    text = without_space(response.text)
    assert "<title>(45%) Yearly report</title>" in text
    assert ">45%<" in text
    assert "1,204 of 5,000" in text
    assert ">Reading</p>" in text
    assert 'role="status"' in text
    assert "45% completed..." in text
    assert "You can close this page; the work goes on." in text
    bar = re.search(r"<progress[^>]*data-asyncview=\"bar\"[^>]*>", text)[0]
    assert 'value="45.0"' in bar
    assert 'max="100"' in bar
    label = re.search(r'aria-labelledby="([^"]+)"', bar)[1]
    assert re.search(rf'<h1[^>]* id="{label}"', text)


def test_script_finds_its_settings_in_the_page(show):
    text = show("processing", poll_interval=2.5).text
    assert 'data-asyncview-url="/report/completed?process_id=abc&amp;' in text
    assert 'data-asyncview-interval="2.5"' in text
    assert 'data-counts="${current} of ${total}"' in text


def test_bar_has_no_value_while_no_number_is_known(show):
    text = show("processing", doc={"percent": None, "total": None}).text
    bar = re.search(r"<progress[^>]*data-asyncview=\"bar\"[^>]*>", text)[0]
    assert "value" not in bar
    assert "hidden" not in bar
    assert "1,204 done" in without_space(text)


def test_counts_of_a_hundred_are_left_to_the_percentage(show):
    text = show("processing", doc={"current": 45, "total": 100}).text
    assert "45 of 100" not in without_space(text)


@pytest.mark.parametrize(
    ("position", "sentence"),
    [
        (0, "Next in the queue</li>"),
        (1, "1 job is ahead of yours</li>"),
        (1200, "1,200 jobs are ahead of yours</li>"),
    ],
)
def test_waiting_job_shows_its_place(show, position, sentence):
    doc = {"status": "queued", "queue_position": position, "percent": None}
    text = without_space(show("processing", doc=doc).text)
    assert sentence in text
    assert "> Waiting in the queue </p>" in text


def test_page_refreshes_itself_only_if_asked_to(show):
    refresh = r'<noscript\s*><meta http-equiv="refresh" content="5"></noscript>'
    text = show("processing").text
    assert re.search(refresh, text.partition("</head>")[0])
    assert 'href="/report/processing?process_id=abc"' in text
    assert "refresh=0" in text
    text = show("processing", refresh=False).text
    assert "http-equiv" not in text
    assert "Check again" in text
    assert "refresh=0" not in text


def test_page_of_an_ended_job_does_not_refresh(show):
    doc = {"status": "completed", "percent": 100, "next_url": "/report/result"}
    response = show("processing", doc=doc)
    assert "http-equiv" not in response.text
    assert response.forms == {}
    assert 'href="/report/result"' in response.text


def test_cancel_form_names_the_job_and_carries_the_token(show):
    form = show("processing").form
    assert (form.method, form.action) == ("post", "/report/cancel?process_id=abc")
    assert form["process_id"].value == "abc"
    assert form["csrf_token"].value == "secret"
    assert show("processing", can_cancel=False).forms == {}


def test_job_that_is_asked_to_stop_says_so(show):
    text = show("processing", doc={"cancel_requested": True}).text
    button = re.search(r"<button.*?</button>", text, re.S)[0]
    assert "disabled" in button
    assert "Stopping…" in button
    assert 'data-status="stopping"' in text


def test_log_is_folded_and_hidden_while_there_is_none(show):
    text = show("processing", doc={"log": ["one", "two"]}).text
    assert "one\ntwo</pre>" in text
    assert "hidden" not in re.search(r"<details[^>]*>", text)[0]
    assert "hidden" in re.search(r"<details[^>]*>", show("processing").text)[0]


def test_tasks_are_listed_with_their_states_and_parts(show):
    part = make_task("part", status="running", percent=20.0, current=3, total=15)
    tasks = [
        make_task("read", status="complete", percent=100),
        make_task("send", status="error", message="Refused"),
        make_task("sum", status="running", percent=50.5, tasks=[part]),
        make_task("print"),
    ]
    text = show("processing", doc={"tasks": tasks}).text
    shown = without_space(text.partition("<template")[0])
    states = re.findall(r'data-id="(\w+)" data-status="(\w+)"', shown)
    assert states == [
        ("read", "complete"),
        ("send", "error"),
        ("sum", "running"),
        ("part", "running"),
        ("print", "pending"),
    ]
    assert "3 of 15" in shown
    assert ">50%<" in shown
    assert "Refused" in shown
    bars = re.findall(
        r'<progress[^>]*data-task="bar"[^>]*>', text.partition("<template")[0]
    )
    values = [re.search(r'value="([^"]*)"', bar)[1] for bar in bars]
    assert values == ["100", "0", "50.5", "20.0", "0"]
    assert not any("hidden" in bar for bar in bars)


def test_what_is_an_estimate_is_said_to_be_one(show):
    doc = {"estimated": True, "percent": 12.7}
    task = make_task("sum", status="running", percent=12.7, estimated=True)
    text = without_space(show("processing", doc={**doc, "tasks": [task]}).text)
    assert text.partition("<template")[0].count("about 12%") == 2
    # At the end nothing is guessed any more.
    ended = show("processing", doc={**doc, "status": "failed", "percent": 12.7}).text
    assert "about 12%" not in without_space(ended)


def test_failure_in_the_page_is_an_alert_with_its_reference(show):
    error = {"id": "7f3a", "reason": "exception", "message": None}
    text = show("processing", doc={"status": "failed", "error": error}).text
    alert = re.search(r'<div[^>]*role="alert".*?</div>', text, re.S)[0]
    assert "The job failed." in alert
    assert "7f3a" in alert


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        ("exception", "An error occurred while your job ran"),
        ("interrupted", "The server was stopped while your job ran"),
        ("timeout", "took longer than it may"),
        ("not_reached", "was not let in"),
        ("aborted", "ended without saving anything"),
        ("anything else", "The job failed."),
    ],
)
def test_failure_page_explains_the_reason(show, reason, sentence):
    text = show("failed", reason=reason, message="No such file").text
    assert sentence in text
    assert "No such file" in text
    assert "7f3a" in text
    assert "Try again" in text
    # Two buttons that lead to one place are a riddle.
    assert text.count('href="/report"') == 1


def test_cancelled_page_says_so(show):
    assert "The job was cancelled." in show("cancelled").text
    text = show("cancelled", message="Nothing was changed").text
    # What the view says of every end without success says nothing of who ended it.
    assert text.index("The job was cancelled.") < text.index("Nothing was changed")


def test_error_page_may_lead_nowhere(show):
    assert "Back" in show("error").text
    assert "<a " not in show("error", back_url=None).text


@pytest.mark.parametrize(
    ("page", "language", "sentence"),
    [
        ("start", "de", "Starten"),
        ("processing", "de", "Sie können diese Seite schließen"),
        ("processing", "de", "1.204 von 5.000"),
        ("processing", "de", 'data-counts="${current} von ${total}"'),
        ("processing", "de", ">45\N{NO-BREAK SPACE}%<"),
        ("processing", "fr", "1\N{NARROW NO-BREAK SPACE}204 sur 5"),
        ("processing", "it", "Annulla"),
        ("processing", "es", "Comprobar de nuevo"),
        ("failed", "de", "Bei der Ausführung Ihres Auftrags"),
        ("cancelled", "de", "Der Auftrag wurde abgebrochen."),
        ("cancelled", "es", "La tarea se ha cancelado."),
        ("cancelled", "fr", "La tâche a été annulée."),
        ("cancelled", "it", "operazione è stata annullata."),
        ("error", "it", "Indietro"),
    ],
)
def test_page_is_translated(show, page, language, sentence):
    text = show(page, language).text
    assert sentence in text
    assert f'lang="{language}"' in text


def test_progress_macro_serves_in_a_page_of_ones_own(tmp_path):
    own = tmp_path / "own.pt"
    own.write_text(
        '<body><div metal:use-macro="progress_macro">'
        '<p metal:fill-slot="details">More to read</p></div></body>'
    )
    with Configurator() as config:
        config.include("pyramid_chameleon")
        config.add_subscriber(add_page_variables, BeforeRender)
        config.add_static_view("_static", "asyncview:static")
        config.commit()
        request = Request.blank("/")
        request.registry = config.registry
        variables = {"doc": make_document(), "poll_url": "/poll"}
        html = render(str(own), variables, request)
    assert 'data-asyncview-interval="5"' in html
    assert "<h2" in html
    assert "More to read" in html
    assert "<form" not in html
