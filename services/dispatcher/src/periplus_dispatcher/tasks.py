"""The templates of a manifest, and the calls in them: loops, order, and what each waits for."""

import json
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from typing import Any

from periplus_manifest import depends
from periplus_manifest.depends import Depends

Json = dict[str, Any]


def listed(value: Json, *path: str) -> list[Json]:
    for key in path:
        value = value.get(key) or {}
    return value or []  # type: ignore[return-value]


def kind(template: Json) -> str:
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


def is_nested(template: Json) -> bool:
    return "dag" in template or "steps" in template


def loop(task: Json) -> bool:
    return any(task.get(key) is not None for key in ("withItems", "withParam", "withSequence"))


def text_of(value: Any) -> str:
    """A value of a manifest as the text that Argo makes of it."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def waits(template: Json) -> dict[str, Depends | None]:
    """What each task of a DAG waits for; nothing for steps, which go group by group."""
    return {task["name"]: depends.of(task) for task in (template.get("dag") or {}).get("tasks") or ()}


def groups(
    template: Json, waits: Mapping[str, Depends | None], targets: list[str] | None
) -> Iterator[list[Json]]:
    """The calls of a template in an order in which they could run; those of one group side by side.

    With `targets`, only those tasks of a DAG and what they wait for.
    """
    if "steps" in template:
        yield from template["steps"]
        return
    tasks = {task["name"]: task for task in template["dag"]["tasks"]}
    before = {name: set(found.tasks) if found else set() for name, found in waits.items()}
    if targets is not None:
        before = _ancestors(before, [name for name in targets if name in before])
    sorter = TopologicalSorter(before)
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
