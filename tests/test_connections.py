"""A job may use more than one connection to its database, as any view may.

Two connections that have both joined one transaction wait for each other at its commit,
in the same thread, with the storage's commit lock in hand: for ever, and all who write
wait with them.
"""

import pytest
import transaction
from conftest import eventually
from conftest import writable_after
from pyramid.request import Request
from pyramid.response import Response
from ZODB.POSException import ConflictError

from asyncview import BaseAsyncView
from asyncview.failure import TIMEOUT
from asyncview.store import reading
from asyncview.store import store_of


def by_subrequest(request):
    """It has a transaction of its own, and a connection of pyramid_zodbconn's."""
    inner = Request.blank("/write", method="POST")
    inner.registry = request.registry
    assert request.invoke_subrequest(inner, use_tweens=True).status_int == 200


def opened(request):
    """A connection that has joined the thread's transaction, if it has one."""
    connection = request.registry.asyncview.engine.db.open()
    request.add_finished_callback(lambda request: connection.close())
    connection.root()["second"] = True


def committed(request):
    opened(request)
    transaction.commit()


class Uses(BaseAsyncView):
    """Does what the test says."""

    def __run__(self, process_id=None):
        self.request.registry.hook(self)
        return Response("done")


def write(request):
    request.root.data["second"] = True
    return Response("written")


def read(request):
    return Response(repr(request.root.data.get("second")))


def plain(request):
    request.registry.way(request)
    return Response("done")


def configure(config):
    config.add_async_view(Uses, "uses")
    config.add_view(write, name="write")
    config.add_view(read, name="read")
    config.add_view(plain, name="plain")


def written(site):
    with reading(site.db) as connection:
        return {each for each in ("first", "second") if each in connection.root()}


def state_of(site, process_id):
    with reading(site.db) as connection:
        return store_of(connection, "tests").find(process_id).job.state


@pytest.fixture
def make(make_site):
    yield from writable_after(make_site, configure)


@pytest.fixture
def site(make):
    return make()


@pytest.mark.parametrize(
    ("way", "hook"),
    [
        (by_subrequest, None),
        (opened, None),
        (committed, None),
        # What is opened by hand has the thread's manager, and not the request's.
        (by_subrequest, "pyramid_tm.explicit_manager"),
        (committed, "pyramid_tm.explicit_manager"),
    ],
)
def test_what_works_in_a_view_works_in_a_job(make, way, hook):
    site = make(**({"tm__manager_hook": hook} if hook else {}))
    site.registry.way = way
    site.app.post("/plain", status=200)
    expected = written(site)
    with site.db.transaction() as connection:
        connection.root().pop("second", None)
    site.registry.hook = lambda view: way(view.request)
    doc = site.run("/uses")
    assert doc["status"] == "completed", doc
    assert written(site) == expected


@pytest.mark.parametrize("way", [opened, committed])
def test_two_that_have_both_written_are_refused_and_hang_nobody(site, caplog, way):
    def both(view):
        view.request.root.data["first"] = True
        way(view.request)

    site.registry.hook = both
    doc = site.run("/uses")
    assert doc["status"] == "failed", doc
    assert "wait for each other" in caplog.text
    assert written(site) == set()


@pytest.mark.parametrize("way", [by_subrequest, committed])
def test_a_commit_by_another_connection_is_a_checkpoint(site, way):
    def hook(view):
        way(view.request)
        raise ConflictError("too late to try again")

    site.registry.hook = hook
    doc = site.run("/uses")
    assert (doc["status"], doc["error"]["reason"]) == ("failed", "exception")
    assert doc["attempt"] == 1
    assert written(site) == {"second"}
    assert state_of(site, doc["process_id"]).checkpointed


@pytest.mark.parametrize("opens_before", [False, True])
def test_what_was_taken_away_commits_by_no_connection(site, opens_before):
    caught = []

    def hook(view):
        if opens_before:
            opened(view.request)
        assert site.engine.pulse.rescue.take(view.process_id, TIMEOUT) == "failed"
        if not opens_before:
            opened(view.request)
        try:
            transaction.commit()
        except BaseException as error:
            caught.append(error)
            raise

    site.registry.hook = hook
    doc = site.run("/uses")
    assert (doc["status"], doc["error"]["reason"]) == ("failed", "timeout")
    eventually(lambda: not site.engine.executor.busy())
    assert caught
    assert written(site) == set()


def test_a_job_may_be_started_where_another_connection_has_written(make):
    class Form(Uses):
        def run_process(self):
            if self.request.method == "POST":
                opened(self.request)
            return super().run_process()

    def configured(config):
        configure(config)
        config.add_async_view(Form, "form")

    site = make(configured)
    site.registry.hook = lambda view: None
    doc = site.run("/form")
    assert doc["status"] == "completed", doc
    assert written(site) == {"second"}


@pytest.mark.parametrize(
    ("inner", "use_tweens", "expected"),
    [("/read", False, set()), ("/read", True, set()), ("/write", True, {"second"})],
)
def test_subrequest_aborts_what_was_written_before_it(
    site, inner, use_tweens, expected
):
    def way(request):
        request.root.data["first"] = True
        subrequest = Request.blank(inner, method="POST")
        subrequest.registry = request.registry
        request.invoke_subrequest(subrequest, use_tweens=use_tweens)

    site.registry.way = way
    site.app.post("/plain", status=200)
    assert written(site) == expected
    site.registry.hook = lambda view: way(view.request)
    doc = site.run("/uses")
    assert doc["status"] == "completed", doc
    assert written(site) == expected


def test_a_job_may_start_another_where_another_connection_has_written(make):
    ids = []

    def hook(view):
        if "outer" in view.request.params:
            inner = view.request.copy()
            inner.body = b"inner=1"
            inner.path_info = "/other"
            answer = view.request.invoke_subrequest(inner)
            ids.append(answer.location.rpartition("process_id=")[2])
            # Not before: at its end pyramid_zodbconn aborts what its manager has.
            opened(view.request)

    def configured(config):
        configure(config)
        config.add_async_view(type("Other", (Uses,), {}), "other")

    site = make(configured)
    site.registry.hook = hook
    doc = site.run("/uses", {"outer": "1"})
    assert doc["status"] == "completed", doc
    site.wait(ids[0])
    assert site.status("/other", ids[0])["status"] == "completed"
    assert written(site) == {"second"}
