"""The page about uploads says what is so: its example runs, its document is real."""

import json
import re
import textwrap
from pathlib import Path

from persistent import Persistent
from pyramid_zodbconn import get_connection
from uploading import some_bytes
from uploading import upload

PAGE = Path(__file__).parent.parent / "docs" / "uploads.rst"


def block(language):
    found = re.search(
        rf"^\.\. code-block:: {language}\n\n((?:(?: +.*)?\n)+)",
        PAGE.read_text("utf-8"),
        re.MULTILINE,
    )
    return textwrap.dedent(found[1])


class Club(Persistent):
    lines = 0

    def add_member(self, line):
        self.lines += 1


def club_of(request):
    data = get_connection(request).root()
    if "club" not in data:
        data["club"] = Club()
        request.tm.savepoint()
    return data["club"]


def test_the_example_imports_a_file(make_site):
    names = {}
    exec(block("python").replace(', renderer="import_form.pt"', ""), names)
    site = make_site(names["includeme"], root_factory=club_of)
    data = some_bytes(50_000).hex("\n", 8).encode()
    uid = upload(site.app, data, 20_000, "members.csv")
    process_id = site.start("/import", {"file": uid})
    site.wait(process_id)
    result = site.result("/import", process_id).text
    assert result == "members.csv is imported."
    with site.db.transaction() as connection:
        club = connection.root()["club"]
        assert club.lines == data.count(b"\n") + 1
        with club.source.open() as file:
            assert file.read() == data


def test_the_document_has_these_keys(make_site):
    names = {}
    exec(block("python").replace(', renderer="import_form.pt"', ""), names)
    site = make_site(names["includeme"])
    uid = upload(site.app)
    assert list(site.app.get(f"/files/{uid}").json) == list(json.loads(block("json")))
