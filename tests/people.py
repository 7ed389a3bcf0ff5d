"""Users, and a view that ends as its form says: for the tests of what is answered."""

import threading
from contextlib import contextmanager

import waitress
from conftest import PATIENCE
from conftest import eventually
from ending import end
from pyramid.httpexceptions import HTTPForbidden

from asyncview import BaseAsyncView
from asyncview import JobCancelled


class Policy:
    """Believes REMOTE_USER; ``int:1`` is the number."""

    def authenticated_userid(self, request):
        name = request.remote_user
        if name is None:
            return None
        return int(name[4:]) if name.startswith("int:") else name

    identity = authenticated_userid

    def permits(self, request, context, permission):
        if permission == "asyncview.admin":
            return request.remote_user == "admin"
        return request.remote_user != "banned"

    def remember(self, request, userid, **kw):
        return []

    def forget(self, request, **kw):
        return []


class Work(BaseAsyncView):
    """Ends as ``mode`` says; "running" once ``registry.gate`` is open, or cancelled."""

    label = "Some work"

    def __run__(self, process_id=None):
        mode = self.request.params.get("mode", "completed")
        registry = self.request.registry
        if mode == "running":
            self.progress.update(1, 4, "On it")
            gate = registry.gate
            registry.entered.release()
            while not gate.wait(0.01):
                self.progress.update()
        elif mode == "failed":
            raise ZeroDivisionError("a secret")
        elif mode == "aborted":
            raise HTTPForbidden("not today")
        elif mode == "cancelled":
            raise JobCancelled()
        return f"it is {mode}"


def working(config, gate=None):
    """Configure an application with `Work` under /work."""
    config.registry.gate = gate or threading.Event()
    config.registry.entered = threading.Semaphore(0)
    config.add_async_view(Work, "work")


def let_go(site):
    """Have all jobs of a `working` application end, and hold those to come."""
    registry, engine = site.registry, site.engine
    registry.gate.set()
    eventually(lambda: not (engine.executor.busy() or len(engine.live)))
    registry.gate = threading.Event()
    registry.entered = threading.Semaphore(0)


def job_that_is(site, mode, app=None, path="/work", **kw):
    """The id of a job in that state, which the browser ``app`` started."""
    process_id = site.start(path, {"mode": mode}, app, **kw)
    if mode == "running":
        assert site.registry.entered.acquire(timeout=PATIENCE)
    else:
        site.wait(process_id)
    return process_id


@contextmanager
def serving(wsgi):
    """A real server in a thread; gives its address, leaves no socket open."""
    server = waitress.create_server(wsgi, host="127.0.0.1", port=0, threads=2)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield "127.0.0.1", server.effective_port
    finally:
        end(server, thread)
