"""What a view says about its jobs, as records keep it: text, numbers and tuples."""

import functools
import inspect
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from asyncview.address import local_path
from asyncview.job import TERMS
from asyncview.pyramid import status

#: What may be said anew in ``__run__``.
RUNTIME = (
    "label",
    "tags",
    "success_msg",
    "success_url",
    "error_msg",
    "error_url",
    "keep",
)

#: How often a view that is ``restartable = True`` is started again.
RESTARTS = 3


#: All that a view says; whether it has an ``on_end`` is not said, but seen.
SAID = tuple(name for name in TERMS if name != "on_end")


def terms_of(view: Any, names: Iterable[str] = SAID) -> dict[str, Any]:
    """What ``view`` says under these names; ValueError for what can't be kept."""
    return {name: READERS.get(name, getattr)(view, name) for name in names}


def said_anew(view: Any, before: Mapping[str, Any]) -> dict[str, Any]:
    """What a view says in or after ``__run__`` that it did not say at the POST."""
    # Plain class attributes are what they were at the POST.
    own, computed = vars(view), computed_names(view.__class__)
    said = [name for name in RUNTIME if name in own or name in computed]
    return {
        name: value
        for name, value in terms_of(view, said).items()
        if value != before.get(name, TERMS[name])
    }


@functools.cache
def computed_names(cls: type) -> frozenset[str]:
    """Of what may be said anew in ``__run__``: what is a property or the like."""
    return frozenset(
        name
        for name in RUNTIME
        if hasattr(inspect.getattr_static(cls, name), "__get__")
    )


def _translated(view: Any, name: str) -> str | None:
    value = getattr(view, name)
    return None if value is None else str(view.request.localizer.translate(value))


def _label(view: Any, name: str) -> str:
    return str(view.request.localizer.translate(status.label_of(view)))


def _address(view: Any, name: str) -> str | None:
    value = getattr(view, name)
    if value is None:
        return None
    hosts = view.request.registry.asyncview.engine.settings.redirect_hosts
    return local_path(str(value), hosts)


def _restarts(view: Any, name: str) -> int:
    value = view.restartable
    return RESTARTS if value is True else int(value)


def _seconds(view: Any, name: str) -> float | None:
    value = getattr(view, name)
    return None if value is None else float(value)


READERS: dict[str, Callable[[Any, str], Any]] = {
    "label": _label,
    "tags": lambda view, name: tuple(str(tag) for tag in view.tags),
    "success_msg": _translated,
    "error_msg": _translated,
    "success_url": _address,
    "error_url": _address,
    "keep": _seconds,
    "max_runtime": _seconds,
    "keep_request": lambda view, name: bool(view.keep_request),
    "restartable": _restarts,
    "max_attempts": lambda view, name: int(view.max_attempts),
    "tasks": lambda view, name: tuple(
        (str(id), str(title)) for id, title in dict(view.tasks).items()
    ),
}
