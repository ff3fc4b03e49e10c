"""How many nodes a manifest makes, and how deep its templates call one another, computed without expanding it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import bounds, condition, depends, loops, tags
from .errors import BoundError, ManifestError

Fields = Mapping[str, Any]

ReferencedSpec = Callable[[str, bool], "Fields | None"]
"""Gives the spec of the WorkflowTemplate (with True, the ClusterWorkflowTemplate) of a name, None for an unknown one."""

_MAX_COUNTED = 10**12


@dataclass(frozen=True, slots=True)
class _Size:
    """The nodes of one call, and the templates within one another that it makes."""

    nodes: int = 1
    depth: int = 0


@dataclass(frozen=True, slots=True)
class _Templates:
    """The templates of one spec by name, each with its path."""

    name: str
    by_name: Mapping[str, tuple[str, Fields]]


def check(
    spec: Fields,
    path: str,
    lookup: tags.Lookup = lambda _: None,
    referenced: ReferencedSpec = lambda _name, _cluster: None,
) -> None:
    """Refuse a spec whose run would exceed a bound. `path` is that of the spec; `lookup` knows the workflow's parameters.

    What only the run can tell counts as little as it can: one item for a loop, one attempt of a retry, one round of a
    recursion, one node for a template of another object that `referenced` does not know. Conditions count as true, but
    for those that are known to be false. Raises BoundError with the path of the field.
    """
    counter = _Counter(spec, lookup, referenced)
    templates = _templates(spec, path, "")
    roots = [(f"{path}.entrypoint", {"template": spec.get("entrypoint")})] if spec.get("entrypoint") else []
    if spec.get("onExit"):
        roots.append((f"{path}.onExit", {"template": spec["onExit"]}))
    roots += [(f"{path}.hooks.{name}", hook) for name, hook in (spec.get("hooks") or {}).items()]
    if not spec.get("entrypoint"):  # a WorkflowTemplate: any of its templates can be called
        roots += [
            (template_path, {"template": name}) for name, (template_path, _) in templates.by_name.items()
        ]
    sizes = [counter.called(templates, call, root_path, 1).nodes for root_path, call in roots]
    nodes = sum(sizes) if spec.get("entrypoint") else max(sizes, default=0)
    if nodes > bounds.MAX_NODES:
        raise BoundError(
            counter.too_large or roots[0][0],
            f"the workflow would have {_counted(nodes)} nodes; at most {bounds.MAX_NODES} are allowed",
        )


def check_lists(spec: Fields, path: str) -> None:
    """Refuse more templates, or more steps or tasks in one of them, than a manifest may have. Raises BoundError."""
    templates = spec.get("templates") or ()
    if len(templates) > bounds.MAX_TEMPLATES:
        raise BoundError(
            f"{path}.templates", f"{len(templates)} templates; at most {bounds.MAX_TEMPLATES} are allowed"
        )
    for index, template in enumerate(templates):
        count = sum(1 for _ in _calls(template, ""))
        if count > bounds.MAX_CALLS:
            field = "steps" if template.get("steps") is not None else "dag.tasks"
            raise BoundError(
                f"{path}.templates[{index}].{field}",
                f"{count} steps or tasks; at most {bounds.MAX_CALLS} of one template are allowed",
            )


def _counted(nodes: int) -> str:
    return str(nodes) if nodes < _MAX_COUNTED else f"more than {_MAX_COUNTED}"


def _templates(spec: Fields, path: str, name: str) -> _Templates:
    listed = enumerate(spec.get("templates") or ())
    return _Templates(
        name, {each["name"]: (f"{path}.templates[{i}]", each) for i, each in listed if each.get("name")}
    )


class _Counter:
    """Counts each template once, however often it is called."""

    def __init__(self, spec: Fields, lookup: tags.Lookup, referenced: ReferencedSpec) -> None:
        self._lookup = lookup
        self._referenced = referenced
        self._retries = bool(
            spec.get("retryStrategy") or (spec.get("templateDefaults") or {}).get("retryStrategy")
        )
        self._sizes: dict[tuple[str, str], _Size] = {}
        self._counting: set[tuple[str, str]] = set()
        self._other: dict[tuple[str, bool], _Templates | None] = {}
        self.too_large = ""
        """The path of the innermost template that alone has more nodes than a workflow may have."""

    def called(self, templates: _Templates, call: Fields, path: str, depth: int) -> _Size:
        """Count a call, its loop and hooks left out. `depth` is that of the templates around it, with its own."""
        _check_depth(depth, path)
        if call.get("inline") is not None:
            return self._template(templates, call["inline"], f"{path}.inline", depth)
        reference = call.get("templateRef")
        name = (reference or call).get("template") or ""
        if reference:
            found = self._of_other(str(reference.get("name")), bool(reference.get("clusterScope")))
            if found is None:
                return _Size()
            templates = found
        if "{{" in name:
            name = tags.substitute(name, self._lookup, strict=False)
        if name not in templates.by_name:
            return _Size()
        key = (templates.name, name)
        if key in self._counting:  # a recursion: the run counts its rounds
            return _Size()
        size = self._sizes.get(key)
        if size is None:
            template_path, template = templates.by_name[name]
            self._counting.add(key)
            size = self._sizes[key] = self._template(templates, template, template_path, depth)
            self._counting.discard(key)
        _check_depth(depth + size.depth, path)
        return size

    def _of_other(self, name: str, cluster_scope: bool) -> _Templates | None:
        key = (name, cluster_scope)
        if key not in self._other:
            spec = self._referenced(name, cluster_scope)
            origin = f"{'ClusterWorkflowTemplate' if cluster_scope else 'WorkflowTemplate'} {name}: spec"
            self._other[key] = None if spec is None else _templates(spec, origin, origin)
        return self._other[key]

    def _template(self, templates: _Templates, template: Fields, path: str, depth: int) -> _Size:
        nodes = 1 + len(template.get("steps") or ())
        if self._retries or template.get("retryStrategy"):
            nodes += 1
        deepest = 0
        wanted = self._targets(template)
        for call, call_path in _calls(template, path):
            if wanted is not None and call.get("name") not in wanted:
                continue
            size = self._call(templates, call, call_path, depth + 1, in_dag=template.get("dag") is not None)
            nodes += size.nodes
            deepest = max(deepest, 1 + size.depth)
        if nodes > bounds.MAX_NODES:
            self.too_large = self.too_large or path
        return _Size(min(nodes, _MAX_COUNTED), deepest)

    def _call(self, templates: _Templates, call: Fields, path: str, depth: int, *, in_dag: bool) -> _Size:
        """Count a step or task with its items and hooks."""
        items = self._items(call, path)
        if self._is_never_true(call.get("when")):
            return _Size(max(items or 1, 1))
        inner = self.called(templates, call, path, depth)
        exit_hook = self._hook(templates, call, "exit", path, depth)
        hooks = [
            self._hook(templates, call, name, path, depth)
            for name in call.get("hooks") or ()
            if name != "exit"
        ]
        ends = inner.nodes + exit_hook.nodes
        group = 1 + exit_hook.nodes if in_dag else 0
        nodes = ends if items is None else max(items * ends + group, 1)
        every = [inner, exit_hook, *hooks]
        return _Size(nodes + sum(hook.nodes for hook in hooks), max(size.depth for size in every))

    def _hook(self, templates: _Templates, call: Fields, name: str, path: str, depth: int) -> _Size:
        if name == "exit" and call.get("onExit"):
            return self.called(templates, {"template": call["onExit"]}, f"{path}.onExit", depth)
        hook = (call.get("hooks") or {}).get(name)
        return self.called(templates, hook, f"{path}.hooks.{name}", depth) if hook else _Size(0)

    def _items(self, call: Fields, path: str) -> int | None:
        """Return how many items a call has; None for a call without a loop. Raises BoundError for too many."""
        if not any(call.get(field) for field in loops.FIELDS):
            return None
        try:
            found = loops.items({key: call[key] for key in loops.FIELDS if key in call}, self._lookup)
        except BoundError as error:
            raise error.under(path) from None
        except ManifestError:  # its items are known only during the run
            found = call.get("withItems") or [None]
        return 0 if found is None else len(found)

    def _is_never_true(self, when: Any) -> bool:
        if not when:
            return False
        text = tags.substitute(when, self._lookup, strict=False)
        if "{{" in text:
            return False
        try:
            return not condition.evaluate(text)
        except ManifestError:
            return False

    def _targets(self, template: Fields) -> set[str] | None:
        """Return the names of the tasks that a DAG with a `target` runs; None for all."""
        target = (template.get("dag") or {}).get("target")
        if not target or "{{" in (target := tags.substitute(target, self._lookup, strict=False)):
            return None
        tasks = {task["name"]: task for task in template["dag"].get("tasks") or ()}
        wanted: set[str] = set()
        pending = target.split()
        while pending:
            name = pending.pop()
            if name in wanted or name not in tasks:
                continue
            wanted.add(name)
            try:
                found = depends.of(tasks[name])
            except ManifestError:
                return None
            pending += found.tasks if found else ()
        return wanted


def _check_depth(depth: int, path: str) -> None:
    if depth >= bounds.MAX_DEPTH:
        raise BoundError(
            path, f"Maximum recursion depth exceeded: {depth} templates within one another; "
            f"fewer than {bounds.MAX_DEPTH} are allowed"
        )  # fmt: skip


def _calls(template: Fields, path: str) -> Iterator[tuple[Fields, str]]:
    for outer, group in enumerate(template.get("steps") or ()):
        for inner, step in enumerate(group.get("steps") or () if isinstance(group, Mapping) else group):
            yield step, f"{path}.steps[{outer}][{inner}]"
    for index, task in enumerate((template.get("dag") or {}).get("tasks") or ()):
        yield task, f"{path}.dag.tasks[{index}]"
