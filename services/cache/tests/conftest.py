"""Fixtures of this folder's tests: a store and an object store in memory, real ones, and steps to record."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for the modules that only these tests share

import json
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest
from cache_memory import NOON, Clock, MemoryObjects, MemoryStore
from cache_plans import did
from cache_served import served

from periplus_cache.domain import (
    Artifact,
    Inputs,
    Mode,
    Outputs,
    Phase,
    Place,
    Policy,
    Template,
    Verdict,
)
from periplus_cache.ports import Store
from periplus_cache.recording import Finished
from periplus_cache.service import Cache
from periplus_cache.store.record import PostgresStore
from periplus_common import postgres
from periplus_local.stack.testing import Servers, database, embedded

__all__ = ["did", "embedded", "served"]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def cache(memory: MemoryStore, objects: MemoryObjects, clock: Clock) -> Cache:
    return Cache(memory, objects, clock=clock)


@pytest.fixture
async def dsn(embedded: Servers) -> AsyncIterator[str]:
    """A fresh database with this service's schema."""
    async with database(embedded) as fresh:
        await postgres.migrate(fresh, "periplus_common", "periplus_cache")
        yield fresh


Told = Callable[[], Any]


@pytest.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Store, Told]]:
    """A store, and what tells the kinds of the events that it has told so far."""
    if request.param == "memory":
        memory = MemoryStore()

        async def told_there() -> list[str]:
            return [event.headers["ce-type"].rpartition(".")[2] for event in memory.events]

        yield memory, told_there
        return
    async with database(request.getfixturevalue("embedded")) as dsn:
        await postgres.migrate(dsn, "periplus_common", "periplus_cache")
        async with postgres.database(dsn) as opened:

            async def told_here() -> list[str]:
                async with opened.connection() as connection:
                    rows = await connection.fetch("SELECT headers FROM outbox ORDER BY id")
                return [json.loads(row["headers"])["ce-type"].rpartition(".")[2] for row in rows]

            yield PostgresStore(opened), told_here


@pytest.fixture
def train() -> Callable[..., Finished]:
    """Makes finished steps: the step `main.train` of run `r1` unless something else is said."""
    return finished


def finished(
    run: str = "r1",
    step: str = "main.train",
    *,
    project: str = "p",
    document: object = None,
    name: str = "train",
    policy: Policy = Policy(),  # noqa: B008 - frozen
    uncacheable: str = "",
    parameters: Mapping[str, str] | None = None,
    given: Mapping[str, Place] | None = None,
    gave: Mapping[str, str] | None = None,
    made: Mapping[str, Place] | None = None,
    result: str | None = None,
    phase: Phase = Phase.SUCCEEDED,
    at: datetime = NOON,
    took: float = 60,
    override: Mode | None = None,
) -> Finished:
    return Finished(
        project,
        run,
        step,
        Template(name, json.dumps(document or DOCUMENT), policy, uncacheable),
        phase,
        Verdict.MISS,
        Inputs(
            tuple((parameters if parameters is not None else {"c": "0.1"}).items()),
            tuple(Artifact(n, place) for n, place in (given or {}).items()),
        ),
        Outputs(
            tuple((gave if gave is not None else {"accuracy": "0.9"}).items()),
            tuple(Artifact(n, place) for n, place in (made or {}).items()),
            result,
            0,
        ),
        at - timedelta(seconds=took),
        at,
        override,
    )


DOCUMENT = {
    "container": {"image": "python@sha256:" + "0" * 64, "command": ["python"], "env": {"A": "1"}},
    "code": {"train.py": "sha256:" + "1" * 64},
    "environment": "sha256:" + "2" * 64,
}
