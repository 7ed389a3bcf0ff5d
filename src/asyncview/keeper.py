"""Keeps progress sessions that are no job: stores, finds and ends them.

A session is a `Job` record without a view and a request, claimed by this process from
the start: the pulse that writes the progress of jobs writes its, and the sweep that
finds dead workers finds it.
"""

import logging
import secrets
from collections.abc import Callable
from typing import Any

from ZODB.Connection import Connection
from zope.interface import implementer

from asyncview import said
from asyncview.address import local_path
from asyncview.dispatch import Ids
from asyncview.exceptions import AsyncViewError
from asyncview.exceptions import Fenced
from asyncview.exceptions import InvalidTransition
from asyncview.exceptions import JobCancelled
from asyncview.failure import EXCEPTION
from asyncview.failure import INTERRUPTED
from asyncview.failure import Failure
from asyncview.failure import describe
from asyncview.interfaces import IKeeper
from asyncview.job import COMPLETED
from asyncview.job import RUNNING
from asyncview.job import TERMS
from asyncview.job import WELL_FORMED
from asyncview.job import Job
from asyncview.job import State
from asyncview.progress import COMPLETE
from asyncview.progress import ERROR
from asyncview.reader import SessionReader
from asyncview.runner import Runner
from asyncview.session import ProgressSession
from asyncview.shard import Entry
from asyncview.store import Store
from asyncview.store import reading
from asyncview.store import store_of
from asyncview.store import transact
from asyncview.told import facts_of

log = logging.getLogger("asyncview.session")


@implementer(IKeeper)
class Keeper:
    """See `IKeeper`.

    ``prepare`` makes the registry where there is none, ``wake`` has a pulse awake,
    ``idle`` is told when a session has ended; ``hosts`` are other hosts that
    addresses may name.
    """

    def __init__(
        self,
        runner: Runner,
        ids: Ids,
        hosts: tuple[str, ...],
        prepare: Callable[[], None],
        wake: Callable[[], None],
        idle: Callable[[], None],
    ) -> None:
        self.runner = runner
        self._ids = ids
        self._hosts = hosts
        self._prepare = prepare
        self._wake = wake
        self._idle = idle

    # Make, find

    def create(
        self,
        id: str | None = None,
        *,
        message: str = "",
        current: float | None = None,
        total: float | None = None,
        owner: Any = None,
        visitor: str | None = None,
        **terms: Any,
    ) -> ProgressSession:
        """See `IKeeper`."""
        kept = self._terms(terms)
        if id is not None and not (isinstance(id, str) and WELL_FORMED.fullmatch(id)):
            raise ValueError(f"{id!r} is no id: letters, digits, - and _, 64 at most")
        self._prepare()
        ids, runner = self._ids, self.runner
        if id is not None:
            ids.take(id)
        picked = ids.pick(ids.begin()) if id is None else id
        tasks = kept.get("tasks", ())
        session = ProgressSession(picked, tasks=tasks, keeper=self)
        session.update(current, total, message)
        session.token = secrets.token_urlsafe(9)

        def change(connection: Connection) -> Any:
            store = store_of(connection, runner.name)
            if store is None:
                raise AsyncViewError("the database takes nothing: there is no registry")
            if store.knows(picked):
                raise ValueError(f"there is a session or job with the id {picked}")
            now = runner.clock()
            job = Job(
                picked,
                view="",
                context=None,
                owner=owner_key(owner),
                visitor=visitor,
                created=now,
                terms=TERMS | kept,
                request=None,
            )
            job.state.claim(runner.worker, session.token, now)
            session.take(now)
            assert job.state.live is not None
            job.state.live.snapshot = session.snapshot
            store.add(job)
            session.facts = facts_of(job)
            return job.state

        try:
            transact(runner.db, change, stored=lambda conn: self._own(conn, session))
        finally:
            ids.release(picked)
        runner.live.begin(session)
        self._wake()
        return session

    def get(self, id: str) -> SessionReader | None:
        """See `IKeeper`."""
        with reading(self.runner.db) as connection:
            entry = self._find(store_of(connection, self.runner.name), id)
            return None if entry is None else self.reader(entry)

    def reader(self, entry: Entry) -> SessionReader:
        """A read-only session of this entry."""
        return SessionReader(self.runner, self._wake, entry)

    def open(self, id: str) -> ProgressSession | None:
        """One that writes: this process's, or taken over from the one that has it.

        None if there is none that has not ended.
        """
        runner = self.runner
        session = runner.live.session(id)
        if session is not None:
            return session if session.kept else None
        token = secrets.token_urlsafe(9)

        def mine(connection: Connection) -> ProgressSession | None:
            entry = self._find(store_of(connection, runner.name), id)
            if entry is None or entry.job.state.token != token:
                return None
            opened = ProgressSession(
                id, last=entry.snapshot, tasks=entry.job.term("tasks"), keeper=self
            )
            opened.token = token
            opened.facts = facts_of(entry.job)
            opened.resume(entry.snapshot)
            return opened

        def change(connection: Connection) -> ProgressSession | None:
            entry = self._find(store_of(connection, runner.name), id)
            if entry is None or entry.job.view or entry.job.state.status != RUNNING:
                return None
            entry.job.state.take_over(runner.worker, token)
            return mine(connection)

        session = transact(runner.db, change, stored=mine)
        if session is not None:
            runner.live.begin(session)
            self._wake()
        return session

    @staticmethod
    def _find(store: Store | None, id: Any) -> Entry | None:
        return store.find(id) if store is not None and isinstance(id, str) else None

    def _terms(self, terms: dict[str, Any]) -> dict[str, Any]:
        readers: dict[str, Callable[[Any], Any]] = {
            "success_msg": str,
            "error_msg": str,
            "success_url": self.address,
            "error_url": self.address,
            "label": said.label,
            "tags": said.tags,
            "keep": said.seconds,
            "tasks": said.tasks,
        }
        if not readers.keys() >= terms.keys():
            raise TypeError(f"a session has no {', '.join(terms.keys() - readers)}")
        kept = {}
        for name, value in terms.items():
            if value is not None:
                try:
                    kept[name] = readers[name](value)
                except (TypeError, ValueError, OverflowError) as error:
                    raise ValueError(f"{name} = {value!r:.200}: {error}") from None
        return kept

    def address(self, url: Any) -> str:
        """See `IKeeper`."""
        return local_path(str(url), self._hosts)

    # End

    def end(
        self,
        session: ProgressSession,
        status: str,
        message: str | None,
        url: str | None,
        error: BaseException | None,
    ) -> None:
        """See `IKeeper`."""
        changed = self.changed(status, message, url)
        failure = self._failure(session, status, error)

        def change(connection: Connection) -> str:
            self.record(connection, session, changed, failure)
            return status

        try:
            # Another end may be there already, or after doubt this very one.
            actual: str | None = transact(
                self.runner.db, change, stored=lambda conn: self._actual(conn, session)
            )
        except Fenced:
            actual = None
        self.over(session, actual or ERROR)
        if actual != status:
            raise InvalidTransition(actual or "another's", status, "session")

    def changed(
        self, status: str, message: str | None, url: str | None
    ) -> dict[str, Any]:
        """What the end says anew; ValueError for an address that may not be."""
        kind = "success" if status == COMPLETE else "error"
        changed: dict[str, Any] = {}
        if message is not None:
            changed[f"{kind}_msg"] = said.text(message)
        if url is not None:
            changed[f"{kind}_url"] = self.address(url)
        return changed

    @staticmethod
    def _failure(
        session: ProgressSession, status: str, error: BaseException | None
    ) -> Failure | None:
        if status == COMPLETE:
            return None
        reason = INTERRUPTED if isinstance(error, JobCancelled) else EXCEPTION
        failure = describe(reason, error)
        log.error(
            "session %.6s… failed (%s), error id %s\n%s",
            session.id,
            reason,
            failure.id,
            failure.traceback,
        )
        return failure

    def record(
        self,
        connection: Connection,
        session: ProgressSession,
        changed: dict[str, Any],
        failure: Failure | None,
    ) -> None:
        """Record its end, in the transaction of ``connection``."""
        state = self._own(connection, session)
        if state is None:
            raise Fenced("the session is another's, or is not there any more")
        state.check(session.token)
        now = self.runner.clock()
        last = session.conclude(now)
        if failure is None:
            state.complete(None, last, now, changed=changed)
        else:
            state.fail(failure, last, now, changed=changed)

    def _own(self, connection: Connection, session: ProgressSession) -> State | None:
        """The session's state while it is this handle's to write, or was at its end."""
        entry = self._find(store_of(connection, self.runner.name), session.id)
        if entry is None or entry.job.state.token != session.token:
            return None
        return entry.job.state

    def _actual(self, connection: Connection, session: ProgressSession) -> str | None:
        """How it ended; None where it has not, or where that was another's to say."""
        state = self._own(connection, session)
        if state is None or not state.ended:
            return None
        return COMPLETE if state.status == COMPLETED else ERROR

    def over(self, session: ProgressSession, status: str) -> None:
        """Its end is in the database."""
        session.ended(status)
        self.runner.live.end(str(session.id))
        self._wake()
        self._idle()


def owner_key(userid: Any) -> tuple[str, str] | None:
    """Type and text of a userid: 1 and "1" are two."""
    return None if userid is None else (type(userid).__name__, str(userid))
