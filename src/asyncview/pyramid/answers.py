"""What answers have in common: strict JSON, and heads that keep them private."""

import hashlib
import json
import math
from typing import Any

from pyramid.request import Request
from pyramid.response import Response

#: Whose they are, and in which language they speak.
VARY = "Cookie, Accept-Language"

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
    return private(json_body(dumps(value), status))


def json_body(body: bytes, status: int = 200) -> Response:
    """JSON as a response, which no browser takes for something else."""
    response = Response(
        body, status=status, content_type="application/json", charset=None
    )
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def private(response: Response, cache: str = "private, no-store") -> Response:
    """Nobody else's, and of the type that it says.

    ``cache``, and all else, where the response does not say itself.
    """
    headers = response.headers
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Cache-Control", cache)
    headers.setdefault("Referrer-Policy", "same-origin")
    vary = headers.get("Vary")
    if vary is None:
        headers["Vary"] = VARY
    elif vary != VARY:
        known = {each.strip().lower() for each in vary.split(",")}
        if "*" not in known:
            missing = [n for n in VARY.split(", ") if n.lower() not in known]
            headers["Vary"] = ", ".join([vary, *missing])
    return response
