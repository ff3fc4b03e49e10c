"""How long the cache takes to resolve steps that are all hits, and the lower bound of that on the same machine.

    python bench/cache_resolve.py [rounds]

The cache runs in a process of its own, on real NATS, Postgres and S3. The lower bound is an empty call of the same server
plus one query for the same rows; with artifacts, plus a HEAD request for each object. The cache can be faster than that:
for objects of one folder it sends one listing instead.
"""

import asyncio
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
from google.protobuf.timestamp_pb2 import Timestamp

from periplus.cache.v1 import cache_pb2 as pb
from periplus.cache.v1.cache_pb2_grpc import CacheServiceStub
from periplus.dispatcher.v1.events_pb2 import StepFinished
from periplus.types.v1 import step_pb2 as types
from periplus_cache.settings import Settings
from periplus_common import blobs, bus, rpc
from periplus_common.bus import Broker
from periplus_local.stack.testing import Servers, servers

FAN_OUT_ITEMS = 100
CHAIN_STEPS = 20
TOKEN = "bench"
PROJECT = "bench"


def template(name: str) -> types.StepTemplate:
    """About 700 bytes, as a small SDK step has."""
    document = {
        "container": {
            "image": "python@sha256:" + "0" * 64,
            "command": ["python3", "/periplus/code/periplus-runner"],
            "args": ["pipeline:" + name, "x" * 100],
            "env": {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8"},
        },
        "code": {f"module_{i}.py": "sha256:" + str(i) * 64 for i in range(3)},
        "environment": "sha256:" + "f" * 64,
    }
    return types.StepTemplate(name=name, document=json.dumps(document))


def reference(step: str, name: str) -> pb.OutputRef:
    return pb.OutputRef(step=step, name=name)


def request(names: list[str], steps: list[pb.StepQuery]) -> pb.ResolveStepsRequest:
    return pb.ResolveStepsRequest(
        project=PROJECT, run="resolves", templates={name: template(name) for name in names}, steps=steps
    )


def text(*parts: pb.TextPart) -> pb.Text:
    return pb.Text(parts=parts)


def query(
    id_: str, x: pb.TextPart, items: pb.TextPart | None = None, artifact: pb.OutputRef | None = None
) -> pb.StepQuery:
    return pb.StepQuery(
        id=id_,
        template=id_,
        parameters=[pb.ParameterSource(name="x", value=text(x))],
        artifacts=[pb.ArtifactSource(name="a", output=artifact)] if artifact else [],
        items=text(items) if items else None,
    )


class Scenario:
    """A request, and the events that make each of its steps a hit."""

    def __init__(self, name: str, *, artifacts: bool) -> None:
        self.title = f"{name}, {'artifacts' if artifacts else 'parameters only'}"
        self.artifacts = artifacts
        self.prefix = f"{name}-{'a' if artifacts else 'p'}"
        self.events: list[StepFinished] = []
        self.objects: list[str] = []
        self.request = self._chain() if name == "chain-20" else self._fan_out()

    def _chain(self) -> pb.ResolveStepsRequest:
        steps, names = [], []
        for i in range(CHAIN_STEPS):
            name = f"{self.prefix}-{i}"
            previous = f"{self.prefix}-{i - 1}"
            x = pb.TextPart(literal="0") if i == 0 else pb.TextPart(output=reference(previous, "y"))
            with_artifact = self.artifacts and i > 0
            steps.append(query(name, x, artifact=reference(previous, "a") if with_artifact else None))
            names.append(name)
            self._add_event(name, f"main.s{i}", str(i), str(i + 1), reads=previous if with_artifact else "")
        return request(names, steps)

    def _fan_out(self) -> pb.ResolveStepsRequest:
        first, work, last = (f"{self.prefix}-{step}" for step in ("list", "work", "join"))
        items = [f"item-{i}" for i in range(FAN_OUT_ITEMS)]
        self._add_event(first, "main.list", "0", json.dumps(items, separators=(",", ":")))
        for i, item in enumerate(items):
            self._add_event(
                work,
                f"main.work({i})",
                item,
                f"{item}!",
                reads=first if self.artifacts else "",
                writes=f"{work}-{i}",
            )
        joined = json.dumps([f"{item}!" for item in items], separators=(",", ":"))
        self._add_event(last, "main.join", joined, "done")
        return request(
            [first, work, last],
            [
                query(first, pb.TextPart(literal="0")),
                query(
                    work,
                    pb.TextPart(item=""),
                    items=pb.TextPart(output=reference(first, "y")),
                    artifact=reference(first, "a") if self.artifacts else None,
                ),
                query(last, pb.TextPart(output=reference(work, "y"))),
            ],
        )

    def _add_event(self, name: str, step: str, x: str, y: str, *, reads: str = "", writes: str = "") -> None:
        def artifact(of: str) -> list[types.Artifact]:
            return [types.Artifact(name="a", object=types.ObjectRef(key=f"bench/{of}"))]

        writes = writes or name
        if self.artifacts:
            self.objects.append(f"bench/{writes}")
        now = datetime.now(UTC) + timedelta(minutes=1)
        self.events.append(
            StepFinished(
                project=PROJECT,
                run="produces",
                step=f"{self.prefix}/{step}",
                template=template(name),
                phase=types.STEP_PHASE_SUCCEEDED,
                verdict=types.VERDICT_MISS,
                inputs=types.Inputs(
                    parameters=[types.Parameter(name="x", value=x)],
                    artifacts=artifact(reads) if reads else [],
                ),
                outputs=types.Outputs(
                    parameters=[types.Parameter(name="y", value=y)],
                    artifacts=artifact(writes) if self.artifacts else [],
                    exit_code=0,
                ),
                started_at=timestamp(now),
                finished_at=timestamp(now),
            )
        )


def timestamp(at: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(at)
    return message


async def medians(rounds: int, **calls: Callable[[], Awaitable[object]]) -> dict[str, float]:
    """The median time of each call, in milliseconds; the calls alternate, so that noise affects all alike."""
    durations: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            await call()
            durations[name].append((time.perf_counter() - started) * 1e3)
    return {name: statistics.median(times[len(times) // 10 :]) for name, times in durations.items()}


async def measure(
    scenario: Scenario, stub: CacheServiceStub, database: asyncpg.Connection, store: blobs.Blobs, rounds: int
) -> str:
    answer = await stub.ResolveSteps(scenario.request)
    entries = [v.fingerprint for top in answer.verdicts for v in (top.items or [top])]
    assert all(entries), "not every step is a hit"
    names = [bytes.fromhex(entry.removeprefix("sha256:")) for entry in entries]
    by_fingerprint = await database.prepare(
        "SELECT fingerprint, producer_run, producer_step, outputs, confirmed_at, duration FROM entry WHERE fingerprint = ANY($1)"
    )
    refs = [blobs.ObjectRef(key) for key in scenario.objects]
    found = await medians(
        rounds,
        resolve=lambda: stub.ResolveSteps(scenario.request),
        empty=lambda: stub.ResolveSteps(pb.ResolveStepsRequest(project=PROJECT)),
        sql=lambda: by_fingerprint.fetch(names),
        heads=lambda: store.stat_many(refs),
    )
    lower_bound = found["empty"] + found["sql"] + (found["heads"] if refs else 0)
    return (
        f"{scenario.title:28} {len(entries):4} hits {found['resolve']:8.2f} ms   lower bound {lower_bound:7.2f} ms"
        f" (call {found['empty']:.2f}, query {found['sql']:.2f}, heads {found['heads'] if refs else 0:.2f})"
        f"   {found['resolve'] / lower_bound:5.1f} x"
    )


async def record(scenario: Scenario, stub: CacheServiceStub, broker: Broker, store: blobs.Blobs) -> None:
    """Have the cache record the steps, and wait until all are hits."""
    for key in scenario.objects:
        await store.put(blobs.ObjectRef(key), key.encode())
    await broker.publish_events(
        [
            bus.cloud_event(e, project=PROJECT, run=e.run, key=e.step, at=datetime.now(UTC))
            for e in scenario.events
        ]
    )
    async with asyncio.timeout(60):
        while True:
            answer = await stub.ResolveSteps(scenario.request)
            if all(verdict.verdict == types.VERDICT_HIT for verdict in answer.verdicts):
                return
            await asyncio.sleep(0.1)


def environment(running: Servers, address: str) -> dict[str, str]:
    s3 = running.s3
    return {
        "CACHE_POSTGRES_DSN": running.service_dsns["cache"],
        "CACHE_NATS_URL": running.nats_url,
        "CACHE_GRPC_ADDRESS": address,
        "CACHE_TOKEN": TOKEN,
        "CACHE_S3_ENDPOINT": s3.endpoint,
        "CACHE_S3_ACCESS_KEY": s3.access_key,
        "CACHE_S3_SECRET_KEY": s3.secret_key,
        "CACHE_S3_BUCKET": s3.bucket,
    }


async def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as directory, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        free.close()
        async with servers(Path(directory)) as running:
            os.environ |= environment(running, address)
            command = (sys.executable, "-m", "periplus_cache")
            assert await (await asyncio.create_subprocess_exec(*command, "migrate")).wait() == 0
            service = await asyncio.create_subprocess_exec(*command)
            try:
                await report(Settings(), address, running, rounds)  # type: ignore[call-arg]
            finally:
                service.terminate()
                await service.wait()


async def report(settings: Settings, address: str, running: Servers, rounds: int) -> None:
    database = await asyncpg.connect(running.service_dsns["cache"])
    store = blobs.connect(settings)
    async with rpc.channel(address, TOKEN) as channel, Broker(running.nats_url) as broker:
        await asyncio.wait_for(channel.channel_ready(), 30)
        stub = CacheServiceStub(channel)
        for artifacts in (False, True):
            for name in ("chain-20", "1-100-1"):
                scenario = Scenario(name, artifacts=artifacts)
                await record(scenario, stub, broker, store)
                print(await measure(scenario, stub, database, store, rounds), flush=True)
    store.close()
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if sys.argv[1:] else 200))
