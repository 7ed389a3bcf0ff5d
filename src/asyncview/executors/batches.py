"""What threads have claimed and not begun; whoever calls has the executor's lock."""

import threading
from collections import deque
from collections.abc import Iterable
from collections.abc import Mapping
from itertools import dropwhile

from asyncview.ticket import Ticket
from asyncview.ticket import batch_of

#: Tickets that were taken out, and whence.
Taken = list[tuple["Batch", list[Ticket]]]


class Batch(deque[Ticket]):
    """What one thread runs, one after another, each when those before it have ended."""

    #: Whether the end of one before them is not in the database.
    broken = False


class Batches:
    """The batches of one process: those that wait for a thread, and what is left."""

    def __init__(self) -> None:
        self._ready: deque[Batch] = deque()
        self._left: dict[threading.Thread, Batch] = {}

    def __len__(self) -> int:
        """How many wait for a thread."""
        return len(self._ready)

    def add(self, tickets: Iterable[Ticket]) -> None:
        """What was claimed in one commit."""
        batches: dict[str, Batch] = {}
        for ticket in tickets:
            batches.setdefault(batch_of(ticket.token)[0], Batch()).append(ticket)
        self._ready.extend(batches.values())

    def next(self, thread: threading.Thread) -> Ticket | None:
        """What a thread that is free is to run, of its own batch or of another."""
        left = self._left.get(thread)
        if not left:
            self._left.pop(thread, None)
            if not self._ready:
                return None
            left = self._left[thread] = self._ready.popleft()
        return left.popleft()

    def left(self, thread: threading.Thread | None = None) -> bool:
        """Whether a thread has more to run; any thread if None."""
        if thread is None:
            return any(self._left.values())
        return bool(self._left.get(thread))

    def ahead(self) -> list[Ticket]:
        """What was claimed ahead of its turn."""
        return [ticket for batch in self._all() for ticket in batch if ticket.ahead]

    def _all(self) -> list[Batch]:
        return [*self._left.values(), *self._ready]

    def stuck(
        self, working: Mapping[Ticket, threading.Thread], since: float
    ) -> list[Ticket]:
        """What waits behind one that began before ``since``, by ``time.monotonic``."""
        slow = {
            thread for ticket, thread in working.items() if 0 < ticket.begun < since
        }
        stuck = [batch for thread, batch in self._left.items() if thread in slow]
        if len(slow) == len(working):
            # No thread will soon be free for the others.
            stuck += self._ready
        return [ticket for batch in stuck for ticket in batch if ticket.ahead]

    def orphan(self, thread: threading.Thread) -> None:
        """A thread is given up, its job has ended: the others have their turn."""
        left = self._left.pop(thread, None)
        if left:
            self._ready.append(left)

    def drop(self, thread: threading.Thread) -> list[Ticket]:
        """The end of a thread's job is not recorded: nothing follows on it."""
        left = self._left.pop(thread, Batch())
        left.broken = True
        return list(left)

    def take(self, tickets: list[Ticket]) -> Taken:
        """Take them out, each with all that come after it; `restore` puts them back.

        Where one that comes after it began meanwhile, and the process died, `Rescue`
        would take that one for not begun.
        """
        taken = []
        for batch in self._all():
            mine = list(dropwhile(lambda ticket: ticket not in tickets, batch))
            if mine:
                for _ in mine:
                    batch.pop()
                taken.append((batch, mine))
        self._ready = deque(batch for batch in self._ready if batch)
        return taken

    def restore(self, taken: Taken) -> list[Ticket]:
        """Put them back, before any others are taken out.

        Gives those for which there is no place any more.
        """
        dropped = []
        for batch, tickets in taken:
            if batch.broken:
                dropped += tickets
                continue
            batch.extend(tickets)
            if not any(batch is each for each in self._all()):
                # Those before them have ended meanwhile.
                self._ready.append(batch)
        return dropped
