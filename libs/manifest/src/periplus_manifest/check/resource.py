"""What a pod as a whole may ask for."""

from __future__ import annotations

from periplus_manifest.errors import ManifestError

from .manifest import POD_TYPES, Fields


def check(holder: Fields, path: str) -> None:
    """Check the `podResources` of a spec or a template."""
    asked = holder.get("podResources") or {}
    if asked.get("claims"):
        raise ManifestError(f"{path}.podResources.claims", "is not supported for a pod as a whole")
    for field in ("limits", "requests"):
        for name in asked.get(field) or ():
            if name not in ("cpu", "memory") and not name.startswith("hugepages-"):
                raise ManifestError(
                    f"{path}.podResources.{field}", f"{name[:80]!r} is none of cpu, memory and hugepages-*"
                )


def check_template(template: Fields, own: str, path: str) -> None:
    """Check what a template of type `own` asks for its pod."""
    if template.get("podResources") is not None and own in ("http", "plugin"):
        raise ManifestError(f"{path}.podResources", f"is not supported for {own} templates")
    check(template, path)
    if template.get("resourceClaims") and own not in POD_TYPES:
        raise ManifestError(
            f"{path}.resourceClaims", f"is not supported for {own} templates, which have no pod"
        )
