"""From a user's manifest and a plan to the manifest that Argo runs: only `template:` and arguments of calls change."""

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from periplus_dispatcher import answers, arguments, gates
from periplus_dispatcher.domain import Resolved, Template
from periplus_dispatcher.plan import Plan, Step, Treatment
from periplus_manifest import tags

Json = dict[str, Any]

MANAGED = "periplus.dev/managed"
PROJECT = "periplus.dev/project"
MAX_SIZE = 1 << 20  # bytes; what Kubernetes takes


@dataclass(frozen=True)
class Generated:
    """A template of ours: what it is for, and which of the user's templates it stands for."""

    kind: str  # hit, cached, gate, select, fan, fan-gate, part, copy, never
    template: str
    supplied: tuple[str, ...] = ()
    """Of a gate: the parameters that an answer may give."""


@dataclass(frozen=True)
class Fan:
    """How the items of a rewritten fan-out are asked for: the arguments of one item, and what is passed in."""

    arguments: Json
    todo: tuple[int, ...] | None = None
    """Of a part: the indices of the items that run."""


@dataclass(frozen=True)
class Rewritten:
    """The manifest for Argo, and what our templates in it mean."""

    manifest: Json
    generated: Mapping[str, Generated] = field(default_factory=dict)
    fans: Mapping[str, Fan] = field(default_factory=dict)
    """By the path of the fan-out."""


def rewrite(manifest: Json, plan: Plan, templates: Mapping[str, Template], *, gate_seconds: int) -> Rewritten:
    """Write a plan into a manifest. Gives the manifest itself where the plan changes nothing, or would not fit."""
    if all(step.treatment is Treatment.RUN for step in plan.steps):
        return Rewritten(manifest)
    rewriter = _Rewriter(manifest, plan, templates, gate_seconds)
    rewritten = rewriter.rewrite()
    if len(json.dumps(rewritten.manifest, ensure_ascii=False).encode()) > MAX_SIZE:
        return Rewritten(manifest)
    return rewritten


def addressed(manifest: Json, name: str, namespace: str, project: str, parameters: Mapping[str, str]) -> Json:
    """The manifest with a name, our labels and the values of its parameters."""
    named = copy.deepcopy(manifest)
    metadata = named.setdefault("metadata", {})
    metadata.pop("generateName", None)
    metadata |= {"name": name, "namespace": namespace}
    metadata.setdefault("labels", {}).update({MANAGED: "true", PROJECT: project})
    if parameters:
        arguments = named["spec"].setdefault("arguments", {})
        declared = {p["name"]: p for p in arguments.get("parameters") or ()}
        arguments["parameters"] = [
            {**{k: v for k, v in declared.get(name, {}).items() if k == "enum"}, "name": name, "value": value}
            for name, value in parameters.items()
        ]
    return named


class _Rewriter:
    def __init__(
        self, manifest: Json, plan: Plan, templates: Mapping[str, Template], gate_seconds: int
    ) -> None:
        self._manifest = copy.deepcopy(manifest)
        self._originals = {t["name"]: t for t in manifest["spec"]["templates"]}
        self._steps = {step.call.path: step for step in plan.steps}
        self._templates = templates
        self._seconds = gate_seconds
        self._references = tags.references(manifest["spec"])
        self._written: dict[str, Json] = {}
        self._generated: dict[str, Generated] = {}
        self._fans: dict[str, Fan] = {}
        self._forms: dict[str, str] = {}

    def rewrite(self) -> Rewritten:
        spec = self._manifest["spec"]
        entrypoint = spec["entrypoint"]
        changed = self._template(self._originals[entrypoint], "")
        if changed is not None:
            self._written[entrypoint] = changed
        kept = [self._written.pop(t["name"], t) for t in spec["templates"]]
        spec["templates"] = [*kept, *self._written.values()]
        return Rewritten(self._manifest, self._generated, self._fans)

    def _template(self, original: Json, prefix: str) -> Json | None:
        """The version of a DAG or steps template for the calls below `prefix`; None where nothing in it changes."""
        template = copy.deepcopy(original)
        changed = False
        results = []
        for task in _tasks(template):
            step = self._steps.get(prefix + task["name"]) or self._steps.get(f"{prefix}{task['name']}(*)")
            if step is None:
                continue
            if step.call.nested and not step.call.obstacle:
                inner = self._template(self._originals[task["template"]], f"{step.call.path}.")
                if inner is not None:
                    task["template"] = self._add(task["template"], "call", inner, "copy")
                    changed = True
            elif step.treatment is not Treatment.RUN:
                self._apply(task, step)
                changed = True
                if self._result_used(task["name"]):
                    results.append(task["name"])
        if not changed:
            return None
        for name in results:
            template = arguments.with_result_as_parameter(template, name)
        return template

    def _apply(self, task: Json, step: Step) -> None:
        original = self._originals[task["template"]]
        given = [a["name"] for a in (task.get("arguments") or {}).get("artifacts") or ()]
        shape = gates.shape(
            original, self._templates[original["name"]], given, result=self._result_used(task["name"])
        )
        if step.treatment is Treatment.HIT:
            self._hit(task, shape, step.resolved)
        elif step.treatment is Treatment.GATE:
            task["template"] = self._cached(shape)
        else:
            self._fan(task, shape, step)

    def _hit(self, task: Json, shape: gates.Shape, resolved: Resolved) -> None:
        for loop in ("withItems", "withParam", "withSequence"):
            task.pop(loop, None)
        self._written.setdefault(gates.NEVER, gates.never())
        self._generated.setdefault(gates.NEVER, Generated("never", ""))
        name = self._shared(shape, "hit")
        self._written.setdefault(name, gates.hit(name, shape))
        task["template"] = name
        task["arguments"] = answers.hit_arguments(shape, resolved)

    def _cached(self, shape: gates.Shape) -> str:
        name, gate, select = (self._shared(shape, kind) for kind in ("cached", "gate", "select"))
        if name not in self._written:
            self._written[name] = gates.cached(name, gate, select, shape)
            self._gate(gate, shape.inputs, (gates.HIT, *shape.carried))
            self._written[select] = gates.select(select, shape)
        return name

    def _fan(self, task: Json, shape: gates.Shape, step: Step) -> None:
        """Move the loop into a wrapper: what depends on the item stays inside, the rest is passed in."""
        inputs, outer, inner = arguments.split(task.get("arguments") or {})
        path = step.call.path
        if step.treatment is Treatment.FAN_GATE:
            items = task.pop("withParam", None) or task.pop("withItems", None) or step.resolved.items_json
            task.pop("withSequence", None)
            gate = self._add(shape.name, "fangate", None, "fan-gate")
            supplied = (gates.TODO, *(gates.parameter_of(n) for n in shape.outputs))
            asked = {
                "parameters": [{"name": gates.ITEMS}, *inputs["parameters"]],
                "artifacts": inputs["artifacts"],
            }
            self._gate(gate, asked, supplied)
            name = self._add(shape.name, "fan", None, "fan")
            outer["parameters"].insert(0, {"name": gates.ITEMS, "value": arguments.text_of(items)})
            self._fans[path] = Fan(inner)
        else:
            for loop in ("withItems", "withParam", "withSequence"):
                task.pop(loop, None)
            gate = None
            items = json.loads(step.resolved.items_json)
            known, todo = answers.fan_answer(shape.outputs, items, step.resolved.items)
            name = self._add(shape.name, "part", None, "part")
            outer["parameters"][:0] = [{"name": n, "value": v} for n, v in known.items()]
            self._fans[path] = Fan(inner, tuple(todo))
        self._written[name] = gates.fan(name, shape, inputs, inner, gate)
        task["template"] = name
        task["arguments"] = outer

    def _gate(self, name: str, inputs: Json, supplied: tuple[str, ...]) -> None:
        self._written[name] = gates.gate(name, inputs, supplied, self._seconds)
        self._generated[name] = replace(self._generated[name], supplied=supplied)

    def _shared(self, shape: gates.Shape, kind: str) -> str:
        """The name of a wrapper that all calls of one shape share."""
        form = json.dumps([shape.inputs, shape.outputs, kind], sort_keys=True)
        if form not in self._forms:
            self._forms[form] = self._add(shape.name, kind, None, kind)
        return self._forms[form]

    def _add(self, template: str, suffix: str, body: Json | None, kind: str) -> str:
        """Note a template of ours under a name that nobody has."""
        name, number = f"{template}--{suffix}", 1
        while name in self._originals or name in self._generated:
            number += 1
            name = f"{template}--{suffix}-{number}"
        self._generated[name] = Generated(kind, template)
        if body is not None:
            self._written[name] = {**body, "name": name}
        return name

    def _result_used(self, task: str) -> bool:
        return bool({f"tasks.{task}.outputs.result", f"steps.{task}.outputs.result"} & self._references)


def _tasks(template: Json) -> Iterator[Json]:
    if "dag" in template:
        yield from template["dag"]["tasks"]
    for group in template.get("steps") or ():
        yield from group
