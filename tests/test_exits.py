"""Every way out of ``__run__``, and what becomes of the work and the job."""

import logging
import threading
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import pytest
from persistent.mapping import PersistentMapping
from pyramid.httpexceptions import HTTPForbidden
from pyramid.httpexceptions import HTTPFound
from pyramid.httpexceptions import HTTPNotFound
from pyramid.response import Response

from asyncview import BaseAsyncView
from asyncview import JobCancelled
from asyncview.store import transact


class Unprintable(Exception):
    """It can't be pickled, and does not say what it is."""

    def __init__(self):
        self.reason = lambda: None

    def __str__(self):
        raise SystemExit("no message")


class Markup(str):
    __slots__ = ()

    def __html__(self):
        return self


class Refusing:
    """A data manager that says no at the vote."""

    def __init__(self, tm, error):
        self.transaction_manager = tm
        self.error = error

    def tpc_vote(self, transaction):
        raise self.error

    def sortKey(self):
        return "~"

    def nothing(self, transaction):
        pass

    abort = tpc_begin = commit = tpc_finish = tpc_abort = nothing


def raising(error):
    def run(view):
        raise error

    return run


def returning(*values):
    def run(view):
        (value,) = values
        return value() if callable(value) else value

    return run


def recursing(view):
    return recursing(view)


def dooming(view):
    view.request.tm.doom()
    return "doomed"


def unpicklable(view):
    view.context.data["lock"] = threading.Lock()
    return "never"


def breaking_in_the_middle(view):
    def body():
        yield b"half"
        raise ValueError("the other half")

    return Response(app_iter=body())


def writing_while_it_is_read(view):
    def body():
        yield b"one "
        view.context.data["late"] = True
        yield b"two"

    return Response(app_iter=body())


def saying_no(view):
    view.request.response.headers["X-Tm"] = "abort"
    return "no"


def refused_at_the_vote(view):
    view.request.tm.get().join(Refusing(view.request.tm, OSError("no space left")))
    return "never"


def disturb(view, key="work"):
    """Another connection changes what this transaction has changed."""

    def change(connection):
        connection.root()[key]["other"] = threading.get_ident()

    thread = threading.Thread(
        target=transact, args=(view.request.registry.asyncview.engine.db, change)
    )
    thread.start()
    thread.join()


def losing_once(view):
    if view.context.attempts == 1:
        disturb(view)
    return f"attempt {view.context.attempts}"


def stored_in_doubt(view):
    view.context.break_finish()
    return "stored"


@dataclass
class Exit:
    """What leaves ``__run__``, and what is to be seen then."""

    name: str
    run: Any
    status: str = "completed"
    reason: str | None = None
    code: int = 200
    body: str | None = None
    kind: str | None = None
    work: bool = True
    renderer: str | None = None
    log: str = "is completed after"
    settings: tuple = ()


def failing(name, run, **kw):
    kw = {
        "status": "failed",
        "reason": "exception",
        "code": 500,
        "work": False,
        "log": "failed (exception), error id ",
        **kw,
    }
    return Exit(name, run, **kw)


def aborting(name, run, **kw):
    return failing(name, run, reason="aborted", log="failed (aborted)", **kw)


VETO = (("tm.commit_veto", "pyramid_tm.default_commit_veto"),)

EXITS = [
    Exit("a response", returning(lambda: Response("made", status=201)),
         code=201, body="made"),
    Exit("text", returning("plain <b>"), body="plain <b>", kind="text/plain"),
    Exit("markup", returning(Markup("<b>")), body="<b>", kind="text/html"),
    Exit("bytes", returning(b"\x00\xff"), kind="text/plain"),
    Exit("nothing", returning(None), code=204, body=""),
    Exit("a dict for JSON", returning({"a": 1}), renderer="json",
         body='{"a": 1}', kind="application/json"),
    Exit("nothing for JSON", returning(None), renderer="json", body="null"),
    Exit("text for JSON", returning("a"), renderer="json", body='"a"'),
    Exit("text for a string renderer", returning("a"), renderer="string", body="a"),
    Exit("a dict for a template", returning({"rows": ["<a>"]}),
         renderer="elsewhere:rows.pt", body="<ul><li>&lt;a&gt;</li></ul>"),
    Exit("text beside a template", returning("as it stands"),
         renderer="elsewhere:rows.pt", body="as it stands", kind="text/plain"),
    failing("a dict without a renderer", returning({"a": 1})),
    failing("a dict that the template does not take", returning({}),
            renderer="elsewhere:rows.pt"),
    Exit("returned HTTPFound", returning(lambda: HTTPFound("/done")), code=302),
    Exit("raised HTTPFound", raising(HTTPFound("/done")), code=302, work=False),
    Exit("returned HTTPNotFound", returning(lambda: HTTPNotFound("gone")), code=404,
         body="gone"),
    Exit("returned 500", returning(lambda: Response("bad", status=500)), code=500,
         body="bad"),
    aborting("raised HTTPNotFound", raising(HTTPNotFound("gone")), code=404,
             body="gone"),
    aborting("raised HTTPForbidden", raising(HTTPForbidden("not you")), code=403,
             body="not you"),
    aborting("vetoed 404", returning(lambda: HTTPNotFound("gone")), code=404,
             body="gone", settings=VETO),
    aborting("vetoed by header", saying_no, code=200, body="no", settings=VETO),
    aborting("doomed", dooming, code=200, body="doomed"),
    failing("ValueError", raising(ValueError("wrong")), log="ValueError: wrong"),
    failing("SystemExit", raising(SystemExit(3)), log="SystemExit: 3"),
    failing("KeyboardInterrupt", raising(KeyboardInterrupt())),
    failing("GeneratorExit", raising(GeneratorExit())),
    failing("MemoryError", raising(MemoryError())),
    failing("RecursionError", recursing, log="RecursionError"),
    failing("an exception that can't be kept", raising(Unprintable())),
    failing("an object that can't be pickled", unpicklable, log="pickle"),
    failing("a body that breaks in the middle", breaking_in_the_middle,
            log="ValueError: the other half"),
    Exit("a body that writes", writing_while_it_is_read, body="one two"),
    failing("a commit that is refused", refused_at_the_vote, log="no space left"),
    failing("a status that ends nothing", returning(
        lambda: Response(status=100))),
    Exit("JobCancelled", raising(JobCancelled()), "cancelled", code=410, work=False,
         log="is cancelled after"),
    Exit("a conflict", losing_once, body="attempt 2", log="is tried again"),
    Exit("a commit in doubt", stored_in_doubt, body="stored"),
]  # fmt: skip


class Leaving(BaseAsyncView):
    def __run__(self):
        self.context.attempts += 1
        self.context.data["work"]["done"] = True
        return self.context.exit.run(self)


class Afterwards(BaseAsyncView):
    def __run__(self):
        return threading.current_thread().name


class Place:
    """The context: not persistent, so that it is the same in every request."""

    def __init__(self):
        self.attempts = 0
        self.exit = None
        self.broken = threading.local()

    def break_finish(self):
        """The next commit of this thread is stored, and then raises."""
        self.broken.now = True


def sorry(context, request):
    return Response("sorry", status=200)


FLAVOURS = {
    "plain": {},
    "explicit manager": {"tm.manager_hook": "pyramid_tm.explicit_manager"},
    "exception view": {},
    "commit veto": dict(VETO),
}


@pytest.fixture
def leave(make_site):
    """Makes a site whose only thread runs one exit after the other."""

    def make(flavour="plain", **settings):
        place = Place()

        def root_factory(request):
            from pyramid_zodbconn import get_connection

            place.data = get_connection(request).root()
            return place

        def configure(config):
            for number, renderer in enumerate(
                [None, "json", "string", "elsewhere:rows.pt"]
            ):
                config.add_async_view(Leaving, f"leaving{number}", renderer=renderer)
                renderers[renderer] = f"/leaving{number}"
            config.add_async_view(Afterwards, "afterwards")
            if flavour == "exception view":
                config.add_exception_view(sorry, context=Exception)

        renderers = {}
        site = make_site(
            configure,
            root_factory,
            **{"asyncview.threads": "1", **FLAVOURS[flavour], **settings},
        )
        transact(site.db, lambda conn: conn.root().update(work=PersistentMapping()))
        site.work = lambda: transact(
            site.db, lambda conn: dict(conn.root()["work"]).get("done", False)
        )
        finish = site.db.storage.tpc_finish

        def tpc_finish(*arguments):
            tid = finish(*arguments)
            if getattr(place.broken, "now", False):
                place.broken.now = False
                raise OSError("the answer got lost")
            return tid

        site.db.storage.tpc_finish = tpc_finish

        def run(exit):
            transact(site.db, lambda conn: conn.root()["work"].clear())
            place.exit, place.attempts = exit, 0
            path = renderers[exit.renderer]
            doc = site.run(path)
            return doc, lambda **headers: site.result(
                path, doc["process_id"], status="*", headers=headers
            )

        site.leave = run
        return site

    return make


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("exit", EXITS, ids=lambda exit: exit.name)
def test_every_exit_ends_the_job_as_promised(leave, exit, flavour, caplog):
    caplog.set_level(logging.INFO, "asyncview")
    expected = exit
    if flavour == "commit veto" and exit.status == "completed" and exit.code >= 400:
        expected = aborting(exit.name, exit.run, code=exit.code, body=exit.body)
    site = leave(flavour, **dict(exit.settings))
    doc, result = site.leave(exit)
    assert doc["status"] == expected.status, caplog.text
    assert (doc["error"] or {}).get("reason") == expected.reason
    assert site.work() is expected.work
    assert expected.log in caplog.text
    assert "defect" not in caplog.text
    # One failure page is enough: a template takes a second to compile.
    paged = expected.code not in (410, 500) or exit.name == "ValueError"
    response = result(Accept="text/html" if paged else "application/json")
    assert response.status_int == expected.code
    if expected.body is not None:
        assert expected.body in response.text
    if expected.kind is not None:
        assert response.content_type == expected.kind
    if expected.reason == "exception":
        assert doc["error"]["id"] in response.text
        assert doc["error"]["id"] in caplog.text
        assert "Traceback" not in response.text
    after = site.run("/afterwards")
    assert site.result("/afterwards", after["process_id"]).text == "asyncview-1"


def test_every_exit_is_recorded_within_a_second_by_one_thread(leave):
    site = leave(**{"asyncview.progress_interval": "1"})
    seconds = []
    for exit in EXITS:
        if not exit.settings:
            began = time.monotonic()
            doc, _ = site.leave(exit)
            seconds.append(time.monotonic() - began)
            assert doc["status"] == exit.status, exit.name
    # Others may keep the machine busy for a moment.
    assert median(seconds) < 1


def test_a_location_and_a_prepared_body_are_kept(leave):
    site = leave()
    _, result = site.leave(Exit("", returning(lambda: HTTPFound("done"))))
    response = result()
    assert response.headers["Location"].endswith("/done")
    assert "/done" in response.text or "done" in response.text
