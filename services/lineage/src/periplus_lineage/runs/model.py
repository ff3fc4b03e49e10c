"""A run and its steps, as far as their events were received."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from periplus_model.steps import Inputs, Outputs, RunPhase, StepPhase, Verdict


@dataclass(frozen=True)
class Step:
    """A step of a run. `plan_index` is its position in the plan; None if the plan does not contain it."""

    run: str
    path: str
    template: str = ""
    phase: StepPhase = StepPhase.PENDING
    message: str = ""
    inputs: Inputs = field(default_factory=Inputs)
    outputs: Outputs = field(default_factory=Outputs)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    verdict: Verdict = Verdict.UNSPECIFIED
    reason: str = ""
    fingerprint: str = ""
    producer_run: str = ""
    producer_step: str = ""
    saved: timedelta | None = None
    attempts: int = 0
    depends_on: tuple[str, ...] = ()
    plan_index: int | None = None
    template_digest: str = ""
    """Digest of its template's document; empty if it did not run."""
    host: str = ""
    """The machine that its pod ran on; empty if it is not known."""
    uncacheable_reason: str = ""
    """Why its outputs are not cached, as it was known when it finished."""
    ignored_inputs: frozenset[str] = frozenset()
    """Names of the inputs that are not part of its key."""

    def with_producer(self, producer: "Step") -> "Step":
        """A cached step with the inputs and the template of the step that produced its outputs.

        Its own event has neither, and the producer's are the same: both steps have the same key. Inputs that are not
        part of the key may differ and are left out.
        """
        inputs = Inputs(
            {
                name: value
                for name, value in producer.inputs.parameters.items()
                if name not in self.ignored_inputs
            },
            tuple(a for a in producer.inputs.artifacts if a.name not in self.ignored_inputs),
        )
        return replace(
            self,
            inputs=inputs if self.inputs == Inputs() else self.inputs,
            template_digest=self.template_digest or producer.template_digest,
        )


@dataclass(frozen=True)
class ObservedWorkflow:
    """The Workflow of a run that others submitted. `display_name` is what people call the run; empty without a name."""

    namespace: str
    name: str
    uid: str
    display_name: str = ""


@dataclass(frozen=True)
class Run:
    """A run, without its steps. `is_complete` says whether it finished and the events of all its steps were received."""

    project: str
    id: str
    created_at: datetime
    """When it was accepted; until that is known, the time of its earliest event."""
    pipeline: str = ""
    phase: RunPhase = RunPhase.PENDING
    message: str = ""
    snapshot: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    outputs: Outputs | None = None
    submitted_at: datetime | None = None
    finished_at: datetime | None = None
    step_count: int = 0
    cached_steps: int = 0
    saved: timedelta = timedelta()
    is_complete: bool = False
    observed: ObservedWorkflow | None = None
    reproduces: str = ""
    """The run that it reproduces; empty if it is no reproduction."""
    reproduced_step: str = ""
    """Of a reproduction of one step: the step's path in that run."""
    rolled_back_to: str = ""
    """Of a rollback: the earlier run whose outputs it was served."""


@dataclass(frozen=True)
class SnapshotSummary:
    """Environment and commit of a snapshot."""

    environment: str
    commit: str
    dirty: bool


@dataclass(frozen=True)
class RunWithSteps:
    """A run with its steps, in the order of the plan."""

    run: Run
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class RunChange:
    """A run and its steps that changed, and the version up to which they did. The store defines what a version is."""

    run: Run
    steps: tuple[Step, ...]
    version: str


def without_placeholders(steps: Iterable[Step]) -> list[Step]:
    """The steps without those that the plan has in place of steps whose items are known only during the run.

    These are steps inside of a fan-out, "a(*).b", and a fan-out itself as soon as one of its items is known.
    """
    found = list(steps)
    fan_outs = {fan_out for step in found for fan_out in enclosing_fan_outs(step.path)}
    return [
        step
        for step in found
        if "(*)" not in step.path and (step.phase is not StepPhase.PENDING or step.path not in fan_outs)
    ]


def in_plan_order(steps: Iterable[Step]) -> tuple[Step, ...]:
    """The steps in the order of the plan.

    One that the plan does not contain comes before the first step that depends on it, else by its start time.
    """
    steps = list(steps)
    positions: dict[str, float] = {
        step.path: step.plan_index for step in steps if step.plan_index is not None
    }
    planned = sorted((s for s in steps if s.plan_index is not None), key=lambda s: positions[s.path])
    for step in planned:
        for upstream in step.depends_on:
            positions.setdefault(upstream, positions[step.path] - 0.5)

    def sort_key(step: Step) -> tuple[float, str, tuple[int, str], str]:
        paths = (step.path, placeholder_path(step.path), *enclosing_fan_outs(step.path))
        position = next((positions[path] for path in paths if path in positions), None)
        at = step.started_at or step.finished_at
        time = at.isoformat() if at and position is None else ""
        return (len(steps) if position is None else position, time, _natural(step.path), step.path)

    return tuple(sorted(steps, key=sort_key))


def placeholder_path(path: str) -> str:
    """The path in the plan of a step inside of a fan-out whose items are not known: "a(*).b" for "a(1).b"."""
    return re.sub(r"\(\d[^)]*\)", "(*)", path)


def enclosing_fan_outs(path: str) -> tuple[str, ...]:
    """The fan-outs that contain the step, innermost first: "a(1).b" and "a" for "a(1).b(2)"."""
    return tuple(path[:at] for at in range(len(path) - 1, 0, -1) if path[at] == "(")


def _natural(path: str) -> tuple[int, str]:
    """A sort key with which "train(10)" comes after "train(9)"."""
    head, _, index = path.rpartition("(")
    number = index.partition(")")[0].partition(":")[0]
    return (int(number), head) if head and number.isdecimal() and len(number) < 10 else (-1, path)
