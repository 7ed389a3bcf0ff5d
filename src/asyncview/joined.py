"""One transaction and several connections: who speaks for the job, and who may not.

A storage lets one commit at a time.  Two that have joined one transaction and belong to
one database wait for each other at its commit: in one thread, for ever, and everybody
who writes waits with them.
"""

from typing import Any

from ZODB.Connection import Connection
from ZODB.DB import DB
from ZODB.DB import TransactionalUndo

from asyncview.exceptions import AsyncViewError


def joined(transaction: Any, connection: Connection) -> Connection:
    """Of the database of ``connection`` the one that has joined a transaction.

    ``connection`` itself where none has.  Refuses the commit, and not an abort, where
    it would never end or would not be that of all the job's work: it raises
    AsyncViewError then.
    """
    transaction.join(Gate(connection))
    mine = [
        each
        for each in transaction._resources
        if isinstance(each, Connection) and each.db() is connection.db()
    ]
    return connection if connection in mine or not mine else mine[0]


class Gate:
    """A data manager that comes before all others, has nothing and lets no two pass."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.transaction_manager = connection.transaction_manager

    def sortKey(self) -> str:
        return ""

    def tpc_begin(self, transaction: Any) -> None:
        resources = transaction._resources
        found: list[DB] = [
            each.db() if isinstance(each, Connection) else each._db
            for each in resources
            if isinstance(each, (Connection, TransactionalUndo))
        ]
        if len(found) > len(set(found)):
            raise AsyncViewError(
                "two connections to one database (or an undo) are part of one"
                " transaction, and would wait for each other at its commit: use"
                " pyramid_zodbconn.get_connection(request), or a transaction manager"
                " of its own for each"
            )
        for each in self._connection.connections.values():
            if not (each._needs_to_join or each in resources):
                raise AsyncViewError(
                    "objects of the job's connection were changed in another"
                    " transaction, by another thread perhaps, and would be lost: a"
                    " thread needs a connection of its own"
                )

    def savepoint(self) -> "Gate":
        return self

    def rollback(self) -> None:
        pass

    def abort(self, transaction: Any) -> None:
        pass

    commit = tpc_vote = tpc_finish = tpc_abort = abort
