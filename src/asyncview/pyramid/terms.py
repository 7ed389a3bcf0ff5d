"""What a view says about its jobs, as records keep it: text, numbers and tuples."""

import functools
import inspect
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

from pyramid.request import Request

from asyncview import said
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

#: What is called, and so must do its work when it is called.
CALLED = ("__run__", "run_process", "initial_page", "processing_page", "on_end")

TEXTS = frozenset({"label", "success_msg", "error_msg"})
ADDRESSES = frozenset({"success_url", "error_url"})

#: How often a view that is ``restartable = True`` is started again.
RESTARTS = 3

#: All that a view says; whether it has an ``on_end`` is not said, but seen, and of its
#: ``uploads`` the form says the rest.
SAID = tuple(name for name in TERMS if name not in ("on_end", "uploads"))


def terms_of(view: Any, names: Iterable[str] = SAID) -> dict[str, Any]:
    """What ``view`` says under these names; ValueError for what can't be kept."""
    hosts = view.request.registry.asyncview.settings.redirect_hosts
    return {
        name: _text(view, name)
        if name in TEXTS
        else _kept(
            type(view), name, translated(view.request, getattr(view, name)), hosts
        )
        for name in names
    }


def translated(request: Request, value: Any) -> Any:
    """With the names of tasks in the language of the request; the rest as it is."""
    if not isinstance(value, Mapping):
        return value
    translate = request.localizer.translate
    return {
        key: translate(name) if isinstance(name, str) else name
        for key, name in value.items()
    }


def check_class(cls: type, hosts: tuple[str, ...]) -> None:
    """ValueError for what can't be run, and for what can't be kept.

    The latter where the class says it without a property.
    """
    for name in CALLED:
        _check_called(cls, name)
    for name in SAID:
        value = inspect.getattr_static(cls, name)
        if name not in TEXTS and not hasattr(value, "__get__"):
            _kept(cls, name, value, hosts)


def _check_called(cls: type, name: str) -> None:
    func = getattr(cls, name, None)
    if inspect.iscoroutinefunction(func) or inspect.isasyncgenfunction(func):
        kind, cure = "asynchronous", "call asyncio.run in it"
    elif inspect.isgeneratorfunction(func):
        kind, cure = "a generator", "return a Response(app_iter=...) for parts"
    else:
        return
    raise ValueError(
        f"{cls.__name__}.{name} is {kind}, and calling it would run nothing: make it a"
        f" plain def {name}(self, ...), and {cure}"
    )


def _kept(cls: type, name: str, value: Any, hosts: tuple[str, ...]) -> Any:
    try:
        if name in ADDRESSES:
            return None if value is None else local_path(str(value), hosts)
        return READERS[name](value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{cls.__name__}.{name} = {value!r:.200}: {error}") from None


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


def _text(view: Any, name: str) -> str | None:
    value = status.label_of(view) if name == "label" else getattr(view, name)
    if value is None:
        return None
    text = str(view.request.localizer.translate(value))
    return said.label(text) if name == "label" else text


def _restarts(value: Any) -> int:
    return RESTARTS if value is True else said.number(int(value), 0)


READERS: dict[str, Callable[[Any], Any]] = {
    "tags": said.tags,
    "keep": said.seconds,
    "max_runtime": said.seconds,
    "keep_request": bool,
    "restartable": _restarts,
    "max_attempts": lambda value: said.number(int(value), 1),
    "tasks": said.tasks,
}
