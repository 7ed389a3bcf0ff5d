"""The application that is killed: its jobs leave traces in and outside the database."""

import json
import os
import signal
import threading
import time
from pathlib import Path

from BTrees.Length import Length
from BTrees.OOBTree import OOBTree
from persistent import Persistent
from persistent.mapping import PersistentMapping
from pyramid.config import Configurator
from pyramid.interfaces import IExecutionPolicy
from pyramid.response import Response
from pyramid_zodbconn import get_connection
from transaction.interfaces import TransientError
from zope.interface import provider

from asyncview import BaseAsyncView
from asyncview.executors import threads
from asyncview.pyramid.start import JOB
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.store import transact
from chaos.points import reach

#: Counters that jobs share; what two jobs write to one is a conflict.
COUNTERS = 16

#: Times that a POST is tried, as pyramid_retry does.
ATTEMPTS = 3


class Counter(Persistent):
    value = 0


def populate(connection):
    """What jobs write to: an entry for each, and what all of them share."""
    root = connection.root()
    if "chaos" not in root:
        site = root["chaos"] = PersistentMapping()
        site["effects"] = OOBTree()
        site["sum"] = Length()
        for number in range(COUNTERS):
            site[number] = Counter()


class Trace:
    """Lines of JSON in a file that survives its writers."""

    def __init__(self, path):
        self._path = path

    def write(self, **values):
        line = json.dumps(values | {"pid": os.getpid(), "time": time.time()}) + "\n"
        # One write, in one piece: several processes append.
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)

    def read(self):
        try:
            text = Path(self._path).read_text()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines()]


class Work(BaseAsyncView):
    """Counts itself, once, and ends as its form says."""

    @property
    def restartable(self):
        return int(self.request.params.get("restartable", 0))

    @property
    def tags(self):
        return (self.request.params["key"],)

    def __run__(self, process_id=None):
        params, settings = self.request.params, self.request.registry.settings
        ticket = self.request.environ[JOB]
        Trace(settings["chaos.starts"]).write(
            id=process_id, token=ticket.token, attempt=ticket.attempt
        )
        site = self.context
        effects = site["effects"]
        effects[process_id] = effects.get(process_id, 0) + 1
        site["sum"].change(1)
        for each in params.getall("counter"):
            site[int(each)].value += 1
        reach("mid-run")
        self.progress.update(1, 2, "half of it")
        if "gate" in params:
            gate = f"gate-{params['gate']}-{os.getpid()}"
            until(Path(settings["chaos.folder"], gate).exists)
        threading.Event().wait(float(params.get("seconds", 0)))
        mode = params.get("mode")
        if mode == "fatal":
            os.kill(os.getpid(), signal.SIGKILL)
        if mode == "failing":
            raise ZeroDivisionError("as asked")
        if mode == "exiting":
            raise SystemExit(3)
        if mode == "big":
            return Response(b"x" * 100_000)
        return process_id


def until(condition):
    pause = threading.Event()
    while not condition():
        pause.wait(0.01)


def freeze(request):
    """Stop this process where it holds nothing that others wait for."""
    storage = request.registry.asyncview.engine.db.storage
    with storage._commit_lock:
        os.kill(os.getpid(), signal.SIGSTOP)
    return Response("thawed")


def rest(request):
    """What is not as it will be when everything has ended and was tidied up."""
    engine = request.registry.asyncview.engine
    with reading(engine.db) as connection:
        store = store_of(connection, engine.settings.name)
        if store is None:
            return {"jobs": 0, "leases": 0}
        return {"jobs": store.crowd(), "leases": len(store.leases)}


@provider(IExecutionPolicy)
def retrying(environ, router):
    """What pyramid_retry does: the same environ, a new request."""
    for attempt in range(1, ATTEMPTS + 1):
        with router.request_context(environ) as request:
            try:
                return router.invoke_request(request)
            except TransientError:
                if attempt == ATTEMPTS:
                    raise


def root_factory(request):
    return get_connection(request).root()["chaos"]


def make_app(settings):
    if "chaos.quick" in settings:
        # However long the one before takes.
        threads.QUICK = float(settings["chaos.quick"])
    with Configurator(settings=settings, root_factory=root_factory) as config:
        config.include("asyncview")
        if "chaos.once" not in settings:
            config.set_execution_policy(retrying)
        config.add_async_view(Work, "work")
        config.add_route("freeze", "/freeze")
        config.add_view(freeze, route_name="freeze")
        config.add_route("rest", "/rest")
        config.add_view(rest, route_name="rest", renderer="json")
        app = config.make_wsgi_app()
    transact(app.registry.asyncview.engine.db, populate)
    return app
