"""Sessions without a web framework: an engine for whoever has but a connection."""

from typing import Any

from ZODB.DB import DB
from zope.interface import implementer
from zope.interface import provider

from asyncview.engine import Engine
from asyncview.engine import engines_of
from asyncview.forks import ForkGuard
from asyncview.interfaces import IExecutor
from asyncview.interfaces import IExecutorFactory
from asyncview.interfaces import IFront
from asyncview.keeper import Keeper
from asyncview.reader import SessionReader
from asyncview.session import ProgressSession
from asyncview.settings import Settings
from asyncview.store import ROOT
from asyncview.store import reading

#: The name of the application where nobody gives one, and no jobs are there yet.
NAME = "asyncview"


@implementer(IFront)
class NoFront:
    """Replays nothing: there is no application here."""

    def replay(self, ticket: Any) -> None:
        raise LookupError("there is no application in this process")


@implementer(IExecutor)
class NoExecutor:
    """Runs no jobs: they wait for a process that can."""

    local = False
    leaked = 0

    def submit(self, job_id: str) -> None:
        """See `IExecutor`."""

    def withdraw(self, job_id: str) -> None:
        """See `IExecutor`."""

    def waiting(self, job_id: str) -> bool:
        """See `IExecutor`."""
        return False

    def position(self, job_id: str) -> int | None:
        """See `IExecutor`."""
        return None

    def ahead(self) -> list[str]:
        """See `IExecutor`."""
        return []

    def give_back(self, job_id: str | None = None) -> None:
        """See `IExecutor`."""

    def busy(self) -> bool:
        """See `IExecutor`."""
        return False

    def abandon(self, job_id: str) -> None:
        """See `IExecutor`."""

    def stop(self) -> None:
        """See `IExecutor`."""

    def join(self, timeout: float) -> bool:
        """See `IExecutor`."""
        return True


@provider(IExecutorFactory)
def no_executor(runner: Any, threads: int) -> NoExecutor:
    """See `IExecutorFactory`."""
    return NoExecutor()


class ScriptEngine(Engine):
    """An engine that is there for as long as there are sessions in this process."""

    serves = False

    def __init__(self, db: DB, name: str) -> None:
        settings = Settings(name=name, switch_interval=0.0)
        super().__init__(
            settings, db, NoFront(), no_executor, ForkGuard(), at_exit=self.close
        )

    def idle(self) -> None:
        """The last session has ended: leave nothing behind in the database."""
        with engines_of(self.db).lock:
            if not len(self.live):
                self.close(0)


class ScriptKeeper:
    """The keeper of the engine that is there, or is made when it is needed."""

    def __init__(self, db: DB, name: str | None) -> None:
        self._db = db
        self._name = name or the_name(db)

    def create(self, **terms: Any) -> ProgressSession:
        """See `IKeeper`."""
        # The last session of this process may be just ending.
        with engines_of(self._db).lock:
            return self._keeper().create(**terms)

    def get(self, id: str) -> SessionReader | None:
        """See `IKeeper`."""
        with engines_of(self._db).lock:
            return self._keeper().get(id)

    def _keeper(self) -> Keeper:
        engine = engines_of(self._db).by_name.get(self._name)
        if engine is None:
            engine = ScriptEngine(self._db, self._name)
        return engine.keeper


def the_name(db: DB) -> str:
    """The name of the one application that keeps jobs in a database."""
    engines = engines_of(db).by_name
    # First of all that of the application that runs in this process.
    names = [
        name for name, each in engines.items() if not isinstance(each, ScriptEngine)
    ]
    if not names:
        with reading(db) as connection:
            prefix = f"{ROOT}:"
            keys = [key for key in connection.root() if str(key).startswith(prefix)]
            names = [key.removeprefix(prefix) for key in keys] or [NAME]
    if len(names) > 1:
        raise ValueError(f"name= is one of {', '.join(sorted(names))}")
    return names[0]
