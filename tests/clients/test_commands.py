"""The clients of tus that run without a browser."""

import pytest

from clients.files import CHUNK
from clients.files import SIZE

CLIENTS = ("tus", "uppy", "tuspy")

#: What clients make of sizes, names and options has nothing to do with the server.
ONCE = pytest.mark.parametrize("running", ["waitress"], indirect=True)


@pytest.mark.parametrize("client", CLIENTS)
def test_every_byte_arrives_from_a_failing_and_dying_server(
    client, server, visitor, make_file, run_client
):
    file = make_file()
    server.order(seed=client, share=0.3, die_after=SIZE // 2)
    uid = run_client(client, file)
    assert server.deaths == 1
    assert visitor.content(uid) == file.facts


# Uppy keeps its memory in the browser.
@pytest.mark.parametrize("client", ["tus", "tuspy"])
def test_killed_client_goes_on_where_it_was(
    client, server, visitor, make_file, start_client, run_client
):
    file = make_file()
    # Without it tus-js-client begins anew where it can't find out how far it was.
    visitor.headers["Idempotency-Key"] = "of this file"
    server.order(seed=client, share=0.3, hold_after=SIZE // 2)
    process = start_client(client, file)
    server.wait_until_held()
    process.kill()
    process.communicate()
    server.order(seed=client, share=0.3)
    uid = run_client(client, file)
    assert visitor.content(uid) == file.facts
    assert server.received() <= SIZE // 2 + 2 * CHUNK


@ONCE
@pytest.mark.parametrize("client", CLIENTS)
def test_client_with_a_key_leaves_one_upload(
    client, server, visitor, make_file, run_client
):
    file = make_file()
    visitor.headers["Idempotency-Key"] = "of this file"
    server.order(seed=f"{client} with a key", share=0.3)
    uid = run_client(client, file)
    assert visitor.content(uid) == file.facts
    server.order()
    # The memory of another client, which knows of no upload.
    assert run_client(client, file, memory=f"{file.path}.json") == uid
    assert server.received() == 0


@ONCE
@pytest.mark.parametrize("client", ["tus", "tuspy"])
def test_empty_file_arrives_from(client, server, visitor, make_file, run_client):
    file = make_file(0)
    assert visitor.content(run_client(client, file)) == file.facts


@ONCE
@pytest.mark.parametrize("client", ["tus", "tuspy"])
def test_file_without_a_name_arrives_from(
    client, server, visitor, make_file, run_client
):
    file = make_file(CHUNK)
    content = visitor.content(run_client(client, file, name=""))
    assert content["name"]
    assert content["sha256"] == file.facts["sha256"]


@ONCE
@pytest.mark.parametrize(
    "more",
    [
        {"uploadDataDuringCreation": True},
        {"overridePatchMethod": True},
        {"chunkSize": 1 << 40},
    ],
    ids=lambda more: next(iter(more)),
)
def test_every_byte_arrives_from_tus_js_client_with(
    more, server, visitor, make_file, run_client
):
    file = make_file()
    visitor.headers["Idempotency-Key"] = "of this file"
    server.order(seed=str(more), share=0.3)
    assert visitor.content(run_client("tus", file, more=more)) == file.facts
