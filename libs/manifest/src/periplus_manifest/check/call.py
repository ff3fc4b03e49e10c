"""What steps and tasks have in common: the template they call, their loop, their hooks and outputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from periplus_manifest import condition, loops
from periplus_manifest.errors import ManifestError

from . import argument, naming
from .manifest import Fields, Manifest, items, template_type
from .reference import Scope


def target(manifest: Manifest, call: Fields, path: str) -> Fields | None:
    """Return the template that a call names; None where it is part of another object."""
    reference, name = call.get("templateRef"), call.get("template")
    if call.get("inline") is not None:
        return dict(call["inline"])
    if reference is not None:
        if name:
            raise ManifestError(f"{path}.template", "cannot be specified together with templateRef")
        for field in ("name", "template"):
            if not reference.get(field):
                raise ManifestError(f"{path}.templateRef.{field}", "is required")
        return None
    if not name:
        raise ManifestError(f"{path}.template", "is required")
    return manifest.named(name, f"{path}.template")


def check_loop(call: Fields, path: str) -> None:
    """Check that a call has at most one loop, and that a sequence says where it ends."""
    present = [field for field in loops.FIELDS if call.get(field) not in (None, "", [])]
    if len(present) > 1:
        raise ManifestError(f"{path}.{present[1]}", f"only one of {', '.join(loops.FIELDS)} can be specified")
    sequence = call.get("withSequence")
    if sequence is None or any(isinstance(text, str) and "{{" in text for text in sequence.values()):
        return
    try:
        loops.items({"withSequence": sequence})
    except ManifestError as error:
        raise error.under(path) from None


def check_inline(call: Fields, path: str) -> None:
    """Refuse a loop over an inline template where its outputs are needed.

    Argo accepts it, and ends as Error ("failed to get a template") when the loop has ended.
    """
    if call.get("inline") is not None and any(call.get(field) for field in loops.FIELDS):
        raise ManifestError(
            f"{path}.inline", "cannot be looped over here; give the template a name, and call it by that"
        )


def add_items(call: Fields, scope: Scope) -> None:
    """Add the variables item.* of a call's loop."""
    for item in call.get("withItems") or ():
        if isinstance(item, dict):
            scope.add(*(f"item.{key}" for key in item))
        elif isinstance(item, list):
            scope.add(*(f"item.[{index}]" for index in range(len(item))))
    if call.get("withParam"):
        scope.add_prefix("item.")


def check_when(call: Fields, path: str) -> None:
    """Check the syntax of a `when` without tags."""
    text = call.get("when")
    if not text or "{{" in text:
        return
    try:
        condition.parse(text)
    except ManifestError as error:
        raise error.under(f"{path}.when") from None


def check_hooks(hooks: Any, path: str) -> None:
    """Check that every hook but the exit hook has an expression."""
    for name, hook in (hooks or {}).items():
        if name != "exit" and not (hook or {}).get("expression"):
            raise ManifestError(f"{path}.{name}.expression", "Expression required")


def has_exit_hook(call: Fields) -> bool:
    """Say whether a call has an exit hook."""
    return bool(call.get("onExit")) or "exit" in (call.get("hooks") or {})


def check_supplied(call: Fields, callee: Fields | None, path: str) -> None:
    """Check that a call supplies the inputs that its template requires."""
    if callee is not None:
        arguments = call.get("arguments") or {}
        argument.check_inputs(
            callee, items(arguments, "parameters"), items(arguments, "artifacts"), f"{path}.arguments"
        )


def add_outputs(scope: Scope, node: str, callee: Fields | None, *, loop: bool) -> None:
    """Add what can be referred to of a step or task that ran; `node` is "steps.name" or "tasks.name"."""
    scope.add(*(f"{node}.{field}" for field in ("id", "startedAt", "finishedAt", "hostNodeName")))
    if callee is None:
        scope.add_prefix(f"{node}.")
        return
    kind = template_type(callee)
    names: Iterable[str] = ()
    if callee.get("daemon"):
        scope.add(f"{node}.ip")
    if kind in ("container", "script", "data", "http", "plugin") or (
        kind == "containerSet" and _has_main(callee)
    ):
        names = ("outputs.result", "exitCode")
    if loop:
        names = (*names, "outputs.parameters")
        names = (*names, "outputs.result", "exitCode") if kind in ("script", "containerSet") else names
    scope.add(*(f"{node}.{name}" for name in names))
    for field in ("parameters", "artifacts"):
        names = [each.get("name") or "" for each in items(callee, "outputs", field)]
        scope.add(*(f"{node}.outputs.{field}.{name}" for name in names))
        if any(naming.is_tagged(name) for name in names):
            scope.add_prefix(f"{node}.outputs.{field}.")


def _has_main(callee: Fields) -> bool:
    return any(container.get("name") == "main" for container in items(callee, "containerSet", "containers"))


def is_loop(call: Fields) -> bool:
    """Say whether a call's outputs are lists over its items."""
    return bool(call.get("withItems")) or bool(call.get("withParam"))
