"""From a user's manifest and a plan to the manifest that Argo runs: only `template:` and arguments of calls change."""

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from periplus_dispatcher import answers, arguments, fans, gates, tasks
from periplus_dispatcher.domain import Object, Raw, Resolved, Template, known
from periplus_dispatcher.plan import Plan, Step, Treatment
from periplus_dispatcher.written import Fan, Generated, Rewritten

Json = dict[str, Any]

LOOPS = ("withItems", "withParam", "withSequence")
MANAGED = "periplus.dev/managed"
PROJECT = "periplus.dev/project"
MAX_SIZE = 1 << 20  # bytes; what Kubernetes takes
MAX_NAME = 128  # characters of a template's name


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
        arguments["parameters"] = [
            {**{k: v for k, v in p.items() if k == "enum"}, "name": p["name"], "value": parameters[p["name"]]}
            if p["name"] in parameters
            else p
            for p in arguments.get("parameters") or ()
        ]
    return named


class _Rewriter:
    def __init__(
        self, manifest: Json, plan: Plan, templates: Mapping[str, Template], gate_seconds: int
    ) -> None:
        self._manifest = {**manifest, "spec": {**manifest["spec"]}}
        self._originals = {t["name"]: t for t in manifest["spec"]["templates"]}
        self._steps = {step.call.path: step for step in plan.steps}
        self._templates = templates
        self._seconds = gate_seconds
        self._written: dict[str, Json] = {}
        self._generated: dict[str, Generated] = {}
        self._fans: dict[str, Fan] = {}
        self._forms: dict[str, str] = {}
        self._never = ""

    def rewrite(self) -> Rewritten:
        spec = self._manifest["spec"]
        entrypoint = spec["entrypoint"]
        changed = self._template(self._originals[entrypoint], "")
        kept = spec["templates"]
        if changed is not None and self._called(entrypoint):
            # Another call of it is another step: what is known of this one is not written into that one.
            spec["entrypoint"] = self._add(entrypoint, "call", changed, "copy")
        elif changed is not None:
            kept = [changed if t["name"] == entrypoint else t for t in kept]
        spec["templates"] = [*kept, *self._written.values()]
        return Rewritten(self._manifest, self._generated, self._fans)

    def _called(self, name: str) -> bool:
        """Whether anything but the start calls a template."""
        spec = self._manifest["spec"]
        called = [*_calls(spec.get("hooks")), spec.get("onExit")]
        for template in spec["templates"]:
            for task in _tasks(template):
                called += [task.get("template"), task.get("onExit"), *_calls(task.get("hooks"))]
        return any(each is not None and (each == name or "{{" in each) for each in called)

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
                if step.call.result_used:
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
            original,
            self._templates[original["name"]],
            given,
            result=step.call.result_used,
            looped=step.call.query is not None and step.call.query.items is not None,
        )
        if step.treatment is Treatment.HIT:
            self._hit(task, shape, step.resolved)
        elif step.treatment is Treatment.GATE:
            task["template"] = self._cached(shape)
        else:
            self._fan(task, shape, step)

    def _hit(self, task: Json, shape: gates.Shape, resolved: Resolved) -> None:
        for loop in LOOPS:
            task.pop(loop, None)
        name = self._shared(shape, "hit")
        if name not in self._written:
            if not self._never:
                self._never = self._add(gates.NEVER, "", None, "never")
                self._written[self._never] = gates.never(self._never)
            self._written[name] = gates.hit(name, self._never, shape)
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
        given = _defaults(step, inner)
        if step.treatment is Treatment.FAN_GATE:
            items = known(step.call.query.items) if step.call.query and step.call.query.items else None
            items = items or tasks.text_of(task.get("withParam") or task.get("withItems"))
            gate = self._add(shape.name, "fangate", None, "fan-gate")
            supplied = (gates.TODO, *(gates.parameter_of(n) for n in shape.outputs))
            asked = {
                "parameters": [{"name": gates.ITEMS}, *inputs["parameters"]],
                "artifacts": inputs["artifacts"],
            }
            self._gate(gate, asked, supplied)
            name = self._add(shape.name, "fan", None, "fan")
            outer["parameters"].insert(0, {"name": gates.ITEMS, "value": items})
            self._fans[step.call.path] = replace(given, arguments=inner)
        else:
            gate = None
            found = json.loads(step.resolved.items_json)
            values, todo = answers.fan_answer(shape.outputs, found, step.resolved.items)
            name = self._add(shape.name, "part", None, "part")
            outer["parameters"][:0] = [{"name": n, "value": v} for n, v in values.items()]
            self._fans[step.call.path] = replace(given, arguments=inner, todo=tuple(todo))
        for loop in LOOPS:
            task.pop(loop, None)
        self._written[name] = fans.fan(name, shape, inputs, inner, gate)
        task["template"] = name
        task["arguments"] = outer

    def _gate(self, name: str, inputs: Json, supplied: tuple[str, ...]) -> None:
        self._written[name] = gates.gate(name, inputs, supplied, self._seconds)
        self._generated[name] = replace(self._generated[name], supplied=supplied)

    def _shared(self, shape: gates.Shape, kind: str) -> str:
        """The name of a wrapper that all calls of one shape share."""
        form = json.dumps([shape.name, shape.inputs, shape.outputs, shape.artifacts, kind], sort_keys=True)
        if form not in self._forms:
            self._forms[form] = self._add(shape.name, kind, None, kind)
        return self._forms[form]

    def _add(self, template: str, suffix: str, body: Json | None, kind: str) -> str:
        """Note a template of ours under a name that nobody has."""
        ending, number = f"--{suffix}" if suffix else "", 1
        name = template[: MAX_NAME - len(ending)] + ending
        while name in self._originals or name in self._generated:
            number += 1
            ending = f"--{suffix}-{number}" if suffix else f"-{number}"
            name = template[: MAX_NAME - len(ending)] + ending
        self._generated[name] = Generated(kind, template)
        if body is not None:
            self._written[name] = {**body, "name": name}
        return name


def _defaults(step: Step, inner: Json) -> Fan:
    """What each item of a fan-out is given that its arguments do not say."""
    said = {each["name"] for key in ("parameters", "artifacts") for each in inner[key]}
    query = step.call.query
    assert query is not None  # only what the cache was asked for is rewritten
    texts = {n: known(t) for n, t in query.parameters.items() if n not in said}
    rest = {n: source for n, source in query.artifacts.items() if n not in said}
    return Fan(
        {},
        parameters={n: text for n, text in texts.items() if text is not None},
        objects={n: source for n, source in rest.items() if isinstance(source, Object)},
        raws={n: source for n, source in rest.items() if isinstance(source, Raw)},
    )


def _calls(hooks: Json | None) -> Iterator[str | None]:
    for hook in (hooks or {}).values():
        yield hook.get("template")


def _tasks(template: Json) -> Iterator[Json]:
    if "dag" in template:
        yield from template["dag"]["tasks"]
    for group in template.get("steps") or ():
        yield from group
