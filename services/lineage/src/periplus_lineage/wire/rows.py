"""Rows of `run`, `step` and `snapshot` as runs, steps and snapshots. Their columns contain encoded events."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol

from periplus.dispatcher.v1.events_pb2 import RunFinished, RunSubmitted, StepFinished, StepNode
from periplus.snapshotter.v1.events_pb2 import SnapshotTaken
from periplus_lineage.runs.model import ObservedWorkflow, Run, SnapshotSummary, Step
from periplus_lineage.wire.events import decode_saved
from periplus_model import codec
from periplus_model.steps import Artifact, RunPhase, StepPhase, Verdict


class ArtifactKey(NamedTuple):
    """An artifact of a step."""

    is_output: bool
    name: str
    object_key: str


class ReadContent(NamedTuple):
    """The content of an artifact, as ArtifactsDigested brings it."""

    digest: str
    size_bytes: int


class Row(Protocol):
    """A row of a table."""

    def __getitem__(self, column: str, /) -> Any: ...


def step(row: Row, contents: Mapping[ArtifactKey, ReadContent]) -> Step:
    """A step. `contents` completes the artifacts of its StepFinished, which has no digests if the step ran."""
    node = StepNode.FromString(row["plan_node"] or b"")
    finished = StepFinished.FromString(row["finished_event"] or b"")
    started_at: datetime | None = row["started_at"]
    inputs, outputs = codec.decode_inputs(finished.inputs), codec.decode_outputs(finished.outputs)
    return Step(
        run=row["run"],
        path=row["path"],
        template=row["template"],
        phase=_phase(row["final_phase"], started_at),
        message=(row["delay_reason"] or "") if row["final_phase"] is None else finished.message,
        inputs=replace(
            inputs, artifacts=_with_contents(inputs.artifacts, contents, is_output=False), discovered={}
        ),
        outputs=replace(outputs, artifacts=_with_contents(outputs.artifacts, contents, is_output=True)),
        started_at=started_at,
        finished_at=row["finished_at"],
        verdict=_verdict(finished.verdict or node.verdict),
        reason=node.reason,
        fingerprint=finished.fingerprint,
        producer_run=finished.producer_run,
        producer_step=finished.producer_step,
        saved=row["saved"] if finished.HasField("saved") else None,
        attempts=finished.attempts,
        depends_on=tuple(node.depends_on),
        plan_index=row["plan_index"],
        template_digest=finished.template.document,
        host=finished.host,
        uncacheable_reason=finished.template.uncacheable_reason,
        ignored_inputs=frozenset(finished.template.policy.ignore_inputs),
    )


def _with_contents(
    artifacts: tuple[Artifact, ...], contents: Mapping[ArtifactKey, ReadContent], *, is_output: bool
) -> tuple[Artifact, ...]:
    completed = []
    for artifact in artifacts:
        content = contents.get(ArtifactKey(is_output, artifact.name, artifact.object.key))
        completed.append(
            replace(
                artifact,
                digest=artifact.digest or content.digest,
                size_bytes=artifact.size_bytes or content.size_bytes,
            )
            if content
            else artifact
        )
    return tuple(completed)


def _phase(final_phase: int | None, started_at: datetime | None) -> StepPhase:
    if final_phase is not None:
        return StepPhase(final_phase)
    return StepPhase.RUNNING if started_at else StepPhase.PENDING


def _verdict(number: int) -> Verdict:
    """A verdict that this version does not know is as good as none: it must not make the run unreadable."""
    try:
        return Verdict(number)
    except ValueError:
        return Verdict.UNSPECIFIED


def run(row: Row) -> Run:
    """A run; the row has the counts of its steps, too."""
    submitted = RunSubmitted.FromString(row["submitted_event"] or b"")
    finished = RunFinished.FromString(row["finished_event"] or b"")
    saved: timedelta = row["saved"]
    return Run(
        project=row["project"],
        id=row["id"],
        created_at=row["created_at"],
        pipeline=row["pipeline"],
        phase=RunPhase(row["phase"]),
        message=finished.message,
        snapshot=submitted.snapshot,
        parameters=codec.decode_parameters(submitted.parameters),
        outputs=codec.decode_outputs(finished.outputs) if finished.HasField("outputs") else None,
        submitted_at=row["submitted_at"],
        finished_at=row["finished_at"],
        step_count=row["step_count"],
        # RunFinished counts all steps, also those whose own events are late.
        cached_steps=max(finished.cached_steps, row["cached_steps"]),
        saved=max(decode_saved(finished), saved),
        is_complete=row["submitted_event"] is not None
        and row["finished_event"] is not None
        and row["finished_steps"] >= finished.finished_steps,
        observed=_observed(submitted) if submitted.HasField("observed") else None,
        reproduces=submitted.reproduces,
        reproduced_step=submitted.reproduced_step,
        rolled_back_to=submitted.rolled_back_to,
    )


def _observed(event: RunSubmitted) -> ObservedWorkflow:
    found = event.observed
    return ObservedWorkflow(found.namespace, found.name, found.uid, found.display_name)


def snapshot(event: bytes) -> SnapshotSummary:
    """A snapshot from its SnapshotTaken."""
    taken = SnapshotTaken.FromString(event)
    return SnapshotSummary(taken.environment, taken.commit, taken.dirty)
