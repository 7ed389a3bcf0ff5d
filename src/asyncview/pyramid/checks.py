"""What is refused with a sentence: options, chains of tweens and routes."""

import inspect
import re
from collections.abc import Iterable
from typing import Any

from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import IRoutesMapper
from pyramid.interfaces import ITweens
from pyramid.tweens import EXCVIEW
from pyramid.tweens import INGRESS

from asyncview.pyramid.view import BaseAsyncView

INGRESS_TWEEN = "asyncview.pyramid.tween.ingress_tween_factory"
OUTCOME_TWEEN = "asyncview.pyramid.tween.outcome_tween_factory"
TM_TWEEN = "pyramid_tm.tm_tween_factory"

#: A placeholder in the pattern of a route, and what may stand in its place.
PLACE = r"\{(?:[^{}]|\{[^{}]*\})*\}"
SAMPLES = ("asyncview-sample", "271828")


def is_async(view: Any) -> bool:
    return inspect.isclass(view) and issubclass(view, BaseAsyncView)


def check_options(cls: type, options: dict[str, Any]) -> None:
    def refuse(what: str, why: str) -> None:
        raise ConfigurationError(
            f"{cls.__name__} can't be registered with {what}: {why}"
        )

    if options.get("attr"):
        refuse("attr", "a background view starts in __call__")
    if options.get("wrapper"):
        refuse("wrapper", "it would wrap the redirects and status answers too")
    method = options.get("request_method")
    methods = (method,) if isinstance(method, str) else tuple(method or ("GET",))
    if "GET" not in methods:
        refuse("request_method", "its subviews are asked for by GET")
    if options.get("request_param"):
        refuse("request_param", "the requests for its subviews do not have it")
    if options.get("accept"):
        refuse("accept", "the same subviews answer browsers and scripts")
    if options.get("xhr"):
        refuse("xhr", "browsers ask for its subviews without it")
    if not options.get("name") and not options.get("route_name"):
        refuse('name=""', "a default view has no address below which subviews can be")


# When all is said


def put_outermost(config: Configurator) -> None:
    """Put the ingress tween over all others; refuse a chain without ours."""
    tweens = config.registry.queryUtility(ITweens)
    if tweens.explicit:
        _check_explicit([name for name, _ in tweens.explicit])
        return
    others = tuple(name for name in tweens.sorter.names if name != INGRESS_TWEEN)
    factory = config.maybe_dotted(INGRESS_TWEEN)
    tweens.add_implicit(INGRESS_TWEEN, factory, under=INGRESS, over=others)


def _check_explicit(names: list[str]) -> None:
    chain = [INGRESS_TWEEN, TM_TWEEN, OUTCOME_TWEEN, EXCVIEW]
    missing = [name for name in chain if name not in names]
    if missing:
        raise ConfigurationError(
            "the setting pyramid.tweens names all tweens, and without these no job"
            f" would ever end: {', '.join(missing)}"
        )
    if sorted(chain, key=names.index) != chain:
        raise ConfigurationError(
            "the setting pyramid.tweens must have these in this order: "
            + ", ".join(chain)
        )


def check_pattern(pattern: str) -> None:
    """Refuse one that leaves no addresses to the subviews."""
    if re.search(r"\*\w*$", pattern):
        raise ConfigurationError(
            f"add_async_view: the pattern {pattern} must leave the rest of the path to"
            " the subviews: it is the view's own address, without *subpath or the like"
        )


def check_routes(config: Configurator) -> None:
    """Refuse a route under which the subviews of a view can't be reached."""
    mapper = config.registry.queryUtility(IRoutesMapper)
    if mapper is None:
        return
    patterns = {
        route.name: "/" + route.pattern.strip("/") for route in mapper.get_routes()
    }
    found: dict[str, set[Any]] = {}
    for item in config.introspector.get_category("views", default=()):
        view = item["introspectable"]
        callable_, route = view.get("callable"), view.get("route_name")
        if route in patterns and is_async(callable_):
            found.setdefault(patterns[route], set()).add(callable_)
    for pattern, classes in found.items():
        # With a rest of the path that is traversed there is a subpath as well.
        if re.search(r"\*subpath$|\*traverse$|\{traverse[:}]", pattern):
            continue
        below = f"{pattern.rstrip('/')}/*subpath"
        missing = classes - found.get(below, set())
        for cls in missing:
            raise ConfigurationError(
                f"{cls.__name__} is registered for the route {pattern}, but its"
                f" subviews have no address: add a route {below} with the same view,"
                " or use config.add_async_view"
            )
        names = ", ".join(sorted(cls.__name__ for cls in classes))
        takers = _takers(mapper.get_routes(), pattern, below)
        if takers == {pattern}:
            raise ConfigurationError(
                f"{names}: a placeholder of the route {pattern} takes the addresses of"
                " its subviews, too: have it match no slash"
            )
        if len(takers) == 1 and below not in takers:
            (taker,) = takers
            if classes <= found.get(taker, set()) and taker.endswith("/*subpath"):
                continue
            raise ConfigurationError(
                f"{names}: the addresses of its subviews, {below}, are those of the"
                f" route {taker} too, which comes first: have it match less, or add it"
                " after this one"
            )


def _takers(routes: Iterable[Any], pattern: str, below: str) -> set[str]:
    """The patterns of the routes to which the subviews' addresses lead.

    With ``below`` where that is one of them; empty if nobody knows.
    """
    found: set[str] = set()
    for sample in SAMPLES:
        path = re.sub(PLACE, sample, pattern).rstrip("/")
        own = [route for route in routes if "/" + route.pattern.strip("/") == pattern]
        if not any(route.match(path or "/") is not None for route in own):
            # A placeholder that matches something else.
            continue
        for route in routes:
            if route.match(f"{path}/completed") is None:
                continue
            shown = "/" + str(route.pattern).strip("/")
            # With a predicate it may be meant for other requests.
            if shown == below or not route.predicates:
                found.add(shown)
                break
    return found
