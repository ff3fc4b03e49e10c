"""Fixtures of these tests: stores in memory and on Postgres, a running service, and finished steps."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for the modules that only these tests share

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime, timedelta

import pytest
from cache_memory import NOON, Clock, MemoryObjectStore, MemoryStore
from cache_requests import recorded
from cache_service import service

from periplus_cache.ports import Store
from periplus_cache.record.finished import FinishedStep
from periplus_cache.service import Cache
from periplus_cache.store.postgres import PostgresStore
from periplus_common import postgres
from periplus_local.stack.testing import Servers, database, embedded
from periplus_model.steps import (
    Artifact,
    CacheMode,
    CachePolicy,
    Inputs,
    ObjectRef,
    Outputs,
    StepPhase,
    StepTemplate,
    Verdict,
)

__all__ = ["embedded", "recorded", "service"]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def objects() -> MemoryObjectStore:
    return MemoryObjectStore()


@pytest.fixture
def cache(memory: MemoryStore, objects: MemoryObjectStore, clock: Clock) -> Cache:
    return Cache(memory, objects, clock=clock)


@pytest.fixture
async def dsn(embedded: Servers) -> AsyncIterator[str]:
    """A new database with this service's schema."""
    async with database(embedded) as new:
        await postgres.migrate(new, "periplus_common", "periplus_cache")
        yield new


EventTypes = Callable[[], Awaitable[list[str]]]


@pytest.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Store, EventTypes]]:
    """A store, and a function that gives the short type names of the events it has queued."""
    if request.param == "memory":
        memory = MemoryStore()

        async def queued_in_memory() -> list[str]:
            return [event.headers["ce-type"].rpartition(".")[2] for event in memory.events]

        yield memory, queued_in_memory
        return
    async with database(request.getfixturevalue("embedded")) as dsn:
        await postgres.migrate(dsn, "periplus_common", "periplus_cache")
        async with postgres.database(dsn) as opened:

            async def queued_in_postgres() -> list[str]:
                async with opened.connection() as connection:
                    rows = await connection.fetch("SELECT headers FROM outbox ORDER BY id")
                return [json.loads(row["headers"])["ce-type"].rpartition(".")[2] for row in rows]

            yield PostgresStore(opened), queued_in_postgres


@pytest.fixture
def finished() -> Callable[..., FinishedStep]:
    """Builds finished steps: the step `main.train` of run `r1` unless the test says otherwise."""
    return build_finished


def build_finished(
    run: str = "r1",
    step: str = "main.train",
    *,
    project: str = "p",
    document: object = None,
    name: str = "train",
    policy: CachePolicy = CachePolicy(),  # noqa: B008 - frozen
    uncacheable_reason: str = "",
    parameters: Mapping[str, str] | None = None,
    input_artifacts: Mapping[str, ObjectRef] | None = None,
    output_parameters: Mapping[str, str] | None = None,
    output_artifacts: Mapping[str, ObjectRef] | None = None,
    result: str | None = None,
    phase: StepPhase = StepPhase.SUCCEEDED,
    at: datetime = NOON,
    seconds: float = 60,
    run_mode: CacheMode | None = None,
) -> FinishedStep:
    return FinishedStep(
        project=project,
        run=run,
        step=step,
        template=StepTemplate(name, json.dumps(document or DOCUMENT), policy, uncacheable_reason),
        phase=phase,
        verdict=Verdict.MISS,
        inputs=Inputs(
            parameters={"c": "0.1"} if parameters is None else parameters,
            artifacts=_artifacts(input_artifacts),
        ),
        outputs=Outputs(
            parameters={"accuracy": "0.9"} if output_parameters is None else output_parameters,
            artifacts=_artifacts(output_artifacts),
            result=result,
            exit_code=0,
        ),
        started_at=at - timedelta(seconds=seconds),
        finished_at=at,
        run_mode=run_mode,
    )


def _artifacts(refs: Mapping[str, ObjectRef] | None) -> tuple[Artifact, ...]:
    return tuple(Artifact(name, ref) for name, ref in (refs or {}).items())


DOCUMENT = {
    "container": {"image": "python@sha256:" + "0" * 64, "command": ["python"], "env": {"A": "1"}},
    "code": {"train.py": "sha256:" + "1" * 64},
    "environment": "sha256:" + "2" * 64,
}
