"""The first job of a process is seen as soon as any other."""

from conftest import eventually

from asyncview import BaseAsyncView


def test_progress_of_the_first_job_is_seen_at_once(make_site, gate):
    class Work(BaseAsyncView):
        def __run__(self):
            self.progress.update(1, 4)
            gate.wait(30)

    site = make_site(lambda config: config.add_async_view(Work, "work"))
    process_id = site.start("/work")
    eventually(lambda: site.status("/work", process_id)["current"] == 1, patience=2)
