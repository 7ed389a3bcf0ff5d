"""The settings: one table of name, default, converter and meaning."""

import dataclasses
import math
import re
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asyncview.exceptions import AsyncViewError

PREFIX = "asyncview."


class BadSetting(AsyncViewError, ValueError):
    """A setting has a value that it can't have, or a name that nothing knows."""


def _text(value: Any) -> str:
    text = str(value).strip()
    if not text:
        raise ValueError("is empty")
    return text


def _whole(value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number < 1 or (isinstance(value, float) and number != value):
        raise ValueError("must be a whole number, 1 or more")
    return number


def _number(value: Any) -> float:
    """Not a number for what is none; the callers' sentence is better than float's."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _seconds(value: Any) -> float:
    number = _number(value)
    if not math.isfinite(number) or number <= 0:
        raise ValueError("must be a number of seconds above 0")
    return number


def _seconds_or_zero(value: Any) -> float:
    number = _number(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError("must be a number of seconds, 0 or more")
    return number


def _optional(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def converter(value: Any) -> Any:
        return None if value in (None, "", "none") else convert(value)

    return converter


def _hosts(value: Any) -> tuple[str, ...]:
    hosts = value.split() if isinstance(value, str) else list(value)
    for host in hosts:
        if not re.fullmatch(r"(\[[\da-fA-F:.]+\]|[\w.-]+)(:\d+)?", host):
            raise ValueError(
                f"{host!r} is no name of a host: www.example.org, or with a port"
                " www.example.org:8080, with spaces between several"
            )
    return tuple(host.lower() for host in hosts)


def _setting(default: Any, convert: Callable[[Any], Any], meaning: str) -> Any:
    return dataclasses.field(
        default=default, metadata={"convert": convert, "meaning": meaning}
    )


@dataclass(frozen=True)
class Settings:
    """What an operator may say, as `asyncview.NAME`; all of it has a default."""

    name: str = _setting(
        "", _text, "processes with the same name share jobs; the root package if unset"
    )
    database: str | None = _setting(
        None, _optional(_text), "name of the ZODB database that holds the jobs"
    )
    executor: Any = _setting(  # noqa: RUF009 - a field, as the others
        "threads",
        lambda value: value if callable(value) else _text(value),
        "threads, inline, or a dotted name",
    )
    threads: int = _setting(4, _whole, "threads that run jobs")
    max_queued: int = _setting(1000, _whole, "then 503 with Retry-After")
    max_per_owner: int | None = _setting(
        None, _optional(_whole), "queued and running; then 429"
    )
    progress_interval: float = _setting(
        1.0, _seconds, "seconds between durable progress writes"
    )
    poll_interval: float = _setting(5.0, _seconds, "seconds between the page's polls")
    grace: float = _setting(
        0.3, _seconds_or_zero, "seconds `processing` waits for a quick job"
    )
    switch_interval: float = _setting(
        0.0005, _seconds_or_zero, "seconds; thread switching while jobs run; 0: alone"
    )
    lease: float = _setting(
        60.0, _seconds, "seconds without a heartbeat until a worker is dead"
    )
    keep: float = _setting(86400.0, _seconds_or_zero, "seconds a finished job is kept")
    keep_failed: float = _setting(
        604800.0, _seconds_or_zero, "seconds a failed job is kept"
    )
    drain: float = _setting(
        10.0, _seconds_or_zero, "seconds running jobs get at shutdown"
    )
    redirect_hosts: tuple[str, ...] = _setting(
        (), _hosts, "other hosts that success_url and error_url may name"
    )
    admin_permission: str = _setting(
        "asyncview.admin", _text, "sees and manages everybody's jobs"
    )

    upload_dir: str | None = _setting(
        None, _optional(_text), "where uploads are staged; beside the blobs if unset"
    )
    upload_max_size: int = _setting(4 << 30, _whole, "bytes of one upload")
    upload_max_chunk: int = _setting(64 << 20, _whole, "bytes of one request")
    upload_max_open: int = _setting(10, _whole, "unfinished uploads of one owner")
    upload_keep: float = _setting(
        86400.0, _seconds, "seconds since the last chunk, if no job owns the upload"
    )

    @classmethod
    def read(cls, settings: Mapping[str, Any], name: str = "") -> "Settings":
        """From an application's settings; raises BadSetting with the setting's name.

        ``name`` is what ``asyncview.name`` is where it is not set.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {"name": name}
        for key, value in settings.items():
            if not isinstance(key, str) or not key.startswith(PREFIX):
                continue
            field = fields.get(key[len(PREFIX) :])
            if field is None:
                known = ", ".join(PREFIX + each for each in sorted(fields))
                raise BadSetting(f"{key} is no setting; there are: {known}")
            try:
                values[field.name] = field.metadata["convert"](value)
            except (TypeError, ValueError) as error:
                raise BadSetting(f"{key} = {value!r}: {error}") from None
        if not values["name"]:
            raise BadSetting("asyncview.name is not set, and there is no root package")
        return cls(**values)
