"""Puts chunks in order that could not be written to their places."""

import os

from asyncview.disk import copy
from asyncview.disk import opened
from asyncview.upload import Chunks
from asyncview.upload import Part

#: The file that chunks are written to, and the one that is made where some lie in the
#: way of others.
DATA = "data"
FOLDED = "folded"


def fold(folder: str, chunks: Chunks) -> str:
    """Have all chunks one after another; gives the name of the file that does.

    Nothing that the journal says is touched before it says something else.
    """
    away = [
        (start, part)
        for start, part in chunks.in_order()
        if part.offset not in (None, start)
    ]
    name = FOLDED if away else DATA
    numbers = sorted(chunks.parts)
    path = os.path.join(folder, name)
    flags = os.O_RDWR | (os.O_CREAT | os.O_TRUNC if away else 0)
    try:
        with opened(path, flags) as target:
            for number, (start, part) in zip(numbers, chunks.in_order(), strict=True):
                if part.offset is None or away:
                    parked = part.offset is None
                    source = parked_name(number, part) if parked else DATA
                    with opened(os.path.join(folder, source), os.O_RDONLY) as file:
                        copy(file, part.offset or 0, target, start, part.size)
            if away:
                # What it was made of is removed.
                os.fsync(target)
    except BaseException:
        if away:
            os.unlink(path)
        raise
    return name


def parked_name(number: int, part: Part) -> str:
    return f"part-{number}-{part.token}"
