"""From a manifest to its calls: the path, the inputs and the dependencies of each, and the query to the cache.

Template invocators are expanded, so that every step of the run is in one list. A call that is repeated as often as only
the run can tell (a loop over a template invocator, a recursion) is expanded once, with the unknown values left open.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from periplus_dispatcher.domain import ContainerTemplate, Json
from periplus_dispatcher.manifest.arguments import unsplittable_reason
from periplus_dispatcher.manifest.calls import (
    Call,
    ExpandedWorkflow,
    dependencies,
    groups,
    is_invocator,
    is_loop,
    items_of,
    template_kind,
)
from periplus_dispatcher.manifest.exit_handler import exit_handler
from periplus_dispatcher.manifest.pod_template import (
    CACHEABLE_KINDS,
    MAX_ADDED_CHARACTERS,
    added_characters,
    common_spec,
)
from periplus_dispatcher.manifest.policy import ANNOTATION_PREFIX
from periplus_dispatcher.manifest.scope import (
    OutputRefs,
    Resolver,
    Scope,
    TooLargeToPlanError,
    is_resolvable,
    step_outputs,
    unknown_outputs,
    volatile_value,
    without_items,
)
from periplus_dispatcher.manifest.template import describe_template
from periplus_dispatcher.manifest.uncacheable import StepEnvironment
from periplus_manifest import tags
from periplus_manifest.bounds import MAX_NODES
from periplus_manifest.depends import Depends
from periplus_manifest.errors import BoundError
from periplus_model.queries import (
    ArtifactSource,
    Item,
    OutputRef,
    StepQuery,
    Text,
    Unknown,
    literal,
    literal_text,
)

MAX_CALLS = 10_000
"""The limit of `ResolveStepsRequest.steps`."""
MAX_DEPENDENCIES = 100_000
"""Dependencies of all calls on one another: each step of a group waits for every step of the group before it."""
MAX_PATH_CHARACTERS = 8 << 20
"""Characters of the paths of all calls."""
MAX_NAMED_STEPS = 3
MAX_NAMED_CHARACTERS = 200
"""Of a warning: steps that it names, and of what an input has."""
NOT_PLANNED = "no step is planned or cached: {}"


def expand(workflow: Json, parameters: Mapping[str, str], environment: StepEnvironment) -> ExpandedWorkflow:
    """Expand the entrypoint of a checked manifest.

    `parameters` are the workflow's, with their values. It is without calls, and with a warning that says why, if
    its templates are not in the manifest, or if there is more than a plan may hold. Raises `BoundError`.
    """
    constants = {f"workflow.parameters.{name}": value for name, value in parameters.items()}
    if added_characters(workflow["spec"], constants) > MAX_ADDED_CHARACTERS:
        reason = NOT_PLANNED.format(
            f"podSpecPatch and templateDefaults add more than {MAX_ADDED_CHARACTERS} characters to the templates"
        )
        return ExpandedWorkflow((), {}, {}, {}, steps_decide_all=False, warnings=(reason,))
    expander = _Expander(workflow, parameters, environment)
    try:
        return expander.expand()
    except TooLargeToPlanError as error:
        return expander.without_calls(f"the workflow has {error}")


@dataclass(frozen=True)
class _Order:
    """The order of the calls of a template invocator: what each task waits for, and the groups that can run together.

    `with_item_conditions` are the tasks whose single items others depend on.
    """

    waits: Mapping[str, Depends | None]
    with_item_conditions: set[str]
    groups: list[list[Json]]


class _Expander:
    def __init__(self, workflow: Json, parameters: Mapping[str, str], environment: StepEnvironment) -> None:
        spec = workflow["spec"]
        self._spec = spec
        self._resolver = Resolver(parameters)
        self._parameters = parameters
        self._by_name = {t["name"]: (i, t) for i, t in enumerate(spec.get("templates") or ())}
        self._annotations = (workflow.get("metadata") or {}).get("annotations") or {}
        self._exit_handler = exit_handler(spec, self._annotations)
        self._steps_decide_all = not set(spec.get("hooks") or {}) - {"exit"}
        self._environment = environment
        self._common = common_spec(spec)
        self._templates: dict[str, ContainerTemplate] = {}
        self._calls: list[Call] = []
        self._dependencies = self._path_characters = self._items = 0
        self._orders: dict[tuple[str, tuple[str, ...] | None], _Order] = {}
        self._volatile: dict[tuple[str, str], list[str]] = {}

    def expand(self) -> ExpandedWorkflow:
        name = self._spec.get("entrypoint", "")
        if name not in self._by_name:
            return self.without_calls("its templates are those of a WorkflowTemplate, which only Argo has")
        _, template = self._by_name[name]
        values = {
            p["name"]: literal(self._parameters[p["name"]])
            for p in items_of(template, "inputs", "parameters")
            if p["name"] in self._parameters
        }
        for p in items_of(self._spec, "arguments", "parameters"):
            values.setdefault(p["name"], (Unknown(f"workflow.parameters.{p['name']}"),))
        sources = {
            a["name"]: self._resolver.source(a, Scope({}, {}))
            for a in items_of(self._spec, "arguments", "artifacts")
        }
        scope = self._resolver.inner_scope(template, values, sources, in_loop=False)
        if is_invocator(template):
            outputs = self._expand_template(template, scope, prefix="", stack=(name,))
        else:
            outputs = self._add_step(name, template, {}, scope, Call(name, name, is_entrypoint=True))
        declared = [p["name"] for p in items_of(template, "outputs", "parameters")]
        parameters = {p: text for p in declared if is_resolvable(text := outputs.parameter(p))}
        declared_artifacts = [a["name"] for a in items_of(template, "outputs", "artifacts")]
        artifacts = {
            a: source for a in declared_artifacts if not isinstance(source := outputs.artifact(a), Unknown)
        }
        return replace(
            self.without_calls(""),
            calls=tuple(self._calls),
            warnings=self._volatile_warnings(),
            parameters=parameters,
            artifacts=artifacts,
            steps_decide_all=self._steps_decide_all
            and len(parameters) == len(declared)
            and len(artifacts) == len(declared_artifacts),
        )

    def without_calls(self, reason: str) -> ExpandedWorkflow:
        """Only the container templates, and a warning with the reason, if there is one."""
        for index, template in self._by_name.values():
            self._describe(
                index, template
            )  # also those that only a hook, an exit handler or a recursion calls
        warnings = (NOT_PLANNED.format(reason),) if reason else ()
        return ExpandedWorkflow(
            (),
            self._templates,
            {},
            {},
            steps_decide_all=False,
            exit_handler=self._exit_handler,
            warnings=warnings,
        )

    def _add(self, call: Call) -> None:
        self._dependencies += len(call.depends_on)
        self._path_characters += len(call.path)
        if len(self._calls) >= MAX_CALLS:
            raise TooLargeToPlanError(f"more than {MAX_CALLS} calls of templates")
        if self._dependencies > MAX_DEPENDENCIES:
            raise TooLargeToPlanError(f"more than {MAX_DEPENDENCIES} dependencies of steps on one another")
        if self._path_characters > MAX_PATH_CHARACTERS:
            raise TooLargeToPlanError(f"more than {MAX_PATH_CHARACTERS} characters of paths of steps")
        self._calls.append(call)

    def _expand_template(
        self, template: Json, scope: Scope, prefix: str, stack: tuple[str, ...]
    ) -> OutputRefs:
        """Add the calls of a template invocator, whose paths begin with `prefix`, and give its outputs."""
        previous_group: tuple[str, ...] = ()
        paths: dict[str, str] = {}
        order = self._order(template, self._targets(template, scope))
        waits, with_item_conditions = order.waits, order.with_item_conditions
        for group in order.groups:
            for task in group:
                name = task["name"]
                suffix = "(*)" if is_loop(task) and self._calls_invocator(task) else ""
                paths[name] = f"{prefix}{name}{suffix}"
                waits_for = waits.get(name)
                call = Call(
                    paths[name],
                    task.get("template", ""),
                    tuple(paths[t] for t in sorted(waits_for.tasks)) if waits_for else previous_group,
                    waits_for=waits_for,
                    siblings={t: paths[t] for t in waits_for.tasks} if waits_for else {},
                    uncacheable_reason="others depend on the outcome of its single items"
                    if name in with_item_conditions
                    else "",
                )
                try:
                    scope.outputs[name] = self._expand_call(task, call, scope, stack)
                except BoundError as error:
                    if error.path:
                        raise
                    path = f"spec.templates[{self._by_name[template['name']][0]}]"
                    raise BoundError(path, f"{call.path}: {error.message}") from None
            if "steps" in template:
                previous_group = tuple(paths[task["name"]] for task in group)
        return self._resolver.template_outputs(template, scope)

    def _order(self, template: Json, targets: list[str] | None) -> "_Order":
        """The order of a template's calls, computed once, however often the template is called."""
        key = (template["name"], None if targets is None else tuple(targets))
        if key not in self._orders:
            waits = dependencies(template)
            with_item_conditions = set().union(*(found.item_tasks for found in waits.values() if found))
            self._orders[key] = _Order(waits, with_item_conditions, list(groups(template, waits, targets)))
        return self._orders[key]

    def _targets(self, template: Json, scope: Scope) -> list[str] | None:
        """The `target` tasks of a DAG; None for all tasks, also if the target is known only during the run."""
        target = (template.get("dag") or {}).get("target")
        if not target:
            return None
        names = literal_text(self._resolver.text(target, scope))
        if names is None:
            self._steps_decide_all = False
            return None
        return names.split()

    def _expand_call(self, task: Json, call: Call, scope: Scope, stack: tuple[str, ...]) -> OutputRefs:
        """Add a call, and the calls of the template that it calls. Gives its outputs."""
        in_loop = is_loop(task)
        condition = self._resolver.text(task["when"], scope, in_item=in_loop) if task.get("when") else None
        call = replace(
            call,
            condition=condition,
            condition_uses_item=condition is not None and any(isinstance(part, Item) for part in condition),
            result_used=self._is_result_used(task["name"]),
        )
        if task.get("template", "") not in self._by_name:
            self._add(replace(call, uncacheable_reason=_outside_reason(task)))
            return unknown_outputs(call.path)
        _, template = self._by_name[task["template"]]
        if not is_invocator(template):
            return self._add_step(task["name"], template, task, scope, call)
        if task.get("hooks") or task.get("onExit"):
            self._steps_decide_all = False  # they run when it ends, whatever is known of its steps
        if template["name"] in stack:
            reason = "it is recursive: how often it is repeated is known only during the run"
            self._add(replace(call, uncacheable_reason=reason, is_invocator=True))
            return unknown_outputs(call.path)
        self._add(replace(call, is_invocator=True, uncacheable_reason=""))
        parameters, artifacts = self._resolver.arguments(task, scope)
        if in_loop:
            parameters = {n: without_items(text) for n, text in parameters.items()}
        inner = self._resolver.inner_scope(template, parameters, artifacts, in_loop=scope.in_loop or in_loop)
        outputs = self._expand_template(template, inner, f"{call.path}.", (*stack, template["name"]))
        return unknown_outputs(call.path) if in_loop else outputs

    def _add_step(self, name: str, template: Json, task: Json, scope: Scope, call: Call) -> OutputRefs:
        """Add the call of a template that is no invocator. Gives its outputs."""
        call = self._with_query(name, template, task, scope, call)
        self._add(call)
        # The cache knows the outputs of a step only if it was asked for the step.
        return step_outputs(call.path) if call.query is not None else unknown_outputs(call.path)

    def _with_query(self, name: str, template: Json, task: Json, scope: Scope, call: Call) -> Call:
        """The call with its query, or with the reason why there is none. `task` is empty for the entrypoint."""
        described = self._describe(self._by_name[template["name"]][0], template)
        if described is None:
            return replace(call, uncacheable_reason=f"a {template_kind(template)} template can not be cached")
        reason = (
            call.uncacheable_reason
            or described.step.uncacheable_reason
            or _call_reason(task, call)
            or self._used_field_reason(name)
        )
        if reason:
            return replace(call, uncacheable_reason=reason)
        if not (described.parameters or described.artifacts or call.result_used):
            return replace(call, uncacheable_reason="it has no outputs that could be cached")
        items = self._resolver.items(task, scope) if is_loop(task) else None
        self._count_items(items)
        if task.get("withSequence") and items is not None and literal_text(items) is None:
            return replace(
                call, uncacheable_reason="the length of its withSequence is known only during the run"
            )
        parameters, artifacts = self._resolver.arguments(task, scope)
        if not task:
            parameters, artifacts = dict(scope.parameters), dict(scope.artifacts)
        inner = self._resolver.inner_scope(template, parameters, artifacts, in_loop=scope.in_loop)
        self._note_volatile(call.path, template, inner, described.step.policy.ignore_inputs)
        missing = self._missing_artifacts(task, template, inner.artifacts)
        if missing:
            reason = f"whether its optional artifact {missing[0]} exists is known only during the run"
            if not all(self._is_known_of_hit(inner.artifacts[name]) for name in missing):
                return replace(call, uncacheable_reason=reason)
            call = replace(call, ungated_reason=reason)
        elif described.optional and not is_loop(task):
            made = f"whether it makes its optional artifact {described.optional[0]} is known only once it ran"
            call = replace(call, ungated_reason=f"{made}, and its inputs during the run")
        declared = [p["name"] for p in items_of(template, "inputs", "parameters")]
        query = StepQuery(
            id=call.path,
            template=template["name"],
            parameters={p: inner.parameters.get(p, (Unknown(f"inputs.parameters.{p}"),)) for p in declared},
            artifacts=dict(inner.artifacts),
            items=items,
        )
        return replace(call, query=query)

    def _missing_artifacts(
        self, task: Json, template: Json, sources: Mapping[str, ArtifactSource]
    ) -> list[str]:
        """The optional inputs that may have no object: a wrapper, whose inputs must have one, would fail without it."""
        optional = {
            each["name"]
            for each in (
                *items_of(template, "inputs", "artifacts"),
                *items_of(task, "arguments", "artifacts"),
            )
            if each.get("optional")
        }
        return [name for name, source in sources.items() if name in optional and self._may_be_missing(source)]

    def _is_known_of_hit(self, source: ArtifactSource) -> bool:
        """Whether it is known that there is an object, or none, once the step that writes it is a hit."""
        return isinstance(source, OutputRef) and self._call(source.step).condition is None

    def _call(self, path: str) -> Call:
        return next(call for call in self._calls if call.path == path)

    def _may_be_missing(self, source: ArtifactSource) -> bool:
        if not isinstance(source, OutputRef):
            return isinstance(source, Unknown)
        call = self._call(source.step)
        outputs = items_of(self._by_name[call.template][1], "outputs", "artifacts")
        is_written = any(each["name"] == source.name and not each.get("optional") for each in outputs)
        return call.condition is not None or not is_written

    def _count_items(self, items: Text | None) -> None:
        """Count the items of a fan-out, if they are known: each is a node of the run."""
        text = literal_text(items) if items is not None else None
        if text is None:
            return
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return  # the run reports it
        self._items += len(found) if isinstance(found, list) else 0
        if self._items > MAX_NODES:
            raise BoundError("", f"the workflow would have more than {MAX_NODES} nodes, its items among them")

    def _used_field_reason(self, name: str) -> str:
        """Others read a field of the step's node that a wrapper does not have, as the exit code."""
        for kind in ("tasks", "steps"):
            for what in ("exitCode", "outputs.exitCode", "ip", "hostNodeName", "outputs.parameters"):
                if f"{kind}.{name}.{what}" in self._references:
                    return f"others read its {what}"
        return ""

    def _is_result_used(self, name: str) -> bool:
        return not self._references.isdisjoint(
            (f"tasks.{name}.outputs.result", f"steps.{name}.outputs.result")
        )

    @cached_property
    def _references(self) -> set[str]:
        return tags.references(self._spec)

    def _note_volatile(self, path: str, template: Json, inner: Scope, ignored: Collection[str]) -> None:
        """Note inputs that never have the value of an earlier run: the step never is a hit."""
        inputs = {
            p["name"]: inner.parameters.get(p["name"], ()) for p in items_of(template, "inputs", "parameters")
        }
        found: dict[str, Text | ArtifactSource] = {**inputs, **inner.artifacts}
        for name, value in found.items():
            if name not in ignored and (what := volatile_value(value)):
                self._volatile.setdefault((name, what[:MAX_NAMED_CHARACTERS]), []).append(path)

    def _volatile_warnings(self) -> tuple[str, ...]:
        """A warning for each input and what it has."""
        warnings = []
        for (name, what), paths in self._volatile.items():
            more = len(paths) - MAX_NAMED_STEPS
            steps = ", ".join(paths[:MAX_NAMED_STEPS]) + (f" and {more} more" if more > 0 else "")
            warnings.append(
                f"{steps}: input {name} has {what}, which differs from run to run, so that no result is served: annotate "
                f"{ANNOTATION_PREFIX}ignore-inputs: {name} if it does not change the result"
            )
        return tuple(warnings)

    def _describe(self, index: int, template: Json) -> ContainerTemplate | None:
        name = template["name"]
        if name not in self._templates and any(kind in template for kind in CACHEABLE_KINDS):
            self._templates[name] = describe_template(
                template,
                f"spec.templates[{index}]",
                self._resolver.constants,
                self._annotations,
                self._environment,
                self._common,
            )
        return self._templates.get(name)

    def _calls_invocator(self, task: Json) -> bool:
        name = task.get("template", "")
        return name in self._by_name and is_invocator(self._by_name[name][1])


def _outside_reason(task: Json) -> str:
    """Why the template that a task calls is not known before the run."""
    if task.get("inline"):
        return "its template is written inline: give the template a name, and call it by that"
    reference = task.get("templateRef") or {}
    names = f"{task.get('template') or ''}{reference.get('name') or ''}{reference.get('template') or ''}"
    if "{{" in names:
        return "which template it calls is known only during the run"
    return f"its template {reference.get('name')}/{reference.get('template')} is not part of this manifest"


def _call_reason(task: Json, call: Call) -> str:
    """Why this call of a template can not be cached; empty if it can."""
    if call.condition_uses_item:
        return "its condition differs from item to item"
    if task.get("hooks") or task.get("onExit"):
        return "it has hooks"
    return unsplittable_reason(task.get("arguments") or {}) if is_loop(task) else ""
