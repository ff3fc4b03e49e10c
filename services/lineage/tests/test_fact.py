"""Facts join to the same whatever their order, repetition and grouping."""

from datetime import UTC, datetime

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from scenario import everything
from story import stamp

from periplus.cache.v1.events_pb2 import ArtifactsDigested
from periplus.dispatcher.v1.events_pb2 import RunFinished, RunSubmitted, StepFinished, StepNode, StepStarted
from periplus.types.v1 import step_pb2 as types
from periplus_common.errors import Invalid
from periplus_lineage.domain.fact import (
    End,
    Facts,
    FlowFact,
    RunFact,
    StepFact,
    join_flows,
    join_runs,
    join_steps,
)
from periplus_lineage.domain.run import RunPhase, StepPhase
from periplus_lineage.wire.event import Reader

READER = Reader("s3.test:9000", "artifacts")
EVENTS = everything()

times = st.integers(0, 86_400).map(lambda second: datetime.fromtimestamp(second, UTC))
bodies = st.binary(max_size=2)
ends = st.builds(End, times, bodies, st.integers(3, 7), st.integers(0, 9))
run_facts = st.builds(
    RunFact, times, st.sampled_from(["", "p", "q"]), st.booleans(), st.none() | times, st.none() | bodies,
    st.none() | ends,
)  # fmt: skip
step_facts = st.builds(
    StepFact, st.sampled_from(["", "t", "u"]), st.none() | st.integers(0, 9), st.none() | bodies,
    st.none() | times, st.none() | ends,
)  # fmt: skip
flow_facts = st.builds(FlowFact, st.just("s3://b/k"), st.none() | bodies, st.integers(0, 9), st.booleans())


def read(*events: Message) -> Facts:
    facts = Facts()
    for event in events:
        READER.read(event.DESCRIPTOR.full_name, event.SerializeToString(), facts)
    return facts


@pytest.mark.parametrize(
    ("join", "facts"), [(join_runs, run_facts), (join_steps, step_facts), (join_flows, flow_facts)]
)
def test_joins_are_commutative_associative_and_idempotent(join, facts) -> None:
    @given(facts, facts, facts)
    def laws(a, b, c) -> None:
        # What a run was accepted at takes the place of what was seen of it; a fact says it of itself, too.
        a, b, c = join(a, a), join(b, b), join(c, c)
        assert join(a, b) == join(b, a)
        assert join(join(a, b), c) == join(a, join(b, c))
        assert join(join(a, b), b) == join(a, b)

    laws()


@settings(max_examples=200)
@given(st.randoms(use_true_random=False), st.lists(st.sampled_from(EVENTS)), st.integers(1, 10))
def test_events_in_any_order_repeated_and_in_any_batches_give_the_same_facts(random, again, batch) -> None:
    events = [*EVENTS, *again]
    random.shuffle(events)
    facts = Facts()
    for start in range(0, len(events), batch):
        facts.join(read(*events[start : start + batch]))
    assert facts == read(*EVENTS)


def test_a_late_start_does_not_turn_a_finished_step_back() -> None:
    who = {"project": "p", "run": "r", "step": "s"}
    end = StepFinished(**who, phase=types.STEP_PHASE_SUCCEEDED, finished_at=stamp(2))
    begin = StepStarted(**who, template="t", started_at=stamp(1))
    fact = read(end, begin).steps["p", "r", "s"]
    assert fact.end is not None
    assert fact.end.phase == StepPhase.SUCCEEDED
    assert fact.started_at == stamp(1).ToDatetime(UTC)


def test_the_later_of_two_ends_holds() -> None:
    who = {"project": "p", "run": "r", "step": "s"}
    failed = StepFinished(**who, phase=types.STEP_PHASE_FAILED, finished_at=stamp(1))
    mended = StepFinished(**who, phase=types.STEP_PHASE_SUCCEEDED, finished_at=stamp(2))
    assert read(mended, failed).steps["p", "r", "s"].end[2] == StepPhase.SUCCEEDED


@pytest.mark.parametrize(
    "event",
    [
        StepStarted(project="", run="r", step="s"),
        StepStarted(project="p", run="", step="s"),
        StepStarted(project="p", run="r", step=""),
        StepStarted(project="p", run="r", step="a\0b"),
        StepStarted(project="p", run="r", step="s" * 1025),
        StepStarted(project="p", run="r", step="é" * 513),
        StepFinished(project="p", run="r", step="s", phase=types.STEP_PHASE_RUNNING),
        StepFinished(project="p", run="r", step="s", phase=99),
        RunFinished(project="p", run="r", phase=types.RUN_PHASE_RUNNING),
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
def test_an_event_that_can_not_be_kept_is_invalid_and_leaves_nothing(event: Message) -> None:
    facts = Facts()
    with pytest.raises(Invalid):
        READER.read(event.DESCRIPTOR.full_name, event.SerializeToString(), facts)
    assert facts == Facts()


@settings(max_examples=300)
@given(st.binary(max_size=200), st.sampled_from(sorted(READER._kinds)))
def test_bytes_that_are_no_event_are_invalid_and_never_anything_else(body: bytes, kind: str) -> None:
    facts = Facts()
    try:
        READER.read(kind, body, facts)
    except Invalid:
        assert facts == Facts()


def test_an_event_of_another_kind_tells_nothing() -> None:
    facts = Facts()
    READER.read("periplus.dispatcher.v2.Unheard", b"\xff", facts)
    assert facts == Facts()


def test_the_numbers_of_the_phases_are_those_of_the_contract() -> None:
    for ours, theirs in ((StepPhase, types.StepPhase), (RunPhase, types.RunPhase)):
        names = {value: name.split("_PHASE_")[1] for name, value in theirs.items()}
        names[0] = "UNKNOWN"
        assert {phase.value: phase.name for phase in ours} == names
