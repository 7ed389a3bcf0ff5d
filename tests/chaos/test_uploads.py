"""Uploads that become blobs on a real ZEO server, with a directory it shares or not."""

import os
from contextlib import contextmanager

import pytest
from conftest import PATIENCE
from test_upload_jobs import DATA
from test_upload_jobs import importing
from test_upload_jobs import ran
from test_upload_jobs import stored_blob
from uploading import upload
from ZEO.ClientStorage import ClientStorage
from ZODB.DB import DB
from ZODB.POSException import ConflictError


@pytest.fixture(params=["shared", "not shared"])
def blobs(zeo, tmp_path, request):
    """Where a client of the server has its blobs."""
    return zeo.blobs if request.param == "shared" else tmp_path / "cache"


@pytest.fixture
def site(make_site, zeo, blobs):
    uri = f"zeo://127.0.0.1:{zeo.port}?wait_timeout={PATIENCE:.0f}&blob_dir={blobs}"
    uri += f"&shared_blob_dir={int(blobs == zeo.blobs)}"
    return make_site(importing, storage=uri)


@pytest.fixture
def app(site):
    return site.browser(REMOTE_USER="alice")


@contextmanager
def elsewhere(zeo, path):
    """A connection of another client, which has nothing but what the server gives."""
    storage = ClientStorage(
        ("127.0.0.1", zeo.port), wait_timeout=PATIENCE, blob_dir=str(path)
    )
    db = DB(storage)
    try:
        with db.transaction() as connection:
            yield connection
    finally:
        db.close()


def test_an_upload_becomes_a_blob_of_the_server(site, app, zeo, blobs, tmp_path):
    seen = []
    site.registry.hook = lambda view: seen.append(os.stat(view.upload("file").path))
    uid = upload(app, DATA, 30_000)
    ran(site, app, {"file": uid})
    assert stored_blob(site) == DATA
    with (
        elsewhere(zeo, tmp_path / "elsewhere") as connection,
        connection.root()["blob"].open() as file,
    ):
        assert file.read() == DATA
    # No byte is copied on this side: the file is the server's, or lies in the cache.
    with site.db.transaction() as connection:
        blob = os.stat(connection.root()["blob"].committed())
    assert os.path.samestat(blob, seen[0])
    staged = list(blobs.parent.glob(f"{blobs.name}.uploads/*/*/{uid}/data"))
    assert [each.read_bytes() for each in staged] == [DATA]
    assert not list(blobs.glob("**/asyncview-*"))


def test_an_upload_survives_a_conflict_on_the_server(site, app, blobs):
    uids = []

    def conflict(view):
        uids.append(view.upload("file").uid)
        if len(uids) < 3:
            view.context.data["blob"] = view.upload("file").to_blob()
            raise ConflictError()

    site.registry.hook = conflict
    ran(site, app, {"file": upload(app, DATA, 30_000)})
    assert len(uids) == 3
    assert stored_blob(site) == DATA
    assert not list(blobs.glob("**/asyncview-*"))
