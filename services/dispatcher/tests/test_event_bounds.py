"""Events of runs and steps with large values: they are valid, NATS takes them, and they have the digests of what they omit."""

import hashlib
from datetime import UTC, datetime

import pytest

from periplus.dispatcher.v1 import events_pb2
from periplus_common.bus import CloudEvent
from periplus_common.validation import validate
from periplus_dispatcher.domain import ContainerTemplate, Run, RunState, StepStatus
from periplus_dispatcher.wire import events
from periplus_model.steps import Inputs, Outputs, RunPhase, StepPhase, StepTemplate

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
NATS_BYTES = 1 << 20


def run(**more: object) -> Run:
    state = RunState({"t": ContainerTemplate(StepTemplate("t", '{"a":1}'))})
    return Run(
        "p", "r-1", "i", "d", "r", RunPhase.SUCCEEDED, "", state, "", None, NOW, finished_at=NOW, **more
    )  # type: ignore[arg-type]


def finished(inputs: dict[str, str], outputs: dict[str, str], result: str | None = None) -> CloudEvent:
    step = StepStatus(
        "s",
        StepPhase.SUCCEEDED,
        "t",
        inputs=Inputs(inputs),
        outputs=Outputs(outputs, result=result),
        started_at=NOW,
        finished_at=NOW,
    )
    return events.step_event(run(), step)


def sent(event: CloudEvent) -> int:
    return len(event.body) + sum(len(n) + len(v) + 4 for n, v in event.headers.items()) + 200


@pytest.mark.parametrize(
    ("inputs", "outputs", "result", "omitted"),
    [
        ({"a": "x" * 262_144}, {"b": "y" * 262_144}, "z" * 262_144, []),
        ({"a": "x" * 262_145}, {"b": "é" * 131_073}, "é" * 131_073, ["a", "b", ""]),
        ({f"a{n}": "x" * 200_000 for n in range(6)}, {"b": "1"}, None, ["a0", "a1"]),
        ({"a": "1"}, {f"b{n}": "x" * 200_000 for n in range(6)}, None, ["b0", "b1"]),
        ({"a": "x" * 4_000_000}, {}, None, ["a"]),
    ],
)
def test_values_that_are_too_large_are_omitted_with_their_digests(
    inputs: dict[str, str], outputs: dict[str, str], result: str | None, omitted: list[str]
) -> None:
    event = finished(inputs, outputs, result)
    message = events_pb2.StepFinished.FromString(event.body)
    validate(message)
    assert sent(event) <= NATS_BYTES
    found = {each.name: each for each in (*message.inputs.omitted, *message.outputs.omitted)}
    assert sorted(found) == sorted(omitted)
    for name, value in {**inputs, **outputs, "": result or ""}.items():
        if name in found:
            content = value.encode()
            expected = ("sha256:" + hashlib.sha256(content).hexdigest(), len(content))
            assert (found[name].digest, found[name].size_bytes) == expected
    kept = {p.name: p.value for p in (*message.inputs.parameters, *message.outputs.parameters)}
    assert kept == {n: v for n, v in {**inputs, **outputs}.items() if n not in found}
    assert not message.template.uncacheable_reason


def test_a_step_with_very_many_values_has_an_event_without_them_and_says_so() -> None:
    event = finished({f"a{n}": "x" * 2000 for n in range(900)}, {"b": "1"})
    message = events_pb2.StepFinished.FromString(event.body)
    validate(message)
    assert sent(event) <= NATS_BYTES
    assert message.template.uncacheable_reason == "its inputs and outputs are too large for an event"


def test_large_parameters_and_outputs_of_a_run_are_omitted() -> None:
    submitted = events_pb2.RunSubmitted.FromString(
        events.run_submitted(run(parameters={"a": "x" * 300_000, "b": "1"}), []).body
    )
    over = events_pb2.RunFinished.FromString(
        events.run_finished(run(outputs=Outputs({"a": "x" * 300_000, "b": "1"})), 1, 0, NOW - NOW).body
    )
    for message, values, omitted in (
        (submitted, submitted.parameters, submitted.omitted_parameters),
        (over, over.outputs.parameters, over.outputs.omitted),
    ):
        validate(message)
        assert [p.name for p in values] == ["b"]
        assert [(each.name, each.size_bytes) for each in omitted] == [("a", 300_000)]
