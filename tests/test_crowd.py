"""Many jobs and many tabs at once: few commits, and every tab reaches its end.

ASYNCVIEW_UPDATES=1000000 makes it as much as the long form has.
"""

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import waitress
from conftest import PATIENCE
from conftest import eventually
from ending import end
from pyramid.response import Response

from asyncview import BaseAsyncView

JOBS = 16
TASKS = 4
TABS = 20
UPDATES = int(os.environ.get("ASYNCVIEW_UPDATES", "20000"))


def test_many_tasks_of_many_jobs_share_one_commit_an_interval(make_site, gate):
    interval = 0.25
    begun = threading.Barrier(JOBS + 1)
    done = threading.Barrier(JOBS + 1)

    class Work(BaseAsyncView):
        tasks = {str(number): f"Task {number}" for number in range(TASKS)}  # noqa: RUF012

        def __run__(self):
            begun.wait(PATIENCE)
            for id in self.tasks:
                with self.progress.task(id) as task:
                    for _ in task.track(range(UPDATES // TASKS)):
                        pass
            done.wait(600)
            gate.wait(PATIENCE)

    site = make_site(
        lambda config: config.add_async_view(Work, "work"),
        asyncview__threads=str(JOBS),
        asyncview__progress_interval=str(interval),
    )
    ids = [site.start("/work") for _ in range(JOBS)]
    begun.wait(PATIENCE)
    commits = counted(site)
    began = time.monotonic()
    done.wait(600)
    # All is said; the last of it is written by the next beat.
    eventually(lambda: all(site.status("/work", id)["percent"] == 99.9 for id in ids))
    elapsed = time.monotonic() - began
    # None but the pulse's, and it is late rather than early.
    assert 1 <= len(commits) <= elapsed / interval + 2
    gate.set()
    for id in ids:
        site.wait(id)
        assert site.status("/work", id)["percent"] == 100.0


def counted(site):
    """The commits from now on."""
    storage = site.db.storage
    finish = storage.tpc_finish
    commits = []

    def counting(*args, **kw):
        commits.append(time.monotonic())
        return finish(*args, **kw)

    storage.tpc_finish = counting
    return commits


def test_more_tabs_than_threads_all_reach_their_end(make_site, gate):
    class Work(BaseAsyncView):
        def __run__(self):
            self.progress.update(1, 2)
            gate.wait(PATIENCE)
            return "done"

    def configure(config):
        config.add_async_view(Work, "work")
        config.add_view(lambda request: Response("an ordinary page"), name="page")

    site = make_site(configure, asyncview__threads=str(TABS), asyncview__grace="0.3")
    server = waitress.create_server(site.wsgi, host="127.0.0.1", port=0, threads=4)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    address = ("127.0.0.1", server.effective_port)
    ids = [site.start("/work") for _ in range(TABS)]
    polled = threading.Semaphore(0)
    pause = threading.Event()

    def tab(id):
        """A page, and then looks at it, until its job has ended."""
        ask(address, f"/work/processing?process_id={id}")
        while True:
            polled.release()
            url = f"/work/completed?process_id={id}&output_json=1"
            document = json.loads(ask(address, url))
            if document["finished"]:
                return document["status"]
            pause.wait(0.1)

    with ThreadPoolExecutor(TABS) as pool:
        tabs = [pool.submit(tab, id) for id in ids]
        for _ in range(2 * TABS):
            assert polled.acquire(timeout=PATIENCE)
        # No tab holds a thread while it waits.
        assert ask(address, "/page") == b"an ordinary page"
        gate.set()
        assert [each.result(PATIENCE) for each in tabs] == ["completed"] * TABS
    end(server, thread)


def ask(address, url):
    connection = HTTPConnection(*address, timeout=PATIENCE)
    try:
        connection.request("GET", url)
        return connection.getresponse().read()
    finally:
        connection.close()
