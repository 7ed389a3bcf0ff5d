"""A view whose pages lie beside it."""

from asyncview import BaseAsyncView


class Beside(BaseAsyncView):
    initial_page = "first.pt"
    processing_page = "waiting.pt"

    def __run__(self):
        gate = self.request.registry.gate
        gate.wait(30)
        return self(no_process=True, message="done")
