"""The example of netsight.async, ported: a number, a percentage, a template."""

import time

from pyramid.view import view_config

from asyncview import BaseAsyncView
from asyncview.demo.models import Demo

BIGGEST = 1000


@view_config(name="fibonacci", context=Demo, renderer="templates/fibonacci.pt")
class Fibonacci(BaseAsyncView):
    """Compute a Fibonacci number, slowly."""

    label = "Fibonacci"
    error = None
    # Seconds: without a rest there would be nothing to watch.
    rest = 0.2

    @property
    def number(self):
        """The number asked for; None if it is none."""
        text = self.request.POST.get("number", "")
        if not text.isdecimal() or len(text) > len(str(BIGGEST)):
            return None
        return int(text) if int(text) <= BIGGEST else None

    def run_process(self):
        if not super().run_process():
            return False
        if self.number is None:
            self.error = f"Please give a number from 0 to {BIGGEST}."
            self.request.response.status = 422
        return self.number is not None

    def __run__(self, process_id=None):
        number = self.number
        fibonacci, following = 0, 1
        for step in range(number):
            fibonacci, following = following, fibonacci + following
            self.set_progress(process_id, 100 * (step + 1) / number)
            time.sleep(self.rest)
        # The page that a GET shows, with the answer in it.
        return self(no_process=True, number=number, answer=fibonacci)
