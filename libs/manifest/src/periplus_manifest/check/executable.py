"""Templates that run something themselves: their image, mounts and containers, and what they refer to."""

from __future__ import annotations

from typing import Any

from periplus_manifest.errors import ManifestError

from . import naming, reference
from .manifest import Fields, Manifest, items
from .reference import Scope

_ACTIONS = ("get", "create", "apply", "delete", "replace", "patch")
_RESERVED = frozenset(("wait", "supervisor"))


def check(manifest: Manifest, template: Fields, kind: str, path: str, scope: Scope) -> None:
    """Check a template of a type other than steps and dag."""
    reference.check({key: value for key, value in template.items() if key != "inputs"}, path, scope)
    # The caller replaces values and locations of inputs; only their defaults are used as they are.
    for index, parameter in enumerate(items(template, "inputs", "parameters")):
        reference.check(parameter.get("default"), f"{path}.inputs.parameters[{index}].default", scope)
    if kind in ("container", "script"):
        defaults = (manifest.spec.get("templateDefaults") or {}).get(kind) or {}
        if not template[kind].get("image") and not defaults.get("image"):
            raise ManifestError(f"{path}.{kind}.image", "may not be empty")
    if kind == "container":
        _check_mounts(template, path)
    if kind == "containerSet":
        _check_set(template, path)
    if kind == "resource":
        _check_resource(template, path)
    for index, container in enumerate(items(template, "sidecars")):
        _check_not_reserved(container.get("name"), f"{path}.sidecars[{index}].name")


def _check_not_reserved(name: Any, path: str) -> None:
    if name in _RESERVED:
        raise ManifestError(path, f"{name!r} is the name of one of Argo's own containers")


def _check_mounts(template: Fields, path: str) -> None:
    used: dict[str, str] = {}
    mounts = [
        (f"{path}.container.volumeMounts[{index}].mountPath", mount.get("mountPath"))
        for index, mount in enumerate(items(template, "container", "volumeMounts"))
    ]
    mounts += [
        (f"{path}.inputs.artifacts[{index}].path", artifact.get("path"))
        for index, artifact in enumerate(items(template, "inputs", "artifacts"))
    ]
    for mount_path, mounted in mounts:
        if mounted in used:
            raise ManifestError(mount_path, f"'{mounted}' already mounted in {used[mounted]}")
        used[mounted] = mount_path


def _check_set(template: Fields, path: str) -> None:
    containers_path = f"{path}.containerSet.containers"
    containers = items(template, "containerSet", "containers")
    if not containers:
        raise ManifestError(containers_path, "must have at least one container")
    naming.check_fields(containers, containers_path)
    names = {container["name"] for container in containers}
    dependencies: dict[str, set[str]] = {}
    for index, container in enumerate(containers):
        _check_not_reserved(container["name"], f"{containers_path}[{index}].name")
        dependencies[container["name"]] = set(container.get("dependencies") or ())
        for other in sorted(dependencies[container["name"]] - names):
            raise ManifestError(
                f"{containers_path}[{index}].dependencies", f"dependency '{other}' not defined"
            )
    while ready := {name for name, others in dependencies.items() if not others & dependencies.keys()}:
        dependencies = {name: others for name, others in dependencies.items() if name not in ready}
    if dependencies:
        raise ManifestError(containers_path, f"dependency cycle among {', '.join(sorted(dependencies)[:20])}")
    moved = items(template, "inputs", "artifacts") or items(template, "outputs", "parameters")
    if (moved or items(template, "outputs", "artifacts")) and "main" not in names:
        raise ManifestError(containers_path, 'must have a container named "main" for input or output')


def _check_resource(template: Fields, path: str) -> None:
    resource = template["resource"]
    action = resource.get("action") or ""
    if action not in _ACTIONS and not naming.is_tagged(action):
        raise ManifestError(f"{path}.resource.action", f"must be one of: {', '.join(_ACTIONS)}")
    if action in ("delete", "get"):
        return
    inline_manifest, manifest_source = resource.get("manifest"), resource.get("manifestFrom")
    if not inline_manifest and manifest_source is None:
        raise ManifestError(f"{path}.resource.manifest", "or manifestFrom must be specified")
    if inline_manifest and manifest_source is not None:
        raise ManifestError(f"{path}.resource.manifestFrom", "shouldn't be there together with manifest")
