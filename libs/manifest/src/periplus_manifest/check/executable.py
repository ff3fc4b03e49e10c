"""A template that runs something itself: its image, its mounts, its containers, and all that it refers to."""

from __future__ import annotations

from typing import Any

from periplus_manifest.errors import ManifestError

from . import naming, reference
from .manifest import Fields, Manifest, items
from .reference import Scope

_ACTIONS = ("get", "create", "apply", "delete", "replace", "patch")
_RESERVED = frozenset(("wait", "supervisor"))


def check(manifest: Manifest, template: Fields, own: str, path: str, scope: Scope) -> None:
    """Check a template of a type other than steps and dag."""
    reference.check({key: value for key, value in template.items() if key != "inputs"}, path, scope)
    # The values and places of inputs are those that a caller gives; only defaults stay as they are written.
    for index, parameter in enumerate(items(template, "inputs", "parameters")):
        reference.check(parameter.get("default"), f"{path}.inputs.parameters[{index}].default", scope)
    if own in ("container", "script"):
        defaults = (manifest.spec.get("templateDefaults") or {}).get(own) or {}
        if not template[own].get("image") and not defaults.get("image"):
            raise ManifestError(f"{path}.{own}.image", "may not be empty")
    if own == "container":
        _check_mounts(template, path)
    if own == "containerSet":
        _check_set(template, path)
    if own == "resource":
        _check_resource(template, path)
    for index, container in enumerate(items(template, "sidecars")):
        _check_free(container.get("name"), f"{path}.sidecars[{index}].name")


def _check_free(name: Any, path: str) -> None:
    if name in _RESERVED:
        raise ManifestError(path, f"{name!r} is a container of Argo's own")


def _check_mounts(template: Fields, path: str) -> None:
    taken: dict[str, str] = {}
    places = [
        (f"{path}.container.volumeMounts[{index}].mountPath", mount.get("mountPath"))
        for index, mount in enumerate(items(template, "container", "volumeMounts"))
    ]
    places += [
        (f"{path}.inputs.artifacts[{index}].path", artifact.get("path"))
        for index, artifact in enumerate(items(template, "inputs", "artifacts"))
    ]
    for place, mounted in places:
        if mounted in taken:
            raise ManifestError(place, f"'{mounted}' already mounted in {taken[mounted]}")
        taken[mounted] = place


def _check_set(template: Fields, path: str) -> None:
    place = f"{path}.containerSet.containers"
    containers = items(template, "containerSet", "containers")
    if not containers:
        raise ManifestError(place, "must have at least one container")
    naming.check_fields(containers, place)
    names = {container["name"] for container in containers}
    waits: dict[str, set[str]] = {}
    for index, container in enumerate(containers):
        _check_free(container["name"], f"{place}[{index}].name")
        waits[container["name"]] = set(container.get("dependencies") or ())
        for other in sorted(waits[container["name"]] - names):
            raise ManifestError(f"{place}[{index}].dependencies", f"dependency '{other}' not defined")
    while free := {name for name, others in waits.items() if not others & waits.keys()}:
        waits = {name: others for name, others in waits.items() if name not in free}
    if waits:
        raise ManifestError(place, f"dependency cycle among {', '.join(sorted(waits)[:20])}")
    moved = items(template, "inputs", "artifacts") or items(template, "outputs", "parameters")
    if (moved or items(template, "outputs", "artifacts")) and "main" not in names:
        raise ManifestError(place, 'must have a container named "main" for input or output')


def _check_resource(template: Fields, path: str) -> None:
    resource = template["resource"]
    action = resource.get("action") or ""
    if action not in _ACTIONS and not naming.is_tagged(action):
        raise ManifestError(f"{path}.resource.action", f"must be one of: {', '.join(_ACTIONS)}")
    if action in ("delete", "get"):
        return
    written, source = resource.get("manifest"), resource.get("manifestFrom")
    if not written and source is None:
        raise ManifestError(f"{path}.resource.manifest", "or manifestFrom must be specified")
    if written and source is not None:
        raise ManifestError(f"{path}.resource.manifestFrom", "shouldn't be there together with manifest")
