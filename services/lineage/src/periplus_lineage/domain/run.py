"""A run and its steps, as far as the events have told of them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum


class StepPhase(IntEnum):
    """How far a step is. The numbers are those of the contract."""

    UNKNOWN = 0
    PENDING = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    ERROR = 5
    SKIPPED = 6
    CACHED = 7

    @property
    def final(self) -> bool:
        """Whether nothing comes after it."""
        return self >= StepPhase.SUCCEEDED


class RunPhase(IntEnum):
    """How far a run is. The numbers are those of the contract."""

    UNKNOWN = 0
    PENDING = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    ERROR = 5
    CANCELLED = 6

    @property
    def final(self) -> bool:
        """Whether nothing comes after it."""
        return self >= RunPhase.SUCCEEDED


@dataclass(frozen=True)
class Parameter:
    """A parameter with its value."""

    name: str
    value: str


@dataclass(frozen=True)
class Artifact:
    """An artifact where it lies. `digest` is empty until its contents were read."""

    name: str
    endpoint: str
    bucket: str
    key: str
    digest: str = ""
    size: int = 0


@dataclass(frozen=True)
class Inputs:
    """What a step was given, in the template's order."""

    parameters: tuple[Parameter, ...] = ()
    artifacts: tuple[Artifact, ...] = ()


@dataclass(frozen=True)
class Outputs:
    """What a step or a run gave, in the template's order."""

    parameters: tuple[Parameter, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    result: str | None = None
    exit_code: int | None = None


@dataclass(frozen=True)
class Step:
    """A step of a run. `ordinal` is its place in the plan, or None where the plan did not know it."""

    run: str
    path: str
    template: str = ""
    phase: StepPhase = StepPhase.PENDING
    message: str = ""
    inputs: Inputs = Inputs()
    outputs: Outputs = Outputs()
    started_at: datetime | None = None
    finished_at: datetime | None = None
    verdict: int = 0
    reason: str = ""
    fingerprint: str = ""
    producer_run: str = ""
    producer_step: str = ""
    saved: timedelta | None = None
    attempts: int = 0
    depends_on: tuple[str, ...] = ()
    ordinal: int | None = None
    document: str = ""
    """Digest of what its template does; empty where it did not run."""
    ignored: frozenset[str] = frozenset()
    """Names of the inputs that its key leaves out."""

    def like(self, maker: "Step") -> "Step":
        """A step from the cache did what the step did that made its outputs, and was given the same: their key is one.

        Nobody says it again for a step that did not run.
        """
        given = Inputs(
            tuple(p for p in maker.inputs.parameters if p.name not in self.ignored),
            tuple(a for a in maker.inputs.artifacts if a.name not in self.ignored),
        )
        return replace(
            self,
            inputs=given if self.inputs == Inputs() else self.inputs,
            document=self.document or maker.document,
        )


@dataclass(frozen=True)
class Run:
    """A run, without its steps. `announced` says that its plan is known."""

    project: str
    id: str
    at: datetime
    pipeline: str = ""
    phase: RunPhase = RunPhase.PENDING
    message: str = ""
    snapshot: str = ""
    parameters: tuple[Parameter, ...] = ()
    outputs: Outputs | None = None
    submitted_at: datetime | None = None
    finished_at: datetime | None = None
    step_count: int = 0
    cached_steps: int = 0
    saved: timedelta = timedelta()
    announced: bool = False


@dataclass(frozen=True)
class Snapshot:
    """What a run was made with, in short."""

    environment: str
    commit: str
    dirty: bool


@dataclass(frozen=True)
class Recorded:
    """A run with its steps, in the order in which they ran."""

    run: Run
    steps: tuple[Step, ...]

    @property
    def settled(self) -> bool:
        """Whether the run has ended and all that it said to come has come."""
        if not (self.run.phase.final and self.run.announced):
            return False
        counts = [step.phase for step in unfolded(self.steps)]
        waits = self.run.phase == RunPhase.SUCCEEDED and StepPhase.PENDING in counts
        return (
            not waits
            and StepPhase.RUNNING not in counts
            and counts.count(StepPhase.CACHED) >= self.run.cached_steps
        )


@dataclass(frozen=True)
class Change:
    """A run and those of its steps that changed up to a moment, which the store names as it likes."""

    run: Run
    steps: tuple[Step, ...]
    moment: str


def unfolded(steps: Iterable[Step]) -> list[Step]:
    """The steps without those that stand for others, which a plan holds while their items are not known.

    These are the insides of a loop, "a(*).b", and a fan-out once it has shown an item.
    """
    found = list(steps)
    fanned = {group for step in found for group in groups(step.path)}
    return [
        step
        for step in found
        if "(*)" not in step.path and (step.phase is not StepPhase.PENDING or step.path not in fanned)
    ]


def in_order(steps: Iterable[Step]) -> tuple[Step, ...]:
    """The steps in the order of the plan; those that it did not know before what waits for them, then by time."""
    steps = list(steps)
    places: dict[str, float] = {step.path: step.ordinal for step in steps if step.ordinal is not None}
    planned = sorted((s for s in steps if s.ordinal is not None), key=lambda s: places[s.path])
    for step in planned:
        for awaited in step.depends_on:
            places.setdefault(awaited, places[step.path] - 0.5)

    def place(step: Step) -> tuple[float, str, tuple[int, str], str]:
        paths = (step.path, starred(step.path), *groups(step.path))
        known = next((places[path] for path in paths if path in places), None)
        began = step.started_at or step.finished_at
        when = began.isoformat() if began and known is None else ""
        return (len(steps) if known is None else known, when, _natural(step.path), step.path)

    return tuple(sorted(steps, key=place))


def starred(path: str) -> str:
    """How a plan calls a step in a loop before its items are known: "a(*).b" for "a(1).b"."""
    return re.sub(r"\(\d[^)]*\)", "(*)", path)


def groups(path: str) -> tuple[str, ...]:
    """The fan-outs that `path` is an item of or lies in, the nearest first: "a(1).b" and "a" for "a(1).b(2)"."""
    return tuple(path[:at] for at in range(len(path) - 1, 0, -1) if path[at] == "(")


def _natural(path: str) -> tuple[int, str]:
    """So that "train(10)" comes after "train(9)"."""
    head, _, index = path.rpartition("(")
    number = index.partition(")")[0].partition(":")[0]
    return (int(number), head) if head and number.isdecimal() and len(number) < 10 else (-1, path)
