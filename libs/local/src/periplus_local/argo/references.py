"""The WorkflowTemplates that a spec refers to must be there before it runs."""

from collections.abc import Iterator
from typing import Any

from periplus_local.argo.faults import Fault, invalid
from periplus_local.argo.templates import Library

Call = dict[str, Any]


def check(spec: dict[str, Any], library: Library) -> None:
    """Refuse, by the path of the field, a reference to a template that is not there; raises Fault."""
    for path, call in _calls(spec):
        reference = call.get("templateRef")
        if not reference or "{{" in f"{reference.get('name')}{reference.get('template')}":
            continue
        name, template = reference["name"], reference["template"]
        try:
            found = library.spec_of(name, bool(reference.get("clusterScope")))
        except Fault as fault:
            raise invalid(f"{path}.templateRef: {fault.message}") from fault
        if template not in {item["name"] for item in found.get("templates") or ()}:
            raise invalid(f"{path}.templateRef: template reference {name}.{template} not found")


def _calls(spec: dict[str, Any]) -> Iterator[tuple[str, Call]]:
    yield from _hooks(spec, "spec")
    for at, template in enumerate(spec.get("templates") or ()):
        yield from _within(template, f"spec.templates[{at}]")


def _within(template: dict[str, Any], path: str) -> Iterator[tuple[str, Call]]:
    for at, task in enumerate((template.get("dag") or {}).get("tasks") or ()):
        yield from _call(task, f"{path}.dag.tasks[{at}]")
    for outer, group in enumerate(template.get("steps") or ()):
        for inner, step in enumerate(group.get("steps", ()) if isinstance(group, dict) else group):
            yield from _call(step, f"{path}.steps[{outer}][{inner}]")


def _call(call: Call, path: str) -> Iterator[tuple[str, Call]]:
    yield path, call
    yield from _hooks(call, path)
    if call.get("inline"):
        yield from _within(call["inline"], f"{path}.inline")


def _hooks(holder: dict[str, Any], path: str) -> Iterator[tuple[str, Call]]:
    for name, hook in (holder.get("hooks") or {}).items():
        yield f"{path}.hooks.{name}", hook
