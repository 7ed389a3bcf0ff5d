"""An ordinary page while twenty tabs follow twenty jobs, against the page alone.

waitress with 4 threads; the tabs are another process, and look once a second, which is
as often as a page of ours does in its first two seconds, and five times as often later.

    python benchmarks/tabs.py
"""

import json
import logging
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

from apps import application
from apps import post
from harness import compare
from poll import served
from pyramid.response import Response
from pyramid_zodbconn import get_connection

from asyncview import BaseAsyncView

TABS = 20
PAGES = 300


class Counting(BaseAsyncView):
    """A job that says a hundred times a second how far it is, until it is let go."""

    label = "Counting"
    tasks = {"one": "One", "two": "Two"}  # noqa: RUF012
    go_on = threading.Event()

    def __run__(self):
        for task in self.tasks:
            self.progress.start(task)
        while not self.go_on.wait(0.01):
            for task in self.tasks:
                self.progress.task(task, total=1_000_000).advance()
        return "done"


def page(request):
    """An ordinary one: opens the connection, reads an object, writes some text."""
    root = get_connection(request).root()
    return Response(f"{len(root)} things" + 2000 * " and so on")


def configure(config):
    config.add_async_view(Counting, "counting")
    config.add_view(page, name="page")


def ask(connection, url):
    connection.request("GET", url)
    return connection.getresponse().read()


def follow(port, id):
    """A tab: looks until its job has ended; gives how."""
    url = f"/counting/completed?process_id={id}&output_json=1"
    while True:
        # A browser closes what it does not use.
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        document = json.loads(ask(connection, url))
        connection.close()
        if document["finished"]:
            return document["status"]
        time.sleep(1)


def follow_all(port, ids):
    with ThreadPoolExecutor(len(ids)) as pool:
        print(json.dumps(list(pool.map(lambda id: follow(port, id), ids))))


def pages(port):
    """Seconds for one page, the median of many."""

    def variant():
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        taken = []
        for _ in range(PAGES):
            began = time.perf_counter()
            ask(connection, "/page")
            taken.append(time.perf_counter() - began)
            # As users come, and not as one process can ask.
            time.sleep(0.005)
        connection.close()
        return sorted(taken)[PAGES // 2]

    return variant


def main():
    # That requests wait for a thread is what is measured here.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    with application(configure, asyncview__threads=str(TABS)) as (_registry, app):
        server, port = served(app)
        alone = pages(port)
        tabs = []

        def beside():
            """The same with jobs that run, and tabs that follow them."""
            Counting.go_on.clear()
            ids = [post(app, "/counting", b"") for _ in range(TABS)]
            command = [sys.executable, __file__, str(port), *ids]
            looking = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            time.sleep(1.5)
            taken = alone()
            Counting.go_on.set()
            tabs.extend(json.loads(looking.communicate(timeout=60)[0]))
            return taken

        compare(
            f"An ordinary page, while {TABS} tabs follow {TABS} jobs",
            "the page alone",
            {"the page alone": alone, "the page, with jobs and tabs": beside},
            rounds=5,
            goals={"the page, with jobs and tabs": 2.0},
        )
        ended = tabs.count("completed")
        print(f"\n{ended} of {len(tabs)} tabs saw the end of their job")
        server.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        follow_all(int(sys.argv[1]), sys.argv[2:])
    else:
        main()
