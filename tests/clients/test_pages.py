"""The clients that run in a browser, in a Chromium."""

import pytest
from playwright.sync_api import expect

from clients.files import CHUNK
from clients.files import SIZE
from clients.servers import PATIENCE
from clients.servers import wait_until

CLIENTS = (
    "tus",
    "uppy",
    "resumable",
    "resumable?method=octet",
    "flow",
    "flow?method=octet",
    "dropzone",
    "filepond",
)

#: Each of them once.
ALONE = tuple(client for client in CLIENTS if "?" not in client)

#: Those that ask what there is, or remember it, after a reload.
RESUMING = ("tus", "uppy", "resumable", "flow")


@pytest.fixture
def tab(chromium, server, visitor):
    """A tab with the visitor's session."""
    context = chromium.new_context()
    name, _, value = visitor.cookie.partition("=")
    context.add_cookies([{"name": name, "value": value, "url": server.url}])
    context.set_default_timeout(PATIENCE * 1000)
    yield context.new_page()
    context.close()


def choose(tab, server, client, file):
    tab.goto(f"{server.url}/page/{client}")
    tab.locator("input").first.set_input_files(file.path)


def uid_on(tab):
    """What the page shows when the client is done."""
    output = tab.locator("output")
    expect(output).not_to_be_empty(timeout=PATIENCE * 1000)
    word, _, uid = output.text_content().partition(" ")
    assert word == "arrived", output.text_content()
    return uid


@pytest.mark.parametrize("client", CLIENTS)
def test_every_byte_arrives_from_a_failing_and_dying_server(
    client, server, visitor, make_file, tab
):
    file = make_file()
    server.order(seed=client, share=0.3, die_after=SIZE // 2)
    choose(tab, server, client, file)
    uid = uid_on(tab)
    assert server.deaths == 1
    assert visitor.content(uid) == file.facts


@pytest.mark.parametrize("client", ALONE)
def test_every_byte_arrives_from_a_page_that_was_reloaded(
    client, server, visitor, make_file, tab
):
    file = make_file()
    server.order(seed=client, share=0.3, hold_after=SIZE // 2)
    choose(tab, server, client, file)
    server.wait_until_held()
    tab.reload()
    server.order()
    choose(tab, server, client, file)
    assert visitor.content(uid_on(tab)) == file.facts
    if client in RESUMING:
        assert server.received() < SIZE


# What clients make of sizes has nothing to do with the server.
@pytest.mark.parametrize("running", ["waitress"], indirect=True)
@pytest.mark.parametrize("client", ALONE)
def test_files_of_sizes_at_the_edge_arrive_from(
    client, server, visitor, make_file, tab
):
    # resumable.js refuses empty files.
    for size in (1 if client == "resumable" else 0, CHUNK, 2 * CHUNK):
        file = make_file(size)
        choose(tab, server, client, file)
        assert visitor.content(uid_on(tab)) == file.facts


@pytest.mark.parametrize("client", ["tus", "filepond"])
def test_file_that_is_taken_back_is_gone(client, server, visitor, make_file, tab):
    choose(tab, server, client, make_file())
    uid = uid_on(tab)
    assert visitor.content(uid) is not None
    tab.get_by_role("button", name="Take back").click()
    wait_until(lambda: visitor.content(uid) is None, "the upload goes")
