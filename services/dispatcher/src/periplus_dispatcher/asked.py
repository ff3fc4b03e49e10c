"""What an open gate asks of the cache, and what it is told of the verdict."""

import json
from dataclasses import replace

from periplus_dispatcher import answers
from periplus_dispatcher.domain import Item, Literal, Part, Query, Resolved, Template, Text, Verdict
from periplus_dispatcher.gates import ITEMS, RESULT, parameter_of
from periplus_dispatcher.observe import Gate, planned
from periplus_dispatcher.plan import lacking
from periplus_dispatcher.record import Answer, Run
from periplus_manifest import tags


def query_of(run: Run, gate: Gate) -> Query:
    """What a gate asks: its step with all inputs known."""
    template = run.record.templates[gate.template]
    if not gate.fan:
        parameters = {name: (Literal(value),) for name, value in gate.parameters.items()}
        return Query(gate.node, template.name, parameters, dict(gate.artifacts))
    fan = run.record.fans[planned(gate.path)]
    said = {p["name"]: _item_text(p["value"], gate) for p in fan.arguments.get("parameters") or ()}
    return Query(
        gate.node,
        template.name,
        {name: (Literal(value),) for name, value in fan.parameters.items()} | said,
        {**fan.artifacts, **gate.artifacts},
        (Literal(gate.parameters[ITEMS]),),
    )


def _item_text(text: str, gate: Gate) -> Text:
    """An item's argument: what was passed in is known, what names the item is the cache's to fill."""
    parts: list[Part] = []
    at = 0
    for tag in tags.find(text):
        parts.append(Literal(text[at : tag.start]))
        if tag.name.startswith("inputs.parameters."):
            parts.append(Literal(gate.parameters.get(tag.name.removeprefix("inputs.parameters."), "")))
        else:
            parts.append(Item(tag.name.removeprefix("item").removeprefix(".")))
        at = tag.end
    parts.append(Literal(text[at:]))
    return tuple(part for part in parts if part != Literal(""))


def answer_of(run: Run, gate: Gate, resolved: Resolved) -> Answer:
    """The values that a gate supplies. A miss needs none."""
    template = run.record.templates[gate.template]
    if gate.fan:
        items = json.loads(resolved.items_json or "[]")
        wanted = [n for n in (*template.parameters, RESULT) if parameter_of(n) in gate.supplied]
        verdicts = [_held(template, item, gate, fan=True) for item in resolved.items]
        parameters, todo = answers.fan_answer(wanted, items, verdicts)
        told = replace(resolved, items=tuple(verdicts))
        return Answer(parameters, told, tuple(todo)) if answers.fits(parameters) else Answer({}, told)
    resolved = _held(template, resolved, gate, fan=False)
    if resolved.verdict is not Verdict.HIT or resolved.outputs is None:
        return Answer({}, resolved)
    carried = {n: v for n, v in answers.carried(resolved.outputs).items() if n in gate.supplied}
    if not answers.fits(carried):
        return Answer({}, Resolved(Verdict.MISS, "its outputs are too large for an answer"))
    return Answer(carried, resolved)


def _held(template: Template, resolved: Resolved, gate: Gate, *, fan: bool) -> Resolved:
    """A verdict as it stands, unless it is a hit that lacks what others read, or that the run could not read."""
    if resolved.verdict is not Verdict.HIT:
        return resolved
    result = parameter_of(RESULT) in gate.supplied
    if lack := lacking(template, resolved, result=result, fan=fan):
        return Resolved(Verdict.MISS, f"what the cache has of it holds no {lack}")
    if not fan and resolved.outputs and any(a.object.bucket for a in resolved.outputs.artifacts):
        return Resolved(Verdict.MISS, "its outputs lie in another store than the run's")
    return resolved
