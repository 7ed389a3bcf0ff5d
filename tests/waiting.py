"""Jobs that wait for a gate and jobs that do not: for the tests of who runs when."""

from conftest import PATIENCE

from asyncview import BaseAsyncView


def waiting(gate, runs):
    """Configures the views; ``runs`` counts how often each job was entered."""

    class Waits(BaseAsyncView):
        max_runtime = property(
            lambda self: float(self.request.params.get("most", 0)) or None
        )
        restartable = property(lambda self: int(self.request.params.get("again", 0)))

        def __run__(self, process_id=None):
            runs[process_id] += 1
            gate.wait(PATIENCE)

    class Quick(BaseAsyncView):
        def __run__(self, process_id=None):
            runs[process_id] += 1

    def configure(config):
        config.add_async_view(Waits, "waits")
        config.add_async_view(Quick, "quick")

    return configure
