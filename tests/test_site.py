"""What one application has: its databases when it is closed, and its pages at first."""

import threading
from importlib.resources import files

from pyramid.config import Configurator
from transaction import TransactionManager
from ZODB.FileStorage import FileStorage

import asyncview
from asyncview import BaseAsyncView
from asyncview.pyramid.pages import NAMES


def test_close_gives_up_the_file_whatever_connections_are_open(tmp_path):
    path = tmp_path / "Data.fs"
    config = Configurator(
        settings={"zodbconn.uri": f"file://{path}", "asyncview.name": "tests"}
    )
    config.include("asyncview")
    config.make_wsgi_app()
    # Between two transactions, as a script of the application may leave it.
    database = config.registry.asyncview.engine.db
    held = database.open(TransactionManager(explicit=True))
    asyncview.close(config.registry)
    # The lock is free, or this would be a LockError.
    FileStorage(str(path)).close()
    del held


class Work(BaseAsyncView):
    """Has the stock pages."""


def test_all_stock_templates_are_compiled_before_the_first_page():
    names = [path.name for path in files("asyncview.templates").iterdir()]
    assert {n[:-3] for n in names if n.endswith(".pt")} == set(NAMES)


def test_threads_that_want_the_first_page_at_once_all_get_it(make_site):
    site = make_site(lambda config: config.add_async_view(Work, "work"))
    barrier = threading.Barrier(8)
    found = []

    def look():
        barrier.wait(30)
        found.append(site.browser().get("/work", status=200).text)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set(found)) == 1
    assert len(found) == 8
