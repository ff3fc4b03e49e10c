"""The codec: extreme and invalid values of messages, and page tokens."""

import base64
from datetime import UTC, datetime

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from periplus.cache.v1 import cache_pb2 as pb
from periplus.dispatcher.v1.events_pb2 import StepFinished
from periplus.types.v1 import step_pb2 as types
from periplus_cache.domain import EntryPage, EntryPosition
from periplus_cache.wire.entries import decode_page_token, encode_page
from periplus_cache.wire.resolving import decode_request
from periplus_cache.wire.steps import decode_finished
from periplus_common.errors import Invalid
from periplus_common.rpc import validate
from periplus_model.codec import decode_template
from periplus_model.steps import Verdict


def finished(**more) -> StepFinished:
    defaults = {"phase": types.STEP_PHASE_SUCCEEDED, "finished_at": Timestamp(seconds=1_700_000_000)}
    return StepFinished(**(defaults | more))


@pytest.mark.parametrize("seconds", [2**63 - 1, -(2**63), 315_576_000_000])
def test_any_time_to_live_can_be_added_to_a_date(seconds: int):
    policy = types.CachePolicy(ttl=Duration(seconds=seconds, nanos=2**31 - 1))
    step = decode_finished(finished(template=types.StepTemplate(name="t", document="{}", policy=policy)), {})
    assert datetime(2026, 1, 1, tzinfo=UTC) + step.policy.ttl


def test_a_time_to_live_has_microseconds():
    policy = types.CachePolicy(ttl=Duration(seconds=90, nanos=1_500_000))
    assert decode_template(types.StepTemplate(policy=policy)).policy.ttl.total_seconds() == 90.0015


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"finished_at": None}, "finished_at"),
        ({"finished_at": Timestamp(seconds=2**60)}, "finished_at"),
        ({"finished_at": Timestamp(seconds=-(2**60))}, "finished_at"),
        ({"started_at": Timestamp(seconds=2**60)}, "started_at"),
        ({"started_at": Timestamp(seconds=-(2**60))}, "started_at"),
        ({"phase": types.STEP_PHASE_RUNNING}, "phase"),
        ({"phase": 99}, "phase"),
        ({"fingerprint": "sha256:1"}, "fingerprint"),
        ({"fingerprint": "sha256:" + "\u0661" * 64}, "fingerprint"),
        ({"run": "a\0"}, "run"),
        ({"step": "a\0"}, "step"),
        ({"project": "a\0"}, "project"),
        ({"producer_run": "\0"}, "producer_run"),
        ({"template": types.StepTemplate(name="\0")}, "name"),
        (
            {"inputs": types.Inputs(artifacts=[types.Artifact(object=types.ObjectRef(key="\0"))])},
            "object.key",
        ),
    ],
    ids=str,
)
def test_values_that_can_not_be_stored_are_refused_with_their_field(more, field: str):
    with pytest.raises(Invalid) as caught:
        decode_finished(finished(**more), {})
    assert caught.value.field == field


def test_a_verdict_of_a_later_version_is_unspecified():
    assert decode_finished(finished(verdict=77), {}).verdict is Verdict.UNSPECIFIED


def test_a_cache_mode_of_a_later_version_is_refused_as_it_may_forbid_what_readwrite_allows():
    template = types.StepTemplate(name="t", document="{}", policy=types.CachePolicy(mode=77))
    with pytest.raises(Invalid) as caught:
        validate(finished(template=template))
    assert caught.value.field == "template.policy.mode"
    with pytest.raises(Invalid) as caught:
        decode_finished(finished(template=template), {})
    assert caught.value.field == "policy.mode"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (pb.StepQuery(parameters=[pb.ParameterSource(name="x"), pb.ParameterSource(name="x")]), "parameters"),
        (pb.StepQuery(artifacts=[pb.ArtifactSource(name="x"), pb.ArtifactSource(name="x")]), "artifacts"),
    ],
    ids=["parameters", "artifacts"],
)
async def test_an_input_that_is_given_twice_is_refused_with_its_field(query, field):
    with pytest.raises(Invalid) as caught:
        await decode_request(pb.ResolveStepsRequest(steps=[pb.StepQuery(), query]))
    assert (caught.value.field, caught.value.reason) == (f"steps[1].{field}[1].name", "INPUT_TWICE")


LIST = pb.ListEntriesRequest(project="p", template="t", producer_run="r", page_size=2)
POSITION = EntryPosition(datetime(2026, 11, 22, 12, 30, 0, 123456, tzinfo=UTC), "sha256:" + "0f" * 32)


def page_token() -> str:
    return encode_page(LIST, EntryPage((), POSITION)).next_page_token


def with_changes(**changes) -> pb.ListEntriesRequest:
    changed = pb.ListEntriesRequest()
    changed.CopyFrom(LIST)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed


def test_a_page_token_is_a_position_in_its_list_for_any_page_size():
    assert decode_page_token(with_changes(page_token=page_token(), page_size=7)) == POSITION
    assert decode_page_token(LIST) is None
    assert encode_page(LIST, EntryPage((), None)).next_page_token == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"project": "q"},
        {"template": "u"},
        {"template": ""},
        {"producer_run": "s"},
        {"show_invalidated": True},
        {"page_token": "x"},
        {"page_token": "é"},
        {"page_token": base64.urlsafe_b64encode(b"\0" * 48).decode()},
        {"page_token": base64.urlsafe_b64encode(b"\xff" * 48).decode()},
        {"page_token": base64.urlsafe_b64encode(b"\0" * 47).decode()},
    ],
    ids=str,
)
def test_a_page_token_of_another_list_is_refused(changes):
    with pytest.raises(Invalid) as caught:
        decode_page_token(with_changes(**({"page_token": page_token()} | changes)))
    assert (caught.value.field, caught.value.reason) == ("page_token", "PAGE_TOKEN_INVALID")
