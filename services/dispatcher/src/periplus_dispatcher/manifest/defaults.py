"""A manifest with what the controller of Argo adds to it: only to plan it, as the controller does it when the Workflow starts."""

import json
from dataclasses import replace

from periplus_dispatcher.domain import Json
from periplus_dispatcher.manifest.inline import our_annotations
from periplus_dispatcher.manifest.read import CheckedManifest
from periplus_manifest.merge import merged_spec

COMMON_FIELDS = (
    "templateDefaults", "podSpecPatch", "securityContext", "hostAliases", "volumes", "volumeClaimTemplates",
)  # fmt: skip
"""Fields of a spec that are part of what each template does."""


def with_defaults(checked: CheckedManifest, defaults: Json) -> CheckedManifest:
    """The manifest with what these `workflowDefaults` add to what its templates do, and with their annotations of Periplus."""
    added = {
        name: value for name, value in (defaults.get("spec") or {}).items() if name in COMMON_FIELDS and value
    }
    annotations = our_annotations(defaults)
    if not added and not annotations:
        return checked
    manifest = checked.manifest
    own = {name: value for name, value in manifest["spec"].items() if name in COMMON_FIELDS}
    metadata = manifest.get("metadata") or {}
    manifest["spec"] |= merged_spec(own, added)
    manifest["metadata"] = {**metadata, "annotations": {**annotations, **(metadata.get("annotations") or {})}}
    return replace(checked, text=json.dumps(manifest))
