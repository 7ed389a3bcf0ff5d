"""What must be true of a database after all that was done to its servers."""

from collections import defaultdict
from contextlib import contextmanager

import zodburi
from ZODB import DB
from ZODB.blob import Blob

from asyncview.failure import INTERRUPTED
from asyncview.store import reading
from asyncview.store import store_of
from chaos.app import COUNTERS

#: What no server may ever log.
NEVER = ("defect of asyncview", "different object already has the same oid")


@contextmanager
def opened(uri):
    """The database, where no server of a FileStorage runs any more."""
    factory, options = zodburi.resolve_uri(uri)
    db = DB(factory(), **options)
    try:
        yield db
    finally:
        db.close()


def counters(world):
    """The sum of all that jobs have counted."""
    with opened(world.uri) as db, reading(db) as connection:
        site = connection.root()["chaos"]
        return sum(site[number].value for number in range(COUNTERS))


def all_jobs(store):
    jobs = {id: entry.job for id, entry in store.items()}
    jobs.update(store.finished.items())
    return jobs


class Verdict:
    """What was found: a list of sentences, and some numbers."""

    def __init__(self):
        self.wrong = []
        self.numbers = defaultdict(int)

    def expect(self, true, sentence):
        if not true:
            self.wrong.append(sentence)


def judge(world, clients=None):
    """Look at all of it, once all servers are gone."""
    verdict = Verdict()
    with opened(world.uri) as db, reading(db) as connection:
        store = store_of(connection, "chaos")
        jobs = all_jobs(store)
        _answers(verdict, jobs, clients)
        for job in jobs.values():
            _one_job(verdict, job)
        _effects(verdict, jobs, connection.root()["chaos"])
        _entries(verdict, jobs, world.entered())
        _indexes(verdict, store)
    lines = [line for line in world.logs() if any(each in line for each in NEVER)]
    verdict.expect(not lines, f"servers logged {lines[:5]}")
    verdict.numbers["jobs"] = len(jobs)
    return verdict


def _answers(verdict, jobs, clients):
    keys = defaultdict(list)
    for id, job in jobs.items():
        (key,) = job.term("tags")
        keys[key].append(id)
    twins = {key: ids for key, ids in keys.items() if len(ids) > 1}
    verdict.expect(not twins, f"POSTs that made two jobs: {twins}")
    if clients is None:
        return
    verdict.numbers["answered"] = len(clients.answered)
    for key, id in clients.answered.items():
        verdict.expect(id in keys[key], f"{id} was answered for {key} and is not there")
    for id, status in clients.seen.items():
        now = jobs[id].state.status if id in jobs else "lost"
        verdict.expect(now == status, f"{id} was seen {status} and is {now}")
    verdict.expect(not clients.odd, f"status documents were {dict(clients.odd)}")


def _one_job(verdict, job):
    state = job.state
    verdict.numbers[state.status] += 1
    if state.failure:
        verdict.numbers[state.failure.reason] += 1
    verdict.expect(state.ended, f"{job.id} is {state.status}")
    done = state.status == "completed"
    verdict.expect(bool(state.outcome) == done, f"{job.id}: {state.outcome}")
    allowed = job.term("restartable")
    verdict.expect(state.restarts <= allowed, f"{job.id} had {state.restarts} restarts")
    if state.failure and state.failure.reason == INTERRUPTED and allowed:
        verdict.expect(
            state.restarts == allowed,
            f"{job.id} was lost after {state.restarts} restarts of {allowed}",
        )
    if done:
        body = state.outcome.body
        if isinstance(body, Blob):
            verdict.numbers["blobs"] += 1
            with body.open() as file:
                body = file.read()
            verdict.expect(len(body) == state.outcome.size, f"{job.id}: a bad blob")


def _effects(verdict, jobs, site):
    effects = dict(site["effects"])
    for id, count in effects.items():
        verdict.expect(count == 1, f"{id} had its effect {count} times")
        status = jobs[id].state.status if id in jobs else "unknown"
        verdict.expect(status == "completed", f"{id} is {status} and had its effect")
    done = [id for id, job in jobs.items() if job.state.status == "completed"]
    for id in done:
        verdict.expect(id in effects, f"{id} is completed without its effect")
    verdict.expect(
        site["sum"]() == len(done), f"the sum is {site['sum']()}, not {len(done)}"
    )


def _entries(verdict, jobs, entries):
    """Who entered ``__run__``, when, and whether they might."""
    claims = defaultdict(list)
    for entry in entries:
        id, token = entry["id"], entry["token"]
        verdict.numbers["entries"] += 1
        if id not in jobs:
            verdict.wrong.append(f"{id} was entered and is not there")
            continue
        job, mine = jobs[id], claims[id]
        if token not in mine:
            mine.append(token)
        else:
            verdict.numbers["entered again after a conflict"] += 1
            verdict.expect(
                mine[-1] == token, f"{id} was entered by a claim that was replaced"
            )
        finished = job.state.finished
        verdict.expect(
            finished is None or entry["time"] <= finished,
            f"{id} was entered after its end",
        )
    for id, tokens in claims.items():
        most = 1 + jobs[id].term("restartable")
        verdict.expect(len(tokens) <= most, f"{id} was entered by {len(tokens)} claims")
        verdict.numbers["taken over"] += len(tokens) > 1


def _indexes(verdict, store):
    left = [id for id, entry in store.items()]
    verdict.expect(not left, f"{len(left)} jobs stand among the unfinished")
    for tree in (store.finished, store.expiry):
        tree._check()
        lost = [key for key in tree if key not in tree]
        verdict.expect(not lost, f"an index does not find {lost}")
    filed = {id for _, id in store.expiry}
    verdict.expect(filed == set(store.finished), "the index for expiry has others")
