"""What is known of one upload: what was said of it, and which of its bytes are there.

No file, no framework: `Manifest` never changes, `Chunks` is what the lines of a journal
add up to, and where a chunk goes follows from both.
"""

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote
from urllib.parse import unquote

#: No client needs more, and a number costs a line in the journal.
MAX_CHUNKS = 10_000

#: A file name is as long as file systems allow, in bytes.
MAX_NAME = 255

WELL_FORMED = re.compile(r"[A-Za-z0-9_-]{22,64}")

#: What Windows takes for a device, with any extension.
DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)")

UNNAMED = "upload"

#: In a journal: in place of a writer's token, and of an offset.
NOBODY = "-"
PARKED = "-"

#: Whose an upload is: type and text of the userid, or the digest of a web session's
#: secret; neither where nobody knows.
Owner = tuple[tuple[str, str] | None, str | None]


class Manifest(NamedTuple):
    """What the first request said of an upload; sizes are in bytes.

    ``chunk_count`` is None where the file grows at its end and has no numbered chunks;
    ``chunk_size`` is None where nobody said it.  ``key`` is a digest of what the client
    calls the upload, ``metadata`` what else it said, to be said again.
    """

    uid: str
    file_name: str
    total_size: int
    created: float
    chunk_count: int | None = None
    chunk_size: int | None = None
    key: str | None = None
    metadata: str = ""

    def dump(self) -> bytes:
        return json.dumps({"version": 1, **self._asdict()}).encode()

    @classmethod
    def load(cls, data: bytes) -> "Manifest":
        values = json.loads(data)
        del values["version"]
        return cls(**values)


class Part(NamedTuple):
    """One chunk: how long it is, and where.

    ``offset`` is None for one that is parked in a file of its own, which has the
    ``token`` of its writer in its name.
    """

    size: int
    offset: int | None
    token: str

    def meets(self, start: int, end: int) -> bool:
        return (
            self.offset is not None
            and self.offset < end
            and start < self.offset + self.size
        )


class Chunks:
    """Which bytes of an upload are on disk, as its journal tells it line by line."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.touched = manifest.created
        #: Of a file that grows: how much of it there is.
        self.size = 0
        #: Who may add to it, `NOBODY` while nobody does.
        self.writer = NOBODY
        #: The numbered chunks that are there, and those on their way.
        self.parts: dict[int, Part] = {}
        self.coming: dict[int, Part] = {}
        #: What it is called, where that came after its begin.
        self.file_name = manifest.file_name
        #: The name of the file that has them all in order, "" before there is one.
        self.whole = ""
        #: By job that owns the upload: when it was claimed, and whether the job is
        #: known to have been stored.
        self.jobs: dict[str, tuple[float, bool]] = {}
        #: Since which start of which machine there has been something here.
        self.boots: dict[str, str] = {}
        #: Whether the whole file is not in the machine's memory alone.
        self.synced = False
        #: Whether it has been a job's that is gone.
        self.spent = False

    # The journal's lines: the time, a word, and what the word is about.

    def apply(self, line: str) -> None:
        """Take in one line."""
        time, word, *rest = line.split(" ")
        getattr(self, f"_{word}")(float(time), *rest)

    def lines(self) -> Iterator[str]:
        """The fewest lines that say the same."""
        now = f"{self.touched!r}"
        if self.size or self.writer != NOBODY:
            yield f"{now} grow {self.writer} {self.size}"
        for number, part in self.parts.items():
            yield f"{now} {begin(number, part)}"
            yield f"{now} put {number}"
        for number, part in self.coming.items():
            yield f"{now} {begin(number, part)}"
        if self.file_name != self.manifest.file_name:
            yield f"{now} name {quote(self.file_name)}"
        if self.whole:
            yield f"{now} whole {self.whole}"
        for job, (claimed, stored) in self.jobs.items():
            yield f"{claimed!r} claim {job}"
            if stored:
                yield f"{claimed!r} owned {job}"
        if self.spent:
            yield f"{now} spent"
        for machine, boot in self.boots.items():
            yield f"{now} boot {machine} {boot}"
        if self.synced:
            yield f"{now} synced"

    def _boot(self, time: float, machine: str, boot: str) -> None:
        before = self.boots.get(machine, boot)
        self.boots[machine] = boot
        if before != boot and not self.synced and self.manifest.total_size:
            # The machine went down: what it had not written to the disk may be lost.
            self.size, self.writer, self.whole = 0, NOBODY, ""
            self.parts.clear()
            self.coming.clear()

    def _synced(self, time: float) -> None:
        self.synced = True

    def _fence(self, time: float, token: str) -> None:
        self.writer = token

    def _grow(self, time: float, token: str, size: str) -> None:
        self.touched = max(self.touched, time)
        self.writer, self.size = token, int(size)

    def _begin(
        self, time: float, number: str, token: str, offset: str, size: str
    ) -> None:
        where = None if offset == PARKED else int(offset)
        self.coming[int(number)] = Part(int(size), where, token)

    def _put(self, time: float, number: str) -> None:
        self.touched = max(self.touched, time)
        self.parts[int(number)] = self.coming.pop(int(number))

    def _drop(self, time: float, number: str) -> None:
        self.coming.pop(int(number), None)

    def _name(self, time: float, quoted: str) -> None:
        self.file_name = unquote(quoted)

    def _whole(self, time: float, name: str) -> None:
        self.touched = max(self.touched, time)
        self.whole = name

    def _claim(self, time: float, job: str) -> None:
        self.jobs[job] = (time, False)

    def _owned(self, time: float, job: str) -> None:
        self.jobs[job] = (self.jobs.get(job, (time, True))[0], True)

    def _disowned(self, time: float, job: str) -> None:
        _, stored = self.jobs.pop(job, (time, False))
        self.spent = self.spent or stored

    def _spent(self, time: float) -> None:
        self.spent = True

    # What follows from them

    @property
    def received(self) -> int:
        """Bytes that are there."""
        return self.size + sum(part.size for part in self.parts.values())

    @property
    def all_there(self) -> bool:
        """Whether no chunk is missing; they may be too short all the same."""
        count = self.manifest.chunk_count
        if count is None:
            return self.size == self.manifest.total_size
        return len(self.parts) == count

    @property
    def complete(self) -> bool:
        return bool(self.whole)

    def in_order(self) -> Iterator[tuple[int, Part]]:
        """The chunks that are there, each with where it belongs in the whole."""
        end = 0
        for number in sorted(self.parts):
            yield end, self.parts[number]
            end += self.parts[number].size

    def room_for(self, number: int) -> int:
        """How long a chunk may be at most, beside the others that are there."""
        mine = self.parts[number].size if number in self.parts else 0
        return self.manifest.total_size - self.received + mine

    def place(self, number: int, size: int) -> int | None:
        """Where a chunk goes if all but the last are as long as one another.

        None where that can't be, or a chunk lies there: it is to be parked.
        """
        manifest = self.manifest
        if manifest.chunk_size is not None:
            start = number * manifest.chunk_size
        elif number + 1 == manifest.chunk_count:
            start = manifest.total_size - size
        else:
            start = number * size
        end = start + size
        if number in self.parts or start < 0 or end > manifest.total_size:
            return None
        others = list(self.parts.values())
        others += [part for other, part in self.coming.items() if other != number]
        return None if any(part.meets(start, end) for part in others) else start


def begin(number: int, part: Part) -> str:
    """The words of a journal that announce a chunk."""
    offset = PARKED if part.offset is None else part.offset
    return f"begin {number} {part.token} {offset} {part.size}"


def safe_name(name: str) -> str:
    """A base name that is safe to show, to store and to send, at most 255 bytes long.

    It is never part of a path of ours.
    """
    text = unicodedata.normalize("NFC", re.split(r"[/\\]", name)[-1])
    # Control, format (of which some turn the direction), surrogates, unassigned.
    text = "".join(c for c in text if unicodedata.category(c)[0] != "C")
    text = re.sub(r'[<>:"|?*]', "_", text)
    text = re.sub(r"\s+", " ", text).strip(" .").lstrip("-. ")
    if DEVICES.match(text):
        text = f"_{text}"
    stem, extension = os.path.splitext(text)
    extension = extension.encode()[:32].decode(errors="ignore")
    stem = stem.encode()[: MAX_NAME - len(extension.encode())].decode(errors="ignore")
    return (stem + extension).strip(" .") or UNNAMED


def key_of(*words: object) -> str:
    """A digest of what a client calls an upload: short, and safe in a path."""
    text = "\0".join(str(word) for word in words)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:40]
