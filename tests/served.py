"""An application as a real server loads it, for the tests of how processes end."""

import os
import threading
from pathlib import Path

from pyramid.config import Configurator
from pyramid_zodbconn import get_connection

from asyncview import BaseAsyncView


class Task(BaseAsyncView):
    """Ends by itself when its process drains, or not at all, as its form says."""

    exclusive = property(lambda self: self.request.params.get("key"))
    restartable = property(lambda self: int(self.request.params.get("restartable", 0)))

    def __run__(self, process_id=None):
        params, pause = self.request.params, threading.Event()
        executor = self.request.registry.asyncview.engine.executor
        Path("entered").touch()
        if "die" in params:
            # Not before the POST was answered: nobody would know of the job.
            while not Path("answered").exists():
                pause.wait(0.01)
            os._exit(9)
        while not executor._stopped or "stubborn" in params:
            if "quick" in params:
                break
            pause.wait(0.01)
        self.context["work"] = True
        return b"done"


def root_of(request):
    return get_connection(request).root()


def make_app(**settings):
    config = Configurator(
        settings={
            "zodbconn.uri": "file://Data.fs?blobstorage_dir=blobs",
            "asyncview.name": "tests",
            "asyncview.drain": os.environ.get("DRAIN", "20"),
            "asyncview.lease": os.environ.get("LEASE", "60"),
            "asyncview.threads": os.environ.get("THREADS", "2"),
            **settings,
        },
        root_factory=root_of,
    )
    config.include("asyncview")
    config.add_async_view(Task, "task")
    return config.make_wsgi_app()
