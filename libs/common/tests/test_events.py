"""An event's headers, subject and id, and how the codec reads and refuses bodies."""

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.msg import Msg
from opentelemetry.trace import SpanKind

from periplus.cache.v1.events_pb2 import ArtifactsDigested, EntryDiverged, EntryInvalidated, EntryRecorded
from periplus.types.v1.step_pb2 import Artifact
from periplus_common import bus, telemetry
from periplus_common.bus.events import event_types
from periplus_common.errors import Invalid

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def event(run: str = "r", key: str = "k", kind=EntryRecorded, **fields: object) -> bus.CloudEvent:
    fields["run" if "run" in kind.DESCRIPTOR.fields_by_name else "producer_run"] = run
    return bus.cloud_event(kind(project="p", **fields), project="p", run=run, key=key, at=AT)


def test_the_same_event_has_the_same_id_whatever_its_body():
    one, other = event(producer_step="a"), event(producer_step="b")
    assert one.headers["ce-id"] == other.headers["ce-id"] == other.headers["Nats-Msg-Id"]
    assert uuid.UUID(one.headers["ce-id"])


@given(st.tuples(st.sampled_from(["r", "s"]), st.text("ab/", max_size=3)), st.data())
def test_events_of_another_type_run_or_key_have_another_id(named: tuple[str, str], data):
    other = data.draw(st.tuples(st.sampled_from(["r", "s"]), st.text("ab/", max_size=3)))
    ids = [event(*name).headers["ce-id"] for name in (named, other)]
    assert (ids[0] == ids[1]) == (named == other)
    another_type = bus.cloud_event(EntryInvalidated(), project="p", run=named[0], key=named[1], at=AT)
    assert another_type.headers["ce-id"] != ids[0]


@pytest.mark.parametrize("run", ["a.b.c", "plain", ""])
def test_an_event_has_the_headers_of_cloudevents_and_a_subject_of_six_tokens(run: str):
    created = event(run)
    assert created.headers == {
        "ce-specversion": "1.0",
        "ce-id": created.headers["ce-id"],
        "ce-type": "periplus.cache.v1.EntryRecorded",
        "ce-source": "/periplus/cache",
        "ce-subject": f"p/{run}",
        "ce-time": "2026-01-02T03:04:05+00:00",
        "content-type": "application/protobuf",
        "Nats-Msg-Id": created.headers["ce-id"],
    }
    assert created.subject == f"periplus.cache.v1.EntryRecorded.p.{run.replace('.', '_') or '-'}"
    assert created.stream == "CACHE"
    assert EntryRecorded.FromString(created.body).producer_run == run


def test_an_event_carries_the_trace_that_it_was_created_in():
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with telemetry.span_from_headers("x", {"traceparent": trace}, SpanKind.SERVER):
        assert trace[:35] in event().headers["traceparent"]


@dataclass
class Delivered:
    """What FastStream gives a codec."""

    raw_message: list[Msg] = field(default_factory=list)

    def add(self, headers: dict[str, str] | None, body: bytes, subject: str = "s") -> None:
        self.raw_message.append(Msg(_client=None, subject=subject, data=body, headers=headers))


async def test_a_batch_is_decoded_by_type_and_each_unreadable_message_is_refused_by_itself():
    delivered = Delivered()
    for created in (event(producer_step="a"), event(kind=EntryDiverged)):
        delivered.add(created.headers, created.body, created.subject)
    delivered.add(event().headers, b"\xff\xff")
    delivered.add({"ce-type": "periplus.other.v1.Thing"}, b"")
    delivered.add(None, b"")
    batch = await bus.Codec(EntryRecorded, EntryDiverged).decode_batch(delivered)
    assert [type(received.data) for received in batch] == [EntryRecorded, EntryDiverged]
    assert batch[0].data.producer_step == "a"
    assert batch[0].headers["ce-subject"] == "p/r"
    assert {position: str(error) for position, error in batch.refusals.items()} == {
        2: "the body is not a periplus.cache.v1.EntryRecorded",
        3: "the header ce-type is 'periplus.other.v1.Thing', which this consumer does not read",
        4: "the header ce-type is '', which this consumer does not read",
    }


@pytest.mark.parametrize(
    ("subject", "changed"),
    [
        ("periplus.cache.v1.EntryDiverged.p.r", {}),
        ("periplus.dispatcher.v1.EntryRecorded.p.r", {}),
        ("periplus.cache.v1.EntryRecorded.other.r", {}),
        ("periplus.cache.v1.EntryRecorded.p.other", {}),
        (event().subject, {"ce-source": "/periplus/dispatcher"}),
        (event().subject, {"ce-subject": "other/r"}),
    ],
)
async def test_an_event_whose_headers_are_not_those_of_its_subject_is_refused(
    subject: str, changed: dict[str, str]
):
    delivered, created = Delivered(), event()
    delivered.add(created.headers | changed, created.body, subject)
    batch = await bus.Codec(EntryRecorded).decode_batch(delivered)
    assert len(batch) == 0
    assert "are not those of the subject" in str(batch.refusals[0])


async def test_a_body_that_breaks_a_rule_of_its_proto_is_refused_with_the_field():
    delivered = Delivered()
    bad = event(kind=ArtifactsDigested, outputs=[Artifact(name="out", digest="md5:0")])
    delivered.add(bad.headers, bad.body, bad.subject)
    batch = await bus.Codec(ArtifactsDigested).decode_batch(delivered)
    (error,) = batch.refusals.values()
    assert isinstance(error, Invalid)
    assert (error.field, error.reason) == ("outputs[0].object", "FIELD_INVALID")
    assert len(batch) == 0
    unchecked = await bus.Codec(ArtifactsDigested, check_rules=False).decode_batch(delivered)
    assert (len(unchecked), unchecked.refusals) == (1, {})


def test_the_types_of_a_handler_are_those_of_its_batch():
    async def one(batch: bus.Batch[EntryRecorded]) -> None: ...
    async def two(batch: bus.Batch[EntryRecorded | EntryInvalidated]) -> None: ...

    assert event_types(one) == (EntryRecorded,)
    assert event_types(two) == (EntryRecorded, EntryInvalidated)


def test_a_batch_for_a_direct_call_of_a_handler():
    batch = bus.Batch.of(EntryRecorded(producer_step="a"), EntryRecorded(producer_step="b"))
    batch.refuse(batch[1], Invalid("no"))
    assert [received.data.producer_step for received in batch] == ["a", "b"]
    assert list(batch.refusals) == [1]
