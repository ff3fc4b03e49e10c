"""The RPCs of the whole service on real servers, and the events that subscribers receive."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
import nats
import pytest
from dispatcher_harness import FINISHED, RUN_FINISHED, WAIT_SECONDS
from manifests import dag, say, shows, task, workflow
from pydantic import SecretStr

from periplus.dispatcher.v1 import dispatcher_pb2 as pb
from periplus.dispatcher.v1 import events_pb2
from periplus.dispatcher.v1.dispatcher_pb2_grpc import DispatcherServiceStub
from periplus.snapshotter.v1 import snapshotter_pb2
from periplus.types.v1 import step_pb2
from periplus_common import rpc
from periplus_common.streams import declare_streams
from periplus_dispatcher.app import app
from periplus_dispatcher.settings import Settings
from periplus_dispatcher.wire.runs import decode_request
from periplus_local.argo.testing import Client
from periplus_local.stack.testing import Servers

Json = dict[str, Any]


@pytest.fixture
async def dispatcher(dsn: str, local: Client, embedded: Servers) -> AsyncIterator[DispatcherServiceStub]:
    """The service as it is deployed, with a cache and a snapshotter that can not be reached."""
    await declare_streams(embedded.nats_url)
    settings = Settings(
        postgres_dsn=SecretStr(dsn), nats_url=SecretStr(embedded.nats_url), grpc_address="127.0.0.1:0",
        token=SecretStr("secret"), argo_url=local.address, argo_token=SecretStr(local.token), argo_namespace="argo",
        cache_address="127.0.0.1:9", snapshotter_address="127.0.0.1:9", s3_endpoint=embedded.s3.endpoint,
        s3_bucket=embedded.s3.bucket, steps_are_processes=True,
    )  # fmt: skip
    async with app(settings) as port, rpc.channel(f"127.0.0.1:{port}", "secret") as channel:
        yield DispatcherServiceStub(channel)


def manifest() -> str:
    text = str(uuid.uuid4())
    return json.dumps(workflow(
        dag(task("a", "a", given={"x": "{{workflow.parameters.p}}"}), outputs=shows("tasks.a.outputs.parameters.o")),
        say("a", text + "$x", "x"), parameters={"p": "1"},
    ))  # fmt: skip


def spec(text: str, **more: Any) -> pb.RunSpec:
    return pb.RunSpec(project="default", manifest=text, **more)


async def test_a_subscriber_receives_the_events_of_a_submitted_run(
    dispatcher: DispatcherServiceStub, embedded: Servers
) -> None:
    link = await nats.connect(embedded.nats_url)
    received: asyncio.Queue[Any] = asyncio.Queue()

    async def note(message: Any) -> None:
        received.put_nowait(message)

    await link.subscribe("periplus.dispatcher.>", cb=note)
    await link.flush()
    request = pb.SubmitRunRequest(spec=spec(manifest(), parameters={"p": "é"}), request_id="one")
    done = await dispatcher.SubmitRun(request)
    assert done.phase == step_pb2.RUN_PHASE_RUNNING
    assert [(s.path, s.verdict) for s in done.plan.steps] == [("a", step_pb2.VERDICT_MISS)]
    assert any("the cache could not be asked" in warning for warning in done.plan.warnings)
    async with asyncio.timeout(WAIT_SECONDS):
        messages = {}
        while (
            f"{RUN_FINISHED}.default.{done.run}" not in messages
            or f"{FINISHED}.default.{done.run}" not in messages
        ):
            message = await received.get()
            messages[message.subject] = message
    finished = events_pb2.RunFinished.FromString(messages[f"{RUN_FINISHED}.default.{done.run}"].data)
    assert finished.phase == step_pb2.RUN_PHASE_SUCCEEDED
    assert finished.outputs.parameters[0].value.endswith("é")
    assert (await dispatcher.SubmitRun(request)).run == done.run
    shown = (("authorization", "Bearer secret"),)
    logs = dispatcher.ReadLogs(pb.ReadLogsRequest(project="default", run=done.run), metadata=shown)
    assert [line async for line in logs] == []
    ended = await dispatcher.CancelRun(pb.CancelRunRequest(project="default", run=done.run))
    assert ended.phase == step_pb2.RUN_PHASE_SUCCEEDED
    await link.close()


async def test_the_rewrite_of_a_plan_is_returned_if_it_is_asked_for(
    dispatcher: DispatcherServiceStub,
) -> None:
    text = manifest()
    found = await dispatcher.PlanRun(pb.PlanRunRequest(spec=spec(text), with_rewrite=True))
    assert json.loads(found.source) == json.loads(text)
    submitted = json.loads(found.submitted)
    assert submitted["metadata"]["labels"]["periplus.dev/managed"] == "true"
    assert submitted["metadata"]["name"].startswith("test-")
    assert submitted["spec"]["templates"] == json.loads(text)["spec"]["templates"]
    without = await dispatcher.PlanRun(pb.PlanRunRequest(spec=spec(text)))
    assert (without.source, without.submitted) == ("", "")


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value


async def test_an_invalid_manifest_is_refused_with_its_field(dispatcher: DispatcherServiceStub) -> None:
    cases = {
        "a: &x 1\nb: *x": "spec.manifest",
        "{}": "spec.manifest.kind",
        manifest().replace('"template": "a"', '"template": "b"'): "spec.manifest.spec.templates[0]",
        manifest().replace("test-", "Größe-"): "spec.manifest.metadata.generateName",
    }
    for text, field in cases.items():
        for call in (
            dispatcher.SubmitRun(pb.SubmitRunRequest(spec=spec(text), request_id=str(uuid.uuid4()))),
            dispatcher.PlanRun(pb.PlanRunRequest(spec=spec(text))),
        ):
            error = await refusal(call)
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert (error.details() or "").startswith(field), error.details()


async def test_a_parameter_that_the_workflow_does_not_have_is_refused(
    dispatcher: DispatcherServiceStub,
) -> None:
    error = await refusal(dispatcher.PlanRun(pb.PlanRunRequest(spec=spec(manifest(), parameters={"q": "1"}))))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (error.details() or "").startswith("spec.parameters[q]")


async def test_an_unknown_run_is_not_found(dispatcher: DispatcherServiceStub) -> None:
    for call in (
        dispatcher.CancelRun(pb.CancelRunRequest(project="default", run="nobody")),
        dispatcher.GetRunPhase(pb.GetRunPhaseRequest(project="default", run="nobody")),
    ):
        assert (await refusal(call)).code() is grpc.StatusCode.NOT_FOUND


def test_requests_with_different_claims_have_different_digests():
    def digest(**claim: object) -> str:
        spec = pb.RunSpec(project="p", manifest="m", claim=snapshotter_pb2.Claim(**claim))
        return decode_request(spec).digest

    platform = snapshotter_pb2.Platform(system="Linux")
    assert digest(platform=platform) == digest(platform=platform)
    assert len({digest(), digest(platform=platform), digest(code_archive=b"c")}) == 3
