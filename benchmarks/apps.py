"""Applications to measure: a real FileStorage, a real router, no network."""

import os
import shutil
import tempfile
from contextlib import contextmanager

from pyramid.config import Configurator
from pyramid_zodbconn import get_connection

import asyncview
from asyncview import BaseAsyncView

BODY = b"x" * 1000


class Nothing(BaseAsyncView):
    """A job that does nothing."""

    label = "Nothing"

    def __run__(self):
        return None


class Root:
    """What traversal starts from; loads the database's root, as applications do."""

    def __init__(self, request):
        self.data = get_connection(request).root()

    def __getitem__(self, name):
        raise KeyError(name)


@contextmanager
def application(configure=lambda config: None, **settings):
    """A configured application on a new FileStorage: its config and WSGI app."""
    directory = tempfile.mkdtemp(prefix="asyncview-bench-", dir=os.environ.get("BENCH"))
    settings = {name.replace("__", "."): value for name, value in settings.items()}
    config = Configurator(
        settings={
            "asyncview.name": "bench",
            "zodbconn.uri": f"file://{directory}/Data.fs"
            f"?blobstorage_dir={directory}/blobs&connection_pool_size=32",
            **settings,
        },
        root_factory=Root,
    )
    config.include("asyncview")
    config.add_async_view(Nothing, "nothing")
    configure(config)
    try:
        yield config.registry, config.make_wsgi_app()
    finally:
        asyncview.close(config.registry, drain=5)
        shutil.rmtree(directory, ignore_errors=True)


def environ(path, method="GET", body=b"", query=""):
    """A WSGI environ as waitress makes it, of about 1 kB with its body."""
    import io

    return {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "6543",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "waitress",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_HOST": "127.0.0.1",
        "HTTP_HOST": "localhost:6543",
        "HTTP_ACCEPT": "*/*",
        "CONTENT_TYPE": "application/octet-stream",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


def call(app, env):
    """One request; gives status line, headers and body."""
    said = []
    chunks = app(env, lambda status, headers, exc=None: said.append((status, headers)))
    try:
        body = b"".join(chunks)
    finally:
        if hasattr(chunks, "close"):
            chunks.close()
    return said[0][0], dict(said[0][1]), body


def post(app, path="/nothing", body=BODY):
    """Start a job; gives its id."""
    status, headers, _ = call(app, environ(path, "POST", body))
    assert status.startswith("303"), status
    return headers["Location"].rpartition("process_id=")[2]


class Held:
    """An executor that keeps what it is given until it is let go."""

    def __init__(self, executor):
        self._executor = executor
        self.ids = []

    def __getattr__(self, name):
        return getattr(self._executor, name)

    def submit(self, job_id):
        self.ids.append(job_id)

    def release(self):
        """Let go of what is held; gives the ids."""
        ids, self.ids = self.ids, []
        for job_id in ids:
            self._executor.submit(job_id)
        return ids


def wait_ended(engine, ids):
    """Until these jobs have ended; costs the others nothing while it waits."""
    for job_id in reversed(ids):
        with engine.live.watching(job_id) as ended:
            if engine.executor.waiting(job_id) or job_id in engine.live:
                assert ended.wait(120)
