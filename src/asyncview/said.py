"""What people say of jobs and sessions, as records keep it: text, numbers, tuples."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

#: A hundred years: an index of moments has no place for infinity.
FOREVER = 100 * 365.25 * 86400

#: A label is for a line on a page; it may come from a form.
LABEL_WIDTH = 200

#: The longest id of a task.
ID_WIDTH = 500


def text(value: Any) -> str:
    """What it says; of a text yet to be translated its default, with what is in it.

    Such a one is, as a text, the name under which catalogues have it.
    """
    if isinstance(value, str) and hasattr(value, "interpolate"):
        return str(value.interpolate())
    return str(value)


def label(value: Any) -> str:
    """Text, bounded."""
    return text(value)[:LABEL_WIDTH]


def tags(value: Any) -> tuple[str, ...]:
    """Texts; one text is one tag."""
    return (value,) if isinstance(value, str) else tuple(str(tag) for tag in value)


def tag(value: Any) -> str:
    """One of them; ValueError for several."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        raise ValueError(f"a tag is one text: {value!r:.60}")
    return str(value)


def seconds(value: Any) -> float | None:
    """A duration, at most `FOREVER`; ValueError for what is none."""
    return None if value is None else min(number(float(value), 0), FOREVER)


def number(value: Any, least: int) -> Any:
    """The number, if it is one and not below ``least``; else ValueError."""
    if not value >= least:
        raise ValueError(f"must be a number from {least} on")
    return value


def tasks(value: Any) -> tuple[tuple[str, str], ...]:
    """Pairs of id and name, from a mapping; None is no task."""
    return tuple((task_id(id), text(name)) for id, name in dict(value or {}).items())


def task_id(value: Any) -> str:
    """The id of a task; ValueError for one that a document would not tell as it is.

    There 5 and "5" would be one, and so would texts that are alike but for their end.
    """
    if isinstance(value, str) and len(value) <= ID_WIDTH:
        # Exactly a text, also of the member of an enumeration.
        text = str.__str__(value)
        with suppress(UnicodeEncodeError):
            text.encode()
            return text
    raise ValueError(
        f"the id of a task is a text of {ID_WIDTH} characters at most: {value!r:.60}"
    )
