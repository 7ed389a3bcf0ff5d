"""What a ZEO client must not do after its server came back.

A ZEO server hands out object ids by the hundred, and forgets across a restart which of
them nobody has used yet.  A client that stayed up goes on with its hundred, while
others get the same ones: two objects with one id, and commits that were acknowledged
and are not there (seen with ZEO 6.2).  Ids that were handed out on an earlier
connection are therefore not used here.
"""

import sys
import threading
from typing import Any

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


def cure(storage: Any) -> None:
    """Have a storage forget its object ids when it loses its server.

    Does nothing to what is no client of ZEO.  Raises AsyncViewError for a ZEO that
    this does not know how to cure.
    """
    module = sys.modules.get("ZEO.ClientStorage")
    while module is not None and not isinstance(storage, module.ClientStorage):
        # Compressing and encrypting storages wrap another.
        storage = getattr(storage, "base", None)
        if storage is None:
            return
    if module is None:
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
