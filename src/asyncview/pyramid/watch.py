"""What a job commits before its end: guarded, signed, and known for a checkpoint."""

from typing import Any

from transaction._transaction import Status

from asyncview import gate
from asyncview.ticket import Ticket


class Watch:
    """Sees every transaction of a job but the last one, by whomever it is ended."""

    #: A commit was tried, and raised.
    doubtful = False

    def __init__(self, ticket: Ticket, connection: Any) -> None:
        self._ticket = ticket
        self._connection = connection

    def newTransaction(self, transaction: Any) -> None:
        """Also one that follows a checkpoint says whose it is."""
        sign(transaction, self._ticket)

    def beforeCompletion(self, transaction: Any) -> None:
        """It fails if the job is taken away before it commits."""
        if transaction.status is Status.COMMITFAILED:
            # It is being aborted after that: nothing more can join.
            return
        gate.put(transaction, self._connection)
        connection = gate.writer(transaction, self._connection)
        self._ticket.guard(connection)
        state = self._ticket.state(connection)
        if not state.checkpointed:
            # Of a transaction that is aborted this goes with the rest.
            state.checkpointed = True

    def afterCompletion(self, transaction: Any) -> None:
        """A commit in the middle is a checkpoint."""
        if transaction.status == Status.COMMITTED:
            self._ticket.checkpointed = True
        elif transaction.status == Status.COMMITTING:
            self.doubtful = True


def sign(transaction: Any, ticket: Ticket) -> None:
    """Say in the database's history whose work this is, as pyramid_tm does."""
    if ticket.owner is not None:
        transaction.user = ticket.owner[1]
    transaction.description = ticket.view
