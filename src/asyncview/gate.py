"""What may be committed: by which connection, and together with which others.

Two connections that have joined one transaction are two commits; where their database
lets one commit at a time, one waits for the other for ever, in the same thread, and
everybody who writes waits with them.
"""

import os
from typing import Any

from ZODB.Connection import Connection
from ZODB.DB import TransactionalUndo

from asyncview.exceptions import AsyncViewError
from asyncview.forks import leave_child


def writer(transaction: Any, connection: Connection) -> Connection:
    """The connection to the database of ``connection`` that writes in a transaction.

    ``connection`` itself where it does, or none.
    """
    found = [
        each
        for each in transaction._resources
        if isinstance(each, Connection) and each.db() is connection.db()
    ]
    if not found or any(each is connection for each in found):
        return connection
    return found[0]


def put(transaction: Any, connection: Connection) -> None:
    """Put a `Gate` before the commit of a transaction; an abort meets none."""
    if not any(isinstance(each, Gate) for each in transaction._resources):
        transaction.join(Gate(connection))


def check(transaction: Any, connection: Connection) -> None:
    """AsyncViewError where a commit would never end, or not be that of all the work.

    ``connection`` is the one that the job or the request was given.
    """
    resources = transaction._resources
    found = [each.db() for each in resources if isinstance(each, Connection)]
    found += [each._db for each in resources if isinstance(each, TransactionalUndo)]
    if any(db is other for n, db in enumerate(found) for other in found[:n]):
        raise AsyncViewError(
            "two connections to one database (or an undo) are part of one transaction,"
            " and would wait for each other at its commit: use"
            " pyramid_zodbconn.get_connection(request), or a transaction manager of its"
            " own for each"
        )
    for each in connection.connections.values():
        joined = not each._needs_to_join
        if joined and not any(other is each for other in resources):
            raise AsyncViewError(
                "objects of the job's connection were changed in another transaction,"
                " by another thread perhaps, and would be lost: a thread needs a"
                " connection of its own"
            )


class Gate:
    """A data manager that is asked before all others whether to begin; see `check`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._process = os.getpid()
        self.transaction_manager = connection.transaction_manager

    def sortKey(self) -> str:
        return ""

    def tpc_begin(self, transaction: Any) -> None:
        leave_child(self._process)
        check(transaction, self._connection)

    def savepoint(self) -> "Gate":
        return self

    def rollback(self) -> None:
        pass

    def abort(self, transaction: Any) -> None:
        pass

    commit = tpc_vote = tpc_finish = tpc_abort = abort
