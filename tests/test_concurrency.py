"""A hundred users at once: nobody sees a conflict, and nothing is lost."""

import threading

import pytest
from conftest import PATIENCE

from asyncview import BaseAsyncView
from asyncview.store import reading
from asyncview.store import store_of

USERS = 100


class Alone(BaseAsyncView):
    """Changes nothing."""

    def __run__(self, process_id=None):
        return "done " + self.request.params["user"]


class Counting(BaseAsyncView):
    """Changes what every other job changes."""

    def __run__(self, process_id=None):
        data = self.context.data
        data["count"] = data.get("count", 0) + 1
        return "done " + self.request.params["user"]


class AlsoCounting(Counting):
    """Another view that does."""


VIEWS = {"alone": Alone, "counting": Counting, "also-counting": AlsoCounting}


@pytest.fixture
def site(make_site):
    def configure(config):
        for name, view in VIEWS.items():
            config.add_async_view(view, name)

    return make_site(configure)


def at_once(function, count):
    """Call it by as many threads, none before all are there; raise what any raised."""
    barrier, errors = threading.Barrier(count), []

    def run(number):
        try:
            barrier.wait(PATIENCE)
            function(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


@pytest.mark.parametrize(
    "names", [["alone"], ["counting"], ["counting", "also-counting"]]
)
def test_hundred_posts_at_once_are_a_hundred_jobs_and_results(site, names):
    started = {}

    def post(user):
        path = "/" + names[user % len(names)]
        # 303, at the first try: there is no pyramid_retry here that would hide a
        # conflict.
        started[user] = path, site.start(path, {"user": str(user)}, site.browser())

    at_once(post, USERS)
    assert len({process_id for _, process_id in started.values()}) == USERS
    for user, (path, process_id) in started.items():
        site.wait(process_id)
        document = site.status(path, process_id)
        assert document["status"] == "completed", document
        assert site.result(path, process_id).text == f"done {user}"
    counting = names != ["alone"]
    with reading(site.db) as connection:
        assert connection.root().get("count", 0) == USERS * counting
    site.engine.close(PATIENCE)
    with reading(site.db) as connection:
        store = store_of(connection, "tests")
        assert (store.crowd(), len(store.finished)) == (0, USERS)


def test_start_cancel_poll_and_delete_at_once_meet_no_conflict(site):
    """Every request that a page makes, while the pulse and the jobs write."""
    # No pages: Python 3.11 may fail to compile templates in several threads at once
    # (SystemError, "AST constructor recursion depth mismatch").
    headers = {"Accept": "application/json"}

    def use(user):
        app = site.browser()
        for turn in range(4):
            process_id = app.post(
                "/alone", {"user": str(user)}, headers, status=202
            ).json["process_id"]
            query = f"process_id={process_id}"
            app.get(f"/alone/completed?{query}&output_json=1", status=200)
            if turn % 2:
                app.post(f"/alone/cancel?{query}", headers=headers, status=202)
            site.wait(process_id)
            app.get(f"/alone/result?{query}", headers=headers, status="*")
            app.post(f"/alone/delete?{query}", headers=headers, status=204)
            app.get(f"/alone/completed?{query}", status=404)

    at_once(use, 8)
    site.engine.close(PATIENCE)
    with reading(site.db) as connection:
        store = store_of(connection, "tests")
        assert (store.crowd(), len(store.finished)) == (0, 0)
