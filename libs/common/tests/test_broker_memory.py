"""Handlers without a server, by FastStream's `TestNatsBroker`, and the AsyncAPI document of a service."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from faststream import FastStream
from faststream.nats import TestNatsBroker
from google.protobuf.json_format import ParseDict
from google.protobuf.timestamp_pb2 import Timestamp

from periplus.cache.v1.events_pb2 import ArtifactsDigested, EntryRecorded
from periplus.dispatcher.v1.events_pb2 import RunFinished, RunSubmitted, StepFinished
from periplus.types.v1.step_pb2 import Artifact
from periplus_common import bus
from periplus_common.bus import Batch, Broker, Codec, asyncapi
from periplus_common.errors import Invalid, NotFound
from periplus_common.validation import validate

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STAMP = Timestamp(seconds=1_800_000_000)
EXAMPLES = (
    StepFinished(
        project="demo",
        run="train-x7k2p",
        step="train(0)",
        phase="STEP_PHASE_SUCCEEDED",
        finished_at=STAMP,
        attempts=1,
    ),
    RunFinished(
        project="demo", run="train-x7k2p", phase="RUN_PHASE_SUCCEEDED", pipeline="train", finished_at=STAMP
    ),
    RunSubmitted(project="demo", run="train-x7k2p", pipeline="train", submitted_at=STAMP),
    ArtifactsDigested(project="demo", run="train-x7k2p", step="train(0)"),
    EntryRecorded(project="demo", producer_run="train-x7k2p", producer_step="train(0)"),
)


def subscribed(stored: list[Any]) -> Broker:
    """A service's handlers: batches, a low-rate handler, and a request with its reply."""
    broker = Broker("nats://localhost:4222")

    @broker.batches("DISPATCHER", "example-steps", batch=256, max_in_flight=3)
    async def on_steps(batch: Batch[StepFinished | RunFinished]) -> None:
        """One transaction for each batch."""
        for received in batch:
            if received.data.run == "refused":
                batch.refuse(received, Invalid("not wanted"))
            else:
                stored.append(received.data)

    @broker.batches("DISPATCHER", "example-runs", batch=1, max_in_flight=1)
    async def on_run(batch: Batch[RunSubmitted]) -> None:
        """A low-rate handler: the same promises, one event at a time."""
        if batch[0].data.run == "early":
            raise NotFound("not yet")

    @broker.batches("CACHE", "example-cache")
    async def on_digests(batch: Batch[ArtifactsDigested]) -> None:
        stored.extend(received.data for received in batch)

    @broker.subscriber("periplus.example.v1.Ping", codec=Codec(StepFinished), title="Ping")
    async def ping(step: Any) -> EntryRecorded:  # pydantic knows no protobuf
        """Request and reply."""
        return EntryRecorded(project=step.project, producer_run=step.run, producer_step=step.step)

    broker.publishes(EntryRecorded)
    return broker


def service(examples: Any = EXAMPLES) -> FastStream:
    return asyncapi.application(
        subscribed([]),
        title="example",
        description="What the example consumes and publishes.",
        examples=examples,
    )


def event(message: Any) -> bus.CloudEvent:
    return bus.cloud_event(message, project=message.project, run=message.run, key="k", at=AT)


async def test_a_handler_gets_an_event_once_whatever_its_max_in_flight():
    stored: list[Any] = []
    step = StepFinished(project="p", run="r", step="s")
    async with TestNatsBroker(subscribed(stored)) as broker:
        await broker.publish_events([event(step), event(RunFinished(project="p", run="r"))])
    assert stored == [step, RunFinished(project="p", run="r")]


async def test_what_a_handler_raises_or_refuses_reaches_the_publisher():
    stored: list[Any] = []
    async with TestNatsBroker(subscribed(stored)) as broker:
        with pytest.raises(NotFound, match="not yet"):
            await broker.publish_events([event(RunSubmitted(project="p", run="early"))])
        with pytest.raises(Invalid, match="not wanted"):
            await broker.publish_events([event(StepFinished(project="p", run="refused", step="s"))])
        bad = ArtifactsDigested(project="p", run="r", outputs=[Artifact(name="out", digest="md5:0")])
        with pytest.raises(Invalid) as caught:
            await broker.publish_events([event(bad)])
    assert caught.value.field == "outputs[0].object"
    assert stored == []


async def test_a_request_gets_its_reply():
    step = StepFinished(project="p", run="r", step="s")
    async with TestNatsBroker(subscribed([])) as broker:
        reply = await broker.request(
            step, "periplus.example.v1.Ping", headers={"ce-type": step.DESCRIPTOR.full_name}
        )
    assert EntryRecorded.FromString(reply.body).producer_step == "s"


def test_the_document_names_each_event_that_is_consumed_or_published():
    content = json.loads(asyncapi.document(service()))
    assert content["asyncapi"] == "3.0.0"
    assert sorted(content["operations"]) == [
        "receive ArtifactsDigested", "receive Ping", "receive RunFinished", "receive RunSubmitted",
        "receive StepFinished", "send EntryRecorded",
    ]  # fmt: skip
    channel = content["channels"]["periplus.dispatcher.v1.StepFinished"]
    assert channel["address"] == "periplus.dispatcher.v1.StepFinished.{project}.{run}"
    assert sorted(channel["parameters"]) == ["project", "run"]
    assert content["operations"]["receive StepFinished"]["description"] == "One transaction for each batch."


def test_an_event_without_an_example_is_an_error():
    with pytest.raises(ValueError, match="StepFinished has no example"):
        asyncapi.document(service(EXAMPLES[1:]))


def test_a_document_that_is_not_what_the_code_says_names_the_command(tmp_path: Path):
    path = tmp_path / "example.json"
    with pytest.raises(AssertionError, match="make asyncapi"):
        asyncapi.assert_current(service(), path)
    path.write_text(asyncapi.document(service()))
    asyncapi.assert_current(service(), path)
    path.write_text(path.read_text().replace("One transaction", "Two transactions"))
    with pytest.raises(AssertionError, match="make asyncapi"):
        asyncapi.assert_current(service(), path)


def test_every_reference_of_the_document_has_its_target():
    content = json.loads(asyncapi.document(service()))
    references: list[str] = []

    def collect(node: Any) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                references.append(node["$ref"])
            for value in node.values():
                collect(value)
        elif isinstance(node, list):
            for value in node:
                collect(value)

    collect(content)
    assert len(references) > 10
    for reference in references:
        target = content
        for token in reference.removeprefix("#/").split("/"):
            target = target[token]


def test_every_example_is_a_valid_event_of_its_schema():
    content = json.loads(asyncapi.document(service()))
    kinds = {type(example).DESCRIPTOR.full_name: type(example) for example in EXAMPLES}
    assert len(content["components"]["messages"]) == len(EXAMPLES)
    for message in content["components"]["messages"].values():
        (example,) = message["examples"]
        validate(ParseDict(example["payload"], kinds[message["name"]]()))
        schema = content["components"]["schemas"][message["name"]]
        assert example["payload"].keys() <= schema["properties"].keys()


def test_python_m_writes_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = tmp_path / "periplus_example" / "asyncapi.py"
    module.parent.mkdir()
    (module.parent / "__init__.py").touch()
    module.write_text(
        "from periplus_common.bus import Broker, asyncapi\n"
        "def application():\n"
        "    return asyncapi.application(Broker('nats://localhost:4222'), title='e', description='d', examples=())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    asyncapi.main(tmp_path / "docs", ["example"])
    assert json.loads((tmp_path / "docs" / "example.json").read_text())["info"]["title"] == "e"
