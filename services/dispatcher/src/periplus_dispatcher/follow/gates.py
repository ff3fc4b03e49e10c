"""Gate resolution: the query to the cache for an open gate, and the answer that a verdict gives."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from periplus_dispatcher.domain import ContainerTemplate, GateAnswer, Run, plan_path
from periplus_dispatcher.follow.observe import Gate
from periplus_dispatcher.rewrite.answers import fan_out_answer, hit_answer, is_small_enough
from periplus_dispatcher.rewrite.generated import ITEMS, RESULT, parameter_of
from periplus_dispatcher.rewrite.plan import missing_output, run_anyway
from periplus_manifest import tags
from periplus_model.queries import Item, LeaseMode, Literal, StepQuery, StepVerdict, Text, TextPart, literal
from periplus_model.steps import Verdict


def gate_query(run: Run, gate: Gate) -> StepQuery:
    """The query for the step of a gate; its id is the gate's node id."""
    template = run.state.templates[gate.template].step.name
    if not gate.is_fan_out:
        return StepQuery(
            id=gate.node,
            template=template,
            parameters={name: literal(value) for name, value in gate.parameters.items()},
            artifacts=dict(gate.artifacts),
            step=gate.path,
            lease=LeaseMode.ACQUIRE,
        )
    fan_out = run.state.fan_outs[plan_path(gate.path)]
    defaults = {name: literal(value) for name, value in fan_out.parameters.items()}
    arguments = {
        p["name"]: argument_text(p["value"], gate.parameters)
        for p in fan_out.arguments.get("parameters") or ()
    }
    return StepQuery(
        id=gate.node,
        template=template,
        parameters=defaults | arguments,
        artifacts={**fan_out.artifacts, **gate.artifacts},
        items=(Literal(gate.parameters[ITEMS]),),
        step=gate.path,
        lease=LeaseMode.ACQUIRE,
    )


def argument_text(
    text: str, inputs: Mapping[str, str], output: Callable[[str], TextPart] | None = None
) -> Text:
    """An argument behind a gate: inputs of the gate are known, and the cache fills in the item.

    `output` gives, of a stretch, the part for `{{tasks.<name>}}`.
    """
    parts: list[TextPart] = []
    at = 0
    for tag in tags.find(text):
        parts.append(Literal(text[at : tag.start]))
        if tag.name.startswith("inputs.parameters."):
            parts.append(Literal(inputs.get(tag.name.removeprefix("inputs.parameters."), "")))
        elif output is not None and tag.name.startswith("tasks."):
            parts.append(output(tag.name.removeprefix("tasks.")))
        else:
            parts.append(Item(tag.name.removeprefix("item").removeprefix(".")))
        at = tag.end
    parts.append(Literal(text[at:]))
    return tuple(part for part in parts if part != Literal(""))


def without_cache(query: str) -> StepVerdict:
    """The verdict of a step that the cache could not be asked for."""
    return StepVerdict(query, Verdict.MISS, "the cache could not be reached")


def gate_answer(run: Run, gate: Gate, verdict: StepVerdict) -> GateAnswer:
    """The answer to a gate. Without parameters, every step or item behind it runs."""
    return step_answer(run.state.templates[gate.template], verdict, gate.supplied, is_fan_out=gate.is_fan_out)


def step_answer(
    template: ContainerTemplate, verdict: StepVerdict, supplied: Collection[str], *, is_fan_out: bool
) -> GateAnswer:
    """The answer for a step, with the parameters of `supplied` that a hit sets. Without them, it runs or all its items do."""
    result_used = parameter_of(RESULT) in supplied
    if is_fan_out:
        items = json.loads(verdict.items_json or "[]")
        outputs = [n for n in (*template.parameters, RESULT) if parameter_of(n) in supplied]
        verdicts = tuple(
            _usable(template, item, result_used=result_used, is_fan_out=True) for item in verdict.items
        )
        parameters, remaining = fan_out_answer(outputs, items, verdicts)
        verdict = replace(verdict, items=verdicts)
        if not is_small_enough(parameters):
            return GateAnswer({}, verdict)
        return GateAnswer(parameters, verdict, tuple(remaining))
    verdict = _usable(template, verdict, result_used=result_used, is_fan_out=False)
    if verdict.verdict is not Verdict.HIT or verdict.outputs is None:
        return GateAnswer({}, verdict)
    parameters = {n: v for n, v in hit_answer(verdict.outputs).items() if n in supplied}
    if not is_small_enough(parameters):
        return GateAnswer({}, run_anyway(verdict, "its outputs are too large for the Workflow's status"))
    return GateAnswer(parameters, verdict)


def _usable(
    template: ContainerTemplate, verdict: StepVerdict, *, result_used: bool, is_fan_out: bool
) -> StepVerdict:
    """The verdict; a hit becomes a miss if it lacks an output that others read, or if the run can not read it."""
    if verdict.verdict is not Verdict.HIT:
        return verdict
    if missing := missing_output(template, verdict, result_used=result_used, is_fan_out=is_fan_out):
        return run_anyway(verdict, f"its entry has no {missing}")
    if not is_fan_out and verdict.outputs and any(a.object.bucket for a in verdict.outputs.artifacts):
        return run_anyway(verdict, "its outputs are in another artifact repository than the run's")
    return verdict
