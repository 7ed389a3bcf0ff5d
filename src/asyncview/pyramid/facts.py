"""What the configuration says about a view, for the view itself to know."""

from typing import Any
from typing import NamedTuple
from urllib.parse import urlsplit

from pyramid.csrf import LegacySessionCSRFStoragePolicy
from pyramid.csrf import SessionCSRFStoragePolicy
from pyramid.csrf import check_csrf_origin
from pyramid.csrf import check_csrf_token
from pyramid.csrf import get_csrf_token
from pyramid.interfaces import ICSRFStoragePolicy
from pyramid.interfaces import IDefaultCSRFOptions
from pyramid.request import Request

from asyncview.pyramid.identity import has_sessions

FACTS = "asyncview.facts"

DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class ViewFacts(NamedTuple):
    """``renderer`` is the view's own helper; ``csrf``: its POSTs need a token."""

    renderer: Any = None
    csrf: bool = False

    @staticmethod
    def csrf_possible(request: Request) -> bool:
        """Whether the application has a place to keep a CSRF token."""
        if has_sessions(request):
            return True
        policy = request.registry.queryUtility(ICSRFStoragePolicy)
        return policy is not None and not isinstance(
            policy, (LegacySessionCSRFStoragePolicy, SessionCSRFStoragePolicy)
        )


def facts_of(request: Request) -> ViewFacts:
    """Those of the view that is being called."""
    facts: ViewFacts = request.environ.get(FACTS, NO_FACTS)
    return facts


NO_FACTS = ViewFacts()


def csrf_names(request: Request) -> tuple[str, str]:
    """The form field and the header in which the application expects its token."""
    options = request.registry.queryUtility(IDefaultCSRFOptions)
    if options is None:
        return "csrf_token", "X-CSRF-Token"
    return options.token or "csrf_token", options.header or "X-CSRF-Token"


def csrf_field(request: Request) -> tuple[str, str | None]:
    """Name and value of the hidden field of our forms; None where there is none."""
    name = csrf_names(request)[0]
    if not ViewFacts.csrf_possible(request):
        return name, None
    return name, get_csrf_token(request)


def is_cross_site(request: Request) -> bool:
    """Whether a browser says that another site sent this."""
    site = request.headers.get("Sec-Fetch-Site", "").lower()
    if site in ("same-origin", "none"):
        # The browser knows better than we: a proxy may not tell us the host, and a
        # page with a strict Referrer-Policy sends the origin "null" to its own site.
        return False
    if site == "cross-site":
        return True
    origin = request.headers.get("Origin")
    if origin is None:
        return False
    # The scheme is not compared: behind a proxy that ends TLS we see another.
    try:
        parts = urlsplit(origin)
    except ValueError:
        return True
    netloc = parts.netloc.lower().removesuffix(DEFAULT_PORTS.get(parts.scheme, " "))
    host = request.host.lower()
    for port in DEFAULT_PORTS.values():
        host = host.removesuffix(port)
    return bool(netloc != host)


def check_csrf(request: Request) -> bool:
    """For what is always checked: by token where there can be one, else by origin.

    Raises BadCSRFToken or BadCSRFOrigin as Pyramid does.
    """
    if not ViewFacts.csrf_possible(request):
        return not is_cross_site(request)
    options = request.registry.queryUtility(IDefaultCSRFOptions)
    names = {}
    if options is not None:
        names = {"token": options.token, "header": options.header}
    if options is None or options.check_origin:
        check_csrf_origin(request, raises=True, allow_no_origin=True)
    check_csrf_token(request, raises=True, **names)
    return True
