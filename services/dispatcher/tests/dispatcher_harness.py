"""A dispatcher in the test's process, on a real database and the local Argo, that can be stopped and started again."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from fakes import MemoryCache, MemorySnapshotter
from manifests import ANY_KEYS, PROCESSES

from periplus.dispatcher.v1 import events_pb2
from periplus.types.v1 import step_pb2
from periplus_common.postgres import Database, database
from periplus_dispatcher.argo import client as argo
from periplus_dispatcher.argo.client import HeraArgo
from periplus_dispatcher.domain import Run, RunRequest
from periplus_dispatcher.follow.follower import Follower, FollowerTimings
from periplus_dispatcher.follow.nodes import ArtifactRepository
from periplus_dispatcher.observed.namespaces import Observation
from periplus_dispatcher.observed.observer import Observer
from periplus_dispatcher.planner import Planner
from periplus_dispatcher.ports import Pods
from periplus_dispatcher.service import Dispatcher, SubmittedRun
from periplus_dispatcher.store import PostgresRuns
from periplus_local.argo.testing import Client
from periplus_local.stack.testing import Servers
from periplus_model.steps import CacheMode

Json = dict[str, Any]
WAIT_SECONDS = 90.0
STARTED = "periplus.dispatcher.v1.StepStarted"
DELAYED = "periplus.dispatcher.v1.StepDelayed"
FINISHED = "periplus.dispatcher.v1.StepFinished"
RUN_FINISHED = "periplus.dispatcher.v1.RunFinished"
RUN_SUBMITTED = "periplus.dispatcher.v1.RunSubmitted"


@dataclass
class FinishedRun:
    """A finished run and its StepFinished events."""

    run: Run
    finished: list[events_pb2.StepFinished]

    @property
    def phases(self) -> dict[str, str]:
        return {
            e.step: step_pb2.StepPhase.Name(e.phase).removeprefix("STEP_PHASE_").lower()
            for e in self.finished
        }

    @property
    def ran(self) -> set[str]:
        return {path for path, phase in self.phases.items() if phase == "succeeded"}

    @property
    def cached(self) -> set[str]:
        return {path for path, phase in self.phases.items() if phase == "cached"}

    @property
    def output(self) -> str:
        return self.run.outputs.parameters["o"]


@dataclass
class Harness:
    """A dispatcher with its database, its Argo, and the cache and snapshotter in memory."""

    database: Database
    argo: HeraArgo
    client: Client
    repository: ArtifactRepository
    cache: MemoryCache
    snapshotter: MemorySnapshotter
    runs: PostgresRuns
    dispatcher: Dispatcher
    observer: Observer
    project: str = "default"
    following: asyncio.Task[None] | None = None
    poll_seconds: float = 0.2
    pods: Pods | None = None

    def follow(self) -> None:
        """Start a follower, as a new process does."""
        follower = Follower(
            self.dispatcher.launch,
            self.runs,
            self.argo,
            self.cache,
            self.repository,
            self.observer,
            FollowerTimings(poll_interval=timedelta(seconds=self.poll_seconds)),
            self.pods,
        )
        self.following = asyncio.create_task(follower.follow())

    async def crash(self) -> None:
        """Cancel the follower in whatever it is doing."""
        if self.following is not None:
            self.following.cancel()
            with suppress(asyncio.CancelledError):
                await self.following
            self.following = None

    def request(self, manifest: Json | str, mode: CacheMode | None = None, claim: bytes | None = None,
              **parameters: str) -> RunRequest:  # fmt: skip
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        return RunRequest(self.project, text, parameters, mode, claim)

    async def submit(self, manifest: Json | str, request: str = "", **more: Any) -> SubmittedRun:
        return await self.dispatcher.submit(self.request(manifest, **more), request or str(uuid.uuid4()))

    async def run(self, manifest: Json | str, **more: Any) -> FinishedRun:
        """Run to the end, and record the steps that ran in the cache."""
        ended = await self.ended((await self.submit(manifest, **more)).run.id)
        for event in ended.finished:
            if event.phase == step_pb2.STEP_PHASE_SUCCEEDED and event.template.document != "{}":
                self.cache.record(event)
        return ended

    async def ended(self, name: str) -> FinishedRun:
        end = time.monotonic() + WAIT_SECONDS
        while True:
            if self.following is not None and self.following.done():
                self.following.result()
            run = await self.runs.get(name)
            assert run is not None
            if run.finished_at is not None:
                bodies = await self.published(FINISHED, name)
                return FinishedRun(run, [events_pb2.StepFinished.FromString(body) for body in bodies])
            assert time.monotonic() < end, (run.phase, await self.argo.get(name))
            await asyncio.sleep(0.02)

    async def published(self, kind: str, run: str) -> list[bytes]:
        """The bodies of the published events of a kind of a run."""
        async with self.database.connection() as connection:
            rows = await connection.fetch(
                "SELECT body FROM outbox WHERE subject = $1 ORDER BY id", f"{kind}.{self.project}.{run}"
            )
        return [row["body"] for row in rows]

    async def traces(self, run: str) -> dict[str, set[str]]:
        """The trace ids of the published events of a run, by type."""
        async with self.database.connection() as connection:
            found = await connection.fetch(
                "SELECT subject, headers FROM outbox WHERE subject LIKE $1", f"%.{self.project}.{run}"
            )
        traces: dict[str, set[str]] = {}
        for row in found:
            kind = row["subject"].removesuffix(f".{self.project}.{run}")
            traceparent = json.loads(row["headers"]).get("traceparent", "")
            traces.setdefault(kind, set()).add(traceparent.split("-")[1] if traceparent else "")
        return traces


@asynccontextmanager
async def opened(
    dsn: str, client: Client, embedded: Servers, cache: MemoryCache, snapshotter: MemorySnapshotter
) -> AsyncIterator[Harness]:
    repository = ArtifactRepository(embedded.s3.endpoint, embedded.s3.bucket)
    async with database(dsn) as db, argo.connect(client.address, client.token, client.namespace) as workflows:
        runs = PostgresRuns(db)
        dispatcher = Dispatcher(
            runs,
            workflows,
            Planner(cache, snapshotter, workflows, PROCESSES, ANY_KEYS),
            repository,
            timedelta(seconds=30),
        )
        observer = Observer({}, Observation({}), runs, PROCESSES)
        harness = Harness(db, workflows, client, repository, cache, snapshotter, runs, dispatcher, observer)
        harness.follow()
        try:
            yield harness
        finally:
            await harness.crash()
