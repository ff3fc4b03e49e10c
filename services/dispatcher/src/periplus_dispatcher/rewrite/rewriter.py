"""From a user's manifest and a plan to the manifest that Argo runs: only `template` and arguments of calls change."""

import copy
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from periplus_common.object_key import PROJECT_LABEL
from periplus_dispatcher.domain import (
    MANAGED_LABEL,
    ContainerTemplate,
    FanOut,
    GeneratedTemplate,
    Json,
    StretchMember,
    TemplateRole,
)
from periplus_dispatcher.manifest.arguments import split_arguments
from periplus_dispatcher.manifest.calls import text_of
from periplus_dispatcher.manifest.documents import CRON_LABEL
from periplus_dispatcher.rewrite import answers, gates, stretches
from periplus_dispatcher.rewrite.fan_outs import fan_out_template
from periplus_dispatcher.rewrite.generated import (
    IS_HIT,
    ITEMS,
    NO_OP,
    NOTHING,
    REMAINING_ITEMS,
    REST,
    RUN,
    STRETCH_GATE,
    VERDICT,
    RewrittenManifest,
    artifact_of,
    member_output,
    parameter_of,
    with_result_as_parameter,
)
from periplus_dispatcher.rewrite.plan import Plan, PlannedStep, StepAction
from periplus_manifest.bounds import MAX_MANIFEST_BYTES
from periplus_model.queries import Raw, StepVerdict, literal_text
from periplus_model.steps import ObjectRef, Verdict

MAX_TEMPLATE_NAME_CHARACTERS = 128

SCHEDULED_TIME = "workflows.argoproj.io/scheduled-time"
_LOOP_FIELDS = ("withItems", "withParam", "withSequence")
_NAME_SUFFIXES = {
    TemplateRole.HIT: "hit",
    TemplateRole.GATED: "cached",
    TemplateRole.GATE: "gate",
    TemplateRole.SELECTION: "select",
    TemplateRole.FAN_OUT: "fan",
    TemplateRole.FAN_OUT_GATE: "fangate",
    TemplateRole.STRETCH_GATE: "",
    TemplateRole.STRETCHED: "stretch",
    TemplateRole.PARTIAL_FAN_OUT: "part",
    TemplateRole.COPY: "call",
    TemplateRole.NO_OP: "",
}


def rewrite(
    manifest: Json,
    plan: Plan,
    templates: Mapping[str, ContainerTemplate],
    *,
    gate_timeout: timedelta,
    wait_timeout: timedelta | None = None,
    copies_entrypoint: bool = False,
) -> RewrittenManifest:
    """Write a plan into a manifest. Gives the manifest itself if nothing changes or the result would be too large.

    A step runs if its gate is not answered within `gate_timeout`; one that is PENDING, within `wait_timeout` (as the others if None).
    With `copies_entrypoint` no template is changed: those that the rewrite changes are copied, also where no others call them.
    """
    if all(step.action is StepAction.KEEP for step in plan.steps):
        return RewrittenManifest(manifest)
    for has_stretches in (
        True,
        False,
    ):  # the calls of a stretch are longer than those with gates of their own
        rewriter = _Rewriter(
            manifest,
            plan,
            templates,
            gate_timeout,
            wait_timeout or gate_timeout,
            has_stretches=has_stretches,
        )
        rewritten = rewriter.rewrite(copies_entrypoint=copies_entrypoint)
        if len(json.dumps(rewritten.manifest, ensure_ascii=False).encode()) <= MAX_MANIFEST_BYTES:
            return rewritten
    return RewrittenManifest(manifest, is_too_large=True)


def to_submit(
    manifest: Json, name: str, namespace: str, project: str, parameters: Mapping[str, str], now: datetime
) -> Json:
    """The manifest with the run's id as name, our labels and the values of its parameters.

    `now` is the time for which a run of a CronWorkflow counts as scheduled.
    """
    named = copy.deepcopy(manifest)
    metadata = named.setdefault("metadata", {})
    metadata.pop("generateName", None)
    metadata |= {"name": name, "namespace": namespace}
    metadata.setdefault("labels", {}).update({MANAGED_LABEL: "true", PROJECT_LABEL: project})
    if CRON_LABEL in metadata["labels"]:
        metadata.setdefault("annotations", {}).setdefault(SCHEDULED_TIME, now.isoformat(timespec="seconds"))
    if parameters:
        arguments = named["spec"].setdefault("arguments", {})
        declared = arguments.get("parameters") or []
        names = {p["name"] for p in declared}
        arguments["parameters"] = [
            {**{k: v for k, v in p.items() if k == "enum"}, "name": p["name"], "value": parameters[p["name"]]}
            if p["name"] in parameters
            else p
            for p in declared
        ] + [{"name": name, "value": value} for name, value in parameters.items() if name not in names]
    return named


def resolved_manifest(submitted: Json, source: Json, pipeline: str) -> Json:
    """What `to_submit` gives, without the name of its run: what can be run again. `source` is as it was written."""
    metadata = {
        name: value for name, value in submitted["metadata"].items() if name not in ("name", "namespace")
    }
    prefix = (source.get("metadata") or {}).get("generateName") or f"{pipeline}-"
    labels = {n: v for n, v in metadata["labels"].items() if n not in (MANAGED_LABEL, PROJECT_LABEL)}
    return {**submitted, "metadata": {"generateName": prefix, **metadata, "labels": labels}}


class _Rewriter:
    def __init__(
        self,
        manifest: Json,
        plan: Plan,
        templates: Mapping[str, ContainerTemplate],
        gate_timeout: timedelta,
        wait_timeout: timedelta,
        *,
        has_stretches: bool,
    ) -> None:
        self._wait_timeout = wait_timeout
        self._manifest = {**manifest, "spec": {**manifest["spec"]}}
        self._originals = {t["name"]: t for t in manifest["spec"]["templates"]}
        self._steps = {step.call.path: step for step in plan.steps}
        self._templates = templates
        self._gate_timeout = gate_timeout
        self._has_stretches = has_stretches
        self._bodies: dict[str, Json] = {}
        self._generated: dict[str, GeneratedTemplate] = {}
        self._fan_outs: dict[str, FanOut] = {}
        self._stretches: dict[str, dict[str, StretchMember]] = {}
        self._shared_names: dict[str, str] = {}
        self._no_op = ""

    def rewrite(self, *, copies_entrypoint: bool) -> RewrittenManifest:
        spec = self._manifest["spec"]
        entrypoint = spec["entrypoint"]
        changed = self._rewrite_template(self._originals[entrypoint], "")
        templates = spec["templates"]
        if changed is not None and (copies_entrypoint or self._is_called(entrypoint)):
            # Other calls of the entrypoint are other steps: they call the original.
            spec["entrypoint"] = self._add(entrypoint, TemplateRole.COPY, changed)
        elif changed is not None:
            templates = [changed if t["name"] == entrypoint else t for t in templates]
        spec["templates"] = [*templates, *self._bodies.values()]
        return RewrittenManifest(self._manifest, self._generated, self._fan_outs, self._stretches)

    def _is_called(self, name: str) -> bool:
        """Whether a task, a hook or an exit handler calls a template."""
        spec = self._manifest["spec"]
        called = [*_hook_templates(spec.get("hooks")), spec.get("onExit")]
        for template in spec["templates"]:
            for task in _tasks(template):
                called += [task.get("template"), task.get("onExit"), *_hook_templates(task.get("hooks"))]
        return any(each is not None and (each == name or "{{" in each) for each in called)

    def _rewrite_template(self, original: Json, prefix: str) -> Json | None:
        """A template invocator for the calls whose paths begin with `prefix`; None if nothing in it changes."""
        template = copy.deepcopy(original)
        steps = {task["name"]: step for task in _tasks(template) if (step := self._step(prefix, task))}
        stretch_gates = self._add_stretches(template, steps)
        is_changed = False
        with_result: list[str] = []
        for task in _tasks(template):
            step = steps.get(task["name"])
            if step is None:
                continue
            if step.call.is_expanded:
                inner = self._rewrite_template(self._originals[task["template"]], f"{step.call.path}.")
                if inner is not None:
                    task["template"] = self._add(task["template"], TemplateRole.COPY, inner)
                    is_changed = True
            elif step.action is not StepAction.KEEP:
                self._rewrite_call(task, step, *stretch_gates.get(task["name"], ("", [])))
                is_changed = True
                if step.call.result_used:
                    with_result.append(task["name"])
        if not is_changed:
            return None
        for name in with_result:
            template = with_result_as_parameter(template, name)
        return template

    def _step(self, prefix: str, task: Json) -> PlannedStep | None:
        return self._steps.get(prefix + task["name"]) or self._steps.get(f"{prefix}{task['name']}(*)")

    def _add_stretches(
        self, template: Json, steps: Mapping[str, PlannedStep]
    ) -> dict[str, tuple[str, list[str]]]:
        """Add the gates of a DAG's stretches, and let their members wait for them.

        Gives, for each member, the gate and the members that it waits for.
        """
        if not self._has_stretches:
            return {}
        found = stretches.find(template, steps, self._carriers)
        by_task: dict[str, tuple[str, list[str]]] = {}
        tasks = template["dag"]["tasks"] if found else []
        wait = "dependencies" if any(task.get("dependencies") for task in tasks) else "depends"
        for stretch in found:
            taken = {task["name"] for task in tasks}
            gate = self._add(STRETCH_GATE, TemplateRole.STRETCH_GATE, None, taken)
            supplied = {
                member_output(task, carrier): RUN if carrier == VERDICT else ""
                for task, member in stretch.members.items()
                for carrier in member.supplied
            }
            self._add_gate(gate, stretch.inputs.arguments, supplied)
            self._stretches[gate] = stretch.members
            for task in tasks:
                if task["name"] in stretch.members:
                    by_task[task["name"]] = gate, stretch.before[task["name"]]
                    before = task.get(wait)
                    if wait == "depends":
                        task[wait] = f"{before} && {gate}" if before else gate
                    else:
                        task[wait] = [*(before or ()), gate]
            call: Json = {"name": gate, "template": gate}
            if awaited := [task["name"] for task in tasks if task["name"] in stretch.waits_for]:
                call[wait] = " && ".join(awaited) if wait == "depends" else awaited
            tasks.append(call | {"arguments": stretch.inputs.arguments})
        return by_task

    def _signature(self, task: Json, step: PlannedStep) -> gates.TemplateSignature:
        original = self._originals[task["template"]]
        return gates.signature_of(
            original,
            self._templates[original["name"]],
            [a["name"] for a in (task.get("arguments") or {}).get("artifacts") or ()],
            result_used=step.call.result_used,
            is_fan_out=step.call.is_fan_out,
        )

    def _carriers(self, task: Json, step: PlannedStep) -> list[str]:
        """The parameters that carry the answer of a stretch's gate to a member."""
        remaining = [REMAINING_ITEMS] if step.call.is_fan_out else []
        return [VERDICT, *remaining, *self._signature(task, step).supplied]

    def _rewrite_call(self, task: Json, step: PlannedStep, stretch_gate: str, before: list[str]) -> None:
        signature = self._signature(task, step)
        if step.action is StepAction.SERVE:
            self._serve(task, signature, step.verdict)
        elif step.action is not StepAction.GATE:
            self._wrap_loop(task, signature, step, stretch_gate, before)
        elif stretch_gate:
            self._stretched(task, signature, stretch_gate, before, waits=_waits(step))
        else:
            task["template"] = self._gated(signature, waits=_waits(step))

    def _serve(self, task: Json, signature: gates.TemplateSignature, verdict: StepVerdict) -> None:
        for loop in _LOOP_FIELDS:
            task.pop(loop, None)
        name = self._shared(signature, TemplateRole.HIT)
        if name not in self._bodies:
            if not self._no_op:
                self._no_op = self._add(NO_OP, TemplateRole.NO_OP, None)
                self._bodies[self._no_op] = gates.no_op_template(self._no_op)
            self._bodies[name] = gates.hit_template(name, self._no_op, signature)
        task["template"] = name
        task["arguments"] = answers.hit_arguments(signature, verdict)

    def _gated(self, signature: gates.TemplateSignature, *, waits: bool) -> str:
        name, gate, selection = (
            self._shared(signature, role, waits=waits)
            for role in (TemplateRole.GATED, TemplateRole.GATE, TemplateRole.SELECTION)
        )
        if name not in self._bodies:
            self._bodies[name] = gates.gated_template(name, gate, selection, signature)
            supplied = {IS_HIT: "false"} | dict.fromkeys(signature.supplied, "")
            self._add_gate(gate, signature.inputs, supplied, waits=waits)
            self._bodies[selection] = gates.selection_template(selection, signature)
        return name

    def _stretched(
        self, task: Json, signature: gates.TemplateSignature, gate: str, before: list[str], *, waits: bool
    ) -> None:
        name = self._shared(signature, TemplateRole.STRETCHED, waits=waits)
        if name not in self._bodies:
            gated = self._gated(signature, waits=waits)
            own_gate = self._shared(signature, TemplateRole.GATE, waits=waits)
            gates.give_rest(self._bodies[gated], self._bodies[own_gate])
            self._bodies[name] = gates.stretched_template(name, gated, signature)
        task["template"] = name
        given = task.setdefault("arguments", {})
        parameters = (VERDICT, *(parameter_of(n) for n in signature.outputs))
        added = gates.member_arguments(
            gate, task["name"], before, parameters, (artifact_of(n) for n in signature.artifacts)
        )
        for kind, arguments in added.items():
            if arguments:
                given[kind] = [*(given.get(kind) or ()), *arguments]

    def _wrap_loop(
        self,
        task: Json,
        signature: gates.TemplateSignature,
        step: PlannedStep,
        stretch_gate: str,
        before: list[str],
    ) -> None:
        """Move a loop into a wrapper, together with the arguments that depend on the item."""
        inputs, outer, inner = split_arguments(task.get("arguments") or {})
        fan_out = _defaults(step, inner)
        if step.action is StepAction.GATE_FAN_OUT:
            query_items = step.call.query.items if step.call.query else None
            items = literal_text(query_items) if query_items else None
            items = items or text_of(task.get("withParam") or task.get("withItems"))
            gate = self._add(signature.name, TemplateRole.FAN_OUT_GATE, None)
            gate_inputs = {
                "parameters": [{"name": ITEMS}, *inputs["parameters"]],
                "artifacts": inputs["artifacts"],
            }
            supplied = (REMAINING_ITEMS, *(parameter_of(n) for n in signature.outputs))
            rest = {REST: NOTHING} if stretch_gate else {}
            self._add_gate(gate, gate_inputs, dict.fromkeys(supplied, "") | rest, waits=_waits(step))
            name = self._add(signature.name, TemplateRole.FAN_OUT, None)
            outer["parameters"].insert(0, {"name": ITEMS, "value": items})
            if stretch_gate:
                added = gates.member_arguments(stretch_gate, task["name"], before, (VERDICT, *supplied))
                outer["parameters"] += added["parameters"]
            self._fan_outs[step.call.path] = replace(fan_out, arguments=inner)
        else:
            gate = None
            found = json.loads(step.verdict.items_json)
            values, remaining = answers.fan_out_answer(signature.outputs, found, step.verdict.items)
            name = self._add(signature.name, TemplateRole.PARTIAL_FAN_OUT, None)
            outer["parameters"][:0] = [{"name": n, "value": v} for n, v in values.items()]
            self._fan_outs[step.call.path] = replace(fan_out, arguments=inner, remaining=tuple(remaining))
        for loop in _LOOP_FIELDS:
            task.pop(loop, None)
        self._bodies[name] = fan_out_template(
            name, signature, inputs, inner, gate, is_stretched=bool(stretch_gate)
        )
        task["template"] = name
        task["arguments"] = outer

    def _add_gate(self, name: str, inputs: Json, defaults: Mapping[str, str], *, waits: bool = False) -> None:
        timeout = self._wait_timeout if waits else self._gate_timeout
        self._bodies[name] = gates.gate_template(name, inputs, defaults, timeout)
        self._generated[name] = replace(self._generated[name], supplied=tuple(defaults))

    def _shared(self, signature: gates.TemplateSignature, role: TemplateRole, *, waits: bool = False) -> str:
        """The name of a wrapper, the same for all calls with one signature."""
        key = json.dumps(
            [
                signature.name,
                signature.inputs,
                signature.outputs,
                signature.artifacts,
                signature.optional,
                role,
                waits,
            ],
            sort_keys=True,
        )
        if key not in self._shared_names:
            self._shared_names[key] = self._add(signature.name, role, None)
        return self._shared_names[key]

    def _add(self, name: str, role: TemplateRole, body: Json | None, taken: Collection[str] = ()) -> str:
        """Add a template for the user's template `name`, under a name that no template has and that is not `taken`."""
        suffix = _NAME_SUFFIXES[role]
        ending, number = f"--{suffix}" if suffix else "", 1
        added = name[: MAX_TEMPLATE_NAME_CHARACTERS - len(ending)] + ending
        while added in self._originals or added in self._generated or added in taken:
            number += 1
            ending = f"--{suffix}-{number}" if suffix else f"-{number}"
            added = name[: MAX_TEMPLATE_NAME_CHARACTERS - len(ending)] + ending
        # A stretch's gate stands for none of the user's templates.
        stands_for = added if role is TemplateRole.STRETCH_GATE else name
        self._generated[added] = GeneratedTemplate(role, stands_for)
        if body is not None:
            self._bodies[added] = {**body, "name": added}
        return added


def _defaults(step: PlannedStep, inner: Json) -> FanOut:
    """The inputs of each item that its arguments do not set."""
    query = step.call.query
    assert query is not None  # only steps that the cache was asked for are rewritten
    set_inputs = {each["name"] for key in ("parameters", "artifacts") for each in inner[key]}
    texts = {n: literal_text(t) for n, t in query.parameters.items() if n not in set_inputs}
    return FanOut(
        arguments={},
        parameters={n: text for n, text in texts.items() if text is not None},
        artifacts={
            n: source
            for n, source in query.artifacts.items()
            if n not in set_inputs and isinstance(source, ObjectRef | Raw)
        },
    )


def _waits(step: PlannedStep) -> bool:
    """Whether a step waits for another run, behind a gate that may stay closed for as long as that one takes."""
    return step.verdict.verdict is Verdict.PENDING


def _hook_templates(hooks: Json | None) -> Iterator[str | None]:
    for hook in (hooks or {}).values():
        yield hook.get("template")


def _tasks(template: Json) -> Iterator[Json]:
    if "dag" in template:
        yield from template["dag"]["tasks"]
    for group in template.get("steps") or ():
        yield from group
