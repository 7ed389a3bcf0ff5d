"""A result of 100 MB: stored against write and fsync, served against FileResponse.

python benchmarks/result.py
"""

import http.client
import itertools
import os
import resource
import tempfile
import time

from apps import application
from apps import post
from apps import wait_ended
from harness import compare
from poll import served
from pyramid.response import FileResponse
from pyramid.response import Response

from asyncview import BaseAsyncView

SIZE = 100 * 1024 * 1024
CHUNK = os.urandom(1024 * 1024)


def chunks():
    for _ in range(SIZE // len(CHUNK)):
        yield CHUNK


class Big(BaseAsyncView):
    """A job whose result is a generator of 100 MB."""

    label = "Big"

    def __run__(self):
        return Response(app_iter=chunks(), content_type="application/octet-stream")


def plain_file(directory):
    numbers = itertools.count()

    def variant():
        # A new file each time, as each result is: pages that the machine has had
        # before are faster to write.
        path = os.path.join(directory, f"plain-{next(numbers)}")
        began = time.perf_counter()
        with open(path, "wb", buffering=0) as file:
            for chunk in chunks():
                file.write(chunk)
            os.fsync(file.fileno())
        return time.perf_counter() - began

    return variant


def stored(engine, app):
    """From the claim to the recorded end of the job."""

    def variant():
        began = time.perf_counter()
        wait_ended(engine, [post(app, "/big", b"")])
        return time.perf_counter() - began

    return variant


def download(port, path):
    def variant():
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200, response.status
        size = 0
        while chunk := response.read(1024 * 1024):
            size += len(chunk)
        assert size == SIZE
        connection.close()
        return time.perf_counter() - began

    return variant


def peak():
    """MB of memory this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH")) as directory:
        path = os.path.join(directory, "plain-0")

        def configure(config):
            config.add_async_view(Big, "big")
            config.add_view(lambda request: FileResponse(path, request), name="file")

        with application(configure) as (registry, app):
            engine = registry.asyncview.engine
            wait_ended(engine, [post(app)])
            before = peak()
            compare(
                "100 MB stored",
                "file written and fsynced",
                {
                    "file written and fsynced": plain_file(directory),
                    "result of a job, POST included": stored(engine, app),
                },
                goals={"result of a job, POST included": 1.2},
            )
            print(f"memory: {peak() - before:+.1f} MB (goal: at most +8)")
            job = post(app, "/big", b"")
            wait_ended(engine, [job])
            server, port = served(app)
            # Once each, so that what waitress itself needs is there before.
            download(port, "/file")()
            before = peak()
            compare(
                "100 MB served by waitress",
                "FileResponse of a plain file",
                {
                    "FileResponse of a plain file": download(port, "/file"),
                    "the result": download(port, f"/big/result?process_id={job}"),
                },
                goals={"the result": 1.2},
            )
            print(f"memory: {peak() - before:+.1f} MB (goal: at most +8)")
            server.close()


if __name__ == "__main__":
    main()
