"""What a client of ZEO must do, and what not, or acknowledged commits are lost.

Both were seen with ZEO 6.2.  A server hands out object ids by the hundred, and forgets
across a restart which of them nobody has used yet.  A client that stayed up goes on
with its hundred, while others get the same ones: two objects with one id.  Ids that
were handed out on an earlier connection are therefore not used here.

A server with ``client-conflict-resolution`` votes again when the client has resolved a
conflict, and has forgotten the transaction's blobs by then: their records are stored
and their files are not.  A transaction with blobs is therefore tried again instead.
"""

import sys
import threading
from typing import Any

from ZODB.POSException import ConflictError

from asyncview.exceptions import AsyncViewError


class Oids(list[bytes]):
    """Object ids that were handed out on the storage's present connection.

    Takes the place of the list from which a ``ClientStorage`` pops the next id.  One
    that was popped before the connection was lost, and is stored after, is a
    ConflictError where somebody else has it by then.
    """

    def __init__(self, storage: Any) -> None:
        super().__init__()
        self._storage = storage
        self._generation: int | None = None
        self._lock = threading.Lock()

    def pop(self, index: Any = -1) -> bytes:
        """The next id; raises ClientDisconnected where there is no server to ask."""
        with self._lock:
            while True:
                generation = self._storage._connection_generation
                if self._generation != generation:
                    self.clear()
                if self:
                    return super().pop()
                fresh = self._storage._call("new_oids")
                # The server may have gone, and come back, since it answered.
                if self._storage._connection_generation == generation:
                    self._generation = generation
                    self.extend(reversed(fresh))


def client_of(storage: Any) -> Any:
    """The ``ClientStorage`` that a storage is or wraps; None where it is none."""
    module = sys.modules.get("ZEO.ClientStorage")
    while module is not None and storage is not None:
        if isinstance(storage, module.ClientStorage):
            return storage
        # Compressing and encrypting storages wrap another.
        storage = getattr(storage, "base", None)
    return None


def catch_up(storage: Any) -> bool:
    """Hear of all that was committed until now; False for what is no client of ZEO.

    A transaction that begins sees what the server has told of so far.  Raises
    ClientDisconnected where there is no server to ask.
    """
    client = client_of(storage)
    if client is not None:
        client.ping()
    return client is not None


def cure(storage: Any) -> None:
    """Keep a storage from both.

    Does nothing to what is no client of ZEO.  Raises AsyncViewError for a ZEO that
    this does not know how to cure.
    """
    storage = client_of(storage)
    if storage is None:
        return
    oids = getattr(storage, "_oids", None)
    generation = getattr(storage, "_connection_generation", None)
    if not isinstance(oids, list) or not isinstance(generation, int):
        raise AsyncViewError(
            "this ZEO may hand out object ids twice after a restart of its server,"
            " and asyncview knows a cure for ZEO 6 only"
        )
    if not isinstance(oids, Oids):
        storage._oids = Oids(storage)
        _resolve_without_blobs(storage)


def _resolve_without_blobs(storage: Any) -> None:
    store, resolve = storage.storeBlob, storage.tryToResolveConflict

    def store_blob(*args: Any) -> Any:
        # Of the one transaction that has the commit lock.
        storage._tbuf.asyncview_blobs = True
        return store(*args)

    def try_to_resolve(oid: bytes, committed: bytes, read: bytes, data: bytes) -> Any:
        if hasattr(storage._tbuf, "asyncview_blobs"):
            raise ConflictError(oid=oid, serials=(committed, read), data=data)
        return resolve(oid, committed, read, data)

    storage.storeBlob, storage.tryToResolveConflict = store_blob, try_to_resolve
