"""What answers have in common: strict JSON, and heads that keep them private."""

import hashlib
import json
import math
from typing import Any

from pyramid.request import Request
from pyramid.response import Response

#: Whose they are, and in which language they speak.
VARY = "Cookie, Accept-Language"

#: What no answer of ours lacks.
OURS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Vary", VARY),
)

#: In JSON: what could end a script element, or a line of a script in old browsers.
ESCAPED = {ord(char): f"\\u{ord(char):04x}" for char in "<\u2028\u2029"}


def dumps(value: Any) -> bytes:
    """Strict JSON: no NaN, no half of a character, and no end of a script in it."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    # Some names of files have halves of surrogate pairs, which no parser need take.
    return text.translate(ESCAPED).encode("utf-8", "replace")


def etag_of(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=12).hexdigest()


def retry_after(request: Request) -> str:
    """Whole seconds until it is worth looking again."""
    settings = request.registry.asyncview.engine.settings
    return str(max(1, math.ceil(settings.poll_interval)))


def json_response(value: Any, status: int = 200) -> Response:
    return private(
        Response(
            dumps(value), status=status, content_type="application/json", charset=None
        )
    )


def document_response(
    request: Request, body: bytes, etag: str, ended: bool
) -> Response:
    """A status document, or that it is still what the caller has; see `private`."""
    headers = [("ETag", f'"{etag}"'), ("Cache-Control", "private, no-cache")]
    if not ended:
        headers.append(("Retry-After", retry_after(request)))
    if etag in request.if_none_match:
        return Response(status=304, headerlist=headers)
    headers.append(("Content-Type", "application/json"))
    return Response(body, headerlist=headers)


def private(response: Response, cache: str = "private, no-store") -> Response:
    """Nobody else's, and of the type that it says.

    ``cache``, and all else, where the response does not say itself.
    """
    headers = response.headerlist
    # All at once: WebOb looks through them for each.
    said = {name.lower(): value for name, value in headers}
    for name, value in (*OURS, ("Cache-Control", cache)):
        if name.lower() not in said:
            headers.append((name, value))
    vary = said.get("vary", VARY)
    if vary != VARY:
        vary = ", ".join(response.headers.getall("Vary"))
        known = {each.strip().lower() for each in vary.split(",")}
        if "*" not in known:
            missing = [n for n in VARY.split(", ") if n.lower() not in known]
            response.headers["Vary"] = ", ".join([vary, *missing])
    return response
