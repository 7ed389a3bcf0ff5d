"""Progress on the terminal, for scripts: a factory for `progress_loop`."""

from typing import Any
from typing import TextIO


class ConsoleProgress:
    """A bar with counts, rate and the time that is left, by tqdm.

    ``maximum`` is None where nobody knows; ``stderr`` is the stream for all of it, the
    process's if None.
    """

    def __init__(
        self,
        message: str | None,
        maximum: float | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        # Here: whoever needs no terminal need not wait for its import.
        from tqdm import tqdm

        self._bar: Any = tqdm(total=maximum, desc=message or None, file=stderr)

    def update(self, current: float) -> None:
        """So many are done, in all."""
        self._bar.update(current - self._bar.n)

    def finish(self) -> None:
        """Leave the bar as it is, and end its line."""
        self._bar.close()
