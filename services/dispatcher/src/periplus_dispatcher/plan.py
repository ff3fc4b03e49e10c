"""From the cache's verdicts to a plan: which steps are left out, which wait behind a gate, and whether anything runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from periplus_dispatcher.calls import Call, Walk
from periplus_dispatcher.domain import (
    Artifact,
    Literal,
    Output,
    Outputs,
    Part,
    Resolved,
    Source,
    Template,
    Text,
    Verdict,
    known,
)
from periplus_manifest import condition
from periplus_manifest.errors import ManifestError

MAX_INLINE = 64 << 10  # bytes of a hit's values that are written into a manifest


class Treatment(Enum):
    """What becomes of a step's call in the manifest."""

    RUN = "run"  # it stays as it is
    HIT = "hit"  # its outputs are written in
    GATE = "gate"  # it waits for the cache's answer, mid-run
    PART = "part"  # a fan-out of which some items are written in
    FAN_GATE = "fan-gate"  # a fan-out that waits for one answer for all items


@dataclass(frozen=True)
class Step:
    """A step with what is known of it."""

    call: Call
    resolved: Resolved
    treatment: Treatment

    @property
    def each(self) -> list[tuple[str, Resolved]]:
        """Path and verdict of the step; of a fan-out whose items are known, of each item."""
        if not self.resolved.items:
            return [(self.call.path, self.resolved)]
        return [(f"{self.call.path}({index})", item) for index, item in enumerate(self.resolved.items)]


@dataclass(frozen=True)
class Plan:
    """All steps of a run, in an order in which they could run."""

    steps: tuple[Step, ...]
    complete: bool
    """Whether everything is known, so that nothing need run."""
    outputs: Outputs
    """Of a complete plan: what the workflow gives."""

    @property
    def saved(self) -> float:
        """The seconds that the hits took to make."""
        return sum(hit.saved for _, hit in self.hits)

    @property
    def hits(self) -> list[tuple[str, Resolved]]:
        """Path and verdict of each hit, of fan-outs item by item."""
        found = [each for step in self.steps for each in step.each]
        return [(path, resolved) for path, resolved in found if resolved.verdict is Verdict.HIT]


def decide(walk: Walk, resolved: Mapping[str, Resolved]) -> Plan:
    """Lay the verdicts over the steps, leave out what its conditions skip, and see whether that is all."""
    decider = _Decider(_whole(walk, resolved))
    steps = tuple(decider.step(call) for call in walk.calls)
    parameters = {name: decider.value(text) for name, text in walk.parameters.items()}
    artifacts = {name: decider.artifact(source) for name, source in walk.artifacts.items()}
    complete = (
        walk.simple
        and not decider.open
        and all(value is not None for value in parameters.values())
        and all(artifact is not None for artifact in artifacts.values())
    )
    outputs = Outputs(
        {name: value for name, value in parameters.items() if value is not None},
        tuple(replace(artifact, name=name) for name, artifact in artifacts.items() if artifact is not None),
    )
    return Plan(steps, complete, outputs if complete else Outputs())


def _whole(walk: Walk, resolved: Mapping[str, Resolved]) -> dict[str, Resolved]:
    """The verdicts, without hits that lack what others read of them."""
    found = dict(resolved)
    for call in walk.calls:
        verdict = resolved.get(call.path)
        if verdict is None or verdict.verdict is not Verdict.HIT:
            continue
        fan = call.query is not None and call.query.items is not None
        if fan and not verdict.items:
            none = Outputs(dict.fromkeys(walk.templates[call.template].parameters, "[]"), result="[]")
            found[call.path] = replace(verdict, outputs=none)
        elif lack := lacking(walk.templates[call.template], verdict, result=call.result_used, fan=fan):
            found[call.path] = Resolved(Verdict.MISS, f"what the cache has of it holds no {lack}")
    return found


def lacking(template: Template, hit: Resolved, *, result: bool, fan: bool = False) -> str:
    """The name of an output that a hit does not hold; empty where it holds all. Loops gather no artifacts."""
    outputs = hit.outputs or Outputs()
    if result and outputs.result is None:
        return "result"
    names = {artifact.name for artifact in outputs.artifacts}
    missing = [name for name in template.parameters if name not in outputs.parameters]
    missing += [] if fan else [name for name in template.artifacts if name not in names]
    return f"output {missing[0]}" if missing else ""


@dataclass
class _Decider:
    """Walks the steps in order, and keeps what is known of those that came before."""

    resolved: Mapping[str, Resolved]
    results: dict[str, set[str]] = field(default_factory=dict)
    """Path to the results that `depends` may ask for; absent while they are not known."""
    skipped: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)
    """Steps that may run, and the calls that hold them."""

    def step(self, call: Call) -> Step:
        if call.path.rpartition(".")[0] in self.skipped:
            return self._skip(call, "the step that holds it is skipped", {"Omitted"})
        if call.waits_for is not None:
            wants = {name: self._results(call.siblings[name]) for name in call.waits_for.tasks}
            seen = {name: results for name, results in wants.items() if results is not None}
            if len(seen) == len(wants) and not call.waits_for.evaluate(seen):
                return self._skip(call, "what it depends on did not happen", {"Omitted"})
        holds = self._holds(call)
        if holds is False:
            return self._skip(call, "its condition is false", {"Skipped"})
        if call.nested and not call.obstacle:
            if holds is None or call.path.endswith("(*)"):
                self._leave_open(call.path)  # how often it runs is the run's to say
            return Step(call, Resolved(Verdict.UNKNOWN, "its own steps are below"), Treatment.RUN)
        verdict = self._verdict(call)
        treatment = _treatment(call, verdict)
        if verdict.verdict is Verdict.HIT and holds is not None:
            self.results[call.path] = {"Succeeded"}
        else:
            self._leave_open(call.path)
        return Step(call, verdict, treatment)

    def _verdict(self, call: Call) -> Resolved:
        if call.obstacle:
            return Resolved(Verdict.UNCACHEABLE, call.obstacle)
        return self.resolved.get(call.path) or Resolved(Verdict.MISS, "the cache was not reached")

    def _skip(self, call: Call, why: str, results: set[str]) -> Step:
        self.skipped.add(call.path)
        self.results[call.path] = results
        return Step(call, Resolved(Verdict.SKIPPED, why), Treatment.RUN)

    def _leave_open(self, path: str) -> None:
        while path:
            self.open.add(path)
            path = path.rpartition(".")[0]

    def _results(self, path: str) -> set[str] | None:
        """What came of an earlier call; of a nested one, what came of all that it holds."""
        if path in self.results:
            return self.results[path]
        return None if path in self.open else {"Succeeded"}

    def _holds(self, call: Call) -> bool | None:
        """Whether the call's condition is true; None while nobody can tell."""
        if call.condition is None:
            return True
        text = self.value(call.condition)
        if text is None:
            return None
        try:
            return condition.evaluate(text)
        except ManifestError:
            return None

    def value(self, text: Text) -> str | None:
        """A text with the outputs of hits put in; None where a piece is missing."""
        return known(tuple(self._part(part) for part in text))

    def _part(self, part: Part) -> Part:
        outputs = self._outputs(part) if isinstance(part, Output) else None
        if isinstance(part, Output) and outputs is not None:
            value = outputs.result if part.result else outputs.parameters.get(part.name)
            return part if value is None else Literal(value)
        return part

    def artifact(self, source: Source) -> Artifact | None:
        outputs = self._outputs(source) if isinstance(source, Output) else None
        if isinstance(source, Output) and outputs is not None:
            return next((a for a in outputs.artifacts if a.name == source.name), None)
        return None

    def _outputs(self, output: Output) -> Outputs | None:
        if self.results.get(output.step) != {"Succeeded"}:
            return None
        found = self.resolved.get(output.step)
        return found.outputs if found and found.verdict is Verdict.HIT else None


def _treatment(call: Call, resolved: Resolved) -> Treatment:
    fan = call.query is not None and call.query.items is not None
    if fan and not _writable(resolved.items_json):
        return Treatment.RUN
    if resolved.verdict is Verdict.HIT:
        return Treatment.HIT if _fits(resolved.outputs) else Treatment.RUN
    if fan and resolved.items and any(item.verdict is Verdict.HIT for item in resolved.items):
        settled = all(item.verdict in (Verdict.HIT, Verdict.MISS) for item in resolved.items)
        if not settled:
            return Treatment.FAN_GATE
        return Treatment.PART if _fits(*(item.outputs for item in resolved.items)) else Treatment.RUN
    if resolved.verdict is Verdict.UNKNOWN:
        return Treatment.FAN_GATE if fan else Treatment.GATE
    return Treatment.RUN


def _fits(*found: Outputs | None) -> bool:
    """Whether values can stand in a manifest: Argo would read {{ as a reference, and has a limit of 1 MiB."""
    outputs = [each for each in found if each is not None]
    if any(artifact.object.bucket for each in outputs for artifact in each.artifacts):
        return False  # another store's credentials are not ours to write
    return _writable(*(v for each in outputs for v in (*each.parameters.values(), each.result or "")))


def _writable(*values: str) -> bool:
    return sum(map(len, values)) <= MAX_INLINE and not any("{{" in value for value in values)
