"""The handlers of events, without a server."""

from pathlib import Path

import pytest
from example_runs import all_events
from faststream.nats import TestNatsBroker
from google.protobuf.message import Message
from run_events import RunEvents, cloud_event, timestamp
from test_projection import PROJECTOR, delta_of

from periplus.dispatcher.v1.events_pb2 import RunFinished, StepStarted
from periplus.types.v1 import step_pb2 as types
from periplus_common.bus import Broker, asyncapi
from periplus_common.errors import Invalid, Unavailable
from periplus_lineage import events
from periplus_lineage.asyncapi import application
from periplus_lineage.projection import ProjectionDelta


class FakeStore:
    """Merges deltas in memory."""

    def __init__(self) -> None:
        self.delta = ProjectionDelta()
        self.error: Exception | None = None

    async def apply(self, delta: ProjectionDelta) -> None:
        if self.error:
            raise self.error
        self.delta.merge(delta)


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def broker(store: FakeStore) -> Broker:
    subscribed = Broker("nats://localhost:4222")
    events.subscribe(subscribed, PROJECTOR, store.apply)
    return subscribed


async def publish(broker: Broker, *published: Message) -> None:
    await broker.publish_events([cloud_event(event, str(n)) for n, event in enumerate(published)])


async def test_events_of_every_stream_are_projected(broker: Broker, store: FakeStore) -> None:
    async with TestNatsBroker(broker):
        await publish(broker, *all_events())
    assert store.delta == delta_of(*all_events())


async def test_an_event_that_can_not_be_stored_is_refused_and_the_next_one_is_stored(
    broker: Broker, store: FakeStore
) -> None:
    without_phase = RunFinished(project="default", run="r", finished_at=timestamp(1))
    async with TestNatsBroker(broker):
        with pytest.raises(Invalid, match="phase"):
            await publish(broker, without_phase)
        assert store.delta == ProjectionDelta()
        await publish(broker, *RunEvents("r").chain("a").events)
    assert set(store.delta.steps) == {("default", "r", "a")}


async def test_an_event_that_breaks_a_rule_of_its_proto_is_stored(broker: Broker, store: FakeStore) -> None:
    oversized = types.Outputs(result="x" * 300_000)  # the rule allows 262,144 bytes
    finished = RunFinished(
        project="default",
        run="r",
        phase=types.RUN_PHASE_SUCCEEDED,
        outputs=oversized,
        finished_at=timestamp(1),
    )
    async with TestNatsBroker(broker):
        await publish(broker, finished)
    assert set(store.delta.runs) == {("default", "r")}


async def test_an_error_of_the_store_reaches_the_broker(broker: Broker, store: FakeStore) -> None:
    store.error = Unavailable("Postgres can not be reached")
    async with TestNatsBroker(broker):
        with pytest.raises(Unavailable):
            await publish(broker, StepStarted(project="default", run="r", step="s", started_at=timestamp(1)))


def test_the_asyncapi_document_is_current() -> None:
    asyncapi.assert_current(application(), Path(__file__).parents[3] / "docs" / "asyncapi" / "lineage.json")
