"""Rows of the store as runs and steps: the bodies of events, read again."""

from datetime import datetime, timedelta
from typing import Any, Protocol

from periplus.dispatcher.v1.events_pb2 import RunFinished, RunSubmitted, StepFinished, StepNode
from periplus.snapshotter.v1.events_pb2 import SnapshotTaken
from periplus_lineage.domain.run import Inputs, Outputs, Run, RunPhase, Snapshot, Step, StepPhase
from periplus_lineage.wire import noun


class Row(Protocol):
    """A row of the store."""

    def __getitem__(self, column: str, /) -> Any: ...


def step(row: Row, digests: noun.Digests) -> Step:
    """A step from its row: what was planned, when it started, how it ended."""
    planned = StepNode.FromString(row["planned"] or b"")
    ended = StepFinished.FromString(row["finished"] or b"")
    started: datetime | None = row["started_at"]
    return Step(
        run=row["run"],
        path=row["path"],
        template=row["template"],
        phase=_phase(row["phase"], started),
        message=ended.message,
        inputs=noun.inputs(ended.inputs, digests) if row["finished"] else Inputs(),
        outputs=noun.outputs(ended.outputs, digests) if row["finished"] else Outputs(),
        started_at=started,
        finished_at=row["finished_at"],
        verdict=ended.verdict or planned.verdict,
        reason=planned.reason,
        fingerprint=ended.fingerprint,
        producer_run=ended.producer_run,
        producer_step=ended.producer_step,
        saved=timedelta(microseconds=row["saved"]) if ended.HasField("saved") else None,
        attempts=ended.attempts,
        depends_on=tuple(planned.depends_on),
        ordinal=row["ordinal"],
        document=ended.template.document,
        ignored=frozenset(ended.template.policy.ignore_inputs),
    )


def _phase(ended: int | None, started: datetime | None) -> StepPhase:
    if ended is not None:
        return StepPhase(ended)
    return StepPhase.RUNNING if started else StepPhase.PENDING


def run(row: Row) -> Run:
    """A run from its row, which holds the counts of its steps, too."""
    submitted = RunSubmitted.FromString(row["submitted"] or b"")
    ended = RunFinished.FromString(row["finished"] or b"")
    final = row["finished"] is not None
    return Run(
        project=row["project"],
        id=row["id"],
        at=row["at"],
        pipeline=row["pipeline"],
        phase=RunPhase(row["phase"]),
        message=ended.message,
        snapshot=submitted.snapshot,
        parameters=noun.parameters(submitted.parameters),
        outputs=noun.outputs(ended.outputs, {}) if ended.HasField("outputs") else None,
        submitted_at=row["submitted_at"],
        finished_at=row["finished_at"],
        step_count=row["step_count"],
        # The end of a run tells of all its steps, those whose own events are late included.
        cached_steps=max(ended.cached_steps, row["cached_steps"]) if final else row["cached_steps"],
        saved=timedelta(microseconds=max(noun.micros(ended), int(row["saved"]))),
        announced=row["submitted"] is not None,
    )


def snapshot(body: bytes) -> Snapshot:
    """What was told of a snapshot."""
    told = SnapshotTaken.FromString(body)
    return Snapshot(told.environment, told.commit, told.dirty)
