"""From the verdicts of the cache to a plan: which steps are hits, which wait for a gate, and whether anything runs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum

from periplus_dispatcher.domain import ContainerTemplate, RunState, StepNode
from periplus_dispatcher.manifest.calls import Call, ExpandedWorkflow
from periplus_manifest import condition, tags
from periplus_manifest.errors import ManifestError
from periplus_model.queries import (
    ArtifactSource,
    Literal,
    OutputRef,
    StepVerdict,
    Text,
    TextPart,
    literal_text,
)
from periplus_model.steps import Artifact, Outputs, Verdict

MAX_INLINE_CHARACTERS = 64 << 10
"""The outputs of one hit that are written into a manifest."""

_SUCCEEDED = {"Succeeded"}
_GATED = (Verdict.UNKNOWN, Verdict.PENDING)


class StepAction(StrEnum):
    """What the rewrite does with the call of a step."""

    KEEP = "keep"
    """The call stays as it is."""
    SERVE = "serve"
    """The outputs of a hit are written into the manifest."""
    GATE = "gate"
    """The step waits for the verdict of the cache during the run."""
    SERVE_PART = "serve-part"
    """A fan-out: the outputs of some items are written into the manifest."""
    GATE_FAN_OUT = "gate-fan-out"
    """A fan-out: all items wait for one answer during the run."""


@dataclass(frozen=True)
class PlannedStep:
    """A call with its verdict and what becomes of it."""

    call: Call
    verdict: StepVerdict
    action: StepAction
    unserved_reason: str = ""
    """Why the outputs that the cache has, or could have, are not served to a run in which another step runs."""

    @property
    def verdicts(self) -> list[tuple[str, StepVerdict]]:
        """Path and verdict of the step; of each item, for a fan-out whose items are known."""
        if not self.verdict.items:
            return [(self.call.path, self.verdict)]
        return [(f"{self.call.path}({index})", item) for index, item in enumerate(self.verdict.items)]


@dataclass(frozen=True)
class Plan:
    """All calls of a run in topological order.

    `is_complete` is whether nothing has to run; then `outputs` are those of the workflow. `exit_cost` is, if only the exit
    handler has to, what it costs, as a sentence.
    """

    steps: tuple[PlannedStep, ...]
    is_complete: bool
    outputs: Outputs
    exit_cost: str = ""

    @property
    def saved(self) -> timedelta:
        """The sum of the run times of the hits' producers."""
        return sum((hit.saved for _, hit in self.hits), timedelta())

    @property
    def hits(self) -> list[tuple[str, StepVerdict]]:
        """Path and verdict of each hit; of a fan-out, of each item."""
        return [
            (path, verdict)
            for step in self.steps
            for path, verdict in step.verdicts
            if verdict.verdict is Verdict.HIT
        ]

    @property
    def nodes(self) -> list[StepNode]:
        """The steps as they are published at submission; items if they are known."""
        return [
            StepNode(path, step.call.template, step.call.depends_on, verdict.verdict, verdict.reason)
            for step in self.steps
            if not step.call.is_invocator
            for path, verdict in step.verdicts
        ]

    def given_to(self, state: RunState) -> RunState:
        """The state of a run with the verdicts of this plan."""
        found = {path: verdict for step in self.steps for path, verdict in step.verdicts}
        calls = {step.call.path: step.verdict for step in self.steps}
        verdicts = calls | found
        return replace(
            state,
            verdicts={path: verdict.verdict for path, verdict in verdicts.items()},
            unserved={
                path: verdict.reason
                for path, verdict in verdicts.items()
                if verdict.verdict is Verdict.MISS and verdict.producer_run
            },
            leases={
                verdict.lease.step: verdict.lease.token
                for verdict in verdicts.values()
                if verdict.lease is not None and verdict.verdict is not Verdict.PENDING
            },
            planned={
                path: verdict.planned_fingerprint
                for path, verdict in calls.items()
                if verdict.planned_fingerprint and verdict.verdict in _GATED
            },
        )


def decide(expanded: ExpandedWorkflow, verdicts: Mapping[str, StepVerdict]) -> Plan:
    """Decide for each call, in order, given the verdicts of the cache by path; skip what conditions exclude.

    A hit that can not be served to a run in which something else runs has to run itself, unless the plan is complete. It is no hit
    then, and what takes its outputs waits for them: they may be others than those that the cache has.
    """
    found = _without_incomplete_hits(expanded, verdicts)
    plan = _decide(expanded, found)
    unserved = {step.call.path: step.unserved_reason for step in plan.steps if step.unserved_reason}
    if plan.is_complete or not unserved:
        return plan
    return _decide(expanded, _with_unserved(expanded, found, unserved))


def without_cache(expanded: ExpandedWorkflow, plan: Plan, reason: str) -> Plan:
    """The plan of a run that goes to Argo as it is, so that every step runs that is not skipped, for a reason."""
    verdicts = {step.call.path: step.verdict for step in plan.steps}
    found = {path: run_anyway(verdict, reason) for path, verdict in verdicts.items()}
    return _decide(expanded, found)


def _with_unserved(
    expanded: ExpandedWorkflow, verdicts: Mapping[str, StepVerdict], unserved: Mapping[str, str]
) -> dict[str, StepVerdict]:
    """The verdicts if these steps run: what takes outputs of theirs, and of what waits for those, is known only then."""
    found, unknown = dict(verdicts), set(unserved)
    for call in expanded.calls:
        verdict = verdicts.get(call.path)
        if verdict is None:
            continue
        if call.path in unserved:
            found[call.path] = run_anyway(verdict, unserved[call.path])
        elif verdict.verdict in (Verdict.HIT, Verdict.UNKNOWN) and (reason := _waits_reason(call, unknown)):
            found[call.path] = StepVerdict(verdict.id, Verdict.UNKNOWN, reason)
            unknown.add(call.path)
    return found


def _waits_reason(call: Call, unknown: Collection[str]) -> str:
    """Which input of a call is not known as long as the outputs of these steps are not; empty if there is none."""
    query = call.query
    if query is None:
        return ""
    for name, text in query.parameters.items():
        for part in text:
            if isinstance(part, OutputRef) and part.step in unknown:
                return f"its input {name} is not known yet: {part.step} has to run first"
    for name, source in query.artifacts.items():
        if isinstance(source, OutputRef) and source.step in unknown:
            return f"its input {name} is not known yet: {source.step} has to run first"
    for part in query.items or ():
        if isinstance(part, OutputRef) and part.step in unknown:
            return f"its items are not known yet: {part.step} has to run first"
    return ""


def run_anyway(verdict: StepVerdict, reason: str) -> StepVerdict:
    """The verdict of a step that runs although the cache has its outputs, or could have them."""
    has_hits = any(item.verdict is Verdict.HIT for item in verdict.items)
    if verdict.verdict not in (Verdict.HIT, *_GATED) and not has_hits:
        return verdict
    said = f"{verdict.reason}, but it runs: {reason}" if verdict.reason else f"it runs: {reason}"
    return replace(
        verdict,
        verdict=Verdict.MISS,
        reason=said,
        outputs=None,
        saved=timedelta(),
        lease=None if verdict.verdict is Verdict.PENDING else verdict.lease,
        items=tuple(run_anyway(item, reason) for item in verdict.items),
    )


def _decide(expanded: ExpandedWorkflow, verdicts: Mapping[str, StepVerdict]) -> Plan:
    decider = _Decider(verdicts)
    steps = tuple(decider.decide(call) for call in expanded.calls)
    parameters = {name: decider.value(text) for name, text in expanded.parameters.items()}
    artifacts = {name: decider.artifact(source) for name, source in expanded.artifacts.items()}
    is_cached = (
        expanded.steps_decide_all
        and not decider.may_run
        and all(value is not None for value in parameters.values())
        and all(artifact is not None for artifact in artifacts.values())
    )
    outputs = Outputs(
        {name: value for name, value in parameters.items() if value is not None},
        tuple(replace(artifact, name=name) for name, artifact in artifacts.items() if artifact is not None),
    )
    handler = expanded.exit_handler
    if not is_cached or handler is None or handler.is_optional:
        return Plan(steps, is_cached, outputs if is_cached else Outputs())
    runs_again = any(s.verdict.verdict is Verdict.HIT and s.action is StepAction.KEEP for s in steps)
    return Plan(steps, is_complete=False, outputs=Outputs(), exit_cost="" if runs_again else handler.cost)


def _without_incomplete_hits(
    expanded: ExpandedWorkflow, verdicts: Mapping[str, StepVerdict]
) -> dict[str, StepVerdict]:
    """The verdicts; a hit without an output that others read becomes a miss."""
    found = dict(verdicts)
    for call in expanded.calls:
        verdict = verdicts.get(call.path)
        if verdict is None or verdict.verdict is not Verdict.HIT:
            continue
        template = expanded.templates[call.template]
        if call.is_fan_out and not verdict.items:
            empty = Outputs(dict.fromkeys(template.parameters, "[]"), result="[]")
            found[call.path] = replace(verdict, outputs=empty)
        elif missing := missing_output(
            template, verdict, result_used=call.result_used, is_fan_out=call.is_fan_out
        ):
            found[call.path] = run_anyway(replace(verdict, items=()), f"its entry has no {missing}")
    return found


def missing_output(
    template: ContainerTemplate,
    hit: StepVerdict,
    *,
    result_used: bool,
    is_fan_out: bool = False,
) -> str:
    """An output that the hit lacks; empty if it has all but those that a step need not write. Argo does not aggregate the artifacts of a fan-out."""
    outputs = hit.outputs or Outputs()
    if result_used and outputs.result is None:
        return "result"
    missing = [name for name in template.parameters if name not in outputs.parameters]
    if not is_fan_out:
        wanted = [name for name in template.artifacts if name not in template.optional]
        missing += [name for name in wanted if outputs.artifact(name) is None]
    return f"output {missing[0]}" if missing else ""


@dataclass
class _Decider:
    """Decides call by call. `results` are the outcomes that `depends` can ask for, by path, as far as they are known."""

    verdicts: Mapping[str, StepVerdict]
    results: dict[str, set[str]] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    may_run: set[str] = field(default_factory=set)
    """Paths of the steps that may run, and of the calls that contain them."""

    def decide(self, call: Call) -> PlannedStep:
        if call.path.rpartition(".")[0] in self.skipped:
            return self._skip(call, "the call that contains it is skipped", "Omitted")
        if call.waits_for is not None:
            results = {name: self._results(call.siblings[name]) for name in call.waits_for.tasks}
            known = {name: found for name, found in results.items() if found is not None}
            if len(known) == len(results) and not call.waits_for.evaluate(known):
                return self._skip(call, "its depends is false", "Omitted")
        condition = self._condition(call)
        if condition is False:
            return self._skip(call, "its condition is false", "Skipped")
        if call.is_expanded:
            if condition is None or call.path.endswith("(*)"):
                self._mark_may_run(call.path)  # how often it runs is known only during the run
            verdict = StepVerdict(call.path, Verdict.UNKNOWN, "its steps are listed below it")
            return PlannedStep(call, verdict, StepAction.KEEP)
        verdict = self._verdict(call)
        if verdict.verdict is Verdict.HIT and condition is not None:
            self.results[call.path] = _SUCCEEDED
        else:
            self._mark_may_run(call.path)
        action, reason = _action(call, verdict)
        return PlannedStep(call, verdict, action, reason)

    def _verdict(self, call: Call) -> StepVerdict:
        if call.uncacheable_reason:
            return StepVerdict(call.path, Verdict.UNCACHEABLE, call.uncacheable_reason)
        found = self.verdicts.get(call.path) or StepVerdict(
            call.path, Verdict.MISS, "the cache gave no verdict"
        )
        if call.ungated_reason and found.verdict in (Verdict.HIT, *_GATED):
            sources = call.query.artifacts.values() if call.query else ()
            waits = any(isinstance(s, OutputRef) and self.results.get(s.step) != _SUCCEEDED for s in sources)
            if waits or found.verdict in _GATED:
                return StepVerdict(call.path, Verdict.UNCACHEABLE, call.ungated_reason)
        return found

    def _skip(self, call: Call, reason: str, result: str) -> PlannedStep:
        self.skipped.add(call.path)
        self.results[call.path] = {result}
        return PlannedStep(call, StepVerdict(call.path, Verdict.SKIPPED, reason), StepAction.KEEP)

    def _mark_may_run(self, path: str) -> None:
        while path:
            self.may_run.add(path)
            path = path.rpartition(".")[0]

    def _results(self, path: str) -> set[str] | None:
        """The outcome of an earlier call; None if it is not known. An expanded call succeeds if all its steps do."""
        if path in self.results:
            return self.results[path]
        return None if path in self.may_run else _SUCCEEDED

    def _condition(self, call: Call) -> bool | None:
        """The value of the call's condition; None if it is not known."""
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
        """A text with the outputs of hits filled in; None if a part is not known."""
        return literal_text(tuple(self._part(part) for part in text))

    def _part(self, part: TextPart) -> TextPart:
        outputs = self._outputs(part) if isinstance(part, OutputRef) else None
        if isinstance(part, OutputRef) and outputs is not None:
            value = outputs.result if part.result else outputs.parameters.get(part.name)
            return part if value is None else Literal(value)
        return part

    def artifact(self, source: ArtifactSource) -> Artifact | None:
        """The artifact of a hit; None if it is not known."""
        outputs = self._outputs(source) if isinstance(source, OutputRef) else None
        return outputs.artifact(source.name) if isinstance(source, OutputRef) and outputs else None

    def _outputs(self, ref: OutputRef) -> Outputs | None:
        if self.results.get(ref.step) != _SUCCEEDED:
            return None
        found = self.verdicts.get(ref.step)
        return found.outputs if found and found.verdict is Verdict.HIT else None


def _action(call: Call, verdict: StepVerdict) -> tuple[StepAction, str]:
    """What is done with a step; why it is kept, if the cache has its outputs or could have them."""
    has_hits = any(item.verdict is Verdict.HIT for item in verdict.items)
    if verdict.verdict not in (Verdict.HIT, *_GATED) and not has_hits:
        return StepAction.KEEP, ""
    if verdict.verdict is Verdict.PENDING and call.is_entrypoint:
        return StepAction.KEEP, "it is the whole workflow, in which nothing can wait"
    if call.is_fan_out and (reason := _unwritable_reason("items", verdict.items_json)):
        return StepAction.KEEP, reason
    if verdict.verdict is Verdict.HIT:
        reason = _outputs_reason(verdict.outputs)
        return (StepAction.KEEP, reason) if reason else (StepAction.SERVE, "")
    if call.is_fan_out and has_hits:
        if any(item.verdict not in (Verdict.HIT, Verdict.MISS) for item in verdict.items):
            return StepAction.GATE_FAN_OUT, ""
        reason = _outputs_reason(*(item.outputs for item in verdict.items))
        return (StepAction.KEEP, reason) if reason else (StepAction.SERVE_PART, "")
    return (StepAction.GATE_FAN_OUT if call.is_fan_out else StepAction.GATE), ""


def _outputs_reason(*found: Outputs | None) -> str:
    """Why outputs can not be written into a manifest; empty if they can."""
    outputs = [each for each in found if each is not None]
    if any(artifact.object.bucket for each in outputs for artifact in each.artifacts):
        # Its credentials are not known here.
        return "its artifacts are in another artifact repository"
    values = (v for each in outputs for v in (*each.parameters.values(), each.result or ""))
    return _unwritable_reason("outputs", *values)


def _unwritable_reason(what: str, *values: str) -> str:
    """Argo would replace a tag, and Kubernetes limits the manifest to 1 MiB."""
    if sum(map(len, values)) > MAX_INLINE_CHARACTERS:
        return f"its {what} have more than {MAX_INLINE_CHARACTERS} characters, too many to be written into the workflow"
    if any(map(_may_be_replaced, values)):
        return f"its {what} have {{{{, which Argo could take for a tag"
    return ""


def _may_be_replaced(text: str) -> bool:
    """Whether Argo may replace something in a text, or take an {{ without its end as the start of another text's tag."""
    found = tags.spans(text)
    return bool(tags.find(text)) or "{{" in text[found[-1].end if found else 0 :]
