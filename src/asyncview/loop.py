"""A loop that shows how far it is, wherever its factory shows it."""

from collections.abc import Callable
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from typing import TypeVar

T = TypeVar("T")


def progress_loop(
    func: Callable[[T, int], Any],
    items: Iterable[T],
    factory: Callable[[str | None, int | None], Any] | None,
    message: str | None = None,
) -> None:
    """Call ``func(item, i)`` for each of the items; ``i`` counts from 1.

    ``factory(message, total)`` gives an object whose ``update(i)`` is called after each
    item, and ``finish()`` at the end, also where ``func`` raises; None shows nothing.
    ``total`` is None for items without a length.
    """
    if factory is None:
        for i, item in enumerate(items, 1):
            func(item, i)
        return
    total = None
    with suppress(TypeError):
        total = len(items)  # type: ignore[arg-type]
    progress = factory(message, total)
    try:
        for i, item in enumerate(items, 1):
            func(item, i)
            progress.update(i)
    finally:
        progress.finish()
