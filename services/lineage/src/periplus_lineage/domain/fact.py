"""Facts, and how they join: two facts about one thing make one, the same in whichever order they come.

Every join here takes the greater or the lesser of each part, so it is commutative, associative and idempotent. The
store joins a batch with what is there by the same rules, in SQL.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, TypeVar

RunKey = tuple[str, str]
"""Project and run."""
StepKey = tuple[str, str, str]
"""Project, run and path."""
FlowKey = tuple[str, str, str, bool, str, bytes]
"""Project, run, path, made by the step, name, and place."""
LinkKey = tuple[str, str, str, str, str, bool]
"""Project, run and path; the run and path that it waited for, or (last) has its outputs from."""


class End(NamedTuple):
    """How a step or a run ended. Of two ends that differ the later one holds, and then the greater body."""

    at: datetime
    body: bytes
    phase: int
    saved: int  # microseconds


class RunFact(NamedTuple):
    """What is told of a run. `at` is when it was accepted, or what was seen of it first until that is told."""

    at: datetime
    pipeline: str = ""
    begun: bool = False
    submitted_at: datetime | None = None
    submitted: bytes | None = None
    end: End | None = None


class StepFact(NamedTuple):
    """What is told of a step."""

    template: str = ""
    ordinal: int | None = None
    planned: bytes | None = None
    started_at: datetime | None = None
    end: End | None = None


class FlowFact(NamedTuple):
    """What is told of an artifact at a step."""

    object: str
    digest: bytes | None = None
    size: int = 0
    cached: bool = False


def join_runs(a: RunFact, b: RunFact) -> RunFact:
    """What both tell of one run."""
    accepted = _least(a.submitted_at, b.submitted_at)
    return RunFact(
        at=accepted or min(a.at, b.at),
        pipeline=max(a.pipeline, b.pipeline),
        begun=a.begun or b.begun,
        submitted_at=accepted,
        submitted=_greatest(a.submitted, b.submitted),
        end=_greatest(a.end, b.end),
    )


def join_steps(a: StepFact, b: StepFact) -> StepFact:
    """What both tell of one step. A start never undoes an end: they are different parts."""
    return StepFact(
        template=max(a.template, b.template),
        ordinal=_least(a.ordinal, b.ordinal),
        planned=_greatest(a.planned, b.planned),
        started_at=_least(a.started_at, b.started_at),
        end=_greatest(a.end, b.end),
    )


def join_flows(a: FlowFact, b: FlowFact) -> FlowFact:
    """What both tell of one artifact at one step."""
    return FlowFact(
        object=max(a.object, b.object),
        digest=_greatest(a.digest, b.digest),
        size=max(a.size, b.size),
        cached=a.cached or b.cached,
    )


@dataclass
class Facts:
    """The facts of some events, joined by what they are about."""

    runs: dict[RunKey, RunFact] = field(default_factory=dict)
    steps: dict[StepKey, StepFact] = field(default_factory=dict)
    flows: dict[FlowKey, FlowFact] = field(default_factory=dict)
    links: set[LinkKey] = field(default_factory=set)
    templates: dict[tuple[str, bytes], str] = field(default_factory=dict)
    """Documents by project and digest."""
    snapshots: dict[tuple[str, str], bytes] = field(default_factory=dict)

    def run(self, key: RunKey, fact: RunFact) -> None:
        """Add what is told of a run."""
        known = self.runs.get(key)
        self.runs[key] = fact if known is None else join_runs(known, fact)

    def seen(self, key: RunKey, at: datetime, *, begun: bool) -> None:
        """Add that a step of a run was seen. As most of what is told tells no more than this, it is told briefly."""
        known = self.runs.get(key)
        if known is None or (begun and not known.begun) or (at < known.at and known.submitted_at is None):
            self.run(key, RunFact(at, begun=begun))

    def step(self, key: StepKey, fact: StepFact) -> None:
        """Add what is told of a step."""
        known = self.steps.get(key)
        self.steps[key] = fact if known is None else join_steps(known, fact)

    def flow(self, key: FlowKey, fact: FlowFact) -> None:
        """Add what is told of an artifact at a step."""
        known = self.flows.get(key)
        self.flows[key] = fact if known is None else join_flows(known, fact)

    def snapshot(self, project: str, identity: str, body: bytes) -> None:
        """Add what is told of a snapshot."""
        known = self.snapshots.get((project, identity), b"")
        self.snapshots[project, identity] = max(known, body)

    def join(self, other: "Facts") -> None:
        """Add all facts of another."""
        for run, fact in other.runs.items():
            self.run(run, fact)
        for step, told in other.steps.items():
            self.step(step, told)
        for flow, seen in other.flows.items():
            self.flow(flow, seen)
        self.links |= other.links
        self.templates |= other.templates
        for (project, identity), body in other.snapshots.items():
            self.snapshot(project, identity, body)


Orderly = TypeVar("Orderly", datetime, int, bytes, End)


def _least(a: Orderly | None, b: Orderly | None) -> Orderly | None:
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)


def _greatest(a: Orderly | None, b: Orderly | None) -> Orderly | None:
    if a is None or b is None:
        return b if a is None else a
    return max(a, b)
