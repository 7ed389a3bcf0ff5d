"""The files that clients upload."""

import hashlib
import random

#: More than one of the blocks in which bodies are read.
CHUNK = 300_000

#: Many chunks, the last of them short.
SIZE = 10 * CHUNK + 12_345


class File:
    """A file of some size, always with the same bytes."""

    def __init__(self, path, size):
        self.path = path
        self.size = size
        data = random.Random(size).randbytes(size)
        path.write_bytes(data)
        #: What the server is to say of it.
        self.facts = {
            "name": path.name,
            "size": size,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
