"""The configuration: what it takes, and what it refuses with a sentence."""

import asyncio
import re

import pytest
import transaction
from conftest import Root
from conftest import Site
from conftest import root_of
from people import Work
from people import working
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.response import Response
from pyramid.scripting import prepare
from pyramid.tweens import EXCVIEW
from pyramid.view import view_config

import asyncview
from asyncview import AsyncViewError
from asyncview.executors import inline
from asyncview.pyramid.checks import INGRESS_TWEEN
from asyncview.pyramid.checks import OUTCOME_TWEEN
from asyncview.pyramid.checks import TM_TWEEN
from asyncview.store import reading
from asyncview.store import root_key


def add(**options):
    """Configures `Work` under /work, or as the options say."""
    options = {"name": "work", **options}
    return lambda config: config.add_view(Work, **options)


def refused(make_site, configure, match, **settings):
    with pytest.raises(ConfigurationError, match=match):
        make_site(configure, **settings)


def works(site, path="/work"):
    doc = site.run(path)
    assert doc["status"] == "completed", doc
    assert site.app.get(doc["next_url"]).text == "it is completed"


# What a view can't be registered with


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"attr": "run"}, "Work can't be registered with attr: .* __call__"),
        ({"wrapper": "frame"}, "Work can't be registered with wrapper: "),
        ({"request_method": "POST"}, "with request_method: .* by GET"),
        ({"request_method": ("POST", "PUT")}, "with request_method: .* by GET"),
        ({"request_param": "go"}, "with request_param: "),
        ({"xhr": True}, "with xhr: "),
        ({"accept": "text/html"}, "with accept: "),
        ({"name": ""}, 'with name="": '),
    ],
)
def test_options_under_which_subviews_are_not_reached(make_site, options, sentence):
    refused(make_site, add(**options), sentence)


@pytest.mark.parametrize(
    "options",
    [
        {"request_method": ("GET", "POST")},
        {"http_cache": 60},
        {"require_csrf": False},
        {"renderer": "string"},
    ],
)
def test_options_that_any_view_may_have(make_site, options):
    site = make_site(add(**options))
    assert site.run("/work")["status"] == "completed"


async def coroutine(self, *args):
    pass


def generator(self, *args):
    yield b"a part"


async def asynchronous_generator(self, *args):
    yield b"a part"


@pytest.mark.parametrize(
    "name", ["__run__", "run_process", "initial_page", "processing_page", "on_end"]
)
@pytest.mark.parametrize("func", [coroutine, generator, asynchronous_generator])
@pytest.mark.parametrize("way", ["add_view", "add_async_view", "route"])
def test_what_would_only_be_made_and_not_run_is_refused(make_site, name, func, way):
    view = type("Report", (Work,), {name: func})

    def configure(config):
        if way == "add_view":
            config.add_view(view, name="report")
        elif way == "add_async_view":
            config.add_async_view(view, "report")
        else:
            config.add_async_view(view, pattern="/report")

    kind = "a generator" if func is generator else "asynchronous"
    refused(make_site, configure, rf"Report\.{name} is {kind}, .* def {name}\(self")


@view_config(name="decorated", _category="to be refused")
class Decorated(Work):
    async def __run__(self):
        pass


def test_what_is_decorated_is_refused_likewise(make_site):
    def configure(config):
        config.scan(__name__, categories=["to be refused"])

    refused(make_site, configure, "Decorated.__run__ is asynchronous")


def test_a_coroutine_may_be_run_by_a_plain_function(make_site):
    async def work():
        return "it is completed"

    class Report(Work):
        def __run__(self):
            return asyncio.run(work())

    works(make_site(lambda config: config.add_view(Report, name="work")))


def test_other_views_are_let_alone(make_site):
    def configure(config):
        config.add_view(
            lambda request: Response("plain"), name="", request_method="GET"
        )

    assert make_site(configure).app.get("/").text == "plain"


# Routes


def test_a_route_without_subpath_is_refused(make_site):
    def configure(config):
        config.add_route("report", "/report")
        config.add_view(Work, route_name="report")

    refused(make_site, configure, r"add a route /report/\*subpath")


def test_a_subpath_of_another_view_does_not_help(make_site):
    class Other(Work):
        pass

    def configure(config):
        config.add_route("report", "/report")
        config.add_route("rest", "/report/*subpath")
        config.add_view(Work, route_name="report")
        config.add_view(Other, route_name="rest")

    refused(make_site, configure, r"Work is registered for the route /report,")


@pytest.mark.parametrize("pattern", ["/report", "/report/", "/traverse-me", "/x/{id}"])
def test_a_route_for_the_subpath_is_enough(make_site, pattern):
    def configure(config):
        config.add_route("report", pattern)
        config.add_view(Work, route_name="report")

    def mended(config):
        configure(config)
        config.add_route("rest", f"{pattern.rstrip('/')}/*subpath")
        config.add_view(Work, route_name="rest")

    refused(make_site, configure, r"\*subpath")
    works(make_site(mended), pattern.replace("{id}", "5"))


@pytest.mark.parametrize(
    ("first", "pattern"),
    [
        ("/{a}/{b}", "/report"),
        ("/of/{id}/{part}", "/of/{id}"),
        ("/of/{id}/*rest", r"/of/{id:\d+}"),
        ("/report/completed", "/report"),
    ],
)
def test_subviews_that_another_route_would_take_are_refused(make_site, first, pattern):
    def configure(config):
        config.add_route("first", first)
        config.add_async_view(Work, pattern=pattern)

    refused(make_site, configure, rf"route {re.escape(first)} too, which comes first")


@pytest.mark.parametrize(
    ("first", "options", "pattern", "path"),
    [
        ("/{a}/{b}", {"request_method": "PUT"}, "/report", "/report"),
        (r"/{a}/{b:\d+}", {}, "/report", "/report"),
        ("/asked/*rest", {}, "/{kind}", "/report"),
        ("/{a}", {"static": True}, "/report", "/report"),
        ("/{lang:[a-z-]+}/{page}/{part}", {}, "/{customer}/report", "/17/report"),
        ("/x", {}, "/f/*.csv/report", "/f/*.csv/report"),
    ],
)
def test_a_route_that_takes_other_addresses_is_no_obstacle(
    make_site, first, options, pattern, path
):
    def configure(config):
        config.add_route("first", first, **options)
        config.add_async_view(Work, pattern=pattern)
        config.add_route("last", "/*all")

    works(make_site(configure), path)


def test_routes_of_its_own_may_have_predicates(make_site):
    def configure(config):
        for name, pattern in (("r", "/report"), ("s", "/report/*subpath")):
            config.add_route(name, pattern, request_method=("GET", "POST"))
            config.add_view(Work, route_name=name)
        config.add_route("last", "/*all")

    works(make_site(configure), "/report")


def test_another_route_may_lead_to_the_same_view(make_site):
    def configure(config):
        config.add_async_view(Work, name="any", pattern="/{lang}/report")
        config.add_async_view(Work, name="german", pattern="/de/report")

    works(make_site(configure), "/de/report")


@pytest.mark.parametrize("pattern", ["/shop/*traverse", "/{kind}/*traverse"])
def test_a_route_that_is_traversed_has_a_subpath(make_site, pattern):
    def configure(config):
        config.add_route("shop", pattern)
        config.add_view(Work, route_name="shop", name="work")

    works(make_site(configure), "/shop/work")


# add_async_view


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({"name": "work"}, "/work"),
        ({"pattern": "/a/report"}, "/a/report"),
        ({"pattern": "report/"}, "/report"),
        ({"pattern": "/of/{id}", "name": "of"}, "/of/5"),
        ({"pattern": "/f", "factory": lambda request: Root({})}, "/f"),
        ({"name": "work", "request_method": ("GET", "POST")}, "/work"),
    ],
)
def test_a_view_is_added_in_either_style(make_site, arguments, path):
    site = make_site(lambda config: config.add_async_view(Work, **arguments))
    works(site, path)


def test_a_view_may_be_a_dotted_name(make_site):
    works(make_site(lambda config: config.add_async_view("people.Work", "work")))


def test_the_route_has_the_name_that_was_given(make_site):
    site = make_site(
        lambda config: config.add_async_view(Work, name="of", pattern="/of/{id}")
    )
    with prepare(registry=site.registry) as env:
        assert env["request"].route_path("of", id=3) == "/of/3"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "a name or a pattern"),
        ({"name": ""}, "a name or a pattern"),
        ({"pattern": "/x", "route_name": "x"}, "makes the routes"),
        ({"name": "work", "attr": "run"}, "with attr"),
        ({"pattern": "/x", "request_method": "POST"}, "with request_method"),
        ({"pattern": "/a/*rest"}, "must leave the rest"),
        ({"pattern": "/a/*subpath"}, "must leave the rest"),
        ({"pattern": "/a/{x:.*}"}, r"placeholder of the route /a/\{x:\.\*\} takes"),
    ],
)
def test_what_add_async_view_refuses(make_site, arguments, sentence):
    refused(
        make_site, lambda config: config.add_async_view(Work, **arguments), sentence
    )


def test_only_background_views_are_added(make_site):
    refused(
        make_site,
        lambda config: config.add_async_view(Response, "x"),
        "no BaseAsyncView",
    )


# Tweens

ALL = [INGRESS_TWEEN, TM_TWEEN, OUTCOME_TWEEN, EXCVIEW]


def test_an_explicit_chain_of_tweens_may_have_ours(make_site):
    works(make_site(add(), pyramid__tweens="\n".join(ALL)))


@pytest.mark.parametrize("missing", ALL)
def test_an_explicit_chain_without_one_is_refused(make_site, missing):
    names = "\n".join(name for name in ALL if name != missing)
    refused(make_site, add(), f"would ever end: {missing}", pyramid__tweens=names)


def test_an_explicit_chain_in_another_order_is_refused(make_site):
    names = "\n".join([INGRESS_TWEEN, OUTCOME_TWEEN, TM_TWEEN, EXCVIEW])
    refused(make_site, add(), "in this order", pyramid__tweens=names)


def rewriting_tween_factory(handler, registry):
    def tween(request):
        request.environ["PATH_INFO"] = request.path_info.removeprefix("/outside")
        return handler(request)

    return tween


@pytest.mark.parametrize("first", [True, False])
def test_a_tween_that_rewrites_the_path_does_so_once(make_site, first):
    def configure(config):
        add()(config)
        config.add_tween("test_config.rewriting_tween_factory")

    site = make_site(configure)
    path = "/outside/work" if first else "/work"
    process_id = site.start(path)
    site.wait(process_id)
    assert site.status("/work", process_id)["status"] == "completed"


# The database


def test_a_database_must_be_named():
    config = Configurator(settings={})
    config.include("asyncview")
    with pytest.raises(ConfigurationError, match=r"set zodbconn\.uri$"):
        config.make_wsgi_app()


def test_the_database_of_the_jobs_must_be_there(make_site):
    sentence = r"asyncview\.database = jobs.*set zodbconn\.uri\.jobs"
    refused(make_site, add(), sentence, asyncview__database="jobs")


def test_a_script_without_a_database_hears_of_it():
    config = Configurator(settings={})
    config.include("asyncview")
    config.commit()
    with pytest.raises(AsyncViewError, match=r"zodbconn\.uri"):
        config.registry.asyncview.engine  # noqa: B018 - the look-up makes it


def test_jobs_may_live_in_a_database_of_their_own(make_site, tmp_path):
    site = make_site(
        add(),
        asyncview__database="jobs",
        **{"zodbconn.uri.jobs": f"file://{tmp_path}/Jobs.fs"},
    )
    works(site)
    databases = site.registry._zodb_databases
    for name, there in (("", False), ("jobs", True)):
        with reading(databases[name]) as connection:
            assert (root_key("tests") in connection.root()) == there


def test_two_applications_share_a_database_by_their_names(make_site):
    one = make_site(add(), asyncview__name="one")
    config = Configurator(
        settings={"asyncview.name": "two", "asyncview.grace": "0"},
        root_factory=root_of,
    )
    config.registry._zodb_databases = one.registry._zodb_databases
    config.include("asyncview")
    add()(config)
    two = Site(config, config.make_wsgi_app())
    try:
        works(one)
        works(two)
        process_id = one.run("/work")["process_id"]
        two.app.get(f"/work/completed?process_id={process_id}", status=404)
        one.app.get(f"/work/completed?process_id={process_id}", status=200)
    finally:
        two.engine.close()


def test_the_name_is_the_applications_package(make_site, tmp_path):
    config = Configurator(
        settings={"zodbconn.uri": f"file://{tmp_path}/Own.fs"}, package="people"
    )
    config.include("asyncview")
    config.make_wsgi_app()
    try:
        assert config.registry.asyncview.settings.name == "people"
    finally:
        asyncview.close(config.registry)


# Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("asyncview.threads", "many"),
        ("asyncview.lease", "0"),
        ("asyncview.nonsense", "1"),
        ("asyncview.executor", "nothing"),
        ("asyncview.executor", "people.nothing"),
        ("asyncview.executor", "people.PATIENCE"),
    ],
)
def test_a_bad_setting_is_refused_by_its_name(make_site, name, value):
    refused(make_site, add(), name.replace(".", r"\."), **{name: value})


# Executors

made = []


def recording_factory(runner, threads):
    made.append(threads)
    return inline.factory(runner, threads)


@pytest.fixture
def recorded():
    made.clear()
    return made


def test_an_executor_by_a_dotted_name(make_site, recorded):
    site = make_site(
        add(),
        asyncview__executor="test_config.recording_factory",
        asyncview__threads="7",
    )
    works(site)
    assert recorded == [7]


@pytest.mark.parametrize(
    "factory", [recording_factory, "test_config.recording_factory"]
)
def test_an_executor_by_the_directive(make_site, recorded, factory):
    def configure(config):
        add()(config)
        config.set_job_executor(factory)

    works(make_site(configure, asyncview__threads="7"))
    assert recorded == [7]


def test_the_applications_word_counts_more_than_an_includes(make_site, recorded):
    def configure(config):
        add()(config)
        config.set_job_executor(recording_factory)
        config.include(lambda config: config.set_job_executor("threads"))

    works(make_site(configure))
    assert recorded == [4]


def test_two_includes_that_want_different_executors_are_a_conflict(make_site):
    def configure(config):
        config.include(first_include)
        config.include(second_include)

    refused(make_site, configure, "Conflicting")


def first_include(config):
    config.set_job_executor("threads")


def second_include(config):
    config.set_job_executor("inline")


def test_an_executor_that_is_none_is_refused(make_site):
    refused(
        make_site,
        lambda config: config.set_job_executor("people.PATIENCE"),
        "can't be called",
    )


def test_inline_jobs_have_ended_when_the_post_is_answered(make_site):
    site = make_site(add(), asyncview__executor="inline")
    process_id = site.start("/work")
    assert site.status("/work", process_id)["status"] == "completed"


# The order of things


@pytest.mark.parametrize(
    "order",
    [
        ["asyncview", "pyramid_tm", "pyramid_zodbconn"],
        ["pyramid_tm", "pyramid_zodbconn", "asyncview"],
        ["asyncview", "asyncview"],
        ["pyramid_zodbconn", "asyncview", "pyramid_chameleon", "pyramid_tm"],
    ],
)
def test_includes_may_come_in_any_order(tmp_path, order):
    settings = {
        "zodbconn.uri": f"file://{tmp_path}/Order.fs",
        "asyncview.grace": "0",
        "asyncview.name": "tests",
    }
    config = Configurator(settings=settings, root_factory=root_of)
    for name in order:
        config.include(name)
    add()(config)
    site = Site(config, config.make_wsgi_app())
    try:
        works(site)
    finally:
        asyncview.close(site.registry)


def test_an_include_may_have_a_prefix(tmp_path):
    config = Configurator(
        settings={"zodbconn.uri": f"file://{tmp_path}/Prefix.fs"},
        root_factory=root_of,
    )
    config.include("asyncview", route_prefix="/inside")
    config.include(
        lambda config: config.add_async_view(Work, pattern="report"),
        route_prefix="/of",
    )
    site = Site(config, config.make_wsgi_app())
    try:
        page = site.app.get("/of/report")
        assert page.form.action == "/of/report"
        style = page.text.partition('rel="stylesheet" href="')[2].partition('"')[0]
        assert style.startswith("/inside/_asyncview/")
        assert site.app.get(style, status=200).body
        works(site, "/of/report")
    finally:
        asyncview.close(site.registry)


def test_an_application_may_be_made_twice(make_site, tmp_path):
    def twice(config):
        working(config)
        config.make_wsgi_app()

    works(make_site(twice))


def test_views_may_come_after_a_commit(make_site):
    def configure(config):
        config.commit()
        add()(config)

    works(make_site(configure))


def test_a_script_may_ask_for_jobs_without_an_application(make_site):
    site = make_site(add())
    process_id = site.run("/work")["process_id"]
    site.registry.asyncview.front.router = None
    with prepare(registry=site.registry) as env:
        assert env["request"].asyncview.get_job(process_id).id == process_id
        assert env["request"].asyncview.running() == []
    # And the jobs that a process takes over run without one, too.
    works(site)
    transaction.abort()
