"""Events per second from JetStream to lineage's committed rows, beside what the parts can do at best.

    python bench/lineage_ingest.py [events] [rounds]

The ceiling is the same consumer with the same bodies, whose handler is one COPY of them into a table without an
index. Both drain the same full streams in turn on the durable servers of `periplus up`. A machine that does other
things beside makes single rounds differ by half: the median round counts, and the ratio within a round.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from google.protobuf.message import Message
from nats.aio.msg import Msg

from periplus.cache.v1.events_pb2 import ArtifactsDigested
from periplus.dispatcher.v1.events_pb2 import RunFinished, RunSubmitted, StepFinished, StepNode, StepStarted
from periplus.types.v1 import step_pb2 as types
from periplus_common import bus, postgres, pull
from periplus_lineage import events
from periplus_lineage.store.facts import FactStore
from periplus_lineage.wire.event import Reader
from periplus_local.stack import embedded as parts
from periplus_local.stack.home import Home
from periplus_local.stack.supervisor import Supervisor

STEPS = 20
BATCH, FLIGHTS = 512, 2
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


def told(run: str) -> list[Message]:
    """A run of a chain of steps: what the dispatcher tells, and the cache of each step's artifacts."""
    project, parameters = "default", [types.Parameter(name=f"p{i}", value=str(i)) for i in range(3)]
    nodes = [
        StepNode(path=f"main.step-{i}", template="train", depends_on=[f"main.step-{i - 1}"] if i else [])
        for i in range(STEPS)
    ]
    tale: list[Message] = [
        RunSubmitted(
            project=project, run=run, pipeline="bench", parameters=parameters, steps=nodes, submitted_at=START
        )
    ]
    for i, node in enumerate(nodes):
        who = {"project": project, "run": run, "step": node.path}
        begun, ended = START + timedelta(seconds=i), START + timedelta(seconds=i + 1)
        given = [artifact(run, i - 1, False)] if i else []
        tale.append(StepStarted(**who, template="train", node=f"{run}-{i}", started_at=begun))
        tale.append(
            StepFinished(
                **who,
                template=types.StepTemplate(name="train", document=DOCUMENT),
                node=f"{run}-{i}",
                phase=types.STEP_PHASE_SUCCEEDED,
                inputs=types.Inputs(parameters=parameters, artifacts=given),
                outputs=types.Outputs(artifacts=[artifact(run, i, False)], exit_code=0),
                started_at=begun,
                finished_at=ended,
                attempts=1,
            )
        )
        inputs = [artifact(run, i - 1, True)] if i else []
        tale.append(ArtifactsDigested(**who, inputs=inputs, outputs=[artifact(run, i, True)]))
    end = RunFinished(
        project=project, run=run, phase=types.RUN_PHASE_SUCCEEDED, pipeline="bench", finished_at=ended
    )
    return [*tale, end]


async def publish(url: str, runs: int) -> int:
    count = 0
    async with bus.link(url) as link:
        for n in range(runs):
            run = f"bench-{n:05}"
            tale = told(run)
            await link.publish(
                [
                    bus.cloud_event(event, project="default", run=run, key=str(i), at=START)
                    for i, event in enumerate(tale)
                ]
            )
            count += len(tale)
    return count


Handle = Callable[[list[Msg]], Awaitable[pull.Refusals | None]]


async def drained(url: str, handle: Handle, count: int) -> float:
    """Seconds from the first batch asked for to the last one committed."""
    done = asyncio.Event()
    seen = 0

    async def counting(batch: list[Msg]) -> pull.Refusals | None:
        nonlocal seen
        refused = await handle(batch)
        assert not refused
        seen += len(batch)
        if seen >= count:
            done.set()
        return refused

    async with bus.link(url) as link:
        client = await link.client()
        for consumer in events.consumers(BATCH, FLIGHTS):
            for known in await client.jetstream().consumers_info(consumer.stream):
                await client.jetstream().delete_consumer(consumer.stream, known.name)
        began = time.perf_counter()
        async with AsyncExitStack() as stack:
            for consumer in events.consumers(BATCH, FLIGHTS):
                await stack.enter_async_context(pull.consuming(link, consumer, counting))
            async with asyncio.timeout(600):
                await done.wait()
            took = time.perf_counter() - began
            await asyncio.sleep(0.5)  # the last acknowledgements
    return took


async def ceiling(url: str, database: postgres.Database, count: int) -> float:
    async with database.connection() as connection:
        await connection.execute("DROP TABLE IF EXISTS raw; CREATE TABLE raw (body bytea NOT NULL)")

    async def copy(batch: list[Msg]) -> None:
        async with database.transaction() as connection:
            rows = [(message.data,) for message in batch]
            await connection.copy_records_to_table("raw", records=rows, columns=["body"])

    took = await drained(url, copy, count)
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM raw") == count
    return took


async def lineage(url: str, database: postgres.Database, count: int, runs: int) -> float:
    async with database.connection() as connection:
        await connection.execute("TRUNCATE run, step, flow, link, template")
    handle = events.handler(Reader("s3:9000", "artifacts"), FactStore(database).add)
    took = await drained(url, handle, count)
    async with database.connection() as connection:
        found = await connection.fetchrow(
            """
            SELECT (SELECT count(*) FROM step WHERE phase = 3), (SELECT count(*) FROM flow WHERE digest IS NOT NULL),
                (SELECT count(*) FROM run WHERE phase = 3), (SELECT count(*) FROM link)
            """
        )
    assert tuple(found) == (runs * STEPS, runs * (2 * STEPS - 1), runs, runs * (STEPS - 1)), found
    return took


def made(directory: Path) -> Home:
    """A home below a directory that PostgreSQL's own user may enter."""
    directory.chmod(0o755)
    home = Home(directory / "home")
    home.create()
    return home


async def main(wanted: int, rounds: int) -> None:
    runs = max(1, wanted // (3 * STEPS + 2))
    with tempfile.TemporaryDirectory(prefix="periplus-bench-") as directory:
        home = made(Path(directory))
        chosen = parts.embedded(home)
        async with Supervisor(home, parts.parts(home, chosen), lambda _: None):
            dsn = chosen.postgres.dsn("lineage")
            await postgres.migrate(dsn, "periplus_lineage")
            count = await publish(chosen.nats.url, runs)
            print(
                f"{count:,} events of {runs:,} runs of {STEPS} steps; batches of {BATCH}, {FLIGHTS} at once, two streams"
            )
            best, ours = [], []
            async with postgres.database(dsn) as database:
                for _ in range(rounds):
                    best.append(count / await ceiling(chosen.nats.url, database, count))
                    ours.append(count / await lineage(chosen.nats.url, database, count, runs))
                    print(
                        f"ceiling {best[-1]:>8,.0f} events/s   lineage {ours[-1]:>8,.0f} events/s   {ours[-1] / best[-1]:.0%}"
                    )
            share = statistics.median(own / top for own, top in zip(ours, best, strict=True))
            top, own = statistics.median(best), statistics.median(ours)
            print(f"median: ceiling {top:,.0f}, lineage {own:,.0f} events/s; {share:.0%} of the ceiling")


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    asyncio.run(main(*(given + [40_000, 3][len(given) :])))
