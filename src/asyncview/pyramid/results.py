"""What ``__run__`` and pages return, as the rest of Pyramid's pipeline wants it."""

from typing import Any

from pyramid.request import Request
from pyramid.response import Response

#: Renderers for which a text is a value, and not the body.
TEXT_IS_A_VALUE = frozenset({"json", "string"})


def to_response(request: Request, result: Any, renderer: Any) -> Any:
    """A response, or a value that the view's renderer takes.

    None is an empty 204 where there is no renderer, and text is the body as it stands.
    """
    name = getattr(renderer, "name", None)
    if isinstance(result, (str, bytes)) and name not in TEXT_IS_A_VALUE:
        return as_body(request, result)
    if result is None and renderer is None:
        if "response" not in request.__dict__:
            return Response(status=204, headerlist=[], app_iter=())
        response = request.response
        if response.status_int == 200:
            response.status_int = 204
        del response.content_type
        return response
    return result


def as_body(
    request: Request, text: str | bytes, content_type: str | None = None
) -> Response:
    """On the request's own response, so that what was set there stays.

    ``content_type`` is that of a text for which nothing was set; if None, plain text
    unless it says that it is HTML.
    """
    response = request.response
    if content_type is None:
        content_type = "text/html" if hasattr(text, "__html__") else "text/plain"
    if response.content_type == response.default_content_type:
        response.content_type = content_type
    if isinstance(text, bytes):
        response.body = text
    else:
        response.charset = response.charset or "utf-8"
        response.text = str(text)
    return response
