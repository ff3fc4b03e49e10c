"""The handler of StepFinished events, without a server."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from faststream.nats import TestNatsBroker
from google.protobuf.timestamp_pb2 import Timestamp

from periplus.dispatcher.v1.events_pb2 import StepFinished
from periplus.types.v1 import step_pb2
from periplus_cache import events
from periplus_cache.asyncapi import application
from periplus_common import bus
from periplus_common.bus import Broker, asyncapi
from periplus_common.errors import Invalid, Unavailable


@pytest.fixture
def broker(cache) -> Broker:
    subscribed = Broker("nats://localhost:4222")
    events.subscribe(subscribed, cache)
    return subscribed


def finished(step: str = "main.a", **changes) -> StepFinished:
    values = {
        "project": "p",
        "run": "r",
        "step": step,
        "template": step_pb2.StepTemplate(name="a", document='{"does": "a"}'),
        "phase": step_pb2.STEP_PHASE_SUCCEEDED,
        "inputs": step_pb2.Inputs(parameters=[step_pb2.Parameter(name="step", value=step)]),
        "finished_at": Timestamp(seconds=1_700_000_000),
    }
    return StepFinished(**(values | changes))


async def publish(broker: Broker, *steps: StepFinished) -> None:
    await broker.publish_events(
        [
            bus.cloud_event(step, project="p", run="r", key=step.step, at=datetime(2026, 11, 22, tzinfo=UTC))
            for step in steps
        ]
    )


async def test_finished_steps_are_recorded(broker, memory):
    async with TestNatsBroker(broker):
        await publish(broker, finished("main.a"), finished("main.b"))
    assert {step for _, _, step in memory.attempts} == {"main.a", "main.b"}
    assert len(memory.entries) == 2


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"phase": step_pb2.STEP_PHASE_RUNNING}, "phase"),
        ({"finished_at": Timestamp(seconds=4_000_000_000)}, "finished_at"),
        ({"template": step_pb2.StepTemplate(name="a", document='{"x": NaN}')}, ""),
    ],
    ids=["can not be decoded", "is in the future", "has an invalid document"],
)
async def test_a_step_that_can_not_be_recorded_is_refused_and_the_next_one_is_recorded(
    broker, memory, changes, field
):
    async with TestNatsBroker(broker):
        with pytest.raises(Invalid) as caught:
            await publish(broker, finished("main.a", **changes))
        assert (caught.value.field, memory.attempts) == (field, {})
        await publish(broker, finished("main.b"))
    assert {step for _, _, step in memory.attempts} == {"main.b"}


async def test_while_the_object_store_is_down_the_broker_gets_the_error(broker, memory, objects):
    objects.is_down = True
    model = step_pb2.Artifact(name="m", object=step_pb2.ObjectRef(key="m"))
    async with TestNatsBroker(broker):
        with pytest.raises(Unavailable):
            await publish(broker, finished(outputs=step_pb2.Outputs(artifacts=[model])))
    assert memory.attempts == {}


def test_the_asyncapi_document_is_current():
    asyncapi.assert_current(application(), Path(__file__).parents[3] / "docs" / "asyncapi" / "cache.json")
