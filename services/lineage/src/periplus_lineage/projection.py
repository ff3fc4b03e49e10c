"""What a batch of events changes in lineage's tables, and how two changes of one row merge.

Each merge takes the greater or the lesser of each column, so it is commutative, associative and idempotent: the rows do
not depend on the order, the grouping or the repetition of events. `store.projection` merges a delta into the tables by
the same rules, in SQL.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar

RunKey = tuple[str, str]
"""Project and run."""
StepKey = tuple[str, str, str]
"""Project, run and path."""
UsageKey = tuple[str, str, str, bool, str, bytes]
"""Project, run, path of the step, whether it is an output, name, and hash of the object."""
DependencyKey = tuple[str, str, str, str, str, bool]
"""Project, run and path of the step, run and path of the upstream step, and whether it was served from the cache."""


class Finish(NamedTuple):
    """How a step or a run finished. Of two, the later one wins, then the one with the greater event."""

    at: datetime
    event: bytes
    phase: int
    saved: timedelta
    template_digest: bytes | None = None
    """Of a step that ran."""


class Delay(NamedTuple):
    """What delayed a step; without a reason, nothing any more. Of two, the later one wins, then the greater reason."""

    at: datetime
    reason: str


class RunUpdate(NamedTuple):
    """Columns of `run`. `created_at` is `submitted_at`, or the time of the run's earliest event until that is known."""

    created_at: datetime
    pipeline: str = ""
    started: bool = False
    submitted_at: datetime | None = None
    submitted_event: bytes | None = None
    snapshot: str = ""
    finish: Finish | None = None


class StepUpdate(NamedTuple):
    """Columns of `step`."""

    template: str = ""
    plan_index: int | None = None
    plan_node: bytes | None = None
    started_at: datetime | None = None
    finish: Finish | None = None
    delay: Delay | None = None


class UsageUpdate(NamedTuple):
    """Columns of `artifact_usage`."""

    object_uri: str
    digest: bytes | None = None
    size_bytes: int = 0
    cached: bool = False


def merge_runs(a: RunUpdate, b: RunUpdate) -> RunUpdate:
    submitted_at = _least(a.submitted_at, b.submitted_at)
    return RunUpdate(
        created_at=submitted_at or min(a.created_at, b.created_at),
        pipeline=max(a.pipeline, b.pipeline),
        started=a.started or b.started,
        submitted_at=submitted_at,
        submitted_event=_greatest(a.submitted_event, b.submitted_event),
        snapshot=max(a.snapshot, b.snapshot),
        finish=_later(a.finish, b.finish),
    )


def merge_steps(a: StepUpdate, b: StepUpdate) -> StepUpdate:
    """The start and the finish are separate columns, so a late StepStarted never undoes a StepFinished."""
    return StepUpdate(
        template=max(a.template, b.template),
        plan_index=_least(a.plan_index, b.plan_index),
        plan_node=_greatest(a.plan_node, b.plan_node),
        started_at=_least(a.started_at, b.started_at),
        finish=_later(a.finish, b.finish),
        delay=_greatest(a.delay, b.delay),
    )


def merge_usages(a: UsageUpdate, b: UsageUpdate) -> UsageUpdate:
    return UsageUpdate(
        object_uri=max(a.object_uri, b.object_uri),
        digest=_greatest(a.digest, b.digest),
        size_bytes=max(a.size_bytes, b.size_bytes),
        cached=a.cached or b.cached,
    )


@dataclass
class ProjectionDelta:
    """The changes by row."""

    runs: dict[RunKey, RunUpdate] = field(default_factory=dict)
    steps: dict[StepKey, StepUpdate] = field(default_factory=dict)
    usages: dict[UsageKey, UsageUpdate] = field(default_factory=dict)
    dependencies: set[DependencyKey] = field(default_factory=set)
    templates: dict[tuple[str, bytes], str] = field(default_factory=dict)
    """Documents by project and digest."""
    snapshots: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """SnapshotTaken events by project and snapshot."""

    def add_run(self, key: RunKey, update: RunUpdate) -> None:
        present = self.runs.get(key)
        self.runs[key] = update if present is None else merge_runs(present, update)

    def add_step_event(self, key: RunKey, at: datetime, *, started: bool) -> None:
        """Add what an event of a step says about its run. Most of them change nothing, so this is the quick path."""
        present = self.runs.get(key)
        if (
            present is None
            or (started and not present.started)
            or (at < present.created_at and present.submitted_at is None)
        ):
            self.add_run(key, RunUpdate(at, started=started))

    def add_step(self, key: StepKey, update: StepUpdate) -> None:
        present = self.steps.get(key)
        self.steps[key] = update if present is None else merge_steps(present, update)

    def add_usage(self, key: UsageKey, update: UsageUpdate) -> None:
        present = self.usages.get(key)
        self.usages[key] = update if present is None else merge_usages(present, update)

    def add_snapshot(self, project: str, snapshot: str, event: bytes) -> None:
        present = self.snapshots.get((project, snapshot), b"")
        self.snapshots[project, snapshot] = max(present, event)

    def merge(self, other: "ProjectionDelta") -> None:
        """Add all changes of another delta."""
        for run_key, run in other.runs.items():
            self.add_run(run_key, run)
        for step_key, step in other.steps.items():
            self.add_step(step_key, step)
        for usage_key, usage in other.usages.items():
            self.add_usage(usage_key, usage)
        self.dependencies |= other.dependencies
        self.templates |= other.templates
        for (project, snapshot), event in other.snapshots.items():
            self.add_snapshot(project, snapshot, event)


_Ordered = TypeVar("_Ordered", datetime, int, bytes, Finish, Delay)


def _least(a: _Ordered | None, b: _Ordered | None) -> _Ordered | None:
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)


def _greatest(a: _Ordered | None, b: _Ordered | None) -> _Ordered | None:
    if a is None or b is None:
        return b if a is None else a
    return max(a, b)


def _later(a: Finish | None, b: Finish | None) -> Finish | None:
    """The greater of two finishes, in an order that is total: None is not comparable with a digest."""
    if a is None or b is None:
        return b if a is None else a
    return max(a, b, key=lambda it: (*it[:-1], it.template_digest is not None, it.template_digest or b""))
