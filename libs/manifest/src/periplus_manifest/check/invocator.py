"""Templates that call others: steps, which see the steps before them, and dag, whose tasks must not wait in a cycle."""

from __future__ import annotations

from functools import cached_property

from periplus_manifest import depends
from periplus_manifest.depends import Depends
from periplus_manifest.errors import ManifestError

from . import argument, call, naming, reference
from .manifest import Fields, Manifest
from .reference import Scope


def check_steps(manifest: Manifest, template: Fields, path: str, scope: Scope) -> None:
    """Check the steps of a template, and add to `scope` what its outputs may refer to."""
    if not template["steps"]:
        raise ManifestError(f"{path}.steps", "must have at least one group of steps")
    names: set[str] = set()
    for outer, group in enumerate(template["steps"]):
        for inner, step in enumerate(group):
            field_path = f"{path}.steps[{outer}][{inner}]"
            naming.check_field(step.get("name"), f"{field_path}.name")
            if step["name"] in names:
                raise ManifestError(f"{field_path}.name", f"'{step['name']}' is not unique")
            names.add(step["name"])
            _step(manifest, step, field_path, scope)


def _step(manifest: Manifest, step: Fields, path: str, scope: Scope) -> None:
    node = f"steps.{step['name']}"
    scope.add(f"{node}.status")
    call.check_loop(step, path)
    call.check_inline(step, path)
    call.add_items(step, scope)
    argument.check_arguments(step.get("arguments"), f"{path}.arguments")
    callee = call.target(manifest, step, path)
    if call.has_exit_hook(step):
        call.add_outputs(scope, node, callee, loop=False)
    call.check_hooks(step.get("hooks"), f"{path}.hooks")
    call.check_when(step, path)
    local_scope = Scope(scope)
    # A hook's expression may ask for the step itself.
    local_scope.add(*([f"{node}.id"] if step.get("hooks") else []))
    reference.check({key: value for key, value in step.items() if key != "inline"}, path, local_scope)
    call.add_outputs(scope, node, callee, loop=call.is_loop(step))
    call.check_supplied(step, callee, path)


def check_dag(manifest: Manifest, template: Fields, path: str, scope: Scope) -> None:
    """Check the tasks of a template, and add to `scope` what its outputs may refer to."""
    tasks = template["dag"].get("tasks") or []
    if not tasks:
        raise ManifestError(f"{path}.dag.tasks", "must have at least one task")
    naming.check_fields(tasks, f"{path}.dag.tasks")
    _check_one_style(tasks, f"{path}.dag.tasks")
    waits = {task["name"]: _waits(task, f"{path}.dag.tasks[{index}]") for index, task in enumerate(tasks)}
    _check_dependencies(tasks, waits, f"{path}.dag.tasks")
    order = _topological_order(waits, f"{path}.dag.tasks")
    callees = {}
    for index, task in enumerate(tasks):
        callees[task["name"]] = callee = call.target(manifest, task, f"{path}.dag.tasks[{index}]")
        call.add_outputs(scope, f"tasks.{task['name']}", callee, loop=call.is_loop(task))
        if task.get("hooks"):
            scope.add(f"tasks.{task['name']}.status")
    _check_target(template["dag"], waits, f"{path}.dag.target", scope)
    ancestry = _Ancestry(waits, order)
    for index, task in enumerate(tasks):
        _task(task, callees[task["name"]], f"{path}.dag.tasks[{index}]", scope, ancestry)


def _check_one_style(tasks: list[Fields], path: str) -> None:
    """Check that a template uses either `depends`, or `dependencies` and `continueOn`."""
    uses_depends = any(task.get("depends") for task in tasks)
    for index, task in enumerate(tasks):
        if uses_depends and task.get("dependencies"):
            raise ManifestError(
                f"{path}[{index}].dependencies",
                "cannot use both 'depends' and 'dependencies' in the same DAG template",
            )
        if uses_depends and task.get("continueOn") is not None:
            raise ManifestError(
                f"{path}[{index}].continueOn",
                "cannot be used with 'depends'; use 'task.Failed' or 'task.Errored' there",
            )
        if (uses_depends or task.get("dependencies")) and "0" <= task["name"][0] <= "9":
            raise ManifestError(
                f"{path}[{index}].name", "cannot begin with a digit when tasks depend on others"
            )


def _waits(task: Fields, path: str) -> Depends | None:
    try:
        return depends.of(task)
    except ManifestError as error:
        raise error.under(path) from None


def _check_dependencies(tasks: list[Fields], waits: dict[str, Depends | None], path: str) -> None:
    loops = {task["name"] for task in tasks if call.is_loop(task) or task.get("withSequence") is not None}
    inline = {task["name"]: (index, task) for index, task in enumerate(tasks) if task.get("inline")}
    for index, task in enumerate(tasks):
        found = waits[task["name"]]
        if found is None:
            continue
        field_path = f"{path}[{index}].{'depends' if task.get('depends') else 'dependencies'}"
        for name in sorted(name for name in found.tasks if name not in waits):
            raise ManifestError(field_path, f"dependency '{name}' not defined")
        for name in found.tasks & inline.keys():
            call.check_inline(inline[name][1], f"{path}[{inline[name][0]}]")
        for name in sorted(found.item_tasks - loops):
            raise ManifestError(field_path, f"'{name}' has no items for .AnySucceeded or .AllFailed")


def _topological_order(waits: dict[str, Depends | None], path: str) -> list[str]:
    """Sort the tasks so that each follows those it depends on."""
    remaining = {name: len(found.tasks) if found else 0 for name, found in waits.items()}
    dependents: dict[str, list[str]] = {}
    for name, found in waits.items():
        for other in sorted(found.tasks) if found else ():
            dependents.setdefault(other, []).append(name)
    order = [name for name, count in remaining.items() if not count]
    for name in order:
        for other in dependents.get(name, ()):
            remaining[other] -= 1
            if not remaining[other]:
                order.append(other)
    if len(order) < len(waits):
        raise ManifestError(path, f"dependency cycle detected: {'->'.join(_cycle(waits, set(order)))}")
    return order


def _cycle(waits: dict[str, Depends | None], settled: set[str]) -> list[str]:
    """Follow the dependencies of tasks that could not be sorted, until a task repeats."""
    name = next(each for each in waits if each not in settled)
    visited: dict[str, int] = {}
    while name not in visited:
        visited[name] = len(visited)
        found = waits[name]
        assert found is not None
        name = next(each for each in sorted(found.tasks) if each not in settled)
    cycle = list(visited)[visited[name] :]
    listed = cycle if len(cycle) <= 20 else [*cycle[:20], "…"]
    return [*listed, name]


class _Ancestry:
    """Which tasks run before which."""

    def __init__(self, waits: dict[str, Depends | None], order: list[str]) -> None:
        self._waits = waits
        self._topological_order = order

    def has(self, name: str, other: str) -> bool:
        """Say whether `name` depends on `other`, directly or through other tasks."""
        found = self._waits[name]
        if found is None:
            return False
        return other in found.tasks or bool(self._before[name] & self._bit.get(other, 0))

    @cached_property
    def _bit(self) -> dict[str, int]:
        return {name: 1 << field_path for field_path, name in enumerate(self._topological_order)}

    @cached_property
    def _before(self) -> dict[str, int]:
        """A bit set of the ancestors of each task; computed late, as most checks need direct dependencies only."""
        before: dict[str, int] = {}
        for name in self._topological_order:
            found, bits = self._waits[name], 0
            for other in found.tasks if found else ():
                bits |= before[other] | self._bit[other]
            before[name] = bits
        return before


class _TaskScope(Scope):
    """The scope of one task, which has the status of its ancestors as well."""

    def __init__(self, outer: Scope, task: str, ancestry: _Ancestry) -> None:
        super().__init__(outer)
        self._task = task
        self._ancestry = ancestry

    def has(self, name: str) -> bool:
        if super().has(name):
            return True
        other = name.removeprefix("tasks.").removesuffix(".status")
        return name == f"tasks.{other}.status" and self._ancestry.has(self._task, other)


def _task(task: Fields, callee: Fields | None, path: str, scope: Scope, ancestry: _Ancestry) -> None:
    local_scope = _TaskScope(scope, task["name"], ancestry)
    call.check_loop(task, path)
    call.add_items(task, local_scope)
    call.check_when(task, path)
    reference.check({key: value for key, value in task.items() if key != "inline"}, path, local_scope)
    argument.check_arguments(task.get("arguments"), f"{path}.arguments")
    _check_ancestors(task, path, ancestry)
    call.check_supplied(task, callee, path)


def _check_ancestors(task: Fields, path: str, ancestry: _Ancestry) -> None:
    """Check that a task depends on those whose outputs are its whole arguments."""
    arguments = task.get("arguments") or {}
    for field, source in (("parameters", "value"), ("artifacts", "from")):
        for index, each in enumerate(arguments.get(field) or ()):
            text = each.get(source)
            if not isinstance(text, str) or not text.startswith("{{tasks."):
                continue
            other = text.split(".")[1]
            if not ancestry.has(task["name"], other):
                field_path = f"{path}.arguments.{field}[{index}].{source}"
                raise ManifestError(
                    field_path, f"missing dependency '{other}' for {field[:-1]} '{each.get('name')}'"
                )


def _check_target(dag: Fields, waits: dict[str, Depends | None], path: str, scope: Scope) -> None:
    target = dag.get("target") or ""
    reference.check(target, path, scope)
    for name in target.split(" ") if target else ():
        if not naming.is_tagged(name) and name not in waits:
            raise ManifestError(path, f"target '{name}' is not defined")
