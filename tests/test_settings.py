"""The settings: what may be said, and how what may not is refused."""

import pytest

from asyncview.settings import BadSetting
from asyncview.settings import Settings

DEFAULTS = {
    "name": "app",
    "database": None,
    "executor": "threads",
    "threads": 4,
    "max_queued": 1000,
    "max_per_owner": None,
    "progress_interval": 1.0,
    "poll_interval": 5,
    "grace": 0.3,
    "switch_interval": 0.0005,
    "lease": 60,
    "keep": 86400,
    "keep_failed": 604800,
    "drain": 10,
    "redirect_hosts": (),
    "admin_permission": "asyncview.admin",
    "upload_dir": None,
    "upload_max_size": 4 << 30,
    "upload_max_chunk": 64 << 20,
    "upload_max_open": 10,
    "upload_keep": 86400,
}


def read(**settings):
    named = {f"asyncview.{name}": value for name, value in settings.items()}
    return Settings.read(named, "app")


def test_everything_has_a_default():
    settings = read()
    for name, value in DEFAULTS.items():
        assert getattr(settings, name) == value


@pytest.mark.parametrize(
    ("name", "said", "value"),
    [
        ("name", " shop ", "shop"),
        ("database", "jobs", "jobs"),
        ("database", "", None),
        ("executor", "inline", "inline"),
        ("threads", "8", 8),
        ("threads", 8, 8),
        ("max_per_owner", "none", None),
        ("max_per_owner", "", None),
        ("max_per_owner", "3", 3),
        ("progress_interval", ".5", 0.5),
        ("grace", "0", 0.0),
        ("switch_interval", "0", 0.0),
        ("keep", "0", 0.0),
        ("redirect_hosts", "a.example b.example:8080", ("a.example", "b.example:8080")),
        ("redirect_hosts", ["a.example"], ("a.example",)),
        ("redirect_hosts", "A.Example [::1]:8080", ("a.example", "[::1]:8080")),
        ("redirect_hosts", "", ()),
        ("admin_permission", "manage", "manage"),
        ("upload_dir", "", None),
        ("upload_dir", "/srv/uploads", "/srv/uploads"),
        ("upload_max_size", "1000000000000", 10**12),
        ("upload_keep", "3600", 3600.0),
    ],
)
def test_what_may_be_said(name, said, value):
    assert getattr(read(**{name: said}), name) == value


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("name", " "),
        ("executor", ""),
        ("threads", "0"),
        ("threads", "many"),
        ("threads", "2.5"),
        ("threads", 2.5),
        ("threads", None),
        ("max_queued", "-1"),
        ("max_per_owner", "0"),
        ("progress_interval", "0"),
        ("progress_interval", "nan"),
        ("poll_interval", "inf"),
        ("grace", "-1"),
        ("lease", "a minute"),
        ("lease", "0"),
        ("keep", "-1"),
        ("drain", "nan"),
        ("admin_permission", ""),
        ("redirect_hosts", 5),
        ("redirect_hosts", "https://a.example"),
        ("redirect_hosts", "a.example, b.example"),
        ("redirect_hosts", "a.example/"),
        ("redirect_hosts", "me@a.example"),
        ("redirect_hosts", ["a.example b.example"]),
        ("redirect_hosts", [5]),
        ("threads", float("inf")),
        ("upload_max_size", "4 GiB"),
        ("upload_max_chunk", "0"),
        ("upload_max_open", "-1"),
        ("upload_keep", "0"),
    ],
)
def test_what_is_wrong_is_refused_by_its_name(name, said):
    with pytest.raises(BadSetting, match=rf"asyncview\.{name} = "):
        read(**{name: said})


@pytest.mark.parametrize(
    ("name", "said", "sentence"),
    [
        ("threads", "many", "must be a whole number, 1 or more"),
        ("lease", "a minute", "must be a number of seconds above 0"),
        ("keep", "", "must be a number of seconds, 0 or more"),
        ("redirect_hosts", "https://a.example", "is no name of a host"),
    ],
)
def test_what_is_wrong_is_refused_with_what_would_be_right(name, said, sentence):
    with pytest.raises(BadSetting, match=sentence):
        read(**{name: said})


@pytest.mark.parametrize("name", ["thread", "Threads", "", "name.x"])
def test_a_name_that_nothing_knows_is_refused(name):
    with pytest.raises(BadSetting, match=r"is no setting.*asyncview\.threads"):
        read(**{name: "1"})


def test_other_peoples_settings_are_let_alone():
    settings = {"asyncviews": "1", "pyramid.includes": "asyncview", 5: "five"}
    assert Settings.read(settings, "app") == read()


def test_there_must_be_a_name():
    with pytest.raises(BadSetting, match=r"asyncview\.name"):
        Settings.read({})
