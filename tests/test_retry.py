"""Conflicts, checkpoints, and what is called when a job has ended."""

import logging
import threading
from contextlib import suppress

import pytest
import transaction
from persistent.mapping import PersistentMapping
from pyramid.httpexceptions import HTTPFound
from pyramid.response import Response
from pyramid_retry import RetryableException
from pyramid_retry import mark_error_retryable
from pyramid_zodbconn import get_connection
from test_exits import Refusing
from transaction.interfaces import TransientError
from ZODB.POSException import ConflictError

from asyncview import BaseAsyncView
from asyncview.store import store_of
from asyncview.store import transact

PATIENCE = 30


class Place:
    """A context that is not persistent and outlives the attempts."""

    def __init__(self):
        self.data = threading.local()
        self.entered = []
        self.ended = []
        self.run = None

    def attempt(self):
        return len(self.entered)


class Counting(BaseAsyncView):
    def __run__(self):
        context = self.context
        context.entered.append(self.process_id)
        work = get_connection(self.request).root()["work"]
        return context.run(self, work)


class Restartable(Counting):
    restartable = True


class Impatient(Counting):
    max_attempts = 3


class Once(Counting):
    max_attempts = 1


class Ending(Counting):
    def on_end(self, status):
        self.context.ended.append((self.process_id, status))
        get_connection(self.request).root()["ends"][self.process_id] = status
        if self.request.params.get("break"):
            raise ValueError("on_end is broken")


MANAGERS = {
    "thread-local": {},
    "explicit": {"tm.manager_hook": "pyramid_tm.explicit_manager"},
}


@pytest.fixture(params=MANAGERS)
def settings(request):
    return MANAGERS[request.param]


@pytest.fixture
def counting(make_site, settings):
    def make(view=Counting, **more):
        place = Place()
        site = make_site(
            lambda config: config.add_async_view(view, "count"),
            lambda request: place,
            **settings,
            **more,
        )

        def prepare(connection):
            connection.root()["work"] = PersistentMapping()
            connection.root()["ends"] = PersistentMapping()

        transact(site.db, prepare)
        site.place = place
        site.see = lambda key="work": transact(
            site.db, lambda connection: dict(connection.root()[key])
        )
        return site

    return make


def disturb(site):
    """Another connection changes what a job has changed."""

    def change(connection):
        connection.root()["work"]["other"] = site.place.attempt()

    thread = threading.Thread(target=transact, args=(site.db, change))
    thread.start()
    thread.join(PATIENCE)


def test_a_job_that_loses_runs_again_as_the_same_job(counting):
    site = counting()
    seen = []

    def run(view, work):
        seen.append((view.progress._attempt, view.progress._current))
        view.progress.update(50, 100, "half")
        work["mine"] = site.place.attempt()
        if site.place.attempt() < 3:
            disturb(site)
        return "won"

    site.place.run = run
    doc = site.run("/count")
    assert doc["status"] == "completed"
    assert doc["attempt"] == 3
    assert site.place.entered == [doc["process_id"]] * 3
    assert site.see()["mine"] == 3
    assert site.result("/count", doc["process_id"]).text == "won"
    # Each attempt starts with fresh progress.
    assert {current for _, current in seen} == {None}
    assert [attempt for attempt, _ in seen] == [1, 2, 3]


@pytest.mark.parametrize(("view", "entries"), [(Impatient, 3), (Once, 1)])
def test_a_job_that_always_loses_fails_after_max_attempts(counting, view, entries):
    site = counting(view)

    def run(view, work):
        work["mine"] = True
        disturb(site)

    site.place.run = run
    doc = site.run("/count")
    assert (doc["status"], doc["error"]["reason"]) == ("failed", "exception")
    assert site.place.attempt() == entries
    assert "mine" not in site.see()


def test_a_transient_error_that_is_raised_in_the_work_is_tried_again(counting):
    site = counting()

    def run(view, work):
        work["mine"] = site.place.attempt()
        if site.place.attempt() == 1:
            raise TransientError("busy")
        return "done"

    site.place.run = run
    assert site.run("/count")["attempt"] == 2
    assert site.see()["mine"] == 2


@pytest.mark.parametrize("made", [RetryableException, lambda: marked(OSError("away"))])
def test_what_is_marked_for_pyramid_retry_is_tried_again_in_a_job_too(counting, made):
    site = counting()

    def run(view, work):
        work["mine"] = site.place.attempt()
        if site.place.attempt() == 1:
            raise made()
        return "done"

    site.place.run = run
    assert site.run("/count")["attempt"] == 2
    assert site.see()["mine"] == 2


def marked(error):
    mark_error_retryable(error)
    return error


def test_a_transient_error_after_the_job_ended_its_transaction_is_seen(counting):
    site = counting()

    def run(view, work):
        if site.place.attempt() == 1:
            view.request.tm.abort()
            raise ConflictError("busy")
        return "done"

    site.place.run = run
    assert site.run("/count")["attempt"] == 2


def lost_answers(site):
    """Has the next commit of a thread that sets ``now`` stored, and fail."""
    finish = site.db.storage.tpc_finish
    armed = threading.local()

    def tpc_finish(*arguments):
        tid = finish(*arguments)
        if getattr(armed, "now", False):
            armed.now = False
            # As ZEO's ClientDisconnected, which is transient and says nothing.
            raise TransientError("the connection was lost")
        return tid

    site.db.storage.tpc_finish = tpc_finish
    return armed


def test_a_lost_answer_that_may_be_tried_again_is_looked_up_first(counting):
    site = counting()
    armed = lost_answers(site)

    def run(view, work):
        work["mine"] = work.get("mine", 0) + 1
        armed.now = True
        return "done"

    site.place.run = run
    doc = site.run("/count")
    assert doc["status"] == "completed"
    assert site.place.attempt() == 1
    assert site.see()["mine"] == 1


def test_an_answer_lost_before_anything_was_stored_is_tried_again(counting):
    site = counting()

    def run(view, work):
        work["mine"] = work.get("mine", 0) + 1
        if site.place.attempt() == 1:
            # Not a ConflictError, as what comes when a server goes away.
            tm = view.request.tm
            tm.get().join(Refusing(tm, TransientError("the connection was lost")))
        return "done"

    site.place.run = run
    doc = site.run("/count")
    assert (doc["status"], doc["attempt"]) == ("completed", 2)
    assert site.see()["mine"] == 1


def checkpoint(view):
    view.checkpoint()


def commit_by_hand(view):
    view.request.tm.commit()
    if view.request.tm.explicit:
        view.request.tm.begin()


@pytest.mark.parametrize("commit", [checkpoint, commit_by_hand])
def test_a_conflict_after_a_checkpoint_fails_the_job(counting, commit):
    site = counting()

    def run(view, work):
        work["first"] = True
        commit(view)
        work["second"] = True
        disturb(site)

    site.place.run = run
    doc = site.run("/count")
    assert (doc["status"], doc["error"]["reason"]) == ("failed", "exception")
    assert site.place.attempt() == 1
    assert site.see()["first"] is True
    assert "second" not in site.see()


@pytest.mark.parametrize("commit", [checkpoint, commit_by_hand])
def test_a_restartable_job_is_tried_again_after_a_checkpoint(counting, commit):
    site = counting(Restartable)

    def run(view, work):
        work["first"] = site.place.attempt()
        commit(view)
        work["second"] = site.place.attempt()
        if site.place.attempt() == 1:
            disturb(site)
        return "done"

    site.place.run = run
    assert site.run("/count")["attempt"] == 2
    assert site.see()["second"] == 2


@pytest.mark.parametrize("commit", [checkpoint, commit_by_hand])
def test_the_page_of_a_failure_says_that_a_checkpoint_is_kept(counting, commit):
    site = counting()

    def run(view, work):
        work["first"] = True
        commit(view)
        raise ValueError("too late")

    site.place.run = run
    process_id = site.run("/count")["process_id"]
    page = site.result("/count", process_id, status=500)
    assert "what it had saved by then is kept" in page.text
    assert "nothing of it was saved" not in page.text


@pytest.mark.parametrize("end", ["abort", "conflict", "none"])
def test_the_page_of_a_failure_says_that_nothing_was_kept(counting, end):
    site = counting()

    def run(view, work):
        work["first"] = True
        if end == "abort":
            view.request.tm.abort()
        if end == "conflict":
            disturb(site)
            with suppress(ConflictError):
                view.request.tm.commit()
            view.request.tm.abort()
        raise ValueError("too soon")

    site.place.run = run
    process_id = site.run("/count")["process_id"]
    page = site.result("/count", process_id, status=500)
    assert "nothing of it was saved" in page.text
    assert site.see().get("first") is None


def test_a_checkpoint_that_conflicts_has_stored_nothing_and_is_tried_again(counting):
    site = counting()

    def run(view, work):
        work["mine"] = site.place.attempt()
        if site.place.attempt() == 1:
            disturb(site)
        view.checkpoint()
        return "done"

    site.place.run = run
    assert site.run("/count")["attempt"] == 2


def test_a_checkpoint_in_doubt_is_not_run_again(counting):
    site = counting()
    armed = lost_answers(site)

    def run(view, work):
        work["mine"] = work.get("mine", 0) + 1
        armed.now = True
        view.checkpoint()

    site.place.run = run
    assert site.run("/count")["status"] == "failed"
    assert site.place.attempt() == 1
    assert site.see()["mine"] == 1


def test_a_job_may_leave_its_transaction_committed(counting):
    site = counting()

    def run(view, work):
        work["mine"] = True
        view.request.tm.commit()
        return "done"

    site.place.run = run
    doc = site.run("/count")
    assert doc["status"] == "completed"
    assert site.result("/count", doc["process_id"]).text == "done"


@pytest.mark.parametrize("commit", [checkpoint, commit_by_hand])
def test_a_job_that_was_taken_away_commits_nothing_in_the_middle(counting, commit):
    site = counting()

    def run(view, work):
        id = view.process_id

        def take(connection):
            store_of(connection, "tests").find(id).job.state.token = "another"

        thread = threading.Thread(target=transact, args=(site.db, take))
        thread.start()
        thread.join(PATIENCE)
        work["mine"] = True
        commit(view)
        site.place.ended.append("came past")

    site.place.run = run
    site.wait(site.start("/count"))
    assert "mine" not in site.see()
    assert site.place.ended == []


def test_refresh_shows_what_others_wrote(counting):
    site = counting()

    def run(view, work):
        assert "other" not in work
        disturb(site)
        assert "other" not in work
        view.refresh()
        assert work["other"] == 1
        work["mine"] = True
        return "done"

    site.place.run = run
    doc = site.run("/count")
    assert (doc["status"], doc["attempt"]) == ("completed", 1), doc
    assert site.see()["mine"] is True


def test_refresh_after_a_write_is_an_error(counting, caplog):
    site = counting()

    def run(view, work):
        work["mine"] = True
        view.refresh()

    site.place.run = run
    assert site.run("/count")["status"] == "failed"
    assert "RuntimeError" in caplog.text


@pytest.mark.parametrize(
    ("add", "told"),
    [
        ("addBeforeCommitHook", True),
        ("addAfterCommitHook", True),
        ("addBeforeAbortHook", False),
        ("addAfterAbortHook", False),
    ],
)
def test_refresh_that_would_lose_a_hook_is_an_error(counting, add, told):
    site = counting()

    def run(view, work):
        getattr(view.request.tm.get(), add)(lambda *args: site.place.ended.append(add))
        with pytest.raises(RuntimeError, match="hook"):
            view.refresh()
        return "done"

    site.place.run = run
    doc = site.run("/count")
    assert doc["status"] == "completed", doc
    assert site.place.ended == [add] * told


def test_refresh_does_not_save_a_doomed_transaction(counting):
    site = counting()

    def run(view, work):
        view.request.tm.doom()
        with pytest.raises(RuntimeError, match="doomed"):
            view.refresh()
        work["mine"] = True
        return "done"

    site.place.run = run
    doc = site.run("/count")
    assert (doc["status"], doc["error"]["reason"]) == ("failed", "aborted"), doc
    assert "mine" not in site.see()


def test_refresh_is_no_error_after_a_checkpoint_or_another(counting):
    site = counting()

    def run(view, work):
        work["mine"] = True
        view.request.tm.get().addAfterCommitHook(site.place.ended.append)
        view.checkpoint()
        view.refresh()
        view.refresh()
        return "done"

    site.place.run = run
    doc = site.run("/count")
    assert doc["status"] == "completed", doc
    assert site.place.ended == [True]


def test_a_job_that_keeps_losing_gets_its_context_to_itself(counting):
    site = counting(**{"asyncview.threads": "3"})
    third, started, came = (threading.Event() for _ in range(3))
    losing, alone = [], []

    def run(view, work):
        work["mine"] = work.get("mine", 0) + 1
        losing.append(view.process_id)
        if losing[0] != view.process_id:
            came.set()
        elif losing.count(view.process_id) < 3:
            disturb(site)
        else:
            third.set()
            assert started.wait(PATIENCE)
            # Two others have a thread each by now, or soon.
            alone.append(not came.wait(0.3))
        return "done"

    site.place.run = run
    ids = [site.start("/count")]
    assert third.wait(PATIENCE)
    ids += [site.start("/count") for _ in range(2)]
    started.set()
    for id in ids:
        site.wait(id)
    assert {site.status("/count", id)["status"] for id in ids} == {"completed"}
    assert alone == [True]
    assert losing[:3] == 3 * [ids[0]]
    assert site.see()["mine"] == 3


# on_end


def ways_to_end(site):
    def lose(view, work):
        raise ValueError("failed")

    def cancel(view, work):
        view.progress.stop()
        view.progress.update()

    def redirect(view, work):
        raise HTTPFound("/")

    def conflict(view, work):
        work["mine"] = True
        if site.place.attempt() == 1:
            disturb(site)
        return "done"

    def doom(view, work):
        view.request.tm.doom()
        return "done"

    return {
        "completed": lambda view, work: "done",
        "tried again": conflict,
        "redirected": redirect,
        "failed": lose,
        "doomed": doom,
        "cancelled": cancel,
    }


STATUSES = {
    "completed": "completed",
    "tried again": "completed",
    "redirected": "completed",
    "failed": "failed",
    "doomed": "failed",
    "cancelled": "cancelled",
}


@pytest.mark.parametrize("way", STATUSES)
def test_on_end_is_called_once_and_what_it_writes_is_kept(counting, way):
    site = counting(Ending)
    site.place.run = ways_to_end(site)[way]
    doc = site.run("/count")
    id = doc["process_id"]
    assert doc["status"] == STATUSES[way]
    assert site.place.ended == [(id, STATUSES[way])]
    assert site.see("ends") == {id: STATUSES[way]}


@pytest.mark.parametrize("way", ["completed", "failed"])
def test_an_on_end_that_raises_is_logged_and_changes_nothing(counting, way, caplog):
    site = counting(Ending)
    site.place.run = ways_to_end(site)[way]
    doc = site.run("/count", {"break": "1"})
    assert doc["status"] == STATUSES[way]
    assert len(site.place.ended) == 1
    assert site.see("ends") == {}
    assert "on_end is broken" in caplog.text


@pytest.mark.parametrize("lost", [OSError, TransientError])
def test_on_end_is_called_for_a_commit_in_doubt(counting, lost):
    site = counting(Ending)
    finish = site.db.storage.tpc_finish
    armed = threading.local()

    def tpc_finish(*arguments):
        tid = finish(*arguments)
        if getattr(armed, "now", False):
            armed.now = False
            raise lost("the answer got lost")
        return tid

    site.db.storage.tpc_finish = tpc_finish

    def run(view, work):
        armed.now = True
        return "done"

    site.place.run = run
    doc = site.run("/count")
    assert site.place.ended == [(doc["process_id"], "completed")]


def test_on_end_is_called_for_a_job_that_was_only_queued(counting, gate):
    site = counting(Ending, **{"asyncview.threads": "1"})
    inside = threading.Event()

    def run(view, work):
        inside.set()
        gate.wait(PATIENCE)
        return "done"

    site.place.run = run
    running = site.start("/count")
    assert inside.wait(PATIENCE)
    queued = site.start("/count")
    with site.engine.live.watching(queued) as ended:
        site.app.post(f"/count/cancel?process_id={queued}", status=303)
        assert ended.wait(PATIENCE)
    for thread in threading.enumerate():
        if thread.name == "asyncview-end":
            thread.join(PATIENCE)
    assert site.status("/count", queued)["status"] == "cancelled"
    assert site.place.ended == [(queued, "cancelled")]
    gate.set()
    site.wait(running)
    assert site.place.ended[1:] == [(running, "completed")]


def test_an_on_end_that_can_not_be_reached_is_logged(make_site, caplog):
    class Vanishing(BaseAsyncView):
        def __run__(self):
            there.clear()
            raise ValueError("failed")

        def on_end(self, status):
            raise AssertionError("it was not reached")

    there = [True]

    def configure(config):
        config.add_async_view(Vanishing, "v")

    class Place(dict):
        pass

    def root_factory(request):
        if not there and "asyncview.job" in request.environ:
            raise LookupError("no root today")
        return Place()

    site = make_site(configure, root_factory)
    caplog.set_level(logging.ERROR, "asyncview")
    assert site.run("/v")["status"] == "failed"
    assert "no root today" in caplog.text
    assert "on_end of" in caplog.text


def test_a_commit_through_the_global_manager_counts_too(make_site):
    class Committing(BaseAsyncView):
        entered = 0

        def __run__(self):
            type(self).entered += 1
            root = get_connection(self.request).root()
            root["first"] = True
            transaction.commit()
            raise ConflictError("too late")

    site = make_site(lambda config: config.add_async_view(Committing, "c"))
    assert site.run("/c")["status"] == "failed"
    assert Committing.entered == 1


def test_a_retried_job_keeps_nothing_of_the_attempt_that_lost(make_site):
    class Saying(BaseAsyncView):
        entered = 0

        def __run__(self):
            type(self).entered += 1
            self.log.info("attempt %d", self.entered)
            if self.entered == 1:
                self.label = "first"
                raise ConflictError("again")
            return Response("done")

    site = make_site(lambda config: config.add_async_view(Saying, "s"))
    doc = site.run("/s")
    assert (doc["label"], doc["log"]) == ("Saying", ["attempt 2"])
