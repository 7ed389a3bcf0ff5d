"""What closing an application does to its databases."""

from pyramid.config import Configurator
from transaction import TransactionManager
from ZODB.FileStorage import FileStorage

import asyncview


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
