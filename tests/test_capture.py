"""What is kept of the response that a job made."""

import gc
import os
import threading
import tracemalloc

import pytest
from persistent.mapping import PersistentMapping
from pyramid.httpexceptions import HTTPFound
from pyramid.response import FileResponse
from pyramid.response import Response
from pyramid_zodbconn import get_connection
from ZODB.blob import Blob

from asyncview import BaseAsyncView
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.store import transact

SIZE = 5 * 1024 * 1024


def site_for(make_site, make_response, **settings):
    class Making(BaseAsyncView):
        def __run__(self):
            return make_response(self)

    return make_site(lambda config: config.add_async_view(Making, "make"), **settings)


def outcome_of(site, process_id):
    with reading(site.db) as connection:
        return store_of(connection, "tests").find(process_id).job.state.outcome


@pytest.fixture
def make(make_site):
    """Runs one job that answers what the function gives; its result and outcome."""

    def run(make_response, status=None):
        class Making(BaseAsyncView):
            def __run__(self):
                return make_response(self)

        site = make_site(lambda config: config.add_async_view(Making, "make"))
        doc = site.run("/make")
        id = doc["process_id"]
        assert doc["status"] == "completed", doc
        outcome = outcome_of(site, id)
        return site.result("/make", id, status=status), outcome

    return run


def test_what_is_the_servers_to_say_is_dropped(make):
    def respond(view):
        response = Response("x")
        response.headerlist.extend(
            [
                ("Connection", "close"),
                ("Keep-Alive", "timeout=5"),
                ("TE", "trailers"),
                ("Transfer-Encoding", "chunked"),
                ("Upgrade", "h2c"),
                ("Date", "Thu, 01 Jan 2026 00:00:00 GMT"),
                ("Server", "mine"),
                ("X-Own", "kept"),
                ("X-Own", "twice"),
            ]
        )
        return response

    _, outcome = make(respond)
    names = [name for name, _ in outcome.headers]
    assert names == ["Content-Type", "X-Own", "X-Own"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Split", "a\r\nSet-Cookie: b=c"),
        ("X-Nul", "a\x00b"),
        ("X-Wide", "Größe €"),
        ("X Blank", "a"),
        ("", "a"),
        ("X-Colon:", "a"),
        ("X-Größe", "a"),
        ("X-Number", 5),
    ],
)
def test_what_is_no_header_is_dropped_and_logged(make, caplog, name, value):
    def respond(view):
        response = Response("x")
        response.headerlist.append((name, value))
        response.headers["X-Good"] = "kept"
        return response

    result, outcome = make(respond)
    assert [n for n, _ in outcome.headers] == ["Content-Type", "X-Good"]
    assert result.headers["X-Good"] == "kept"
    assert "is no header" in caplog.text


def test_a_status_line_can_be_sent(make):
    def respond(view):
        response = Response("x")
        response._status = "299 Gr\u00f6\u00dfe \u20ac\r\nX: y"
        return response

    _, outcome = make(respond)
    assert outcome.status == "299 Gr\u00f6\u00dfe ?  X: y"


@pytest.mark.parametrize(
    ("location", "kept"),
    [
        ("done", "/done"),
        ("?page=2", "/make?page=2"),
        ("/done", "/done"),
        ("https://example.com/a", "https://example.com/a"),
        ("mailto:a@example.com", "mailto:a@example.com"),
    ],
)
def test_a_relative_location_is_meant_from_the_address_of_the_post(
    make, location, kept
):
    _, outcome = make(lambda view: HTTPFound(location), status=302)
    assert dict(outcome.headers)["Location"] == kept


def test_an_http_exception_gets_its_body(make):
    result, outcome = make(lambda view: HTTPFound("/done"), status=302)
    assert b"302 Found" in outcome.body
    assert result.status == "302 Found"


def test_an_empty_answer_has_no_body(make):
    result, outcome = make(lambda view: Response(status=204), status=204)
    assert (outcome.body, result.body) == (b"", b"")


def test_a_file_is_kept_with_its_type(make, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,b\n" * 10)
    result, _ = make(lambda view: FileResponse(str(path), view.request))
    assert result.content_type == "text/csv"
    assert result.text == "a,b\n" * 10


def temporary_files(site):
    directory = site.db.storage.temporaryDirectory()
    return os.listdir(directory)


def test_a_large_body_is_a_blob_and_memory_stays_flat(make_site):
    block = b"x" * 65536

    def respond(view):
        def body():
            for _ in range(SIZE // len(block)):
                yield bytes(bytearray(block))

        return Response(app_iter=body())

    site = site_for(make_site, respond)
    site.run("/make")
    gc.collect()
    tracemalloc.start()
    try:
        doc = site.run("/make")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert doc["status"] == "completed"
    assert peak < SIZE // 2
    outcome = outcome_of(site, doc["process_id"])
    assert isinstance(outcome.body, Blob)
    assert outcome.size == SIZE
    assert site.result("/make", doc["process_id"]).body == b"x" * SIZE
    assert temporary_files(site) == []


def test_a_large_request_is_a_blob_and_memory_stays_flat(make_site):
    site = site_for(make_site, lambda view: str(sum(map(len, view.request.body_file))))
    data = b"x" * SIZE
    site.run("/make", b"x")
    gc.collect()
    tracemalloc.start()
    try:
        doc = site.run("/make", data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert site.result("/make", doc["process_id"]).text == str(SIZE)
    # WebTest and the line that is read have one each.
    assert peak < 4 * SIZE
    assert temporary_files(site) == []


@pytest.mark.parametrize("ending", ["failure", "breaking body", "conflict", "raised"])
def test_nothing_is_left_behind_where_a_job_does_not_go_well(make_site, ending):
    tries = []

    def respond(view):
        tries.append(1)

        def body():
            yield b"x" * 200_000
            if ending == "breaking body":
                raise ValueError("broken")

        root = get_connection(view.request).root()
        if ending == "conflict":
            root["work"]["mine"] = len(tries)
            if len(tries) == 1:
                thread = threading.Thread(target=transact, args=(site.db, disturb))
                thread.start()
                thread.join(30)
        if ending == "failure":
            root["lock"] = threading.Lock()
        response = Response(app_iter=body())
        if ending == "raised":
            error = HTTPFound("/", app_iter=body())
            error.empty_body = False
            raise error
        return response

    def disturb(connection):
        connection.root()["work"]["other"] = 1

    site = site_for(make_site, respond)
    transact(site.db, lambda conn: conn.root().update(work=PersistentMapping()))
    doc = site.run("/make", "y" * 100_000)
    completed = ending in ("conflict", "raised")
    assert doc["status"] == ("completed" if completed else "failed")
    assert len(tries) == (2 if ending == "conflict" else 1)
    gc.collect()
    assert temporary_files(site) == []


def test_a_start_that_conflicts_leaves_no_file_behind(make_site):
    from ZODB.POSException import ConflictError

    class Losing(BaseAsyncView):
        def __run__(self):
            return "done"

    def late_tween_factory(handler, registry):
        def tween(request):
            response = handler(request)
            if request.method == "POST" and "asyncview.job" not in request.environ:
                raise ConflictError("too late")
            return response

        return tween

    import test_capture

    test_capture.late_tween_factory = late_tween_factory

    def configure(config):
        config.add_async_view(Losing, "lose")
        config.add_tween(
            "test_capture.late_tween_factory",
            under="pyramid_tm.tm_tween_factory",
            over="asyncview.pyramid.tween.outcome_tween_factory",
        )

    site = make_site(configure)
    with pytest.raises(ConflictError):
        site.app.post("/lose", "y" * 100_000)
    gc.collect()
    assert temporary_files(site) == []
