"""What views do with transactions, hooks and errors they do in a job too.

Or the job fails with a sentence: none is completed without its work, and nothing waits
for ever.
"""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import transaction
from conftest import PATIENCE
from conftest import eventually
from conftest import writable_after
from pyramid.httpexceptions import HTTPUnprocessableEntity
from pyramid.response import Response
from pyramid.view import render_view_to_response
from transaction import TransactionManager
from ZODB.POSException import ConflictError

from asyncview import BaseAsyncView
from asyncview.store import reading
from asyncview.store import store_of


class Does(BaseAsyncView):
    """Does what the test says, at both ends."""

    def __run__(self, process_id=None):
        answer = self.request.registry.work(self)
        return Response("done") if answer is None else answer

    def on_end(self, status):
        self.request.registry.ends.append(status)
        self.request.registry.at_end(self)


class Other(BaseAsyncView):
    def __run__(self):
        self.request.root.data["other"] = True


def configure(config):
    config.add_async_view(Does, "does")
    config.add_async_view(Other, "other")
    config.add_view(write, name="write")
    config.registry.ends = []
    config.registry.work = config.registry.at_end = lambda view: None


def write(request):
    request.root.data["written"] = request.root.data.get("written", 0) + 1
    return Response("written")


@pytest.fixture
def make(make_site):
    yield from writable_after(make_site, configure)


@pytest.fixture
def site(make):
    return make()


def found(site, name="x"):
    with reading(site.db) as connection:
        return connection.root().get(name)


def conflict(site):
    """Somebody else writes what the job is about to."""
    with site.db.transaction() as connection:
        connection.root()["x"] = "theirs"


def jobs_of(site):
    with reading(site.db) as connection:
        store = store_of(connection, "tests")
        return store.crowd() + len(store.finished)


# A commit that is none


def by_another_thread(view):
    root = view.request.root.data
    with ThreadPoolExecutor(1) as pool:
        # There it joins that thread's transaction, which nobody commits.
        pool.submit(root.__setitem__, "x", 1).result(PATIENCE)
    root["y"] = 1


def aborted_by_a_hook(view):
    view.request.root.data["x"] = 1
    transaction.get().addBeforeCommitHook(transaction.abort)


def begun_anew_by_a_hook(view):
    view.request.root.data["x"] = 1
    transaction.get().addBeforeCommitHook(transaction.begin)


@pytest.mark.parametrize("executor", ["threads", "inline"])
@pytest.mark.parametrize(
    ("work", "sentence"),
    [
        (by_another_thread, "changed in another transaction"),
        (aborted_by_a_hook, "was not part of its commit"),
        (begun_anew_by_a_hook, "was not part of its commit"),
    ],
)
def test_a_commit_that_stores_nothing_completes_nothing(
    make, caplog, executor, work, sentence
):
    site = make(asyncview__executor=executor)
    site.registry.work = work
    doc = site.run("/does")
    assert (doc["status"], doc["error"]["reason"]) == ("failed", "exception")
    assert sentence in caplog.text
    assert found(site) is None
    eventually(lambda: site.registry.ends == ["failed"])


def test_a_job_that_makes_savepoints_is_completed_by_its_commit(site):
    def work(view):
        view.request.root.data["x"] = 1
        transaction.savepoint()
        view.request.root.data["x"] = 2
        transaction.savepoint(optimistic=True).rollback()

    site.registry.work = work
    assert site.run("/does")["status"] == "completed"
    assert found(site) == 2


# Conflicts that the job deals with itself


def again_after(end):
    def retry(write):
        for _ in range(2):
            try:
                write()
                transaction.commit()
                break
            except ConflictError:
                end()

    return retry


def by_attempts(write):
    for attempt in transaction.manager.attempts():
        with attempt:
            write()


@pytest.mark.parametrize(
    "retry",
    [again_after(transaction.abort), again_after(transaction.begin), by_attempts],
)
def test_a_job_may_try_its_own_commits_again(site, retry):
    tries = []

    def work(view):
        def write():
            tries.append(view.request.root.data.get("x"))
            if len(tries) == 1:
                conflict(site)
            view.request.root.data["x"] = "mine"

        retry(write)

    site.registry.work = work
    doc = site.run("/does")
    assert (doc["status"], doc["attempt"]) == ("completed", 1)
    assert tries == [None, "theirs"]
    assert found(site) == "mine"


def test_two_that_have_written_may_be_aborted(site):
    def work(view):
        view.request.root.data["x"] = 1
        connection = site.db.open()
        connection.root()["y"] = 1
        transaction.abort()
        connection.close()
        view.request.root.data["z"] = 1

    site.registry.work = work
    assert site.run("/does")["status"] == "completed"
    assert [found(site, name) for name in "xyz"] == [None, None, 1]


# What else holds the storage's commit lock


@pytest.mark.parametrize("when", ["work", "at_end"])
@pytest.mark.parametrize("second", ["connection", "undo"])
def test_nothing_waits_for_itself_at_a_commit(site, caplog, when, second):
    def twice(view):
        view.request.root.data["x"] = 1
        if second == "undo":
            site.db.undo(site.db.undoLog(0, 1)[0]["id"], transaction.get())
        else:
            connection = site.db.open()
            view.request.add_finished_callback(lambda request: connection.close())
            connection.root()["y"] = 1

    setattr(site.registry, when, twice)
    doc = site.run("/does")
    assert doc["status"] == ("failed" if when == "work" else "completed")
    eventually(lambda: "would wait for each other" in caplog.text)
    assert found(site) is found(site, "y") is None


def test_an_undo_in_a_transaction_of_its_own_is_one(site):
    site.app.post("/write")
    written = site.db.undoLog(0, 1)[0]["id"]

    def work(view):
        tm = TransactionManager()
        site.db.undo(written, tm.begin())
        tm.commit()

    site.registry.work = work
    assert site.run("/does")["status"] == "completed"
    assert found(site, "written") is None


# The end


def test_on_end_may_start_a_job(site):
    ids = []

    def at_end(view):
        inner = view.request.copy()
        inner.path_info = "/other"
        answer = view.request.invoke_subrequest(inner)
        ids.append(answer.location.rpartition("process_id=")[2])

    site.registry.at_end = at_end
    assert site.run("/does")["status"] == "completed"
    eventually(lambda: ids and found(site, "other"))
    assert site.status("/other", ids[0])["status"] == "completed"
    assert jobs_of(site) == 2


def test_what_is_raised_when_the_work_is_over_is_logged(site, caplog):
    def raises(request):
        raise ValueError("in a callback")

    site.registry.work = lambda view: view.request.add_finished_callback(raises)
    assert site.run("/does")["status"] == "completed"
    assert "in a callback" in caplog.text
    assert "is completed; this was raised afterwards" in caplog.text


def twice_tween_factory(handler, registry):
    def tween(request):
        try:
            return handler(request)
        except ValueError:
            return handler(request)

    return tween


def test_a_tween_that_calls_the_view_again_does_not_make_a_result_of_it(make, caplog):
    def configured(config):
        configure(config)
        config.add_tween(
            "test_transactions.twice_tween_factory",
            under="asyncview.pyramid.tween.outcome_tween_factory",
        )

    site = make(configured)

    def work(view):
        view.request.root.data["x"] = 1
        raise ValueError("the first time")

    site.registry.work = work
    doc = site.run("/does")
    assert (doc["status"], doc["error"]["reason"]) == ("failed", "exception")
    assert "has been in __run__ already" in caplog.text
    assert found(site) is None


def test_an_exception_view_and_on_end_may_render_the_view(make):
    def again(context, request):
        request.response.status_int = 422
        return render_view_to_response(request.context, request, "does")

    def configured(config):
        configure(config)
        config.add_exception_view(again, context=HTTPUnprocessableEntity)

    site, pages = make(configured), []

    def work(view):
        raise HTTPUnprocessableEntity

    def at_end(view):
        pages.append(render_view_to_response(view.context, view.request, "does"))

    site.registry.work = work
    site.registry.at_end = at_end
    doc = site.run("/does")
    assert (doc["status"], doc["error"]["reason"]) == ("failed", "aborted")
    assert "<form" in site.result("/does", doc["process_id"], status="*").text
    site.registry.work = lambda view: None
    assert site.run("/does")["status"] == "completed"
    eventually(lambda: len(pages) == 2)
    assert all("<form" in page.text for page in pages)


def test_what_an_error_says_is_read_while_its_objects_are_there(site, caplog):
    def work(view):
        item = view.request.root.data["item"] = view.request.root.data.__class__()
        item["name"] = "Item 5"
        raise ValueError(item)

    site.registry.work = work
    assert site.run("/does")["status"] == "failed"
    assert "Item 5" in caplog.text
    assert "Couldn't load" not in caplog.text


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int = 3


def test_an_error_that_is_frozen_is_told_as_it_is(site, caplog):
    def work(view):
        raise FrozenError

    site.registry.work = work
    assert site.run("/does")["status"] == "failed"
    assert "FrozenError" in caplog.text
    assert "FrozenInstanceError" not in caplog.text


def test_a_cancel_that_a_commit_hook_notices_is_one(site, gate):
    entered = threading.Event()

    def hook(view):
        entered.set()
        assert gate.wait(PATIENCE)
        view.progress.update(1)

    def work(view):
        view.request.root.data["x"] = 1
        transaction.get().addBeforeCommitHook(hook, (view,))

    site.registry.work = work
    process_id = site.start("/does")
    assert entered.wait(PATIENCE)
    site.app.post(f"/does/cancel?process_id={process_id}", status=303)
    gate.set()
    site.wait(process_id)
    assert site.status("/does", process_id)["status"] == "cancelled"
    assert found(site) is None


# A process that the job makes


def in_the_work(site, forks):
    site.registry.work = forks


def in_the_body(site, forks):
    def work(view):
        def body():
            yield b"done"
            forks(view)

        return Response(app_iter=body())

    site.registry.work = work


def in_a_hook(site, forks):
    def work(view):
        view.request.root.data["y"] = 1
        transaction.get().addBeforeCommitHook(forks, (view,))

    site.registry.work = work


def at_the_end(site, forks):
    site.registry.at_end = forks


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("where", [in_the_work, in_the_body, in_a_hook, at_the_end])
@pytest.mark.parametrize("leaves", ["returns", "raises", "exits"])
def test_a_forked_child_never_acts_as_the_worker(make, where, leaves):
    site, children = make(asyncview__threads=1), []

    def forks(view):
        view.request.root.data["x"] = 1
        child = os.fork()
        if child:
            children.append(child)
        elif leaves == "raises":
            raise ValueError("in the child")
        elif leaves == "exits":
            raise SystemExit

    where(site, forks)
    # The others wait, and the child has a queue of them as well.
    ids = [site.start("/does"), site.start("/other"), site.start("/other")]
    for process_id in ids:
        site.wait(process_id)
    eventually(lambda: children)
    ended = []

    def has_ended():
        ended[:] = os.waitpid(children[0], os.WNOHANG)
        return ended[0]

    try:
        eventually(has_ended)
    except AssertionError:
        os.kill(children[0], signal.SIGKILL)
        raise
    assert os.waitstatus_to_exitcode(ended[1]) == 1
    for path, process_id in zip(("/does", "/other", "/other"), ids, strict=True):
        assert site.status(path, process_id)["status"] == "completed"
    eventually(lambda: site.registry.ends == ["completed"])
    assert found(site) == 1
