"""A module imports only from lines below its own, and does what its interface says."""

import ast
import configparser
import pkgutil
from pathlib import Path

import pytest
from zope.interface import Interface
from zope.interface.interface import InterfaceClass
from zope.interface.verify import verifyClass
from zope.interface.verify import verifyObject

import asyncview
from asyncview import interfaces
from asyncview.executors import inline
from asyncview.executors import threads
from asyncview.executors.inline import InlineExecutor
from asyncview.executors.threads import ThreadExecutor
from asyncview.job import Job
from asyncview.job import State
from asyncview.keeper import Keeper
from asyncview.outcome import Outcome
from asyncview.progress import Progress
from asyncview.pyramid.replay import PyramidFront
from asyncview.request import StoredRequest
from asyncview.session import ProgressSession
from asyncview.store import Store
from asyncview.task import Task

HERE = Path(__file__).parent.parent
PACKAGE = Path(asyncview.__file__).parent

#: From the top; those on one line do not import one another, but for pyramid's, the
#: executors' and the demo's own modules.
LAYERS = """
    __main__
    cli
    demo
    __init__
    pyramid
    standalone
    engine
    work
    keeper
    reader
    executors
    pulse
    rescue unreadable expiry
    runner tidying
    claims ends
    place
    apart dispatch zeo
    ticket
    session
    task
    count told
    store
    shard
    job
    failure title
    body uploaded
    staging
    staged
    folding journal digest
    disk
    outcome progress request upload
    address said settings loop console gate
    forks
    interfaces exceptions i18n templates trouble
"""

LEVEL = {
    name: level
    for level, line in enumerate(reversed(LAYERS.split("\n")))
    for name in line.split()
}

IMPLEMENTERS = [
    (interfaces.IJob, Job),
    (interfaces.IState, State),
    (interfaces.IStoredRequest, StoredRequest),
    (interfaces.IProgress, Progress),
    (interfaces.IOutcome, Outcome),
    (interfaces.IStore, Store),
    (interfaces.IProgressSession, ProgressSession),
    (interfaces.ITask, Task),
    (interfaces.IKeeper, Keeper),
    (interfaces.IFront, PyramidFront),
    (interfaces.IExecutor, ThreadExecutor),
    (interfaces.IExecutor, InlineExecutor),
]

FACTORIES = [threads.factory, inline.factory]


def layer_of(module):
    """The line on which a module of ours stands: its own or its package's name."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts == ("__init__",):
            yield path, "asyncview"
        else:
            name = parts[:-1] if parts[-1] == "__init__" else parts
            yield path, ".".join(("asyncview", *name))


def imports_of(path):
    """What of ours a file imports, in functions too; all imports are absolute."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno} is relative"
            names = [node.module]
            if node.module == "asyncview":
                # A module, or a public name of the package.
                names = [
                    f"asyncview.{alias.name}"
                    if (PACKAGE / f"{alias.name}.py").exists()
                    or (PACKAGE / alias.name).is_dir()
                    else "asyncview"
                    for alias in node.names
                ]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "asyncview")


@pytest.mark.parametrize(
    ("path", "module"), list(modules()), ids=lambda each: str(each)
)
def test_module_imports_only_from_lines_below_its_own(path, module):
    own = layer_of(module)
    assert own in LEVEL, f"{module} stands on no line"
    for name in imports_of(path):
        layer = layer_of(name)
        inside = own == layer and own in ("pyramid", "executors", "demo")
        assert inside or LEVEL[layer] < LEVEL[own], f"{module} imports {name}"


def test_core_knows_no_web_framework():
    for path, module in modules():
        if LEVEL[layer_of(module)] < LEVEL["pyramid"]:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    name = getattr(node, "module", None) or node.names[0].name
                    assert name.split(".")[0] not in ("pyramid", "webob"), path


def test_setup_lists_the_packages_that_there_are():
    config = configparser.ConfigParser()
    config.read(HERE / "setup.cfg")
    listed = config["options"]["packages"].split()
    found = {"asyncview", "asyncview.templates"}
    found |= {
        each.name
        for each in pkgutil.walk_packages([str(PACKAGE)], "asyncview.")
        if each.ispkg
    }
    assert listed == sorted(found)


@pytest.mark.parametrize(
    ("interface", "implementer"), IMPLEMENTERS, ids=lambda each: each.__name__
)
def test_class_implements_its_interface(interface, implementer):
    assert verifyClass(interface, implementer)


def test_every_interface_is_implemented():
    named = {each for each in vars(interfaces).values() if type(each) is InterfaceClass}
    covered = {interface for interface, _ in IMPLEMENTERS}
    covered |= {base for each in covered for base in each.__bases__}
    assert named - {Interface} == (covered | {interfaces.IExecutorFactory}) - {
        Interface
    }


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda each: each.__module__)
def test_factory_makes_an_executor(factory):
    assert verifyObject(interfaces.IExecutorFactory, factory)
    assert verifyObject(interfaces.IExecutor, factory(None, 1))


def test_records_of_a_real_job_have_what_their_interfaces_say(make_site):
    from asyncview import BaseAsyncView
    from asyncview.store import reading
    from asyncview.store import store_of

    class Task(BaseAsyncView):
        keep_request = True

        def __run__(self, process_id=None):
            assert verifyObject(interfaces.IProgressSession, self.progress)
            self.progress.update(1, 2)
            return "done"

    site = make_site(lambda config: config.add_async_view(Task, "task"))
    process_id = site.run("/task")["process_id"]
    with reading(site.db) as connection:
        store = store_of(connection, "tests")
        assert verifyObject(interfaces.IStore, store)
        job = store.find(process_id).job
        assert verifyObject(interfaces.IJob, job)
        assert verifyObject(interfaces.IState, job.state)
        assert verifyObject(interfaces.IStoredRequest, job.state.request)
        assert verifyObject(interfaces.IOutcome, job.state.outcome)
        assert verifyObject(interfaces.IProgress, Progress())
    front = site.engine.runner.front
    assert verifyObject(interfaces.IFront, front)
