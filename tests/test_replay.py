"""The replay is the same request: its identity, its environ, its body."""

import io
import logging
import threading

import pytest
from people import Policy
from persistent.mapping import PersistentMapping
from pyramid.authentication import AuthTktCookieHelper
from pyramid.authorization import Allow
from pyramid.authorization import Authenticated
from pyramid.httpexceptions import HTTPBadRequest
from pyramid.httpexceptions import HTTPFound
from pyramid.request import Request
from pyramid.response import Response
from pyramid_zodbconn import get_connection
from transaction.interfaces import TransientError
from ZODB.blob import Blob

from asyncview import BaseAsyncView
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.store import transact

PATIENCE = 30


def stored_request(site, process_id):
    """Environ, body and size of what is kept of the POST."""
    with reading(site.db) as connection:
        stored = store_of(connection, "tests").find(process_id).job.state.request
        body = stored.body
        if isinstance(body, Blob):
            with body.open() as file:
                body = file.read()
        return dict(stored.environ), body, isinstance(stored.body, Blob)


def count_jobs(site):
    with reading(site.db) as connection:
        store = store_of(connection, "tests")
        return 0 if store is None else store.crowd() + len(store.finished)


class Telling(BaseAsyncView):
    """Tells what its request is in the replay."""

    keep_request = True

    def __run__(self):
        request = self.request
        return Response(
            json_body={
                "user": request.authenticated_userid,
                "path": request.path,
                "url": request.url,
                "method": request.method,
                "query": request.query_string,
                "context": type(self.context).__name__,
                "process_id": self.process_id,
                "names": sorted(n for n in request.environ if n[:5] != "async"),
                "body": request.body.decode("latin-1"),
                "type": request.content_type,
                "params": {
                    name: value if isinstance(value, str) else value.filename
                    for name, value in request.POST.items()
                }
                if "json" not in request.content_type
                else request.json_body,
            }
        )


def telling(config):
    config.add_async_view(Telling, "tell")


def told(site, path="/tell", *args, **kw):
    doc = site.run(path, *args, **kw)
    assert doc["status"] == "completed", doc
    return site.result(path, doc["process_id"]).json


# Identity


class TicketPolicy:
    """As AuthTkt: the ticket dies of age."""

    def __init__(self):
        self.helper = AuthTktCookieHelper("secret", hashalg="sha512")
        self.expired = False

    def identity(self, request):
        return None if self.expired else self.helper.identify(request)

    def authenticated_userid(self, request):
        identity = self.identity(request)
        return None if identity is None else identity["userid"]

    def permits(self, request, context, permission):
        from pyramid.authorization import ACLHelper

        principals = [Authenticated] if self.authenticated_userid(request) else []
        return ACLHelper().permits(context, principals, permission)

    def remember(self, request, userid, **kw):
        return self.helper.remember(request, userid, **kw)

    def forget(self, request, **kw):
        return self.helper.forget(request, **kw)


class Place:
    __acl__ = ((Allow, Authenticated, "work"),)

    def __init__(self, request):
        pass


class Waiting(BaseAsyncView):
    """Waits in the queue behind itself; only the first one is let in."""

    def __run__(self):
        return f"{self.request.authenticated_userid}"


class Blocking(BaseAsyncView):
    def __run__(self):
        inside, gate = self.request.registry.gates
        inside.set()
        gate.wait(PATIENCE)


@pytest.fixture
def ticketed(make_site, gate):
    """A site with one thread, which is busy until the gate is opened."""

    def make(configure=None, **options):
        policy = TicketPolicy()

        def everything(config):
            config.set_security_policy(policy)
            config.add_async_view(Waiting, "wait", **options)
            config.add_async_view(Blocking, "block")
            config.add_view(
                lambda request: Response(headers=policy.remember(request, "jane")),
                name="login",
            )
            config.registry.gates = (threading.Event(), gate)
            if configure is not None:
                configure(config)

        site = make_site(everything, Place, **{"asyncview.threads": "1"})
        site.policy = policy
        site.app.get("/login")
        return site

    return make


def run_later(site, gate, before):
    """Start a job, do something while it is queued, give its status document."""
    site.start("/block", app=site.browser())
    assert site.registry.gates[0].wait(PATIENCE)
    id = site.start("/wait")
    before()
    gate.set()
    site.wait(id)
    site.policy.expired = False
    permits = site.policy.permits
    site.policy.permits = lambda *args: True
    doc = site.status("/wait", id)
    site.policy.permits = permits
    return doc, id


def test_the_replay_has_the_users_identity(ticketed, gate):
    site = ticketed(permission="work")
    doc, id = run_later(site, gate, lambda: None)
    assert doc["status"] == "completed"
    assert doc["owner"] == "jane"
    assert site.result("/wait", id).text == "jane"


@pytest.mark.parametrize("permission", [None, "work"])
@pytest.mark.parametrize("login_page", [False, True])
def test_a_job_whose_user_is_gone_is_not_entered(
    ticketed, gate, permission, login_page, caplog
):
    def configure(config):
        if login_page:
            config.add_forbidden_view(lambda request: HTTPFound("/login"))

    site = ticketed(configure, permission=permission)
    doc, _ = run_later(site, gate, lambda: setattr(site.policy, "expired", True))
    assert (doc["status"], doc["error"]["reason"]) == ("failed", "not_reached")


def test_a_user_who_may_no_longer_is_not_let_in(ticketed, gate, monkeypatch):
    """Still logged in, and asked for again as the one who started the job."""
    site = ticketed(permission="work")

    def dismiss():
        monkeypatch.setattr(Place, "__acl__", ())

    _, id = run_later(site, gate, dismiss)
    with reading(site.db) as connection:
        state = store_of(connection, "tests").find(id).job.state
        assert (state.status, state.failure.reason) == ("failed", "not_reached")
        assert state.failure.type == "HTTPForbidden"


def test_a_user_of_another_type_is_another_user(make_site):
    class Policy(TicketPolicy):
        userid = 1

        def authenticated_userid(self, request):
            return 1 if "asyncview.job" not in request.environ else "1"

    def configure(config):
        config.set_security_policy(Policy())
        config.add_async_view(Waiting, "wait")

    site = make_site(configure, Place)
    doc = site.run("/wait")
    assert doc["error"]["reason"] == "not_reached"


class Folder(PersistentMapping):
    pass


class Named(BaseAsyncView):
    def __run__(self):
        return self.context.name


def folder_root(request):
    return get_connection(request).root()


def make_folder(name):
    def make(connection):
        folder = connection.root()["folder"] = Folder()
        folder.name = name

    return make


def test_a_context_that_was_replaced_is_not_worked_on(make_site, gate):
    def configure(config):
        config.add_view(Named, name="named", context=Folder)
        config.add_async_view(Blocking, "block")
        config.registry.gates = (threading.Event(), gate)

    site = make_site(configure, folder_root, **{"asyncview.threads": "1"})
    transact(site.db, make_folder("first"))
    site.start("/block")
    assert site.registry.gates[0].wait(PATIENCE)
    id = site.start("/folder/named")
    transact(site.db, make_folder("second"))
    gate.set()
    site.wait(id)
    with reading(site.db) as connection:
        state = store_of(connection, "tests").find(id).job.state
        assert (state.status, state.failure.reason) == ("failed", "not_reached")
        assert "replaced" in state.failure.message
    # It is another context's job now.
    site.app.get(f"/folder/named/completed?process_id={id}", status=404)


def test_a_context_may_be_made_in_the_request_that_starts_the_job(make_site):
    class Made(BaseAsyncView):
        def __run__(self):
            return self.context.name

    def root_factory(request):
        root = get_connection(request).root()
        if "folder" not in root:
            folder = root["folder"] = Folder()
            folder.name = "new"
        return root

    site = make_site(
        lambda config: config.add_view(Made, name="made", context=Folder), root_factory
    )
    id = site.start("/folder/made")
    site.wait(id)
    assert site.result("/folder/made", id).text == "new"


@pytest.mark.parametrize(
    ("path", "environ"),
    [
        ("/folder/tell", {}),
        ("/folder/@@tell", {}),
        ("/folder/tell/", {}),
        ("/tell", {"HTTP_X_VHM_ROOT": "/folder"}),
        ("/folder/tell", {"SCRIPT_NAME": "/app"}),
        ("/r/folder/tell", {}),
        ("/prefix/route/7", {}),
        ("/factory", {}),
        ("/dir%20ectory%C3%A9", {}),
    ],
)
def test_a_view_is_the_same_however_it_is_addressed(make_site, path, environ):
    def configure(config):
        config.add_view(Telling, name="tell", context=Folder)
        config.add_route("hybrid", "/r/*traverse")
        config.add_view(Telling, name="tell", route_name="hybrid", context=Folder)
        with config.route_prefix_context("prefix"):
            config.add_async_view(Telling, "numbered", pattern="route/{number}")
        config.add_async_view(Telling, "made", pattern="factory", factory=Place)
        config.add_async_view(Telling, "quoted", pattern="dir ectoryé")

    site = make_site(configure, folder_root)
    transact(site.db, make_folder("folder"))
    app = site.browser(**environ)
    response = app.post(path, {"a": "1"}, status=303)
    id = response.location.rpartition("process_id=")[2]
    site.wait(id)
    prefix = environ.get("SCRIPT_NAME", "")
    where = f"{prefix}{path.rstrip('/')}"
    assert f"{where}/processing?" in response.location
    doc = app.get(f"{path}/completed?process_id={id}&output_json=1").json
    assert doc["status"] == "completed", doc
    assert doc["links"]["result"] == f"{where}/result?process_id={id}"
    # The decorated and the plain name are one view.
    if path == "/folder/tell":
        app.get(f"/folder/@@tell/completed?process_id={id}", status=200)
    result = app.get(f"{path}/result?process_id={id}").json
    assert result["path"].rstrip("/") == where
    assert result["params"] == {"a": "1"}


@pytest.mark.parametrize("tweens", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_a_job_that_a_job_starts_exists_if_that_is_committed(make_site, tweens, fails):
    class Outer(BaseAsyncView):
        def __run__(self):
            inner = self.request.copy()
            inner.path_info = "/tell"
            inner.body = b"from=outer"
            response = self.request.invoke_subrequest(inner, use_tweens=tweens)
            # Not before: at the end of a subrequest pyramid_zodbconn aborts what
            # its transaction manager has.
            self.request.root.data["written"] = True
            if fails:
                raise ValueError("after all not")
            return response.location.rpartition("process_id=")[2]

    def configure(config):
        telling(config)
        config.add_async_view(Outer, "outer")

    site = make_site(configure)
    outer = site.run("/outer", {"a": "1"})
    if fails:
        assert outer["status"] == "failed"
        assert count_jobs(site) == 1
        return
    assert outer["status"] == "completed", outer
    inner = site.result("/outer", outer["process_id"]).text
    site.wait(inner)
    assert site.status("/tell", inner)["status"] == "completed"
    result = site.result("/tell", inner).json
    assert result["params"] == {"from": "outer"}
    assert result["path"] == "/tell"
    with reading(site.db) as connection:
        assert connection.root()["written"] is True


@pytest.mark.parametrize("tweens", [False, True])
def test_a_view_may_start_several_jobs_by_subrequests(make_site, tweens):
    def several(request):
        ids = []
        for number in "12":
            inner = request.copy()
            inner.path_info = "/tell"
            inner.body = f"number={number}".encode()
            response = request.invoke_subrequest(inner, use_tweens=tweens)
            ids.append(response.location.rpartition("process_id=")[2])
        return Response(json_body=ids)

    def configure(config):
        telling(config)
        config.add_view(several, name="several")

    site = make_site(configure)
    ids = site.app.post("/several", {"a": "1"}).json
    for number, id in zip("12", ids, strict=True):
        site.wait(id)
        assert site.result("/tell", id).json["params"] == {"number": number}


def test_a_copied_request_to_the_same_view_does_not_run_it_again(make_site):
    class Recursive(BaseAsyncView):
        entered = 0

        def __run__(self):
            type(self).entered += 1
            return self.request.invoke_subrequest(self.request.copy())

    site = make_site(lambda config: config.add_async_view(Recursive, "r"))
    doc = site.run("/r")
    assert doc["status"] == "completed", doc
    assert Recursive.entered == 1
    assert "<form" in site.result("/r", doc["process_id"]).text


# What is kept of the request


def test_nothing_of_the_process_is_kept(make_site):
    site = make_site(telling)
    app = site.browser(
        DATABASE_PASSWORD="secret",
        HTTP_PROXY="http://user:secret@proxy",
        HOME="/root",
        REMOTE_ADDR="192.0.2.1",
    )
    id = site.start("/tell", app=app)
    site.wait(id)
    environ, _, _ = stored_request(site, id)
    assert "secret" not in repr(environ)
    assert "HOME" not in environ
    assert environ["REMOTE_ADDR"] == "192.0.2.1"
    assert {type(value) for value in environ.values()} == {str}


def test_conditions_of_the_post_are_not_those_of_the_result(make_site):
    site = make_site(telling)
    headers = {
        "If-None-Match": '"a"',
        "If-Modified-Since": "Thu, 01 Jan 2026 00:00:00 GMT",
        "Range": "bytes=0-1",
        "Accept-Encoding": "gzip",
        "Accept-Language": "de",
        "X-Own": "kept",
    }
    names = told(site, headers=headers)["names"]
    assert {"HTTP_ACCEPT_LANGUAGE", "HTTP_X_OWN"} <= set(names)
    assert not [name for name in names if name[5:8] == "IF_"]
    assert not {"HTTP_RANGE", "HTTP_ACCEPT_ENCODING"} & set(names)


def rewriting_tween_factory(handler, registry):
    def tween(request):
        if request.path_info.startswith("/en/"):
            request.path_info_pop()
        return handler(request)

    return tween


def test_a_tween_that_rewrites_the_path_acts_once(make_site):
    def configure(config):
        telling(config)
        config.add_tween("test_replay.rewriting_tween_factory")

    site = make_site(configure)
    id = site.start("/en/tell")
    site.wait(id)
    assert site.status("/en/tell", id)["status"] == "completed"
    assert stored_request(site, id)[0]["PATH_INFO"] == "/en/tell"


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("size", [10, 200_000])
def test_bodies_come_back_whole(make_site, early, size):
    """Also where something has read them before."""

    class Reading(Telling):
        def run_process(self):
            if early and self.request.method == "POST":
                assert self.request.POST or self.request.body is not None
            return super().run_process()

    site = make_site(lambda config: config.add_async_view(Reading, "tell"))
    text = "x" * size
    assert told(site, "/tell", {"a": text})["params"] == {"a": text}
    multipart = told(
        site, "/tell", {"b": "1"}, upload_files=[("f", "näme.txt", text.encode())]
    )
    assert multipart["params"] == {"b": "1", "f": "näme.txt"}
    assert text in multipart["body"]
    doc = site.app.post_json("/tell", {"a": [text]})
    id = doc.location.rpartition("process_id=")[2]
    site.wait(id)
    assert site.result("/tell", id).json["params"] == {"a": [text]}
    assert stored_request(site, id)[2] is (size > 64 * 1024)
    assert told(site, "/tell")["body"] == ""


def test_a_body_without_a_length_comes_back_whole(make_site):
    """Chunked, as gunicorn and mod_wsgi hand it on."""
    site = make_site(telling)
    request = Request.blank("/tell", method="POST")
    request.environ.pop("CONTENT_LENGTH", None)
    request.environ.update(
        {
            "wsgi.input": io.BytesIO(b"a=" + b"1" * 100_000),
            "wsgi.input_terminated": True,
            "webob.is_body_seekable": False,
            "CONTENT_TYPE": "application/x-www-form-urlencoded",
            "HTTP_TRANSFER_ENCODING": "chunked",
        }
    )
    response = request.get_response(site.wsgi)
    assert response.status_int == 303
    id = response.location.rpartition("process_id=")[2]
    site.wait(id)
    result = site.result("/tell", id).json
    assert result["params"] == {"a": "1" * 100_000}
    assert "HTTP_TRANSFER_ENCODING" not in result["names"]


def test_the_environ_is_whole_and_new_for_each_attempt(make_site):
    from ZODB.POSException import ConflictError

    class Spoiling(BaseAsyncView):
        entered = 0

        def __run__(self):
            type(self).entered += 1
            environ = self.request.environ
            assert environ["wsgi.input"].read() == b"a=1"
            assert "spoilt" not in environ
            environ["spoilt"] = True
            if self.entered == 1:
                raise ConflictError("again")
            return "fine"

    site = make_site(lambda config: config.add_async_view(Spoiling, "s"))
    doc = site.run("/s", {"a": "1"})
    assert (doc["status"], Spoiling.entered) == ("completed", 2)


def test_the_stored_request_goes_with_the_end(make_site):
    class Plain(BaseAsyncView):
        def __run__(self):
            if self.request.params.get("fail"):
                raise ValueError("failed")

    class Keeping(Plain):
        keep_request = True

    def configure(config):
        config.add_async_view(Plain, "plain")
        config.add_async_view(Keeping, "keeping")

    site = make_site(configure)
    for params in ({}, {"fail": "1"}):
        for path, kept in (("/plain", False), ("/keeping", True)):
            id = site.run(path, params)["process_id"]
            with reading(site.db) as connection:
                state = store_of(connection, "tests").find(id).job.state
                assert (state.request is not None) is kept


# A start


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_doomed_post_is_an_error_and_no_job(make_site, when):
    class Dooming(BaseAsyncView):
        def __call__(self, *args, **kw):
            if when == "before":
                self.request.tm.doom()
            response = super().__call__(*args, **kw)
            if when == "after":
                self.request.tm.doom()
            return response

        def __run__(self):
            raise AssertionError("there is no job")

    site = make_site(lambda config: config.add_async_view(Dooming, "d"))
    with pytest.raises(Exception, match="doomed"):
        site.app.post("/d")
    assert count_jobs(site) == 0


def test_a_vetoed_post_is_an_error_and_no_job(make_site):
    site = make_site(telling, **{"tm.commit_veto": lambda request, response: True})
    with pytest.raises(Exception, match="vetoed"):
        site.app.post("/tell")
    assert count_jobs(site) == 0


def test_a_post_without_a_transaction_is_an_error_and_no_job(make_site):
    site = make_site(telling, **{"tm.activate_hook": lambda request: False})
    with pytest.raises(Exception, match="active transaction"):
        site.app.post("/tell")
    assert count_jobs(site) == 0


def turning_down(view):
    def wrapper(context, request):
        view(context, request)
        return HTTPBadRequest("turned down")

    return wrapper


def raising(view):
    def wrapper(context, request):
        view(context, request)
        raise HTTPFound("/elsewhere")

    return wrapper


@pytest.mark.parametrize("decorator", [turning_down, raising])
def test_a_post_that_does_not_go_well_starts_nothing(make_site, decorator):
    site = make_site(
        lambda config: config.add_async_view(Telling, "tell", decorator=decorator)
    )
    site.app.post("/tell", status="*")
    assert count_jobs(site) == 0


def test_a_form_that_is_not_valid_starts_nothing_and_says_so(make_site):
    class Form(BaseAsyncView):
        def run_process(self):
            if not super().run_process():
                return False
            if "name" not in self.request.POST:
                self.request.response.status = 422
                self.problem = "a name is needed"
                return False
            return True

        def initial_page(self, **kw):
            return getattr(self, "problem", "the form")

        def __run__(self):
            return self.request.POST["name"]

    class Stock(Form):
        initial_page = BaseAsyncView.initial_page

    def configure(config):
        config.add_async_view(Form, "form")
        config.add_async_view(Stock, "stock")

    site = make_site(configure)
    assert site.app.get("/form").text == "the form"
    assert site.app.post("/form", status=422).text == "a name is needed"
    site.app.post("/stock", status=422)
    assert count_jobs(site) == 0
    id = site.start("/form", {"name": "Ann"})
    site.wait(id)
    assert site.result("/form", id).text == "Ann"


@pytest.mark.parametrize("stored", [False, True])
def test_a_request_that_is_tried_again_keeps_one_id(make_site, stored):
    """As pyramid_retry does it: the same environ comes twice."""
    entered = []

    class Once(BaseAsyncView):
        def __run__(self):
            entered.append(self.process_id)
            return "done"

    def policy(environ, router):
        with router.request_context(environ) as request:
            return router.invoke_request(request)

    def configure(config):
        config.add_async_view(Once, "once")
        # Whoever has one may repeat the request, and must see the error.
        config.set_execution_policy(policy)

    site = make_site(configure)
    site.app.get("/once")
    environ = Request.blank("/once", method="POST").environ
    finish = site.db.storage.tpc_finish

    def lost(*arguments):
        site.db.storage.tpc_finish = finish
        if stored:
            finish(*arguments)
        raise TransientError("the answer got lost")

    site.engine.prepare()
    site.db.storage.tpc_finish = lost
    with pytest.raises(TransientError, match="lost"):
        site.wsgi.invoke_subrequest(Request(environ), use_tweens=True)
    if stored:
        # Somebody's sweep was quicker than the second attempt.
        with reading(site.db) as connection:
            (entry,) = store_of(connection, "tests").unfinished()
            id = entry.job.id
        with site.engine.live.watching(id) as ended:
            site.engine.submit(id)
            assert ended.wait(PATIENCE)
    response = Request(environ).get_response(site.wsgi)
    id = response.location.rpartition("process_id=")[2]
    if not stored:
        site.wait(id)
    assert site.status("/once", id)["status"] == "completed"
    assert entered == [id]
    assert count_jobs(site) == 1


def test_an_outer_tween_that_answers_itself_fails_the_job(make_site):
    def configure(config):
        telling(config)
        config.add_tween("test_replay.wall_tween_factory")

    site = make_site(configure)
    doc = site.run("/tell")
    assert (doc["status"], doc["error"]["reason"]) == ("failed", "not_reached")


def wall_tween_factory(handler, registry):
    def tween(request):
        if "asyncview.job" in request.environ:
            return HTTPFound("/login")
        return handler(request)

    return tween


def test_a_subscriber_that_raises_after_the_end_changes_nothing(make_site, caplog):
    from pyramid.events import NewResponse

    def break_it(event):
        if "asyncview.job" in event.request.environ:
            raise ValueError("too late")

    def configure(config):
        telling(config)
        config.add_subscriber(break_it, NewResponse)

    caplog.set_level(logging.ERROR, "asyncview")
    site = make_site(configure)
    assert site.run("/tell")["status"] == "completed"


def test_hooks_of_the_applications_own_manager_run_with_the_work(make_site):
    import transaction

    ran = []

    class Hooking(BaseAsyncView):
        def __run__(self):
            transaction.get().addAfterCommitHook(ran.append)

    site = make_site(lambda config: config.add_async_view(Hooking, "h"))
    assert site.run("/h")["status"] == "completed"
    assert ran == [True]


def test_a_client_can_not_pretend_to_be_a_replay(make_site):
    site = make_site(telling)
    response = site.app.post("/tell", headers={"asyncview.job": "x"}, status=303)
    assert "process_id=" in response.location


def test_every_transaction_of_a_job_says_whose_it_is(make_site):
    class Committing(BaseAsyncView):
        def __run__(self):
            self.context.data["first"] = True
            self.checkpoint()
            self.context.data["second"] = True
            self.request.tm.commit()
            self.request.tm.begin()
            self.context.data["third"] = True

        def on_end(self, status):
            self.context.data["end"] = status

    def configure(config):
        config.set_security_policy(Policy())
        config.add_async_view(Committing, "c")

    site = make_site(configure)
    before = len(site.db.storage.undoLog(0, 1000))
    doc = site.run("/c", app=site.browser(REMOTE_USER="ann"))
    assert doc["status"] == "completed"
    history = site.db.storage.undoLog(0, 1000)
    told = history[: len(history) - before]
    # The POST, two in the middle, the end, and on_end.
    assert [(each["user_name"], each["description"]) for each in told].count(
        (b"ann", b"/c")
    ) == 5
