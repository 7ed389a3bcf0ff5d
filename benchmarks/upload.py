"""1 GB in 8 MiB chunks: against a view that throws the bytes away, and into a blob.

A real waitress in a process of its own, a client over loopback; speeds are compared
within one run, in turn.  ``--size`` in MiB.  A second floor is a view that reads each
chunk and writes it to its place in one preallocated file, and does nothing else.  Where
the machine has to look for memory to write into, that is what one sees most of; where
others use it, too, the CPU time of the server says more than the speeds.
"""

import argparse
import http.client
import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager

import waitress
from apps import application
from harness import compare
from pyramid.response import Response

MIB = 1 << 20
CHUNK = 8 * MIB
BLOCK = os.urandom(CHUNK)


def discard(request):
    """Reads as much as an upload does, and keeps nothing."""
    file = request.body_file_raw
    while file.read(256 * 1024):
        pass
    return Response("{}")


class Written:
    """Writes a chunk to its place in a file, and keeps the file until it is told."""

    def __init__(self, folder):
        self._file = tempfile.mkstemp(dir=folder)[0]

    def __call__(self, request):
        file, total = self._file, int(request.params["total"])
        if not total:
            os.ftruncate(file, 0)
            return Response("{}")
        at = int(request.params["at"])
        if not at:
            os.posix_fallocate(file, 0, total)
        body = request.body_file_raw
        while block := body.read(256 * 1024):
            os.pwrite(file, block, at)
            at += len(block)
        return Response("{}")


def used(request):
    """The most memory this process ever had, in bytes, and its CPU time, in seconds."""
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Response(json.dumps([memory, time.process_time()]))


def into_blob(request):
    """Seconds that `to_blob` takes, and those of them that its fsync does."""
    upload = request.asyncview.get_upload(request.params["uid"])
    synced = []
    fsync = os.fsync

    def timed(file):
        began = time.perf_counter()
        fsync(file)
        synced.append(time.perf_counter() - began)

    os.fsync = timed
    began = time.perf_counter()
    try:
        request.root.data["blob"] = upload.to_blob()
    finally:
        os.fsync = fsync
    return Response(json.dumps([time.perf_counter() - began, synced[0]]))


def serve(zeo):
    with (
        tempfile.TemporaryDirectory(
            prefix="asyncview-bench-", dir=os.environ.get("BENCH")
        ) as folder,
        storage(folder, zeo) as uri,
    ):

        def configure(config):
            config.add_upload_endpoint("/files")
            config.add_view(discard, name="discard")
            config.add_view(Written(folder), name="written")
            config.add_view(used, name="used")
            config.add_view(into_blob, name="blob")

        # Below the clients' only limit is the disk.
        settings = {"asyncview__upload_max_open": 1000, "zodbconn__uri": uri}
        with application(configure, **settings) as (_, app):
            server = waitress.create_server(app, host="127.0.0.1", port=0, threads=4)
            print(server.effective_port, flush=True)
            threading.Thread(target=end_with_stdin, daemon=True).start()
            server.run()


@contextmanager
def storage(folder, zeo):
    """The URI of a storage; of a server of ZEO that shares its blobs, where ``zeo``."""
    if not zeo:
        yield f"file://{folder}/Data.fs?blobstorage_dir={folder}/blobs"
        return
    import ZEO

    (host, port), stop = ZEO.server(
        f"{folder}/Data.fs", blob_dir=f"{folder}/blobs", threaded=False
    )
    try:
        yield f"zeo://{host}:{port}?blob_dir={folder}/blobs&shared_blob_dir=1"
    finally:
        stop()


def end_with_stdin():
    """Who measures is gone; waitress takes this for an end, and files are removed."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGINT)


class Client:
    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port)
        self.connection.connect()
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(self, method, path, body=b"", **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, body, headers)
        response = self.connection.getresponse()
        data = response.read()
        assert response.status in (200, 201, 204), (response.status, data)
        return data, response

    def gws(self, count):
        uid = ""
        for number in range(count):
            path = (
                f"/files?uploadUid={uid}&fileName=x&totalSize={count * CHUNK}"
                f"&chunkNumber={number}&chunkCount={count}"
            )
            data, _ = self.call(
                "POST", path, BLOCK, Content_Type="application/octet-stream"
            )
            uid = json.loads(data)["uploadUid"]
        return uid

    def tus(self, count):
        tus = {"Tus_Resumable": "1.0.0"}
        length = str(count * CHUNK)
        _, response = self.call("POST", "/files", Upload_Length=length, **tus)
        path = response.headers["Location"]
        for number in range(count):
            self.call(
                "PATCH",
                path,
                BLOCK,
                Content_Type="application/offset+octet-stream",
                Upload_Offset=str(number * CHUNK),
                **tus,
            )
        return path.rpartition("/")[2]

    def used(self):
        return json.loads(self.call("GET", "/used")[0])

    def written(self, count):
        for number in range(count):
            self.call(
                "POST",
                f"/written?at={number * CHUNK}&total={count * CHUNK}",
                BLOCK,
                Content_Type="application/octet-stream",
            )

    def discard(self, count):
        for _ in range(count):
            self.call(
                "POST", "/discard", BLOCK, Content_Type="application/octet-stream"
            )


@contextmanager
def serving(*options):
    """A client of a server in a process of its own."""
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Client(int(server.stdout.readline()))
    finally:
        server.stdin.close()
        server.wait()


def show_blob(client, uid, where):
    taken, synced = json.loads(client.call("GET", f"/blob?uid={uid}")[0])
    beyond = (taken - synced) * 1000
    verdict = "ok" if beyond < 10 else "MISSED"
    print(
        f"to_blob on {where}: {taken:.3f} s, of which fsync {synced:.3f} s:"
        f" {beyond:.2f} ms beyond it, goal 10 {verdict}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024, help="MiB")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--zeo", action="store_true")
    said = parser.parse_args()
    if said.serve:
        serve(said.zeo)
        return
    count = said.size * MIB // CHUNK
    with serving() as client:
        worked = {}

        def timed(action):
            def variant():
                before, began = client.used()[1], time.perf_counter()
                uid = action(count)
                taken = time.perf_counter() - began
                worked.setdefault(action, []).append(client.used()[1] - before)
                # The next is to find the machine as this one did: nothing left to be
                # written, and as much memory that files have used before.
                if uid:
                    client.call("DELETE", f"/files/{uid}")
                client.call("POST", "/written?total=0")
                os.sync()
                return taken

            return variant

        # So do the first ones.
        for action in (client.written, client.discard):
            timed(action)()
        before = client.used()[0]
        worked.clear()
        ratios = compare(
            f"{said.size} MiB in chunks of 8 MiB (ratio of speeds)",
            "discarded",
            {
                "discarded": timed(client.discard),
                "read and written, and no more": timed(client.written),
                "GWS, raw body": timed(client.gws),
                "tus": timed(client.tus),
            },
            rounds=said.rounds,
            goals={"GWS, raw body": 0.85, "tus": 0.85},
            invert=True,
        )
        least = ratios["read and written, and no more"]
        for name, action in (("GWS, raw body", client.gws), ("tus", client.tus)):
            pairs = zip(worked[action], worked[client.discard], strict=True)
            work = statistics.median(mine / floor for mine, floor in pairs)
            verdict = "ok" if work <= 1.2 else "MISSED"
            print(
                f"{name}: {ratios[name] / least:.3f} of what is only written;"
                f" CPU {work:.2f} of discarded, goal 1.2 {verdict}"
            )
        grown = client.used()[0] - before
        verdict = "ok" if grown <= 2 * CHUNK else "MISSED"
        print(f"\nmemory grew by {grown / MIB:.1f} MiB, goal 16 {verdict}")
        show_blob(client, client.gws(count), "a FileStorage")
    with serving("--zeo") as client:
        show_blob(client, client.gws(count), "a ZEO that shares its blobs")


if __name__ == "__main__":
    main()
