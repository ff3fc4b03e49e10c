"""From a manifest to its steps: every call of a template, what it is given, and what it waits for.

Nested templates are followed, so that a step deep inside is a step of the run like any other. Where a call
repeats something that only the run can tell (a loop over a nested template, a recursion), its inside is followed
once, with what is not known left open.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from periplus_dispatcher import arguments, leaf, tasks
from periplus_dispatcher.calls import Call, Walk
from periplus_dispatcher.domain import Item, Output, Query, Template, Unknown, known, literal
from periplus_dispatcher.scope import Given, Reader, Scope, settled, unknown, without_items
from periplus_manifest import tags

Json = dict[str, Any]

MAX_DEPTH = 32
_HARMLESS = frozenset(
    (
        "retryStrategy",
        "timeout",
        "activeDeadlineSeconds",
        "metadata",
        "metrics",
        "nodeSelector",
        "tolerations",
        "affinity",
    )
)  # defaults of templates that change nothing of what a step gives
MAX_CALLS = 10_000  # what the cache takes in one question


def walk(workflow: Json, parameters: Mapping[str, str], environment: str) -> Walk:
    """Follow the entrypoint of a checked manifest. `parameters` are the workflow's, with their values.

    Where the templates lie elsewhere, or the calls are too many to follow, there are no steps to tell of.
    """
    walker = _Walker(workflow, parameters, environment)
    try:
        return walker.walk()
    except _TooManyError:
        return walker.unfollowed()


class _TooManyError(Exception):
    """The calls are more than anybody wants to hear of; nested templates multiply."""


class _Walker:
    def __init__(self, workflow: Json, parameters: Mapping[str, str], environment: str) -> None:
        spec = workflow["spec"]
        self._spec = spec
        self._reader = Reader(parameters)
        self._parameters = parameters
        self._by_name = {t["name"]: (i, t) for i, t in enumerate(spec.get("templates") or ())}
        self._annotations = (workflow.get("metadata") or {}).get("annotations") or {}
        self._simple = not any(spec.get(key) for key in ("onExit", "hooks"))
        self._environment = environment
        defaults = {k: v for k, v in (spec.get("templateDefaults") or {}).items() if k not in _HARMLESS}
        self._common = {k: v for k, v in (("defaults", defaults), ("patch", spec.get("podSpecPatch"))) if v}
        self._leaves: dict[str, Template] = {}
        self._calls: list[Call] = []

    def walk(self) -> Walk:
        name = self._spec.get("entrypoint", "")
        if name not in self._by_name:
            return self.unfollowed()
        _, template = self._by_name[name]
        given = {p["name"]: literal(self._parameters[p["name"]]) for p in tasks.listed(template, "inputs", "parameters")
                 if p["name"] in self._parameters}  # fmt: skip
        placed = {a["name"]: self._reader.source(a, Scope({}, {}))
                  for a in tasks.listed(self._spec, "arguments", "artifacts")}  # fmt: skip
        scope = self._reader.inside(template, given, placed, looped=False)
        if tasks.is_nested(template):
            outputs = self._inside(template, scope, prefix="", stack=(name,))
        else:
            outputs = self._single(template, scope)
        declared = [p["name"] for p in tasks.listed(template, "outputs", "parameters")]
        shown = {p: text for p in declared if settled(text := outputs.parameter(p))}
        artifacts = {a["name"]: source for a in tasks.listed(template, "outputs", "artifacts")
                     if not isinstance(source := outputs.artifact(a["name"]), Unknown)}  # fmt: skip
        simple = (
            len(shown) == len(declared)
            and len(artifacts) == len(tasks.listed(template, "outputs", "artifacts"))
            and self._simple
        )
        return replace(
            self.unfollowed(), calls=tuple(self._calls), parameters=shown, artifacts=artifacts, simple=simple
        )

    def unfollowed(self) -> Walk:
        """What can be told without following calls: what the leaf templates do."""
        for i, t in self._by_name.values():
            self._leaf(i, t)  # also those that only a hook, an exit handler or a recursion calls
        return Walk((), self._leaves, {}, {}, simple=False)

    def _single(self, template: Json, scope: Scope) -> Given:
        """A workflow whose entrypoint is a leaf: one step, called by the template's name."""
        name = template["name"]
        self._add(self._leaf_call(name, name, template, {}, scope, Call(name, name)))
        return self._leaf_given(name, template)

    def _add(self, call: Call) -> None:
        if len(self._calls) >= MAX_CALLS:
            raise _TooManyError
        self._calls.append(call)

    def _inside(self, template: Json, scope: Scope, prefix: str, stack: tuple[str, ...]) -> Given:
        """Walk the tasks of a DAG or steps template in order, and say what the template gives."""
        last: tuple[str, ...] = ()
        paths: dict[str, str] = {}
        wanted = tasks.waits(template)
        asked = set().union(*(wants.item_tasks for wants in wanted.values() if wants))
        for group in tasks.groups(template, wanted, self._targets(template, scope)):
            for task in group:
                name = task["name"]
                paths[name] = path = f"{prefix}{name}" + (
                    "(*)" if tasks.loop(task) and self._calls_nested(task) else ""
                )
                wants = wanted.get(name)
                waits = tuple(paths[t] for t in sorted(wants.tasks)) if wants else last
                siblings = {t: paths[t] for t in wants.tasks} if wants else {}
                call = Call(path, task.get("template", ""), waits, waits_for=wants, siblings=siblings)
                if name in asked:
                    call = replace(call, obstacle="others ask how its single items ended")
                scope.given[name] = self._call(task, call, scope, stack)
            if "steps" in template:
                last = tuple(paths[task["name"]] for task in group)
        return self._reader.outputs(template, scope)

    def _targets(self, template: Json, scope: Scope) -> list[str] | None:
        """The tasks that a DAG is to come to; None for all of them, or where only the run can tell."""
        target = (template.get("dag") or {}).get("target")
        if not target:
            return None
        names = known(self._reader.text(target, scope))
        if names is None:
            self._simple = False
            return None
        return names.split()

    def _call(self, task: Json, call: Call, scope: Scope, stack: tuple[str, ...]) -> Given:
        looped = scope.looped or tasks.loop(task)
        condition = (
            self._reader.text(task["when"], scope, item=tasks.loop(task)) if task.get("when") else None
        )
        per_item = condition is not None and any(isinstance(part, Item) for part in condition)
        call = replace(
            call,
            condition=condition,
            per_item_condition=per_item,
            result_used=self._result_used(task["name"]),
        )
        found = self._by_name.get(task.get("template", ""))
        if found is None:
            self._add(replace(call, obstacle="its template is not part of this manifest"))
            return unknown(call.path)
        _, template = found
        if not tasks.is_nested(template):
            self._add(self._leaf_call(call.path, task["name"], template, task, scope, call))
            return self._leaf_given(call.path, template)
        if task.get("hooks") or task.get("onExit"):
            self._simple = False  # they run when it ends, whatever is known of its steps
        if template["name"] in stack or len(stack) > MAX_DEPTH:
            self._add(replace(call, obstacle="it repeats itself, as often as the run decides", nested=True))
            return unknown(call.path)
        self._add(replace(call, nested=True, obstacle=""))
        parameters, artifacts = self._reader.arguments(task, scope)
        if tasks.loop(task):
            parameters = {n: without_items(text) for n, text in parameters.items()}
        inner = self._reader.inside(template, parameters, artifacts, looped=looped)
        given = self._inside(template, inner, f"{call.path}.", (*stack, template["name"]))
        return unknown(call.path) if tasks.loop(task) else given

    def _leaf_call(self, path: str, name: str, template: Json, task: Json, scope: Scope, call: Call) -> Call:
        """A step that runs something, with the question to the cache, or why there is none."""
        described = self._leaf(self._by_name[template["name"]][0], template)
        if described is None:
            return replace(call, obstacle=f"a {tasks.kind(template)} template is not cached")
        obstacle = call.obstacle or described.uncacheable or _task_obstacle(task, call)
        if obstacle := obstacle or self._its_own_used(name):
            return replace(call, obstacle=obstacle)
        if not (described.parameters or described.artifacts or call.result_used):
            return replace(call, obstacle="it gives no outputs: running it is all it does")
        items = self._reader.items(task, scope) if tasks.loop(task) else None
        if task.get("withSequence") and items and known(items) is None:
            return replace(call, obstacle="its items are counted mid-run")
        parameters, artifacts = self._reader.arguments(task, scope)
        if not task:
            parameters, artifacts = dict(scope.parameters), dict(scope.artifacts)
        inner = self._reader.inside(template, parameters, artifacts, looped=scope.looped)
        wanted = [p["name"] for p in tasks.listed(template, "inputs", "parameters")]
        query = Query(
            id=path,
            template=template["name"],
            parameters={p: inner.parameters.get(p, (Unknown(f"inputs.parameters.{p}"),)) for p in wanted},
            artifacts=dict(inner.artifacts),
            items=items,
        )
        return replace(call, query=query)

    def _its_own_used(self, name: str) -> str:
        """A step of which others read what a wrapper does not have, as its exit code, is not cached."""
        for kind in ("tasks", "steps"):
            for what in ("exitCode", "outputs.exitCode", "ip", "hostNodeName", "outputs.parameters"):
                if f"{kind}.{name}.{what}" in self._references:
                    return f"others read its {what}"
        return ""

    def _result_used(self, name: str) -> bool:
        return not self._references.isdisjoint(
            (f"tasks.{name}.outputs.result", f"steps.{name}.outputs.result")
        )

    @cached_property
    def _references(self) -> set[str]:
        return tags.references(self._spec)

    def _leaf(self, index: int, template: Json) -> Template | None:
        name = template["name"]
        if name not in self._leaves and any(kind in template for kind in leaf.KINDS):
            self._leaves[name] = leaf.leaf(
                template,
                f"spec.templates[{index}]",
                self._reader.constants,
                self._annotations,
                self._environment,
                self._common,
            )
        return self._leaves.get(name)

    def _leaf_given(self, path: str, template: Json) -> Given:
        if tasks.kind(template) not in leaf.KINDS:
            return unknown(path)
        return Given(lambda n: (Output(path, n),), lambda n: Output(path, n), (Output(path, result=True),))

    def _calls_nested(self, task: Json) -> bool:
        found = self._by_name.get(task.get("template", ""))
        return found is not None and tasks.is_nested(found[1])


def _task_obstacle(task: Json, call: Call) -> str:
    if call.per_item_condition:
        return "its condition differs from item to item"
    if task.get("hooks") or task.get("onExit"):
        return "it has hooks"
    return arguments.unsplittable(task.get("arguments") or {}) if tasks.loop(task) else ""
