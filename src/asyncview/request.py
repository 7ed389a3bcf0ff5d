"""The stored request: what a replay needs to be the same request again."""

from collections.abc import Mapping
from typing import Any

from persistent import Persistent
from ZODB.blob import Blob
from zope.interface import implementer

from asyncview.interfaces import IStoredRequest

#: RFC 3875's meta-variables, but for those that say how the request was sent on
#: this connection.  A list, because some servers put their whole process
#: environment, passwords included, into the environ.
NAMES = frozenset(
    """AUTH_TYPE CONTENT_TYPE GATEWAY_INTERFACE PATH_INFO QUERY_STRING
    REMOTE_ADDR REMOTE_HOST REMOTE_IDENT REMOTE_PORT REMOTE_USER REQUEST_METHOD
    SCRIPT_NAME SERVER_NAME SERVER_PORT SERVER_PROTOCOL SERVER_SOFTWARE
    wsgi.url_scheme""".split()
)

#: Conditions and encodings belong to the answer that the POST gets, not to the
#: result; the body is stored whole, whatever it came in.  HTTP_PROXY is no header
#: but a variable of the process, often with a password.
DROPPED = frozenset(
    """HTTP_ACCEPT_ENCODING HTTP_CONNECTION HTTP_CONTENT_LENGTH
    HTTP_CONTENT_TYPE HTTP_EXPECT HTTP_IF_MATCH HTTP_IF_MODIFIED_SINCE
    HTTP_IF_NONE_MATCH HTTP_IF_RANGE HTTP_IF_UNMODIFIED_SINCE HTTP_KEEP_ALIVE
    HTTP_PROXY HTTP_RANGE HTTP_TE HTTP_TRAILER HTTP_TRANSFER_ENCODING
    HTTP_UPGRADE""".split()
)


def freeze(environ: Mapping[str, Any]) -> dict[str, str]:
    """The part of a WSGI environ that is kept: exact text under known names."""
    return {
        name: value
        for name, value in environ.items()
        if (name in NAMES or (name[:5] == "HTTP_" and name not in DROPPED))
        and type(value) is str
    }


@implementer(IStoredRequest)
class StoredRequest(Persistent):
    """See `IStoredRequest`."""

    environ: tuple[tuple[str, str], ...] = ()
    body: bytes | Blob = b""
    size = 0
    session: bytes | None = None

    def __init__(
        self,
        environ: Mapping[str, str],
        body: bytes | Blob,
        size: int,
        session: bytes | None,
    ) -> None:
        self.environ = tuple(environ.items())
        self.body = body
        self.size = size
        self.session = session

    def __getstate__(self) -> tuple[Any, ...]:
        return (1, self.environ, self.body, self.size, self.session)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.environ, self.body, self.size, self.session = state
