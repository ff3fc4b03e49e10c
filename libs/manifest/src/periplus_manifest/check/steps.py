"""A steps template: each step sees the steps before it."""

from __future__ import annotations

from periplus_manifest.errors import ManifestError

from . import argument, call, naming, reference
from .manifest import Fields, Manifest
from .reference import Scope


def check(manifest: Manifest, template: Fields, path: str, scope: Scope) -> None:
    """Check the steps of a template, and add to `scope` what its outputs may refer to."""
    if not template["steps"]:
        raise ManifestError(f"{path}.steps", "must have at least one group of steps")
    seen: set[str] = set()
    for outer, group in enumerate(template["steps"]):
        for inner, step in enumerate(group):
            place = f"{path}.steps[{outer}][{inner}]"
            naming.check_field(step.get("name"), f"{place}.name")
            if step["name"] in seen:
                raise ManifestError(f"{place}.name", f"'{step['name']}' is not unique")
            seen.add(step["name"])
            _step(manifest, step, place, scope)


def _step(manifest: Manifest, step: Fields, path: str, scope: Scope) -> None:
    node = f"steps.{step['name']}"
    scope.add(f"{node}.status")
    call.check_loop(step, path)
    call.check_inline(step, path)
    call.add_items(step, scope)
    argument.check_given(step.get("arguments"), f"{path}.arguments")
    callee = call.target(manifest, step, path)
    if call.has_exit_hook(step):
        call.add_outputs(scope, node, callee, loop=False)
    call.check_hooks(step.get("hooks"), f"{path}.hooks")
    call.check_when(step, path)
    own = Scope(scope)
    # A hook's expression may ask for the step itself.
    own.add(*([f"{node}.id"] if step.get("hooks") else []))
    reference.check({key: value for key, value in step.items() if key != "inline"}, path, own)
    call.add_outputs(scope, node, callee, loop=call.is_loop(step))
    call.check_supplied(step, callee, path)
