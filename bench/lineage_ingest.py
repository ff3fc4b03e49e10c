"""Events per second from JetStream to lineage's committed rows, and what a minimal handler reaches.

    python bench/lineage_ingest.py [events] [rounds]

The ceiling is the same consumers with the same events, whose handler is one COPY of their bodies into a table without
an index. Both consume the same stored events in turn, on the servers of `periplus up`. On a machine that does other work,
single rounds differ by half: the median counts, and the ratio within a round.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nats
from google.protobuf.message import Message

from periplus.cache.v1.events_pb2 import ArtifactsDigested
from periplus.dispatcher.v1.events_pb2 import RunFinished, RunSubmitted, StepFinished, StepNode, StepStarted
from periplus.types.v1 import step_pb2 as types
from periplus_common import bus, postgres, runtime, tls
from periplus_common.bus import Batch, Broker
from periplus_lineage import events
from periplus_lineage.projection import ProjectionDelta
from periplus_lineage.store.projection import ProjectionStore
from periplus_lineage.wire.events import EventProjector
from periplus_local.stack import embedded
from periplus_local.stack.home import Home
from periplus_local.stack.nats import Nats
from periplus_local.stack.supervisor import Supervisor

STEPS = 20  # of a run
BATCH_SIZE, MAX_IN_FLIGHT = 512, 2
TIMEOUT_SECONDS = 600
START = datetime(2026, 1, 1, tzinfo=UTC)
DOCUMENT = json.dumps(
    {
        "container": {
            "image": "registry.example/train@sha256:" + "0" * 64,
            "command": ["python", "-m", "train"],
        },
        "code": {f"module{i}.py": f"sha256:{i:064x}" for i in range(5)},
    }
)


def artifact(run: str, step: int, digested: bool) -> types.Artifact:
    digest = f"sha256:{hash((run, step)) % 2**256:064x}" if digested else ""
    ref = types.ObjectRef(key=f"{run}/{run}-step-{step}-1234567890/out.tgz")
    return types.Artifact(name="out", object=ref, digest=digest, size_bytes=1000 if digested else 0)


def run_events(run: str) -> list[Message]:
    """The events of a run of a chain of steps, ArtifactsDigested of each step included."""
    project, parameters = "default", [types.Parameter(name=f"p{i}", value=str(i)) for i in range(3)]
    nodes = [
        StepNode(path=f"main.step-{i}", template="train", depends_on=[f"main.step-{i - 1}"] if i else [])
        for i in range(STEPS)
    ]
    published: list[Message] = [
        RunSubmitted(
            project=project, run=run, pipeline="bench", parameters=parameters, steps=nodes, submitted_at=START
        )
    ]
    for i, node in enumerate(nodes):
        key = {"project": project, "run": run, "step": node.path}
        started_at, finished_at = START + timedelta(seconds=i), START + timedelta(seconds=i + 1)
        inputs = [artifact(run, i - 1, False)] if i else []
        published.append(StepStarted(**key, template="train", node=f"{run}-{i}", started_at=started_at))
        published.append(
            StepFinished(
                **key,
                template=types.StepTemplate(name="train", document=DOCUMENT),
                node=f"{run}-{i}",
                phase=types.STEP_PHASE_SUCCEEDED,
                inputs=types.Inputs(parameters=parameters, artifacts=inputs),
                outputs=types.Outputs(artifacts=[artifact(run, i, False)], exit_code=0),
                started_at=started_at,
                finished_at=finished_at,
                attempts=1,
            )
        )
        digested = [artifact(run, i - 1, True)] if i else []
        published.append(ArtifactsDigested(**key, inputs=digested, outputs=[artifact(run, i, True)]))
    end = RunFinished(
        project=project, run=run, phase=types.RUN_PHASE_SUCCEEDED, pipeline="bench", finished_at=finished_at
    )
    return [*published, end]


async def publish(server: Nats, runs: int) -> int:
    count = 0
    async with Broker(server.url, ca_file=server.ca_file) as broker:
        for n in range(runs):
            run = f"bench-{n:05}"
            published = run_events(run)
            await broker.publish_events(
                [
                    bus.cloud_event(event, project="default", run=run, key=str(i), at=START)
                    for i, event in enumerate(published)
                ]
            )
            count += len(published)
    return count


class Consumed:
    """Counts the events that were handled, and says when all were."""

    def __init__(self, count: int) -> None:
        self._remaining = count
        self.all = asyncio.Event()

    def add(self, count: int) -> None:
        self._remaining -= count
        if self._remaining <= 0:
            self.all.set()


async def consume_all(server: Nats, subscribe: Callable[[Broker], None], consumed: Consumed) -> float:
    """Seconds from the start of the broker to the last committed batch."""
    client = await nats.connect(server.url, **tls.nats_options(server.url, server.ca_file))
    for stream in ("DISPATCHER", "CACHE", "SNAPSHOTTER"):
        for consumer in await client.jetstream().consumers_info(stream):
            await client.jetstream().delete_consumer(stream, consumer.name)
    await client.close()
    broker = Broker(server.url, ca_file=server.ca_file)
    subscribe(broker)
    began = time.perf_counter()
    async with bus.consuming(broker), asyncio.timeout(TIMEOUT_SECONDS):
        await consumed.all.wait()
        return time.perf_counter() - began


async def ceiling(server: Nats, database: postgres.Database, count: int) -> float:
    async with database.connection() as connection:
        await connection.execute("DROP TABLE IF EXISTS raw; CREATE TABLE raw (body bytea NOT NULL)")
    consumed = Consumed(count)

    async def copy(batch: Batch[Any]) -> None:
        async with database.transaction() as connection:
            rows = [(event.message.data,) for event in batch]
            await connection.copy_records_to_table("raw", records=rows, columns=["body"])
        consumed.add(len(batch))

    def subscribe(broker: Broker) -> None:
        async def on_steps(
            batch: Batch[RunSubmitted | RunFinished | StepStarted | StepFinished],
        ) -> None:
            await copy(batch)

        async def on_artifacts(batch: Batch[ArtifactsDigested]) -> None:
            await copy(batch)

        for stream, handler in (("DISPATCHER", on_steps), ("CACHE", on_artifacts)):
            broker.batches(stream, f"bench-{stream}", batch=BATCH_SIZE, max_in_flight=MAX_IN_FLIGHT)(handler)

    took = await consume_all(server, subscribe, consumed)
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM raw") == count
    return took


async def lineage(server: Nats, database: postgres.Database, count: int, runs: int) -> float:
    async with database.connection() as connection:
        await connection.execute("TRUNCATE run, step, artifact_usage, step_dependency, template")
    consumed, projector, store = (
        Consumed(count),
        CountingProjector("s3:9000", "artifacts"),
        ProjectionStore(database),
    )

    async def apply(delta: ProjectionDelta) -> None:
        added = projector.take_added()
        await store.apply(delta)
        consumed.add(added)

    def subscribe(broker: Broker) -> None:
        events.subscribe(broker, projector, apply, batch_size=BATCH_SIZE, max_in_flight=MAX_IN_FLIGHT)

    took = await consume_all(server, subscribe, consumed)
    async with database.connection() as connection:
        found = await connection.fetchrow(
            """
            SELECT (SELECT count(*) FROM step WHERE final_phase = 3),
                (SELECT count(*) FROM artifact_usage WHERE digest IS NOT NULL),
                (SELECT count(*) FROM run WHERE phase = 3), (SELECT count(*) FROM step_dependency)
            """
        )
    assert tuple(found) == (runs * STEPS, runs * (2 * STEPS - 1), runs, runs * (STEPS - 1)), found
    return took


class CountingProjector(EventProjector):
    """Counts the events of the current batch: nothing awaits between its first event and `apply`."""

    _added = 0

    def add(self, event: Message, delta: ProjectionDelta) -> None:
        super().add(event, delta)
        self._added += 1

    def take_added(self) -> int:
        added, self._added = self._added, 0
        return added


async def main(event_count: int, rounds: int) -> None:
    runtime.collect_garbage_rarely()  # as a service does
    runs = max(1, event_count // (3 * STEPS + 2))
    with tempfile.TemporaryDirectory(prefix="periplus-bench-") as directory:
        home = Home(Path(directory) / "home")
        home.create()
        servers = embedded.embedded(home)
        async with Supervisor(home, embedded.specs(home, servers), lambda _: None):
            dsn, server = servers.postgres.dsn("lineage"), servers.nats
            await postgres.migrate(dsn, "periplus_lineage")
            count = await publish(server, runs)
            print(
                f"{count:,} events of {runs:,} runs of {STEPS} steps; batches of {BATCH_SIZE},"
                f" {MAX_IN_FLIGHT} at once, two streams"
            )
            ceilings, rates = [], []
            async with postgres.database(dsn) as database:
                for _ in range(rounds):
                    ceilings.append(count / await ceiling(server, database, count))
                    rates.append(count / await lineage(server, database, count, runs))
                    print(
                        f"ceiling {ceilings[-1]:>8,.0f} events/s   lineage {rates[-1]:>8,.0f} events/s"
                        f"   {rates[-1] / ceilings[-1]:.0%}"
                    )
            share = statistics.median(rate / top for rate, top in zip(rates, ceilings, strict=True))
            top, rate = statistics.median(ceilings), statistics.median(rates)
            print(f"median: ceiling {top:,.0f}, lineage {rate:,.0f} events/s; {share:.0%} of the ceiling")


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]]
    asyncio.run(main(*(arguments + [40_000, 3][len(arguments) :])))
