"""Traces and metrics of a running dispatcher, as an OTLP collector receives them."""

import asyncio
import json
import os
import signal
import socket
import sys
import uuid
from functools import partial
from typing import Any

import asyncpg
from dispatcher_harness import WAIT_SECONDS
from manifests import dag, say, task, workflow

from periplus.cache.v1 import cache_pb2
from periplus.cache.v1.cache_pb2_grpc import CacheServiceServicer, add_CacheServiceServicer_to_server
from periplus.dispatcher.v1 import dispatcher_pb2 as pb
from periplus.dispatcher.v1.dispatcher_pb2_grpc import DispatcherServiceStub
from periplus.types.v1 import step_pb2 as types
from periplus_common import rpc
from periplus_common.streams import declare_streams
from periplus_local.argo.testing import Client
from periplus_local.stack.collector import collecting
from periplus_local.stack.testing import Servers

TOKEN = "secret"
TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
MANIFEST = json.dumps(
    workflow(
        dag(
            task("up", "up"),
            task("end", "end", depends="up", given={"x": "{{tasks.up.outputs.parameters.o}}"}),
        ),
        say("up", "1"),
        say("end", "<$x>", "x"),
    )
)


class FakeCache(CacheServiceServicer):
    """At submission `up` is a miss and `end` is not known; the gate of `end` is a hit."""

    async def ResolveSteps(self, request: cache_pb2.ResolveStepsRequest, context: Any) -> Any:  # noqa: N802
        verdicts = {"up": types.VERDICT_MISS, "end": types.VERDICT_UNKNOWN}
        outputs = types.Outputs(parameters=[types.Parameter(name="o", value="cached")])
        return cache_pb2.ResolveStepsResponse(
            verdicts=[
                cache_pb2.StepVerdict(id=step.id, verdict=verdicts[step.id])
                if step.id in verdicts
                else cache_pb2.StepVerdict(id=step.id, verdict=types.VERDICT_HIT, outputs=outputs)
                for step in request.steps
            ]
        )


async def finished(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while not await connection.fetchval("SELECT count(*) FROM run WHERE phase = 'succeeded'"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    finally:
        await connection.close()


async def test_a_submission_its_workflow_and_its_events_are_one_trace_and_gates_runs_and_steps_are_counted(
    dsn: str, local: Client, embedded: Servers
) -> None:
    await declare_streams(embedded.nats_url)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    register = partial(add_CacheServiceServicer_to_server, FakeCache())
    async with (
        collecting() as collector,
        rpc.serving("127.0.0.1:0", TOKEN, register, names=[]) as cache_port,
        rpc.channel(address, TOKEN) as channel,
    ):
        settings = {
            "POSTGRES_DSN": dsn, "NATS_URL": embedded.nats_url, "GRPC_ADDRESS": address, "TOKEN": TOKEN,
            "ARGO_URL": local.address, "ARGO_TOKEN": local.token, "ARGO_NAMESPACE": local.namespace,
            "CACHE_ADDRESS": f"127.0.0.1:{cache_port}", "SNAPSHOTTER_ADDRESS": "127.0.0.1:9",
            "S3_ENDPOINT": embedded.s3.endpoint, "S3_BUCKET": embedded.s3.bucket, "STEPS_ARE_PROCESSES": "true",
            "OTLP_ENDPOINT": collector.endpoint,
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "periplus_dispatcher",
            env=os.environ | {f"DISPATCHER_{name}": value for name, value in settings.items()},
        )  # fmt: skip
        try:
            await asyncio.wait_for(channel.channel_ready(), 60)
            spec = pb.RunSpec(project="default", manifest=MANIFEST)
            request = pb.SubmitRunRequest(spec=spec, request_id=str(uuid.uuid4()))
            traced = (("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01"),)
            await DispatcherServiceStub(channel).SubmitRun(request, metadata=traced)
            await finished(dsn)
        finally:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), 30)
    spans = collector.trace(TRACE_ID)
    (submission,) = [span for span in spans if span.kind == "SERVER"]
    assert submission.parent_id == SPAN_ID
    posts = [
        span
        for span in collector.children(submission)
        if span.kind == "CLIENT" and span.name.startswith("POST")
    ]
    assert len(posts) == 2, "lint and create"
    assert {span.parent_id for span in spans if span.name == "follow run"} == {submission.span_id}
    metrics = collector.metrics
    assert ("dispatcher", {}) in metrics["periplus.gates.opened"]
    assert ("dispatcher", {"periplus.verdict": "hit"}) in metrics["periplus.gates.answered"]
    phases = [attributes["periplus.phase"] for _, attributes in metrics["periplus.runs"]]
    assert set(phases) == {"pending", "succeeded"}
    phases = [attributes["periplus.phase"] for _, attributes in metrics["periplus.steps"]]
    assert set(phases) >= {"succeeded", "cached"}
