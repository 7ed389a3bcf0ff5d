"""A job that meets a real ConflictError twice, and is in the end done once."""

from pyramid.view import view_config
from transaction import TransactionManager

from asyncview import BaseAsyncView
from asyncview.demo.models import Demo

CONFLICTS = 2


@view_config(name="conflicting", context=Demo, renderer="templates/conflicting.pt")
class Conflicting(BaseAsyncView):
    """Add one to a counter that somebody else changes at the same time."""

    label = "A job with conflicts"

    def __run__(self, process_id=None):
        counter = self.context.races
        conflicts = counter.rivals.count(process_id)
        self.progress.update(message=f"Attempt {conflicts + 1}")
        if conflicts < CONFLICTS:
            interfere(counter._p_jar.db(), process_id)
        counter.value += 1
        counter.rivals = tuple(id for id in counter.rivals if id != process_id)
        return {"attempts": conflicts + 1, "value": counter.value}


def interfere(db, process_id):
    """Change the counter in a transaction of its own, as another user would."""
    tm = TransactionManager(explicit=True)
    connection = db.open(tm)
    try:
        with tm:
            counter = connection.root()["demo"].races
            counter.rivals = (*counter.rivals, process_id)
    finally:
        connection.close()
