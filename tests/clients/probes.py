"""The table of raw tus requests, and where our answers differ on purpose."""

from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from typing import NamedTuple

#: With every request, unless it says otherwise.
TUS = {"Tus-Resumable": "1.0.0"}

DATA = "application/offset+octet-stream"

#: Base64 of the SHA-1 of b"hello", and of something else.
RIGHT = "qvTGHdzF6KLavt4PO0gs2a6pQ00="
WRONG = "Kq5sNclPz7QV2+lfQIuc6R7oRu0="


@dataclass(frozen=True)
class Step:
    """A request: to a path, else to the upload before it, else to the endpoint."""

    method: str
    headers: dict = field(default_factory=dict)
    body: bytes | None = None
    follows: bool = False
    path: str | None = None


class Difference(NamedTuple):
    ours: str
    theirs: str
    because: str


@dataclass
class Probe:
    """Some requests, one after the other, and at which the answers differ."""

    steps: tuple
    differences: dict = field(default_factory=dict)


def headers_of(words):
    return {word.replace("_", "-"): value for word, value in words.items()}


def create(length="10", body=None, **headers):
    given = {"Upload-Length": length} | headers_of(headers)
    return Step("POST", given, body)


def patch(offset, body, path=None, **headers):
    given = {"Upload-Offset": offset, "Content-Type": DATA} | headers_of(headers)
    return Step("PATCH", given, body, True, path)


def head(path=None, **headers):
    return Step("HEAD", headers_of(headers), None, True, path)


def delete(path=None, **headers):
    return Step("DELETE", headers_of(headers), None, True, path)


def instead(method, step):
    """The same by another method."""
    return replace(step, method=method)


def probe(*steps, **differences):
    """Differences are named by the number of their step, as ``at_0``."""
    numbered = {int(name[3:]): value for name, value in differences.items()}
    return Probe(steps, numbered)


# Answers

NEW = "201 Location Tus-Resumable Upload-Expires"
REFUSED = "400 Tus-Resumable"
WRONG_VERSION = "412 Tus-Version Tus-Resumable"


def at(offset, length=10):
    return (
        f"200 Upload-Offset={offset} Upload-Length={length} Tus-Resumable"
        " Cache-Control=no-store"
    )


def taken(offset):
    return f"204 Upload-Offset={offset} Tus-Resumable Upload-Expires"


#: What tus asks for where the reference does something else.
VERSION = Difference(WRONG_VERSION, REFUSED, "tus asks for 412 and our version")
NO_VERSION = Difference(WRONG_VERSION, "412 Tus-Resumable", "tus asks for our version")
TYPE = Difference("415 Tus-Resumable", REFUSED, "tus asks for 415")
NO_TYPE = Difference("415 Tus-Resumable", "403 Tus-Resumable", "tus asks for 415")
OVERRIDE = "tus asks servers to honour the header"

CHECKSUM = "an extension that we offer, and the reference does not"

#: What tus leaves open.
PARTS = Difference(REFUSED, "501 Tus-Resumable", "what is 5xx clients send again")

UNKNOWN = "/files/0123456789abcdef0123456789abcdef"

PROBES = {
    # What there is
    "discovery": probe(Step("OPTIONS")),
    "discovery without a version": probe(Step("OPTIONS", {"Tus-Resumable": None})),
    "discovery with another version": probe(Step("OPTIONS", {"Tus-Resumable": "0.2"})),
    # The start
    "new": probe(create(), head()),
    "new and empty": probe(create("0"), head()),
    "new with metadata": probe(
        create(Upload_Metadata="filename YS50eHQ=,note eA=="), head()
    ),
    "new with a key without value": probe(
        create(Upload_Metadata="filename YS50eHQ=,secret"), head()
    ),
    "new with no metadata": probe(
        create(Upload_Metadata=""),
        at_0=Difference(NEW, REFUSED, "tuspy sends the header even so"),
    ),
    "new with metadata that are no base64": probe(create(Upload_Metadata="a *")),
    "new with metadata without key": probe(create(Upload_Metadata=",")),
    "new with one key twice": probe(create(Upload_Metadata="a eA==,a eQ==")),
    "new without a length": probe(create(None)),
    "new with length -1": probe(create("-1")),
    "new with length 1.5": probe(create("1.5")),
    "new with length 1e3": probe(create("1e3")),
    "new with length +5": probe(create("+5")),
    "new with a word for a length": probe(create("long")),
    "new of a length that is told later": probe(
        create(None, Upload_Defer_Length="1"),
        at_0=Difference(REFUSED, NEW, "an extension that we do not offer"),
    ),
    "new with a length now and later": probe(create(Upload_Defer_Length="1")),
    "new of a length that nobody can store": probe(create("9" * 15)),
    "new part of a whole": probe(create(Upload_Concat="partial"), at_0=PARTS),
    "new whole of parts": probe(
        create(None, Upload_Concat="final;/files/a /files/b"), at_0=PARTS
    ),
    "new with all its data": probe(create("5", b"hello", Content_Type=DATA), head()),
    "new with some of its data": probe(
        create("10", b"hello", Content_Type=DATA), head()
    ),
    "new with more than its data": probe(create("4", b"hello", Content_Type=DATA)),
    "new with data of another type": probe(
        create("5", b"hello", Content_Type="text/plain"),
        at_0=Difference("415 Tus-Resumable", NEW, "data are not dropped silently"),
    ),
    "new with another version": probe(create(Tus_Resumable="0.2.2"), at_0=VERSION),
    "new without a version": probe(create(Tus_Resumable=None), at_0=NO_VERSION),
    # Where it is
    "where an unknown one is": probe(head(UNKNOWN)),
    "where one with a strange id is": probe(head("/files/..%2F..%2Fetc")),
    "where one is, without a version": probe(
        create(),
        head(Tus_Resumable=None),
        at_1=Difference(at(0), "412 Tus-Resumable", "FilePond asks so"),
    ),
    "where one is, with another version": probe(
        create(), head(Tus_Resumable="0.2.2"), at_1=VERSION
    ),
    # More of it
    "all of it": probe(create("5"), patch("0", b"hello"), head()),
    "all of it in two": probe(
        create(), patch("0", b"hello"), patch("5", b"world"), head()
    ),
    "a gap": probe(create(), patch("3", b"hello"), head()),
    "the same again": probe(
        create(), patch("0", b"hello"), patch("0", b"hello"), head()
    ),
    "no data": probe(create(), patch("0", b""), head()),
    "no data, at the end": probe(
        create("5"), patch("0", b"hello"), patch("5", b""), head()
    ),
    "data behind the end": probe(
        create("5"), patch("0", b"hello"), patch("5", b"!"), head()
    ),
    "too much data": probe(create("4"), patch("0", b"hello"), head()),
    "data without an offset": probe(
        create(),
        patch(None, b"hello"),
        head(),
        at_1=Difference(REFUSED, "403 Tus-Resumable", "nobody forbids it"),
    ),
    "data at -1": probe(create(), patch("-1", b"hello"), head()),
    "data at a word": probe(create(), patch("here", b"hello"), head()),
    "data without a type": probe(
        create(), patch("0", b"hello", Content_Type=None), head(), at_1=NO_TYPE
    ),
    "data of another type": probe(
        create(), patch("0", b"hello", Content_Type="text/plain"), head(), at_1=TYPE
    ),
    "data for an unknown one": probe(patch("0", b"hello", UNKNOWN)),
    "data without a version": probe(
        create(), patch("0", b"hello", Tus_Resumable=None), head(), at_1=NO_VERSION
    ),
    "data with another version": probe(
        create(), patch("0", b"hello", Tus_Resumable="0.2.2"), head(), at_1=VERSION
    ),
    "data with a length that is known": probe(
        create(),
        patch("0", b"hello", Upload_Length="10"),
        head(),
        at_1=Difference(taken(5), REFUSED, "it says nothing new"),
        at_2=Difference(at(5), at(0), "it says nothing new"),
    ),
    "data by another method": probe(
        create(),
        instead("POST", patch("0", b"hello", X_HTTP_Method_Override="PATCH")),
        head(),
        at_1=Difference(taken(5), REFUSED, OVERRIDE),
        at_2=Difference(at(5), at(0), OVERRIDE),
    ),
    # Its end
    "taken back": probe(create(), delete(), head(), patch("0", b"hello"), delete()),
    "taken back when whole": probe(create("5"), patch("0", b"hello"), delete(), head()),
    "an unknown one taken back": probe(delete(UNKNOWN)),
    "taken back by another method": probe(
        create(),
        instead("POST", delete(X_HTTP_Method_Override="DELETE")),
        head(),
        at_1=Difference("204 Tus-Resumable", REFUSED, OVERRIDE),
        at_2=Difference("404 Tus-Resumable", at(0), OVERRIDE),
    ),
    # Checksums
    "the right checksum": probe(
        create(), patch("0", b"hello", Upload_Checksum=f"sha1 {RIGHT}"), head()
    ),
    "the wrong checksum": probe(
        create(),
        patch("0", b"hello", Upload_Checksum=f"sha1 {WRONG}"),
        head(),
        at_1=Difference("460 Tus-Resumable", taken(5), CHECKSUM),
        at_2=Difference(at(0), at(5), CHECKSUM),
    ),
    "a checksum of another kind": probe(
        create(),
        patch("0", b"hello", Upload_Checksum=f"crc99 {RIGHT}"),
        head(),
        at_1=Difference(REFUSED, taken(5), CHECKSUM),
        at_2=Difference(at(0), at(5), CHECKSUM),
    ),
    "a checksum without a value": probe(
        create(),
        patch("0", b"hello", Upload_Checksum="sha1"),
        head(),
        at_1=Difference(REFUSED, taken(5), CHECKSUM),
        at_2=Difference(at(0), at(5), CHECKSUM),
    ),
}
