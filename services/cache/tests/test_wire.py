"""Messages that no honest client sends: they become something that can be kept, or are refused."""

from datetime import UTC, datetime

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from periplus.dispatcher.v1.events_pb2 import StepFinished
from periplus.types.v1 import step_pb2 as types
from periplus_cache import wire
from periplus_common.errors import Invalid


def finished(**more) -> StepFinished:
    usual = {"phase": types.STEP_PHASE_SUCCEEDED, "finished_at": Timestamp(seconds=1_700_000_000)}
    return StepFinished(**(usual | more))


@pytest.mark.parametrize("seconds", [2**63 - 1, -(2**63), 315_576_000_000])
def test_any_time_to_live_can_be_added_to_any_date_of_ours(seconds: int):
    policy = types.CachePolicy(ttl=Duration(seconds=seconds, nanos=2**31 - 1))
    step = wire.finished(finished(template=types.StepTemplate(name="t", document="{}", policy=policy)), {})
    assert datetime(2026, 1, 1, tzinfo=UTC) + step.policy.ttl


def test_a_time_to_live_keeps_its_microseconds():
    policy = types.CachePolicy(ttl=Duration(seconds=90, nanos=1_500_000))
    assert wire.template(types.StepTemplate(policy=policy)).policy.ttl.total_seconds() == 90.0015


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"finished_at": None}, "finished_at"),
        ({"finished_at": Timestamp(seconds=2**60)}, "finished_at"),
        ({"finished_at": Timestamp(seconds=-(2**60))}, "finished_at"),
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
def test_what_can_not_be_kept_is_refused_with_its_field(more, field: str):
    with pytest.raises(Invalid) as caught:
        wire.finished(finished(**more), {})
    assert caught.value.field == field


def test_modes_and_verdicts_of_a_later_version_are_taken_for_the_usual():
    policy = types.CachePolicy(mode=77)
    step = wire.finished(finished(verdict=77, template=types.StepTemplate(name="t", policy=policy)), {})
    assert (step.policy.mode.value, step.verdict.value) == ("readwrite", "none")
