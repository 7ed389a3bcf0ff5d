"""A status poll, against a bare JSON view of the same application.

Both pass the same tweens, open the connection and read a persistent object; in direct
WSGI calls, and under waitress with wrk where there is one.

    python benchmarks/poll.py
"""

import shutil
import socket
import subprocess
import sys
import threading
import time

from apps import application
from apps import call
from apps import environ
from apps import post
from harness import compare
from pyramid_zodbconn import get_connection

from asyncview import BaseAsyncView
from asyncview.store import store_of

N = 1500
SECONDS = 3


class Counting(BaseAsyncView):
    """A job that runs, and says how far it is, until it is let go."""

    label = "Counting"
    go_on = threading.Event()
    entered = threading.Event()

    def __run__(self):
        self.progress.update(45, 100, "Counting")
        self.entered.set()
        self.go_on.wait()
        return None


def bare(request):
    """Open the connection, read a persistent object, give a document of half a kB."""
    store = store_of(get_connection(request), "bench")
    shard = store.shards[0]
    return {"entries": len(shard.entries), "filler": FILLER}


FILLER = {f"key{n}": "value" for n in range(30)}


def configure(config):
    config.add_async_view(Counting, "counting")
    config.add_view(bare, name="bare", renderer="json")


def loop(app, path, query=""):
    def variant():
        began = time.perf_counter()
        for _ in range(N):
            call(app, environ(path, query=query))
        return time.perf_counter() - began

    return variant


def wrk(port, path):
    """Seconds a request, from wrk's own count."""

    def variant():
        said = subprocess.run(
            ["wrk", "-t1", "-c4", f"-d{SECONDS}s", f"http://127.0.0.1:{port}{path}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        line = next(line for line in said.splitlines() if "Requests/sec" in line)
        assert "Non-2xx" not in said, said
        return 1 / float(line.split()[1])

    return variant


def served(app):
    from waitress.server import create_server

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = create_server(app, host="127.0.0.1", port=port, threads=4)
    threading.Thread(target=server.run, daemon=True).start()
    return server, port


def main():
    with application(configure) as (_registry, app):
        running = post(app, "/counting", b"")
        assert Counting.entered.wait(10)
        done = post(app)
        time.sleep(1.5)  # the pulse writes once and has nothing more to say
        query = f"process_id={running}&output_json=1"
        ended = f"process_id={done}&output_json=1"
        poll, over = "/counting/completed", "/nothing/completed"
        assert call(app, environ(poll, query=query))[0] == "200 OK"
        try:
            compare(
                f"{N} status polls, direct WSGI calls",
                "bare JSON view",
                {
                    "bare JSON view": loop(app, "/bare"),
                    "poll of a running job": loop(app, poll, query),
                    "poll of an ended job": loop(app, over, ended),
                },
                goals={"poll of a running job": 0.65, "poll of an ended job": 0.65},
                invert=True,
            )
            if shutil.which("wrk") is None:
                print("\nwrk is not installed: no figures under waitress")
                return
            server, port = served(app)
            compare(
                "Status polls under waitress with 4 threads, wrk -c4",
                "bare JSON view",
                {
                    "bare JSON view": wrk(port, "/bare"),
                    "poll of a running job": wrk(port, f"{poll}?{query}"),
                    "poll of an ended job": wrk(port, f"{over}?{ended}"),
                },
                goals={"poll of a running job": 0.9, "poll of an ended job": 0.9},
                invert=True,
            )
            server.task_dispatcher.shutdown()
            server.close()
        finally:
            Counting.go_on.set()


if __name__ == "__main__":
    sys.exit(main())
