"""Whose a job is, of which view and which context; and who may see it."""

import hashlib
import hmac
import re
from typing import Any
from urllib.parse import quote

from persistent import Persistent
from pyramid.interfaces import ISecurityPolicy
from pyramid.interfaces import ISessionFactory
from pyramid.request import Request

from asyncview.job import Job

#: WebOb's own, so that our links are what `request.path` would be.
PATH_SAFE = "/~!$&'()*+,;=:@"
QUERY_SAFE = PATH_SAFE + "?%"

VISITOR = "asyncview.visitor"


def own_path(request: Request) -> str:
    """PATH_INFO without the subpath, unquoted, no slash at its end.

    It is the only thing that stays the same over traversal, ``@@name``, routes with
    ``*subpath``, factories, hybrids and virtual hosts; `resource_url` does not.
    """
    # Traversal skips empty segments; an address that begins with two slashes would
    # be another host's.
    path: str = request.path_info
    if "//" in path:
        path = re.sub("/+", "/", path)
    path = path.rstrip("/")
    if request.subpath:
        path = path.removesuffix("/" + "/".join(request.subpath)).rstrip("/")
    return path


def has_dots(request: Request) -> bool:
    """Whether a browser would take the view's address for another one."""
    return not {".", ".."}.isdisjoint(own_path(request).split("/"))


def own_url(request: Request) -> str:
    """The view's own address, path-absolute and quoted, SCRIPT_NAME included."""
    return quote(request.script_name + own_path(request), PATH_SAFE) or "/"


def own_query(request: Request) -> str:
    """The query of the view's own address with its question mark; empty if none."""
    if request.subpath or not request.query_string:
        return ""
    return "?" + quote(request.query_string.encode("latin-1"), QUERY_SAFE)


def subview_url(base: str, name: str, process_id: str) -> str:
    """The address of a subview of the view at ``base``."""
    return f"{base.rstrip('/')}/{name}?process_id={process_id}"


def view_identity(request: Request) -> str:
    """What the path says about which view on which object this is."""
    root = request.environ.get("HTTP_X_VHM_ROOT", "").rstrip("/")
    head, _, name = own_path(request).rpartition("/")
    return f"{root}{head}/{name.removeprefix('@@')}"


def context_identity(context: object) -> bytes | None:
    """The context's oid; None where it is not persistent."""
    return context._p_oid if isinstance(context, Persistent) else None


def owner_of(request: Request) -> tuple[str, str] | None:
    """Type and text of the userid: 1 and "1" are two."""
    userid = request.authenticated_userid
    return None if userid is None else (type(userid).__name__, str(userid))


def has_sessions(request: Request) -> bool:
    return request.registry.queryUtility(ISessionFactory) is not None


def visitor_of(request: Request, create: bool = False) -> str | None:
    """A digest of the secret in the web session, which only ``create`` makes."""
    if not has_sessions(request):
        return None
    secret = request.session.get(VISITOR)
    if secret is None:
        if not create:
            return None
        # Not drawn: the first requests of a page may come at once, each without what
        # the others store, and are one visitor's all the same.
        token = str(request.session.get_csrf_token()).encode()
        secret = hmac.new(token, VISITOR.encode(), hashlib.sha256).hexdigest()
        request.session[VISITOR] = secret
    return hashlib.sha256(str(secret).encode()).hexdigest()


def is_owner(request: Request, job: Job) -> bool:
    if job.owner is not None:
        return job.owner == owner_of(request)
    if job.visitor is None:
        return True
    visitor = visitor_of(request)
    return visitor is not None and hmac.compare_digest(job.visitor, visitor)


def is_admin(request: Request, context: Any, permission: str) -> bool:
    """Without a security policy everything is permitted, so then nobody is admin."""
    policy = request.registry.queryUtility(ISecurityPolicy)
    return policy is not None and bool(policy.permits(request, context, permission))
