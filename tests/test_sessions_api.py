"""Sessions that are no job: made, opened, read, listed and ended by any code."""

import json
import pickle
import subprocess
import sys
import threading
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor

import pytest
import transaction
from conftest import PATIENCE
from conftest import eventually
from people import Policy
from pyramid.i18n import TranslationString
from pyramid.request import Request
from pyramid.response import Response
from pyramid.session import SignedCookieSessionFactory
from ZODB.DB import DB
from ZODB.FileStorage import FileStorage

import asyncview
from asyncview import AsyncViewError
from asyncview import InvalidTransition
from asyncview import JobCancelled
from asyncview import ProgressSession
from asyncview.failure import Failure
from asyncview.progress import NOTHING
from asyncview.pyramid.jobs import Jobs
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.store import transact


def request_of(site, user=None, **environ):
    """A request as a view of the application has it, outside of its tweens."""
    environ |= {"REMOTE_USER": user} if user else {}
    request = Request.blank("/", environ)
    request.registry = site.registry
    request.context = None
    return request


def entry_of(site, id):
    with reading(site.db) as connection:
        entry = store_of(connection, "tests").find(id)
        if entry is not None:
            entry.job.state._p_activate()
        return entry


def state_of(site, id):
    return entry_of(site, id).job.state


@pytest.fixture
def site(make_site):
    return make_site(lambda config: config.set_security_policy(Policy()))


@pytest.fixture
def api(site):
    """``request.asyncview`` for a user."""

    def api(user="ann"):
        return Jobs(request_of(site, user))

    return api


# Made and read


def test_session_is_stored_at_once_in_a_transaction_of_its_own(site, api):
    made = api().create_session(
        label="Import",
        tags=("members", 7),
        tasks={"read": "Reading"},
        message="Begins",
        current=1,
        total=4,
    )
    assert state_of(site, made.id).status == "running"
    # Nobody has asked for a commit, and none is open.
    found = api().get_session(made.id)
    assert (found.id, found.label, found.owner) == (made.id, "Import", "ann")
    assert found.tags == ("members", "7")
    assert found.created == found.started
    assert found.to_dict() == made.to_dict()
    assert found.to_dict()["message"] == "Begins"


def test_what_people_read_of_a_session_is_in_the_language_of_its_request(api):
    def text(id, default):
        return TranslationString(id, default=default)

    made = api().create_session(
        label=text("label_import", "Import"),
        tasks={"read": text("task_read", "Reading")},
        message=text("msg_begin", "It begins"),
    )
    assert made.label == "Import"
    assert made.to_dict()["tasks"]["read"]["name"] == "Reading"
    assert made.to_dict()["message"] == "It begins"


FACTS = ("id", "label", "owner", "tags", "created", "started")


def facts(session):
    return [getattr(session, name) for name in FACTS]


def test_session_tells_what_it_is_whoever_has_it(site, api):
    made = api().create_session("mine", label="Import", tags=("members", 7))
    state = state_of(site, "mine")
    told = ["mine", "Import", "ann", ("members", "7"), state.started, state.started]
    (running,) = api().running()
    assert facts(made) == facts(running) == facts(api().get_session("mine")) == told
    # Another process has it, as far as this one knows.
    site.engine.runner.worker, own = "another", site.engine.runner.worker
    site.engine.live.end("mine")
    assert facts(api().open_session("mine")) == told
    site.engine.runner.worker = own
    assert facts(ProgressSession()) == [None, "", None, (), None, None]


def test_session_of_a_job_tells_what_the_job_is(make_site):
    seen = []

    class Work(asyncview.BaseAsyncView):
        label = "Yearly report"
        tags = ("members",)

        def __run__(self):
            seen.append(facts(self.progress))

    def configure(config):
        config.set_security_policy(Policy())
        config.add_async_view(Work, "work")

    site = make_site(configure)
    browser = site.browser(REMOTE_USER="ann")
    document = site.run("/work", app=browser)
    assert document["status"] == "completed"
    reader = Jobs(request_of(site, "ann")).get_session(document["process_id"])
    assert seen == [facts(reader)]
    assert seen[0][1:4] == ["Yearly report", "ann", ("members",)]


def test_what_is_said_is_seen_by_others_and_what_is_omitted_stays(api):
    made = api().create_session(current=1, total=4, message="Begins")
    found = api().get_session(made.id)
    assert found.overall_percent == 25
    made.update(current=2)
    eventually(lambda: found.overall_percent == 50)
    assert found.to_dict()["message"] == "Begins"
    made.update(message="Goes on")
    eventually(lambda: found.to_dict()["message"] == "Goes on")
    assert found.overall_percent == 50
    made.finish()
    # The end erases nothing either.
    assert found.to_dict()["message"] == "Goes on"


def test_reading_changes_nothing(site, api):
    made = api().create_session()
    made.finish("Done")
    site.beats()
    before = site.db.lastTransaction()
    for _ in range(3):
        found = api().get_session(made.id)
        assert found.is_complete
        assert list(found.stream(0.01))
    assert site.db.lastTransaction() == before


def test_document_that_was_given_does_not_change_under_its_reader(api):
    made = api().create_session(current=1, total=4)
    document = made.to_dict()
    made.update(3)
    assert document["overall_percent"] == 25


def test_million_updates_are_no_million_writes(site, api):
    made = api().create_session(total=100)
    site.beats()
    before = state_of(site, made.id).live._p_serial
    for i in range(10_000):
        made.update(i)
    assert made.snapshot.version < 1000
    eventually(lambda: state_of(site, made.id).live._p_serial != before)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tags", 5),
        ("tasks", ["read"]),
        ("tasks", {5: "Read"}),
        ("keep", "soon"),
        ("keep", -1),
        ("success_url", "//evil.example"),
    ],
)
def test_what_may_not_be_said_is_refused_by_its_name(api, name, value):
    with pytest.raises(ValueError, match=rf"^{name} = "):
        api().create_session(**{name: value})


@pytest.mark.parametrize(
    "terms",
    [
        {"success_url": "//evil.example"},
        {"error_url": "https://evil.example/"},
        {"id": "../etc"},
        {"id": ""},
        {"id": "x" * 65},
        {"keep": -1},
        {"keep": float("nan")},
    ],
)
def test_what_may_not_be_said_is_refused_and_makes_nothing(site, api, terms):
    with pytest.raises(ValueError, match=r"."):
        api().create_session(**terms)
    assert api().running() == []


def test_what_is_said_is_bounded(site, api):
    made = api().create_session(label=300 * "x", tags="one", keep=float("inf"))
    found = api().get_session(made.id)
    assert (len(found.label), found.tags) == (200, ("one",))
    made.finish()
    # Whenever it expires, its index has a place for it.
    eventually(lambda: not site.engine.live.ended and made.id in filed(site))


def filed(site):
    with reading(site.db) as connection:
        return [id for _, id in store_of(connection, "tests").expiry]


def test_unknown_term_is_a_type_error(api):
    with pytest.raises(TypeError, match="colour"):
        api().create_session(colour="red")


# Ids


def test_id_may_be_given_beforehand(api):
    id = api().new_id()
    assert api().get_session(id) is None
    made = api().create_session(id=id)
    assert made.id == id
    assert api().get_session(id).id == id


def test_id_that_is_taken_is_refused_and_its_session_unharmed(api):
    made = api().create_session(id="mine", label="First")
    with pytest.raises(ValueError, match="mine"):
        api("bob").create_session(id="mine", label="Second")
    assert api().get_session("mine").label == "First"
    made.finish()
    with pytest.raises(ValueError, match="mine"):
        api().create_session(id="mine")


def test_of_two_that_take_an_id_at_once_one_gets_it(api):
    begin = threading.Barrier(4)

    def make(number):
        begin.wait(PATIENCE)
        try:
            return api().create_session(id="one", label=str(number)).id
        except ValueError:
            return None

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(make, range(4)))
    assert sorted(made, key=str) == [None, None, None, "one"]


def test_each_run_has_an_id_of_its_own(api):
    first, second = (api().create_session(message=text) for text in ("a", "b"))
    first.finish(url="/first")
    assert first.id != second.id
    assert api().get_session(second.id).to_dict()["message"] == "b"
    assert not api().get_session(second.id).is_complete


# Owners


def test_session_is_its_owners_and_an_admins(api):
    made = api().create_session()
    assert api("bob").get_session(made.id) is None
    assert api("bob").open_session(made.id) is None
    assert api("admin").get_session(made.id).id == made.id
    assert api().get_session("unknown") is None
    assert api().get_session(None) is None


def test_owner_may_be_said(api):
    made = api().create_session(owner="bob")
    assert api().get_session(made.id) is None
    assert api("bob").get_session(made.id).owner == "bob"
    anybodys = api().create_session(owner=None)
    assert api("bob").get_session(anybodys.id).owner is None


def test_anonymous_session_belongs_to_its_web_session(make_site):
    def view(request):
        id = request.GET.get("id")
        if id is None:
            return Response(request.asyncview.create_session().id)
        return Response(str(request.asyncview.get_session(id) is not None))

    def configure(config):
        config.set_session_factory(SignedCookieSessionFactory("secret"))
        config.add_view(view, name="view")

    site = make_site(configure)
    mine, other = site.browser(), site.browser()
    id = mine.get("/view").text
    assert mine.get(f"/view?id={id}").text == "True"
    assert other.get(f"/view?id={id}").text == "False"


# Opened


def test_opened_session_is_the_one_that_this_process_has(api):
    made = api().create_session()
    assert api().open_session(made.id) is made
    made.finish()
    assert api().open_session(made.id) is None
    assert api().open_session("unknown") is None


def test_session_of_another_process_goes_on_where_it_was(site, api):
    first = api().create_session(current=1, total=4, message="Begins", tasks={"a": "A"})
    with first.task("a", weight=2) as task:
        task.task("part").update(1, 2)
        site.beats()
        before = first.to_dict()
        # Another process has it, as far as this one knows.
        runner = site.engine.runner
        own, runner.worker = runner.worker, "another"
        site.engine.live.end(first.id)
        second = api().open_session(first.id)
        assert second is not first
        assert second.to_dict() == before
        second.task("a").update(message="Goes on")
        second.finish()
        runner.worker = own
    found = api().get_session(first.id)
    assert found.is_complete
    assert found.to_dict()["tasks"]["a"]["message"] == "Goes on"
    # Whoever had it before has it no more.
    with pytest.raises(InvalidTransition):
        first.fail("late")
    assert found.is_complete


# Listed


def test_running_lists_sessions_newest_first_and_the_list_shrinks(api):
    made = [
        api(user).create_session(label=f"{user} {tag}", tags=(tag,))
        for user in ("ann", "bob")
        for tag in ("red", "blue")
    ]

    def labels(*args, **kw):
        return [each.label for each in api().running(*args, **kw)]

    assert labels() == ["bob blue", "bob red", "ann blue", "ann red"]
    assert labels(owner="bob") == ["bob blue", "bob red"]
    assert labels(tag="red") == ["bob red", "ann red"]
    assert labels("ann", "red") == ["ann red"]
    assert not hasattr(api().running()[0], "update")
    made[0].finish()
    made[1].fail("Refused")
    assert labels(owner="ann") == []


@pytest.mark.parametrize("owner", ["carl", "", 7, b"ann", ("ann",), object(), True])
def test_running_of_an_owner_who_is_unknown_is_empty(api, owner):
    api().create_session()
    assert api().running(owner=owner) == []
    assert api().running(owner=owner, tag="red") == []


def test_running_tells_owners_by_their_type_too(api):
    number = api().create_session(owner=7)
    text = api().create_session(owner="7")
    assert [each.id for each in api().running(owner=7)] == [number.id]
    assert [each.id for each in api().running(owner="7")] == [text.id]


def test_running_finds_tags_as_they_were_given(api):
    made = api().create_session(tags=("members", 7, ""))
    for tag in ("members", 7, "7", ""):
        assert [each.id for each in api().running(tag=tag)] == [made.id]
    for tag in ("member", "Members", 8):
        assert api().running(tag=tag) == []


@pytest.mark.parametrize("tag", [("members",), ["members"], {"members"}, b"members"])
def test_running_takes_one_tag(api, tag):
    with pytest.raises(ValueError, match="tag"):
        api().running(tag=tag)


def test_running_has_what_the_same_request_has_made(make_site):
    def view(request):
        before = len(request.asyncview.running())
        made = request.asyncview.create_session(label="Mine")
        labels = [each.label for each in request.asyncview.running()]
        made.finish()
        after = len(request.asyncview.running())
        return Response(json_body=[before, labels, after])

    site = make_site(lambda config: config.add_view(view, name="view"))
    for _ in range(2):
        assert site.app.get("/view").json == [0, ["Mine"], 0]


# Ended


def test_finish_tells_a_text_yet_to_be_translated_as_it_reads(site, api):
    made = api().create_session()
    made.finish(TranslationString("done", default="All ${n}", mapping={"n": 5}))
    assert entry_of(site, made.id).job.term("success_msg") == "All 5"
    assert api().get_session(made.id).to_dict()["message"] == "All 5"


def test_finish_says_message_and_address(site, api):
    made = api().create_session(success_msg="Old", success_url="/old", error_url="/e")
    made.update(1, 4)
    made.finish("All imported", "/members")
    job = entry_of(site, made.id).job
    assert job.state.status == "completed"
    assert job.term("success_msg") == "All imported"
    assert job.term("success_url") == "/members"
    found = api().get_session(made.id)
    assert (found.status, found.overall_percent) == ("complete", 100)
    assert found.to_dict()["message"] == "All imported"
    assert made.is_complete


def test_text_of_a_failure_is_shown_and_an_exception_is_not(site, api, caplog):
    made = api().create_session(error_msg="The import failed")
    made.fail(ValueError("a secret"))
    job = entry_of(site, made.id).job
    assert job.state.failure.message == "a secret"
    assert job.term("error_msg") == "The import failed"
    assert job.state.failure.id in caplog.text
    assert "a secret" in caplog.text
    found = api().get_session(made.id)
    assert found.has_error
    assert "secret" not in str(found.to_dict())
    other = api().create_session()
    other.fail("No such file", "/again")
    job = entry_of(site, other.id).job
    assert (job.term("error_msg"), job.term("error_url")) == ("No such file", "/again")


def test_session_ends_once(site, api):
    made = api().create_session()
    made.fail("Refused")
    with pytest.raises(InvalidTransition):
        made.finish("Done")
    assert state_of(site, made.id).status == "failed"
    assert made.has_error
    assert not made.is_complete


def test_failure_without_a_word_shows_none(site, api):
    made = api().create_session(error_msg="The import failed", message="Row 7")
    made.fail(None)
    job = entry_of(site, made.id).job
    assert (job.state.status, job.term("error_msg")) == ("failed", "The import failed")
    assert made.to_dict()["message"] == "Row 7"


def test_what_is_refused_is_said_of_the_session_or_the_task(api):
    made = api().create_session(tasks={"read": "Reading", "send": "Sending"})
    made.complete("send")
    made.error("read")
    for call, text in [
        (lambda: made.complete("read"), "a task that has failed can't become complete"),
        (lambda: made.start("read"), "a task that has failed can't become running"),
        (lambda: made.start("send"), "a task that is complete can't become running"),
    ]:
        with pytest.raises(InvalidTransition) as caught:
            call()
        assert str(caught.value) == text
        assert str(pickle.loads(pickle.dumps(caught.value))) == text
    made.fail("Refused")
    with pytest.raises(InvalidTransition, match=r"^a session that has failed can't"):
        made.finish()
    other = api().create_session()
    other.finish()
    with pytest.raises(InvalidTransition, match=r"^a session .* complete can't fail$"):
        other.fail("late")


# After the end


def change_all(session):
    session.update(9, 10, "late")
    session.advance()
    list(session.track("abc", message="late"))
    session.log("late")
    session.task("read").update(9, 10, "late")
    session.task("new").start()
    session.complete("send", "late")
    session.add_sequential("slow", lambda: None)


@pytest.mark.parametrize("end", [lambda s: s.finish(), lambda s: s.fail("Refused")])
def test_what_is_said_after_the_end_is_not_shown_anywhere(site, api, end):
    made = api().create_session(
        tasks={"read": "Reading", "send": "Sending", "slow": "Guessing"}
    )
    made.update(1, 4, "Begins")
    made.task("read").update(1, 2)
    made.task("slow", expected=1e-3).start()
    end(made)
    found = api().get_session(made.id)
    before = found.to_dict()
    change_all(made)
    assert found.to_dict() == before
    # The handle says what everybody is told, and nothing that only it knows.
    assert made.to_dict() == before
    assert json.loads(next(made.stream())) == before
    assert (made.status, made.overall_percent) == (
        found.status,
        found.overall_percent,
    )
    site.beats()
    assert api().get_session(made.id).to_dict() == before


def test_what_is_said_after_the_end_of_its_tasks_is_not_shown(site, api):
    made = api().create_session(tasks={"a": "A"})
    made.complete("a", "Done")
    eventually(lambda: state_of(site, made.id).status == "completed")
    eventually(lambda: not site.engine.live.session(made.id))
    made.update(message="late")
    made.error("a", "late")
    assert made.to_dict() == api().get_session(made.id).to_dict()
    assert not made.has_error


def test_session_without_a_database_stands_still_after_its_end():
    session = ProgressSession()
    session.update(1, 4)
    session.finish("Done")
    session.update(2, message="late")
    assert session.to_dict()["message"] == "Done"


def test_session_that_is_lost_shows_its_handle_no_progress(site, api):
    made = api().create_session(total=4)
    site.engine.pulse.rescue.take(made.id, "interrupted")
    made.update(2)
    assert made.has_error
    assert made.to_dict() == api().get_session(made.id).to_dict()


def test_session_without_a_database_ends_once_too():
    session = ProgressSession()
    session.fail("Refused")
    with pytest.raises(InvalidTransition, match="has failed can't become complete"):
        session.finish("Done")
    assert (session.status, session.to_dict()["message"]) == ("error", "Refused")


def test_work_says_once_how_it_ends(site, run):
    def work(connection, session):
        session.fail("No such file")
        with pytest.raises(InvalidTransition):
            session.finish("Done")

    _, state = run(work)
    assert (state.status, state.changed["error_msg"]) == ("failed", "No such file")


def elsewhere(site, id, change):
    """What another process does to the state of a session."""

    def changed(connection):
        change(store_of(connection, "tests").find(id).job.state)

    transact(site.db, changed)


@pytest.mark.parametrize("how", ["taken over", "given up"])
def test_session_that_is_lost_to_another_process_is_over_here(site, api, how):
    made = api().create_session(total=4)
    made.update(1)
    site.beats()
    if how == "taken over":
        elsewhere(site, made.id, lambda state: state.take_over("other", "token"))
    else:
        failure = Failure("interrupted", "id")
        elsewhere(site, made.id, lambda state: state.fail(failure, NOTHING, 2.0))
    eventually(lambda: made.has_error)
    made.update(3, message="late")
    site.beats()
    assert (made.to_dict()["message"], made.overall_percent) == ("", 25)
    assert not site.engine.live.session(made.id)
    with pytest.raises(InvalidTransition):
        made.finish()
    if how == "taken over":
        assert state_of(site, made.id).status == "running"


def test_pulse_that_sees_the_end_first_says_the_same(site, api):
    made = api().create_session(total=4)
    changed = site.engine.keeper.changed("complete", "Done", None)
    transact(site.db, lambda conn: site.engine.keeper.record(conn, made, changed, None))
    site.beats()
    assert made.is_complete
    made.finish()


def test_end_with_an_address_that_may_not_be_is_no_end(site, api):
    made = api().create_session(message="Row 7")
    with pytest.raises(ValueError, match="evil"):
        made.finish("Done", url="//evil.example")
    assert state_of(site, made.id).status == "running"
    assert made.to_dict()["message"] == "Row 7"
    made.finish(url="/good")


def test_work_is_told_at_once_of_an_address_that_may_not_be(site, run):
    def work(connection, session):
        with pytest.raises(ValueError, match="evil"):
            session.finish("Done", "//evil.example")
        session.finish("Done", "/good")

    _, state = run(work)
    assert (state.status, state.changed["success_url"]) == ("completed", "/good")


def test_session_ends_with_the_tasks_that_were_said_beforehand(site, api):
    made = api().create_session(tasks={"a": "A", "b": "B"})
    made.complete("a")
    future = Future()
    made.add_parallel("b", future)
    site.beats()
    assert state_of(site, made.id).status == "running"
    future.set_result(1)
    eventually(lambda: state_of(site, made.id).status == "completed")
    assert api().running() == []
    # Who says it as well is right.
    made.finish()


def test_session_whose_task_failed_ends_when_the_others_have_ended(site, api):
    made = api().create_session(tasks={"a": "A", "b": "B"})
    made.error("a", "Refused")
    made.start("b")
    site.beats()
    assert state_of(site, made.id).status == "running"
    made.complete("b")
    eventually(lambda: state_of(site, made.id).status == "failed")
    tasks = api().get_session(made.id).to_dict()["tasks"]
    assert [task["status"] for task in tasks.values()] == ["error", "complete"]


@pytest.mark.parametrize("reading", [True, False])
def test_finish_is_the_last_word_and_a_failed_task_is_told_all_the_same(api, reading):
    made = api().create_session(tasks={"a": "A", "b": "B"})
    told = api().get_session(made.id) if reading else made
    made.error("a", "Refused")
    made.start("b")
    eventually(lambda: (told.status, told.has_error) == ("error", True))
    made.finish("Done without A")
    assert (told.status, told.is_complete) == ("complete", True)
    assert told.has_error
    other = api().create_session(tasks={"a": "A"})
    other.finish()
    assert not other.has_error


def test_tasks_that_are_made_on_the_way_do_not_end_a_session(site, api):
    made = api().create_session()
    with made.task("a"):
        pass
    site.beats(2)
    assert state_of(site, made.id).status == "running"
    made.finish()


def test_session_of_a_dead_process_ends_as_failed(make_site, tmp_path):
    path = tmp_path / "Data.fs"
    script = (
        "import os, sys\n"
        "from ZODB.DB import DB\n"
        "from ZODB.FileStorage import FileStorage\n"
        "from asyncview import ProgressSession\n"
        "db = DB(FileStorage(sys.argv[1]))\n"
        "made = ProgressSession.create(db.open(), name='tests', id='lost', current=1,"
        " total=2)\n"
        "os._exit(9)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, path]
    assert subprocess.run(command, check=False).returncode == 9
    (tmp_path / "Data.fs.lock").unlink(missing_ok=True)
    site = make_site(asyncview__lease="0.4")
    site.app.get("/", status=404)
    found = Jobs(request_of(site)).get_session("lost")
    assert found.overall_percent == 50
    eventually(lambda: found.has_error)
    assert state_of(site, "lost").failure.reason == "interrupted"


def test_session_expires_as_jobs_do(make_site):
    site = make_site(asyncview__keep="3600").by_hand()
    api = Jobs(request_of(site))
    kept, gone = api.create_session(), api.create_session(keep=0)
    kept.finish()
    gone.finish()
    site.engine.pulse.beat()
    site.engine.runner.clock = lambda: entry_of(site, kept.id).job.created + 60
    site.engine.pulse.sweep()
    assert api.get_session(gone.id) is None
    assert api.get_session(kept.id).is_complete


def test_session_that_runs_does_not_expire_however_long_it_takes(make_site):
    site = make_site(asyncview__keep="1").by_hand()
    api = Jobs(request_of(site))
    made = api.create_session(keep=0, total=2)
    created = entry_of(site, made.id).job.created
    for days in (1, 100):
        site.engine.runner.clock = lambda days=days: created + days * 86400
        made.update(1)
        site.engine.pulse.beat()
        site.engine.pulse.sweep()
        assert api.get_session(made.id).overall_percent == 50
        assert [each.id for each in api.running()] == [made.id]
    made.finish()
    assert api.get_session(made.id).is_complete


def test_close_leaves_no_session_running(make_site, tmp_path):
    site = make_site()
    made = Jobs(request_of(site)).create_session()
    asyncview.close(site.registry, drain=0)
    # In the thread of somebody who knows of no job nothing is raised.
    made.update(1, 2)
    assert made.has_error
    db = DB(FileStorage(str(tmp_path / "Data.fs")))
    with reading(db) as connection:
        assert store_of(connection, "tests").find(made.id).job.state.status == "failed"
    db.close()


def test_jobs_own_session_ends_with_the_job_only(make_site):
    class Work(asyncview.BaseAsyncView):
        def __run__(self):
            with pytest.raises(AsyncViewError, match="ends with the job"):
                self.progress.finish()
            assert self.request.asyncview.open_session(self.process_id) is None
            return "done"

    site = make_site(lambda config: config.add_async_view(Work, "work"))
    document = site.run("/work")
    assert document["status"] == "completed"
    found = Jobs(request_of(site)).get_session(document["process_id"])
    assert (found.status, found.label) == ("complete", "Work")


def test_session_is_no_job_and_has_no_view(make_site):
    site = make_site(lambda config: config.add_async_view(asyncview.BaseAsyncView, "w"))
    api = Jobs(request_of(site))
    made = api.create_session()
    assert api.get_job(made.id) is None
    site.app.get(f"/w/completed?process_id={made.id}", status=404)


# In a thread of the application's own


@pytest.fixture
def run(site, api):
    """Runs a function for a new session; gives both when it has ended."""

    def run(func, *args, **terms):
        session = api().create_session(**terms)
        api().run_in_thread(session, func, *args)
        assert site.engine.workers.join(PATIENCE)
        return session, state_of(site, session.id)

    return run


def root_of(site):
    with reading(site.db) as connection:
        return dict(connection.root())


def test_work_in_a_thread_commits_and_finishes_in_one_transaction(site, run):
    def work(connection, session, name):
        session.update(1, 1)
        connection.root()[name] = threading.current_thread() is main
        with reading(site.db) as other:
            assert name not in other.root()

    main = threading.current_thread()
    session, state = run(work, "here")
    assert state.status == "completed"
    assert root_of(site)["here"] is False
    assert session.is_complete


@pytest.mark.parametrize(
    "error", [ZeroDivisionError, SystemExit, KeyboardInterrupt, JobCancelled]
)
def test_work_that_raises_whatever_is_rolled_back_and_failed(site, run, error):
    def work(connection, session):
        connection.root()["half"] = True
        raise error

    session, state = run(work)
    assert (state.status, state.failure.type) == ("failed", error.__name__)
    assert "half" not in root_of(site)
    assert session.has_error


@pytest.mark.parametrize("error", [None, ZeroDivisionError, SystemExit])
def test_connection_of_the_work_is_given_back_whatever_became_of_it(site, run, error):
    used = []

    def work(connection, session):
        used.append(connection)
        assert connection.opened
        if error:
            raise error

    run(work)
    (connection,) = used
    assert connection.opened is None


def test_thread_of_the_work_keeps_no_interpreter_from_ending(run):
    daemons = []
    run(lambda *given: daemons.append(threading.current_thread().daemon))
    assert daemons == [True]


def test_work_that_cannot_even_begin_is_failed(run):
    _, state = run(lambda: None)
    assert (state.status, state.failure.type) == ("failed", "TypeError")


def test_work_says_how_it_ends_and_it_ends_with_the_commit(site, run):
    def work(connection, session):
        session.finish("5 imported", "/members")
        assert state_of(site, session.id).status == "running"
        connection.root()["done"] = True

    session, state = run(work, success_msg="Old")
    assert state.changed == {"success_msg": "5 imported", "success_url": "/members"}
    assert session.to_dict()["message"] == "5 imported"
    assert root_of(site)["done"]


def test_work_that_says_finish_and_then_raises_has_failed(site, run):
    def work(connection, session):
        connection.root()["half"] = True
        session.finish("All good")
        raise ZeroDivisionError

    _, state = run(work)
    assert state.status == "failed"
    assert "half" not in root_of(site)


def test_work_that_says_fail_is_rolled_back(site, run):
    def work(connection, session):
        connection.root()["half"] = True
        session.fail("No such file", "/again")

    _, state = run(work)
    assert (state.status, state.changed["error_msg"]) == ("failed", "No such file")
    assert "half" not in root_of(site)


def test_work_whose_commit_fails_has_failed(site, run):
    def work(connection, session):
        connection.root()["unpicklable"] = threading.Lock()

    _, state = run(work)
    assert state.status == "failed"


def test_work_whose_commit_conflicts_has_failed_and_is_not_run_again(site, run):
    calls = []

    def work(connection, session):
        calls.append(1)
        connection.root()["mine"] = 1
        other = site.db.open(transaction.TransactionManager(explicit=True))
        other.transaction_manager.begin()
        other.root()["theirs"] = 1
        other.transaction_manager.commit()
        other.close()

    _, state = run(work)
    assert (state.status, state.failure.type) == ("failed", "ConflictError")
    assert len(calls) == 1
    assert "mine" not in root_of(site)


def test_tasks_do_not_end_the_session_of_work_that_goes_on(site, run):
    def work(connection, session):
        session.complete("a")
        site.beats(2)
        assert state_of(site, session.id).status == "running"

    _, state = run(work, tasks={"a": "A"})
    assert state.status == "completed"


def test_thread_starts_when_its_request_has_committed(make_site):
    seen = threading.Event()

    def work(connection, session):
        session.update(message=connection.root()["made by the request"])
        seen.set()

    def view(request):
        session = request.asyncview.create_session()
        request.asyncview.run_in_thread(session, work)
        request.context.data["made by the request"] = "hello"
        assert not seen.is_set()
        assert threading.active_count() == before
        if "fail" in request.GET:
            raise ZeroDivisionError
        return Response(session.id)

    site = make_site(lambda config: config.add_view(view, name="view"))
    site.engine.pulse.start()
    before = threading.active_count()
    id = site.app.post("/view").text
    assert site.engine.workers.join(PATIENCE)
    assert state_of(site, id).progress.message == "hello"
    seen.clear()
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        site.app.post("/view?fail=1")
    assert not seen.is_set()
    # Whoever waits for it is told.
    assert Jobs(request_of(site)).running() == []


def test_close_waits_for_work_and_then_asks_it_to_stop(make_site):
    site = make_site()
    api = Jobs(request_of(site))
    inside, ended = threading.Event(), []

    def work(connection, session):
        inside.set()
        try:
            while True:
                session.update()
        except JobCancelled:
            ended.append("asked")
            raise

    session = api.create_session()
    api.run_in_thread(session, work)
    assert inside.wait(PATIENCE)
    site.engine.close(0.05)
    assert ended == ["asked"]
    assert state_of(site, session.id).failure.reason == "interrupted"


def test_session_works_for_one_function_and_for_no_job(api):
    session = api().create_session()
    api().run_in_thread(session, lambda connection, session: None)
    with pytest.raises(InvalidTransition):
        api().run_in_thread(session, lambda connection, session: None)
    with pytest.raises(AsyncViewError, match="no job"):
        api().run_in_thread(ProgressSession("a job's"), print)


# Without Pyramid


@pytest.fixture
def db(tmp_path):
    db = DB(FileStorage(str(tmp_path / "Script.fs")))
    yield db
    db.close()


def test_script_makes_a_session_and_leaves_nothing_behind(db):
    before = threading.active_count()
    with db.transaction() as connection:
        made = ProgressSession.create(connection, label="Import", tasks={"a": "A"})
        found = ProgressSession.get(connection, made.id)
        assert (found.label, found.owner) == ("Import", None)
        assert ProgressSession.get(connection, "unknown") is None
        with made.task("a") as task:
            task.update(1, 2)
        made.finish()
        assert found.is_complete
    eventually(lambda: threading.active_count() == before)
    with reading(db) as connection:
        store = store_of(connection, "asyncview")
        assert store.crowd() == 0
        assert not store.leases
        assert made.id in store.finished


def test_script_of_many_sessions_leaves_the_pool_as_it_was(db, caplog):
    before = db.getPoolSize()
    connection = db.open(transaction.TransactionManager(explicit=True))
    for _ in range(3):
        ProgressSession.create(connection).finish()
    connection.close()
    assert db.getPoolSize() == before
    # It has no requests whose bodies would need a place.
    assert caplog.text == ""


def test_script_has_as_many_sessions_as_it_likes_at_once(db):
    connection = db.open(transaction.TransactionManager(explicit=True))

    def work(number):
        made = ProgressSession.create(connection, label=str(number))
        made.update(1, 2)
        made.finish()
        return ProgressSession.get(connection, made.id).status

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(work, range(20))) == {"complete"}
    connection.close()


def test_script_finds_the_application_of_its_database(db):
    connection = db.open(transaction.TransactionManager(explicit=True))
    ProgressSession.create(connection, name="club", id="one").finish()
    assert ProgressSession.get(connection, "one").is_complete
    ProgressSession.create(connection, name="shop", id="two").finish()
    with pytest.raises(ValueError, match="club, shop"):
        ProgressSession.get(connection, "one")
    assert ProgressSession.get(connection, "two", name="shop").is_complete
    connection.close()


def test_script_in_the_process_of_a_site_uses_its_pulse(site, api):
    connection = site.db.open(transaction.TransactionManager(explicit=True))
    made = ProgressSession.create(connection, owner="ann")
    connection.close()
    assert site.engine.live.session(made.id) is made
    assert api().get_session(made.id).owner == "ann"
    made.finish()
