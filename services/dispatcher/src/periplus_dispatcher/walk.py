"""From a manifest to its steps: every call of a template, what it is given, and what it waits for.

Nested templates are followed, so that a step deep inside is a step of the run like any other. Where a call
repeats something that only the run can tell (a loop over a nested template, a recursion), its inside is followed
once, with what is not known left open.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from graphlib import TopologicalSorter
from typing import Any

from periplus_dispatcher import leaf
from periplus_dispatcher.domain import (
    Item,
    Literal,
    Object,
    Output,
    Part,
    Query,
    Raw,
    Source,
    Template,
    Text,
    Unknown,
    known,
    literal,
)
from periplus_manifest import depends, loops, tags
from periplus_manifest.errors import ManifestError

Json = dict[str, Any]

MAX_DEPTH = 32


@dataclass(frozen=True)
class Call:
    """One step of the run as the manifest plans it.

    `query` is absent where the cache is not asked; `obstacle` says why. `condition` is the text of its `when`.
    """

    path: str
    template: str
    after: tuple[str, ...] = ()
    condition: Text | None = None
    per_item_condition: bool = False
    query: Query | None = None
    obstacle: str = ""
    depends: depends.Depends | None = None
    siblings: Mapping[str, str] = field(default_factory=dict)
    """Paths of the tasks that `depends` may name."""
    nested: bool = False
    """Whether it calls a DAG or steps template; its own steps follow it."""


@dataclass(frozen=True)
class Walk:
    """A manifest's steps, in an order in which they could run, and what its leaf templates do."""

    calls: tuple[Call, ...]
    templates: Mapping[str, Template]
    parameters: Mapping[str, Text]
    """Output parameters of the entrypoint; those that only Argo can tell are left out."""
    artifacts: Mapping[str, Source]
    simple: bool
    """Whether the steps are all there is: no exit handler, no hooks, no outputs that only Argo can tell."""


@dataclass
class Given:
    """What the outputs of one call are, for those who refer to them."""

    parameter: Callable[[str], Text]
    artifact: Callable[[str], Source]
    result: Text


@dataclass
class Scope:
    """What names mean inside one call of a template."""

    parameters: Mapping[str, Text]
    artifacts: Mapping[str, Source]
    given: dict[str, Given] = field(default_factory=dict)
    looped: bool = False


def walk(workflow: Json, parameters: Mapping[str, str], environment: str) -> Walk:
    """Follow the entrypoint of a checked manifest. `parameters` are the workflow's, with their values."""
    return _Walker(workflow, parameters, environment).walk()


class _Walker:
    def __init__(self, workflow: Json, parameters: Mapping[str, str], environment: str) -> None:
        spec = workflow["spec"]
        self._spec = spec
        self._constants = {f"workflow.parameters.{name}": value for name, value in parameters.items()}
        self._parameters = parameters
        self._by_name = {t["name"]: (i, t) for i, t in enumerate(spec.get("templates") or ())}
        self._annotations = (workflow.get("metadata") or {}).get("annotations") or {}
        self._environment = environment
        self._leaves: dict[str, Template] = {}
        self._calls: list[Call] = []

    def walk(self) -> Walk:
        name = self._spec["entrypoint"]
        _, template = self._by_name[name]
        given = {p["name"]: literal(self._parameters[p["name"]]) for p in _listed(template, "inputs", "parameters")
                 if p["name"] in self._parameters}  # fmt: skip
        scope = self._scope(template, given, {}, looped=False)
        if _is_nested(template):
            outputs = self._inside(template, scope, prefix="", stack=(name,))
        else:
            outputs = self._single(template, scope)
        declared = [p["name"] for p in _listed(template, "outputs", "parameters")]
        shown = {p: text for p in declared if _settled(text := outputs.parameter(p))}
        artifacts = {a["name"]: source for a in _listed(template, "outputs", "artifacts")
                     if not isinstance(source := outputs.artifact(a["name"]), Unknown)}  # fmt: skip
        simple = (
            len(shown) == len(declared)
            and len(artifacts) == len(_listed(template, "outputs", "artifacts"))
            and not any(self._spec.get(key) for key in ("onExit", "hooks"))
        )
        for i, t in self._by_name.values():
            self._leaf(i, t)  # also those that only a hook, an exit handler or a recursion calls
        return Walk(tuple(self._calls), self._leaves, shown, artifacts, simple)

    def _single(self, template: Json, scope: Scope) -> Given:
        """A workflow whose entrypoint is a leaf: one step, called by the template's name."""
        name = template["name"]
        self._calls.append(self._leaf_call(name, name, template, {}, scope, Call(name, name)))
        return self._leaf_given(name, template)

    def _inside(self, template: Json, scope: Scope, prefix: str, stack: tuple[str, ...]) -> Given:
        """Walk the tasks of a DAG or steps template in order, and say what the template gives."""
        last: tuple[str, ...] = ()
        paths: dict[str, str] = {}
        for group in _groups(template):
            for task in group:
                name = task["name"]
                paths[name] = path = f"{prefix}{name}" + (
                    "(*)" if _loop(task) and self._calls_nested(task) else ""
                )
                wants = _depends(task, template)
                waits = tuple(paths[t] for t in sorted(wants.tasks)) if wants else last
                call = Call(path, task.get("template", ""), waits, depends=wants, siblings=dict(paths))
                scope.given[name] = self._call(task, call, scope, stack)
            if "steps" in template:
                last = tuple(paths[task["name"]] for task in group)
        return self._nested_given(template, scope)

    def _call(self, task: Json, call: Call, scope: Scope, stack: tuple[str, ...]) -> Given:
        looped = scope.looped or _loop(task)
        condition = self._text(task["when"], scope, item=_loop(task)) if task.get("when") else None
        per_item = condition is not None and any(isinstance(part, Item) for part in condition)
        call = replace(call, condition=condition, per_item_condition=per_item)
        found = self._by_name.get(task.get("template", ""))
        if found is None:
            self._calls.append(replace(call, obstacle="its template is not part of this manifest"))
            return _unknown(call.path)
        _, template = found
        if not _is_nested(template):
            self._calls.append(self._leaf_call(call.path, task["name"], template, task, scope, call))
            return self._leaf_given(call.path, template)
        if template["name"] in stack or len(stack) > MAX_DEPTH:
            self._calls.append(
                replace(call, obstacle="it repeats itself, as often as the run decides", nested=True)
            )
            return _unknown(call.path)
        self._calls.append(replace(call, nested=True))
        parameters, artifacts = self._arguments(task, scope)
        if _loop(task):
            parameters = {n: _without_items(text) for n, text in parameters.items()}
        inner = self._scope(template, parameters, artifacts, looped=looped)
        given = self._inside(template, inner, f"{call.path}.", (*stack, template["name"]))
        return _unknown(call.path) if _loop(task) else given

    def _leaf_call(self, path: str, name: str, template: Json, task: Json, scope: Scope, call: Call) -> Call:
        """A step that runs something, with the question to the cache, or why there is none."""
        described = self._leaf(self._by_name[template["name"]][0], template)
        if described is None:
            return replace(call, obstacle=f"a {_kind(template)} template is not cached")
        if obstacle := described.uncacheable or _task_obstacle(task, call) or self._exit_code_used(name):
            return replace(call, obstacle=obstacle)
        if not _listed(template, "outputs", "parameters") and not _listed(template, "outputs", "artifacts"):
            if not {f"tasks.{name}.outputs.result", f"steps.{name}.outputs.result"} & self._references:
                return replace(call, obstacle="it gives no outputs: running it is all it does")
        items = self._items(task, scope) if _loop(task) else None
        if task.get("withSequence") and items and known(items) is None:
            return replace(call, obstacle="its items are counted mid-run")
        parameters, artifacts = self._arguments(task, scope)
        if not task:
            parameters, artifacts = dict(scope.parameters), dict(scope.artifacts)
        inner = self._scope(template, parameters, artifacts, looped=scope.looped)
        wanted = [p["name"] for p in _listed(template, "inputs", "parameters")]
        query = Query(
            id=path,
            template=template["name"],
            parameters={p: inner.parameters.get(p, (Unknown(f"inputs.parameters.{p}"),)) for p in wanted},
            artifacts=dict(inner.artifacts),
            items=items,
        )
        return replace(call, query=query)

    def _exit_code_used(self, name: str) -> str:
        """A step whose exit code or address others read is not cached: a wrapper has none."""
        for kind in ("tasks", "steps"):
            for what in ("exitCode", "outputs.exitCode", "ip", "hostNodeName"):
                if f"{kind}.{name}.{what}" in self._references:
                    return f"others read its {what}"
        return ""

    @cached_property
    def _references(self) -> set[str]:
        return tags.references(self._spec)

    def _leaf(self, index: int, template: Json) -> Template | None:
        name = template["name"]
        if name not in self._leaves and any(kind in template for kind in leaf.KINDS):
            self._leaves[name] = leaf.leaf(
                template, f"spec.templates[{index}]", self._constants, self._annotations, self._environment
            )
        return self._leaves.get(name)

    def _leaf_given(self, path: str, template: Json) -> Given:
        if _kind(template) not in leaf.KINDS:
            return _unknown(path)
        return Given(lambda n: (Output(path, n),), lambda n: Output(path, n), (Output(path, result=True),))

    def _nested_given(self, template: Json, scope: Scope) -> Given:
        """What a DAG or steps template gives, from what its tasks give."""
        parameters: dict[str, Text] = {}
        artifacts: dict[str, Source] = {}
        for p in _listed(template, "outputs", "parameters"):
            reference = (p.get("valueFrom") or {}).get("parameter")
            what = f"outputs.parameters.{p['name']} of {template['name']}"
            parameters[p["name"]] = self._text(reference, scope) if reference else (Unknown(what),)
        for a in _listed(template, "outputs", "artifacts"):
            artifacts[a["name"]] = self._source(a, scope)
        return Given(
            lambda n: parameters.get(n, (Unknown(f"outputs.parameters.{n}"),)),
            lambda n: artifacts.get(n, Unknown(f"outputs.artifacts.{n}")),
            (Unknown(f"the result of {template['name']}"),),
        )

    def _calls_nested(self, task: Json) -> bool:
        found = self._by_name.get(task.get("template", ""))
        return found is not None and _is_nested(found[1])

    def _scope(
        self, template: Json, parameters: Mapping[str, Text], artifacts: Mapping[str, Source], *, looped: bool
    ) -> Scope:
        """What a template's inputs are: as given, else their defaults."""
        texts: dict[str, Text] = {}
        for p in _listed(template, "inputs", "parameters"):
            default = p.get("value", p.get("default"))
            if p["name"] in parameters:
                texts[p["name"]] = parameters[p["name"]]
            elif default is not None:
                texts[p["name"]] = self._text(_text_of(default), Scope({}, {}))
            else:
                texts[p["name"]] = (Unknown(f"inputs.parameters.{p['name']}"),)
        sources: dict[str, Source] = {}
        for a in _listed(template, "inputs", "artifacts"):
            if a["name"] in artifacts:
                sources[a["name"]] = artifacts[a["name"]]
            elif set(a) & {"s3", "raw", "http", "git", "gcs", "oss", "azure", "hdfs", "artifactory"}:
                sources[a["name"]] = self._source(a, Scope(texts, {}))
        return Scope(texts, sources, looped=looped)

    def _arguments(self, task: Json, scope: Scope) -> tuple[dict[str, Text], dict[str, Source]]:
        parameters = {
            p["name"]: self._text(_text_of(p["value"]), scope, item=_loop(task))
            if "value" in p
            else (Unknown(f"arguments.parameters.{p['name']}"),)
            for p in _listed(task, "arguments", "parameters")
        }
        artifacts = {a["name"]: self._source(a, scope) for a in _listed(task, "arguments", "artifacts")}
        return parameters, artifacts

    def _items(self, task: Json, scope: Scope) -> Text:
        """A loop's items as one JSON text, known or not."""
        if task.get("withItems"):
            return self._text(json.dumps(task["withItems"], separators=(",", ":"), ensure_ascii=False), scope)
        if task.get("withParam"):
            return self._text(_text_of(task["withParam"]), scope)

        def lookup(name: str) -> str | None:
            return known(self._reference(name, scope, item=False))

        try:
            items = loops.items(task, lookup)
        except ManifestError:
            return (Unknown("withSequence"),)
        return literal(json.dumps(items))

    def _text(self, text: str, scope: Scope, *, item: bool = False) -> Text:
        """A text with its tags resolved as far as they are known."""
        parts: list[Part] = []
        at = 0
        for tag in tags.find(text):
            parts.append(Literal(text[at : tag.start]))
            parts += (
                self._expression(tag.name, scope)
                if tag.is_expression
                else self._reference(tag.name, scope, item)
            )
            at = tag.end
        parts.append(Literal(text[at:]))
        return _merged(parts)

    def _expression(self, source: str, scope: Scope) -> Text:
        """An expression over what is known is known; any other is left to Argo."""
        env: Json = {"inputs": {"parameters": {}}, "workflow": {"parameters": dict(self._parameters)}}
        env["inputs"]["parameters"] = {
            n: v for n, t in scope.parameters.items() if (v := known(t)) is not None
        }
        try:
            return literal(tags.substitute("{{=" + source + "}}", lambda _: None, env))
        except ManifestError:
            return (Unknown(source),)

    def _reference(self, name: str, scope: Scope, item: bool) -> Text:
        if name in self._constants:
            return literal(self._constants[name])
        kind, _, rest = name.partition(".")
        if kind == "item" and item:
            return (Item(rest),)
        if name.startswith("inputs.parameters."):
            return scope.parameters.get(name.removeprefix("inputs.parameters."), (Unknown(name),))
        if kind in ("tasks", "steps"):
            task, _, output = rest.partition(".outputs.")
            given = scope.given.get(task)
            if given and output == "result":
                return given.result
            if given and output.startswith("parameters."):
                return given.parameter(output.removeprefix("parameters."))
        return (Unknown(name),)

    def _source(self, artifact: Json, scope: Scope) -> Source:
        """Where an argument or an output of a template takes its artifact from."""
        if reference := artifact.get("from"):
            name = reference.strip().removeprefix("{{").removesuffix("}}").strip()
            if name.startswith("inputs.artifacts."):
                return scope.artifacts.get(name.removeprefix("inputs.artifacts."), Unknown(name))
            kind, _, rest = name.partition(".")
            task, _, output = rest.partition(".outputs.artifacts.")
            if kind in ("tasks", "steps") and task in scope.given:
                return scope.given[task].artifact(output)
            return Unknown(name)
        if "raw" in artifact:
            data = known(self._text(str(artifact["raw"].get("data", "")), scope))
            return Raw(data) if data is not None else Unknown(f"the raw artifact {artifact['name']}")
        if "s3" in artifact:
            place = {
                k: known(self._text(str(artifact["s3"].get(k, "")), scope))
                for k in ("key", "bucket", "endpoint")
            }
            if place["key"] and None not in place.values():
                return Object(place["key"], place["bucket"] or "", place["endpoint"] or "")
        return Unknown(f"the artifact {artifact['name']}")


def _unknown(path: str) -> Given:
    return Given(
        lambda n: (Unknown(f"{path}.outputs.parameters.{n}"),),
        lambda n: Unknown(f"{path}.outputs.artifacts.{n}"),
        (Unknown(f"{path}.outputs.result"),),
    )


def _merged(parts: list[Part]) -> Text:
    """Neighbouring literals made one, empty ones left out."""
    merged: list[Part] = []
    for part in parts:
        if isinstance(part, Literal) and merged and isinstance(merged[-1], Literal):
            merged[-1] = Literal(merged[-1].text + part.text)
        elif part != Literal(""):
            merged.append(part)
    return tuple(merged)


def _without_items(text: Text) -> Text:
    return tuple(Unknown(f"item.{p.member}".rstrip(".")) if isinstance(p, Item) else p for p in text)


def _settled(text: Text) -> bool:
    return not any(isinstance(part, Unknown | Item) for part in text)


def _listed(value: Json, *path: str) -> list[Json]:
    for key in path:
        value = value.get(key) or {}
    return value or []  # type: ignore[return-value]


def _kind(template: Json) -> str:
    kinds = (
        "container",
        "script",
        "suspend",
        "dag",
        "steps",
        "resource",
        "http",
        "plugin",
        "data",
        "containerSet",
    )
    return next((kind for kind in kinds if kind in template), "nameless")


def _is_nested(template: Json) -> bool:
    return "dag" in template or "steps" in template


def _loop(task: Json) -> bool:
    return any(task.get(key) is not None for key in ("withItems", "withParam", "withSequence"))


def _text_of(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _depends(task: Json, template: Json) -> depends.Depends | None:
    return depends.of(task) if "dag" in template else None


def _task_obstacle(task: Json, call: Call) -> str:
    if call.per_item_condition:
        return "its condition differs from item to item"
    if task.get("hooks") or task.get("onExit"):
        return "it has hooks"
    return ""


def _groups(template: Json) -> Iterator[list[Json]]:
    """The calls of a template in an order in which they could run; those of one group side by side."""
    if "steps" in template:
        yield from template["steps"]
        return
    tasks = {task["name"]: task for task in template["dag"]["tasks"]}
    waits = {n: set(d.tasks) if (d := _depends(t, template)) else set() for n, t in tasks.items()}
    if target := template["dag"].get("target"):
        waits = _ancestors(waits, target.split())
    sorter = TopologicalSorter(waits)
    sorter.prepare()
    while sorter.is_active():
        ready = sorter.get_ready()
        yield [tasks[name] for name in ready]
        sorter.done(*ready)


def _ancestors(waits: Mapping[str, set[str]], targets: list[str]) -> dict[str, set[str]]:
    """Only the targets, and what they wait for."""
    wanted: dict[str, set[str]] = {}
    queue = list(targets)
    while queue:
        if (name := queue.pop()) not in wanted:
            wanted[name] = waits[name]
            queue += waits[name]
    return wanted
