"""Finished jobs by the thousand, for the tests and benchmarks of what they cost."""

from asyncview.job import Job
from asyncview.job import new_id
from asyncview.outcome import Outcome
from asyncview.progress import NOTHING
from asyncview.store import store_of
from asyncview.store import transact


def keep(db, name, number, expires):
    """File jobs as the pulse does; from ``expires`` on a hundred may go each second."""

    def fill(connection):
        store = store_of(connection, name)
        for count in range(number):
            job = Job(
                new_id(),
                view="/quick",
                context=None,
                owner=None,
                visitor=None,
                created=1.0,
                terms={},
                request=None,
            )
            job.state.claim("worker", "token", 1.0)
            outcome = Outcome("200 OK", (), b"done", 4)
            job.state.complete(outcome, NOTHING, 2.0)
            store.finished[job.id] = job
            store.expiry.add((int(expires + count // 100), job.id))

    transact(db, fill)
