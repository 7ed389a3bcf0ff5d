"""Named points at which a server kills itself: on either side of each commit.

Nothing of this is in the package: a test server puts it in from outside, before it
makes its application.
"""

import functools
import itertools
import os
import signal
import threading

from transaction.interfaces import TransientError
from ZODB import mvccadapter
from ZODB.POSException import POSError

from asyncview import rescue
from asyncview.claims import Claims
from asyncview.ends import Ends
from asyncview.executors.batches import Batches
from asyncview.job import State
from asyncview.pulse import Pulse
from asyncview.pyramid.attempt import Attempt
from asyncview.pyramid.start import Start

#: In the order of section 3 of the design.
POINTS = (
    "created",
    "committed",
    "claiming",
    "claimed",
    "claimed-ahead",
    "giving-back",
    "given-back",
    "turn",
    "mid-run",
    "progress",
    "before-finish",
    "inside-commit",
    "finished",
    "reaping",
    "reaped",
    "failing",
    "failed",
    "tidied",
)

_lock = threading.Lock()
_left = {}
_tell = None


def arm(point, count, tell):
    """Die at the ``count``-th time that ``point`` is reached; ``tell`` is told."""
    global _tell
    _left[point] = count
    _tell = tell
    _install()


def reach(point):
    if point not in _left:
        return
    with _lock:
        _left[point] -= 1
        if _left[point] == 0:
            _tell(point)
            os.kill(os.getpid(), signal.SIGKILL)
            # The others go on for a moment; this thread must not.
            threading.Event().wait()


def before(cls, name, point, when=lambda self: True):
    inner = getattr(cls, name)

    @functools.wraps(inner)
    def wrapper(self, *args, **kw):
        if when(self):
            reach(point)
        return inner(self, *args, **kw)

    setattr(cls, name, wrapper)


def after(cls, name, point, when=lambda self, result: True):
    inner = getattr(cls, name)

    @functools.wraps(inner)
    def wrapper(self, *args, **kw):
        result = inner(self, *args, **kw)
        if when(self, result):
            reach(point)
        return result

    setattr(cls, name, wrapper)


def _install():
    after(Start, "store", "created", lambda self, _: self.asked)
    before(Start, "end", "committed", lambda self: self._stored)
    after(State, "claim", "claiming")
    after(Claims, "take", "claimed", lambda self, tickets: tickets)
    after(
        Claims,
        "take",
        "claimed-ahead",
        lambda self, tickets: any(each.ahead for each in tickets),
    )
    after(State, "give_back", "giving-back")
    after(Claims, "give_back", "given-back")
    after(Batches, "next", "turn", lambda self, ticket: ticket and ticket.ahead)
    after(Pulse, "beat", "progress", lambda self, _: self.live)
    after(Ends, "_end", "failing")
    after(Ends, "settle", "failed")
    after(rescue.Rescue, "_take", "reaped", lambda self, status: status)
    after(Pulse, "_write", "tidied", lambda self, _: self._tidy)

    give_up = rescue.give_up

    def giving_up(*args):
        result = give_up(*args)
        reach("reaping")
        return result

    rescue.give_up = giving_up

    # The commit of the work, and the moment when its storage has voted.
    committing = threading.local()
    commit = Attempt._commit

    def commit_of_work(self, state):
        reach("before-finish")
        committing.work = True
        try:
            commit(self, state)
        finally:
            committing.work = False
        reach("finished")

    Attempt._commit = commit_of_work

    finish = mvccadapter.MVCCAdapterInstance.tpc_finish

    def tpc_finish(self, *args, **kw):
        if getattr(committing, "work", False):
            reach("inside-commit")
        return finish(self, *args, **kw)

    mvccadapter.MVCCAdapterInstance.tpc_finish = tpc_finish


def lose_answers(every):
    """Have each ``every``-th commit be stored, and fail for who made it."""
    adapter = mvccadapter.MVCCAdapterInstance
    finish = adapter.tpc_finish
    count = itertools.count(1)
    lost = set()

    def tpc_finish(self, transaction, *args):
        result = finish(self, transaction, *args)
        if next(count) % every == 0:
            lost.add(id(transaction))
            raise AnswerLost("the storage was gone before it answered")
        return result

    def tpc_abort(self, transaction, *args):
        # A storage that is gone is not told; this one is there, and would remove
        # the blobs of whoever commits just now.
        if id(transaction) in lost:
            lost.discard(id(transaction))
        else:
            self._storage.tpc_abort(transaction, *args)

    adapter.tpc_finish, adapter.tpc_abort = tpc_finish, tpc_abort


class AnswerLost(POSError, TransientError):
    """What ZEO's ClientDisconnected is."""
