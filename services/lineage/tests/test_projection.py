"""Deltas merge to the same whatever the order, repetition and grouping of events."""

from datetime import UTC, datetime, timedelta

import pytest
from example_runs import all_events
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st
from run_events import timestamp

from periplus.cache.v1.events_pb2 import ArtifactsDigested
from periplus.dispatcher.v1.events_pb2 import (
    RunFinished,
    RunSubmitted,
    StepDelayed,
    StepFinished,
    StepNode,
    StepStarted,
)
from periplus.types.v1 import step_pb2 as types
from periplus_common.errors import Invalid
from periplus_lineage.projection import (
    Delay,
    Finish,
    ProjectionDelta,
    RunUpdate,
    StepUpdate,
    UsageUpdate,
    merge_runs,
    merge_steps,
    merge_usages,
)
from periplus_lineage.wire.events import EventProjector
from periplus_model.steps import StepPhase

PROJECTOR = EventProjector("s3.test:9000", "artifacts")
EVENTS = all_events()

times = st.integers(0, 86_400).map(lambda second: datetime.fromtimestamp(second, UTC))
bodies = st.binary(max_size=2)
durations = st.integers(0, 9).map(lambda seconds: timedelta(seconds=seconds))
finishes = st.builds(Finish, times, bodies, st.integers(3, 7), durations)
run_updates = st.builds(
    RunUpdate, times, st.sampled_from(["", "p", "q"]), st.booleans(), st.none() | times, st.none() | bodies,
    st.sampled_from(["", "s", "t"]), st.none() | finishes,
)  # fmt: skip
step_updates = st.builds(
    StepUpdate, st.sampled_from(["", "t", "u"]), st.none() | st.integers(0, 9), st.none() | bodies,
    st.none() | times, st.none() | finishes, st.none() | st.builds(Delay, times, st.sampled_from(["", "a", "b"])),
)  # fmt: skip
usage_updates = st.builds(
    UsageUpdate, st.just("s3://b/k"), st.none() | bodies, st.integers(0, 9), st.booleans()
)


def delta_of(*events: Message) -> ProjectionDelta:
    delta = ProjectionDelta()
    for event in events:
        PROJECTOR.add(event, delta)
    return delta


@pytest.mark.parametrize(
    ("merge", "updates"),
    [(merge_runs, run_updates), (merge_steps, step_updates), (merge_usages, usage_updates)],
)
def test_merges_are_commutative_associative_and_idempotent(merge, updates) -> None:
    @given(updates, updates, updates)
    def laws(a, b, c) -> None:
        # `submitted_at` replaces `created_at`, also in an update on its own.
        a, b, c = merge(a, a), merge(b, b), merge(c, c)
        assert merge(a, b) == merge(b, a)
        assert merge(merge(a, b), c) == merge(a, merge(b, c))
        assert merge(merge(a, b), b) == merge(a, b)

    laws()


@settings(max_examples=200)
@given(st.randoms(use_true_random=False), st.lists(st.sampled_from(EVENTS)), st.integers(1, 10))
def test_events_in_any_order_repeated_and_in_any_batches_give_the_same_delta(
    random, repeated, batch_size
) -> None:
    events = [*EVENTS, *repeated]
    random.shuffle(events)
    delta = ProjectionDelta()
    for start in range(0, len(events), batch_size):
        delta.merge(delta_of(*events[start : start + batch_size]))
    assert delta == delta_of(*EVENTS)


def test_events_are_left_as_they_were() -> None:
    """A batch whose transaction failed is projected again, from the same messages."""
    before = [event.SerializeToString() for event in EVENTS]
    delta_of(*EVENTS)
    assert [event.SerializeToString() for event in EVENTS] == before


def test_a_late_start_does_not_undo_the_finish_of_a_step() -> None:
    key = {"project": "p", "run": "r", "step": "s"}
    finished = StepFinished(**key, phase=types.STEP_PHASE_SUCCEEDED, finished_at=timestamp(2))
    started = StepStarted(**key, template="t", started_at=timestamp(1))
    update = delta_of(finished, started).steps["p", "r", "s"]
    assert update.finish is not None
    assert update.finish.phase == StepPhase.SUCCEEDED
    assert update.started_at == timestamp(1).ToDatetime(UTC)


def test_the_later_of_two_finishes_wins() -> None:
    key = {"project": "p", "run": "r", "step": "s"}
    failed = StepFinished(**key, phase=types.STEP_PHASE_FAILED, finished_at=timestamp(1))
    succeeded = StepFinished(**key, phase=types.STEP_PHASE_SUCCEEDED, finished_at=timestamp(2))
    assert delta_of(succeeded, failed).steps["p", "r", "s"].finish.phase == StepPhase.SUCCEEDED


@pytest.mark.parametrize(
    "event",
    [
        StepStarted(project="", run="r", step="s"),
        StepStarted(project="p", run="", step="s"),
        StepStarted(project="p", run="r", step=""),
        StepStarted(project="p", run="r", step="a\0b"),
        StepStarted(project="p", run="r", step="s" * 1025),
        StepStarted(project="p", run="r", step="é" * 513),
        StepDelayed(project="p", run="r", step="s", reason="a\0b"),
        StepDelayed(project="p", run="r", step="s", reason="x" * 4001),
        StepFinished(project="p", run="r", step="s", phase=types.STEP_PHASE_RUNNING),
        StepFinished(project="p", run="r", step="s", phase=99),
        RunFinished(project="p", run="r", phase=types.RUN_PHASE_RUNNING),
        RunFinished(
            project="p",
            run="r",
            phase=types.RUN_PHASE_SUCCEEDED,
            outputs=types.Outputs(artifacts=[types.Artifact(name="a", object=types.ObjectRef(key="a\0b"))]),
        ),
        RunSubmitted(project="p", run="r", steps=[StepNode(path="")]),
        StepStarted(project="p", run="r", step="s", started_at={"seconds": 10**15}),
        ArtifactsDigested(
            project="p", run="r", step="s", outputs=[types.Artifact(name="a", digest="md5:00")]
        ),
        ArtifactsDigested(
            project="p", run="r", step="s", outputs=[types.Artifact(name="a", digest="sha256:zz")]
        ),
    ],
)
def test_an_event_that_can_not_be_stored_is_invalid_and_adds_nothing(event: Message) -> None:
    delta = ProjectionDelta()
    with pytest.raises(Invalid):
        PROJECTOR.add(event, delta)
    assert delta == ProjectionDelta()


@settings(max_examples=300)
@given(
    st.sampled_from(EVENTS).map(lambda event: event.SerializeToString()),
    st.integers(0, 200),
    st.binary(max_size=8),
    st.sampled_from(PROJECTOR.event_types),
)
def test_any_message_is_added_or_invalid_and_then_adds_nothing(body, at, inserted, event_type) -> None:
    """The bytes of one event with some overwritten, read as an event of any type."""
    try:
        event = event_type.FromString(body[:at] + inserted + body[at + len(inserted) :])
    except DecodeError:
        return
    delta = ProjectionDelta()
    try:
        PROJECTOR.add(event, delta)
    except Invalid:
        assert delta == ProjectionDelta()
