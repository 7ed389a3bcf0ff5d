"""``config.add_upload_endpoint``."""

from typing import Any

from pyramid.config import PHASE3_CONFIG
from pyramid.config import Configurator


def add_upload_endpoint(
    config: Configurator,
    path: str,
    name: str | None = None,
    cross_site: bool = False,
    **view_options: Any,
) -> None:
    """Take in uploads at ``path`` and below it.

    ``name`` is that of the route (the path if None).  ``view_options`` are those of
    ``add_view``, ``permission`` for one; ``factory`` is the routes'.  Where no CSRF
    token is asked for, only ``cross_site`` lets other sites' pages upload.
    """
    # Here, for those alone who take uploads.
    from asyncview.pyramid.uploads.endpoint import Endpoint

    pattern = "/" + path.strip("/")
    route = name or pattern
    options = {
        key: view_options.pop(key) for key in ("factory",) if key in view_options
    }
    endpoint = Endpoint(view_options.get("require_csrf"), cross_site)
    introspectable = config.introspectable(
        "asyncview upload endpoints", pattern, pattern, "asyncview upload endpoint"
    )
    introspectable.update(
        pattern=pattern, route_name=route, cross_site=cross_site, **view_options
    )
    for each, where in (
        (route, pattern),
        (f"{route}/*subpath", f"{pattern.rstrip('/')}/*subpath"),
    ):
        config.add_route(each, where, **options)
        config.add_view(endpoint, route_name=each, **view_options)
        introspectable.relate("routes", each)
    config.action(
        ("asyncview.uploads", pattern),
        lambda: config.registry.asyncview.expect_uploads(),
        introspectables=(introspectable,),
        # After everything that may open a database.
        order=PHASE3_CONFIG,
    )
