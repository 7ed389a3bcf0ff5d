"""Worlds to destroy."""

import pytest

from chaos.servers import World
from chaos.servers import Zeo
from chaos.servers import Zygote


@pytest.fixture(scope="session")
def zygote():
    with Zygote() as zygote:
        yield zygote


@pytest.fixture
def long(pytestconfig):
    """Whether the long form is asked for."""
    return pytestconfig.getoption("--chaos") == "long"


@pytest.fixture
def report(long, request, capsys):
    """Shows a verdict in the long form, and hands it on."""

    def show(verdict):
        if long:
            with capsys.disabled():
                print(f"\n{request.node.name}: {dict(verdict.numbers)}")  # noqa: T201
                for sentence in verdict.wrong[:3]:
                    print(f"  {sentence}")  # noqa: T201
        return verdict

    return show


@pytest.fixture
def make_world(tmp_path, zygote):
    """Makes worlds with a FileStorage; the arguments are settings."""
    made = []

    def make(uri=None, mutant=None, **settings):
        folder = tmp_path / f"world-{len(made)}"
        folder.mkdir()
        uri = uri or f"file://{folder}/Data.fs?blobstorage_dir={folder}/blobs"
        world = World(folder, zygote, uri, mutant, **settings)
        made.append(world)
        return world

    yield make
    for world in made:
        world.kill_all()


@pytest.fixture
def zeo(tmp_path):
    """A ZEO server that runs."""
    folder = tmp_path / "zeo"
    folder.mkdir()
    server = Zeo(folder)
    server.start()
    yield server
    server.end()
