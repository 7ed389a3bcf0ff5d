"""A job that fails half-way: what its user sees, and what is left of its work."""

import time

from pyramid.view import view_config

from asyncview import BaseAsyncView
from asyncview.demo.models import Demo


@view_config(name="failing", context=Demo, renderer="templates/failing.pt")
class Failing(BaseAsyncView):
    """Change something, go on for a while, and raise ValueError."""

    label = "A job that fails"
    # This is for the user; the ValueError's own text goes to the log.
    error_msg = "The fourth of six steps went wrong.  Nothing was changed."
    rest = 0.5

    def __run__(self):
        # Never in the database: the transaction ends with the ValueError.
        self.context.failures.value += 1
        for step in self.progress.track(range(1, 7)):
            self.progress.update(message=f"Step {step}")
            if step == 4:
                raise ValueError("step 4 was asked to fail")
            time.sleep(self.rest)
