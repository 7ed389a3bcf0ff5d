"""The message catalogues: complete, and compiled from what is there to read."""

import ast
import gettext
import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest

LANGUAGES = ["de", "en", "es", "fr", "it"]
VOID = {"br", "hr", "img", "input", "link", "meta"}

locale = files("asyncview").joinpath("locale")
templates = files("asyncview.templates")


class TemplateReader(HTMLParser):
    """Collects the message ids of a page template."""

    def __init__(self):
        super().__init__()
        self.messages = set()
        self.open = []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            attributes = dict(attrs)
            text = [] if "i18n:translate" in attributes else None
            self.open.append((attributes, text))

    def handle_startendtag(self, tag, attrs):
        attributes = dict(attrs)
        for name in attributes.get("i18n:attributes", "").split(";"):
            if name.strip():
                self.messages.add(attributes[name.strip()].replace("$${", "${"))
        if "i18n:name" in attributes:
            self.add("${" + attributes["i18n:name"] + "}")

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        attributes, text = self.open.pop()
        if text is not None:
            assert not attributes["i18n:translate"], "the text itself is the id"
            self.messages.add(" ".join("".join(text).split()))

    def handle_data(self, data):
        self.add(data)

    def add(self, data):
        for attributes, text in reversed(self.open):
            if text is not None:
                text.append(data)
            if text is not None or "i18n:name" in attributes:
                return


def read_template(path):
    reader = TemplateReader()
    reader.feed(path.read_text("utf-8"))
    reader.close()
    assert not reader.open
    return reader.messages


def read_catalogue(path):
    """The messages of a .po file as a dict; empty and fuzzy ones are refused."""
    messages, key, fuzzy = {}, None, False
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("#,"):
            fuzzy = "fuzzy" in line
        assert not (fuzzy and line.startswith("msgid")), line
        match = re.fullmatch(r'(msgid |msgstr |)(".*")', line)
        if match is None:
            assert not line or line.startswith("#"), line
            continue
        text = ast.literal_eval(match[2])
        if match[1] == "msgid ":
            key, target = text, "id"
        elif match[1] == "msgstr ":
            assert key not in messages, f"twice: {key}"
            messages[key], target = text, "text"
        elif target == "id":
            key += text
        else:
            messages[key] += text
    return messages


def po(language):
    return locale.joinpath(language, "LC_MESSAGES", "asyncview.po")


@pytest.fixture(scope="module")
def template_messages():
    pages = [path for path in templates.iterdir() if path.name.endswith(".pt")]
    return set().union(*map(read_template, pages))


def test_reader_sees_texts_names_and_attributes(tmp_path):
    path = tmp_path / "page.pt"
    path.write_text(
        '<p data-x="$${n} of it" i18n:attributes="data-x"><b i18n:translate="">Two'
        '\n <br><i i18n:name="n">no <u>and no</u></i> three</b> not this</p>'
    )
    assert read_template(path) == {"${n} of it", "Two ${n} three"}


def test_template_messages_are_in_the_pot(template_messages):
    pot = set(read_catalogue(locale.joinpath("asyncview.pot")))
    assert template_messages
    assert template_messages - pot == set()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_message_is_translated(language):
    wanted = set(read_catalogue(locale.joinpath("asyncview.pot")))
    catalogue = read_catalogue(po(language))
    assert wanted == set(catalogue)
    assert [msgid for msgid, text in catalogue.items() if not text.strip()] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_placeholders_are_those_of_the_message_id(language):
    catalogue = read_catalogue(po(language))
    del catalogue[""]
    for msgid, text in catalogue.items():
        names = sorted(re.findall(r"\$\{\w+\}", msgid))
        assert sorted(re.findall(r"\$\{\w+\}", text)) == names, msgid


def test_english_is_the_message_id():
    catalogue = read_catalogue(po("en"))
    del catalogue[""]
    assert all(msgid == text for msgid, text in catalogue.items())


@pytest.mark.parametrize("language", LANGUAGES)
def test_compiled_catalogue_is_up_to_date(language):
    path = locale.joinpath(language, "LC_MESSAGES", "asyncview.mo")
    with path.open("rb") as stream:
        compiled = gettext.GNUTranslations(stream)._catalog
    assert compiled == read_catalogue(po(language))
