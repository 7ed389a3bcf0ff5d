"""Defects that a test server puts into itself: what the tests are there to find."""

from asyncview import rescue
from asyncview.executors.threads import ThreadExecutor
from asyncview.job import FINAL
from asyncview.job import State
from asyncview.job import new_id
from asyncview.pulse import Pulse
from asyncview.pyramid.attempt import Attempt
from asyncview.pyramid.start import Start
from asyncview.runner import Runner
from asyncview.ticket import Ticket


def no_sweep():
    """Nobody looks after the jobs of others."""
    Pulse.sweep = lambda self: setattr(self, "_due", float("inf"))


def no_fence():
    """A worker that was thought dead is not stopped by anything."""
    no_token_check()
    State.check = lambda self, token: None
    Ticket.guard = lambda self, connection: None

    def become(self, status, allowed):
        self.status = status
        self.version += 1

    State._become = become


def no_token_check():
    """Whoever runs a job that is running may end it."""

    def check(self, token):
        if self.status in FINAL:
            real_check(self, token)

    real_check = State.check
    State.check = check


def except_exception():
    """What is no Exception ends the worker, and not the job."""

    def replay(self, ticket):
        try:
            self.front.replay(ticket)
        except Exception as error:
            return error

    def judge(self, handler):
        request = self.request
        try:
            response = handler(request)
            if request.exception is not None:
                self._raised(request.exception, response)
            elif self.ticket.verdict is not None or not self.ticket.entered:
                self._not_reached(response)
            else:
                self._returned(response)
        except Exception as error:
            self._raised(error, None)

    def loop(self):
        while (ticket := self._next()) is not None:
            try:
                self._runner.run(ticket)
            finally:
                with self._changed:
                    self._working.pop(ticket, None)

    def run(self, ticket):
        try:
            return self._attempts(ticket)
        finally:
            self.live.end(ticket.id)
            ticket.close()

    Runner._replay, Runner.run = replay, run
    Attempt._judge = judge
    ThreadExecutor._loop = loop


def new_id_per_attempt():
    """The id of a job is made anew when its POST is tried again."""

    def again(self, key):
        id = new_id()
        self.engine.ids.take(id)
        self._reserved.append(id)
        return id

    Start.new_id = again


def no_turn_check():
    """What was queued again is begun all the same when its turn has come."""
    judge = Attempt._judge

    def checking_later(self, handler):
        def late(request):
            del self.ticket.state
            return handler(request)

        self.ticket.state = lambda connection: None
        judge(self, late)

    Attempt._judge = checking_later


def all_to_come():
    """Nobody asks whether one that was claimed ahead may have begun."""
    rescue._is_to_come = lambda *arguments: arguments[2].job.state.started is None


def none_to_come():
    """Nobody asks whether one that was claimed ahead has certainly not begun."""
    rescue._is_to_come = lambda *arguments: False


MUTANTS = {
    each.__name__: each
    for each in (
        no_sweep,
        no_fence,
        no_token_check,
        except_exception,
        new_id_per_attempt,
        no_turn_check,
        all_to_come,
        none_to_come,
    )
}


def apply(name):
    MUTANTS[name]()
