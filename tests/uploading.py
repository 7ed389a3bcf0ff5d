"""An application that takes uploads, and clients for it: for the tests of uploads."""

import base64
import hashlib
import os
import random
from pathlib import Path

from conftest import eventually
from people import Policy

TUS = {"Tus-Resumable": "1.0.0"}
BYTES = "application/offset+octet-stream"


def endpoint(config):
    """Configure an application with an endpoint at /files, and users."""
    config.set_security_policy(Policy())
    config.add_upload_endpoint("/files")
    config.add_view(lambda request: contents(request), name="contents")


def contents(request):
    """The bytes of an upload, as `get_upload` gives them."""
    upload = request.asyncview.get_upload(request.params["uid"])
    with upload.open() as file:
        request.response.body = file.read()
    request.response.headers["X-File-Name"] = upload.file_name
    return request.response


def some_bytes(size, seed=0):
    return random.Random(seed).randbytes(size)


def cut(data, size):
    """Chunks of ``size`` bytes; the last may be shorter."""
    return [data[at : at + size] for at in range(0, len(data), size)] or [b""]


def query(uid, number, count, total, name="data.bin"):
    return {
        "uploadUid": uid,
        "fileName": name,
        "totalSize": total,
        "chunkNumber": number,
        "chunkCount": count,
    }


def send(app, uid, number, chunks, total=None, name="data.bin", status=200, **headers):
    """One chunk of the GWS protocol as a raw body; gives the answer's document."""
    total = sum(map(len, chunks)) if total is None else total
    params = query(uid, number, len(chunks), total, name)
    url = "/files?" + "&".join(f"{key}={value}" for key, value in params.items())
    headers = {key.replace("_", "-"): value for key, value in headers.items()}
    headers["Content-Type"] = "application/octet-stream"
    return app.post(url, chunks[number], headers, status=status).json


def upload(app, data=b"some bytes", size=4, name="data.bin", order=None):
    """Send a whole file in chunks; gives its uid."""
    chunks, uid = cut(data, size), ""
    for number in order or range(len(chunks)):
        uid = send(app, uid, number, chunks, name=name)["uploadUid"]
    return uid


def got(app, uid, status=200):
    return app.get("/contents", {"uid": uid}, status=status).body


def create(app, size, status=201, body=b"", **headers):
    """A tus upload; gives its path."""
    headers = {key.replace("_", "-"): str(value) for key, value in headers.items()}
    headers = {**TUS, "Upload-Length": str(size), **headers}
    response = app.post("/files", body, headers, status=status)
    return response.headers.get("Location")


def patch(app, path, offset, data, status=204, **headers):
    headers = {key.replace("_", "-"): value for key, value in headers.items()}
    headers = {
        **TUS,
        "Upload-Offset": str(offset),
        "Content-Type": BYTES,
        **headers,
    }
    return app.patch(path, data, headers, status=status)


def checksum(data, algorithm="sha1"):
    digest = hashlib.new(algorithm, data).digest()
    return f"{algorithm} {base64.b64encode(digest).decode()}"


def all_gone(site):
    """Wait until nothing is staged: the pulse may be just removing something, too."""
    eventually(lambda: staged_files(site) == [])


def staged_files(site):
    """What is on disk under the place of uploads, but for directories of owners."""
    root = Path(site.engine.staging.root)
    found = []
    # Unlike a glob, a walk goes on where what it was to look at is gone by then.
    for folder, folders, files in os.walk(root):
        here = Path(folder).relative_to(root)
        if here != Path():
            found += [str(here / name) for name in files]
        if len(here.parts) == 1:
            found += [str(here / name) for name in folders]
    return sorted(found)
