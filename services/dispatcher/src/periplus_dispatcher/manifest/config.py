"""The Secrets and ConfigMaps of a manifest: which of its templates get data of theirs, and what annotations ignore of that."""

from collections.abc import Sequence

from periplus_dispatcher.manifest.pod_template import (
    CACHEABLE_KINDS,
    MAX_ADDED_CHARACTERS,
    PodTemplate,
    added_characters,
    common_spec,
    merged_annotations,
    read_pod_template,
)
from periplus_dispatcher.manifest.policy import ANNOTATION_PREFIX
from periplus_dispatcher.manifest.read import CheckedManifest, errors_in_manifest
from periplus_dispatcher.manifest.undeclared import IgnoredSources

_WORDS = ("secret", "Secret", "configMap", f"{ANNOTATION_PREFIX}ignore-")
_IGNORED = tuple(IgnoredSources().by_annotation)


def getting_config(checked: CheckedManifest) -> list[PodTemplate]:
    """The container templates of a manifest, if one of them may get data of config objects or ignore something; else none.

    Raises `Invalid` with the field's path.
    """
    if not any(word in checked.text for word in _WORDS):
        return []
    workflow, constants = checked.manifest, {f"workflow.parameters.{name}": v for name, v in checked.values}
    annotations = (workflow.get("metadata") or {}).get("annotations") or {}
    if added_characters(workflow["spec"], constants) > MAX_ADDED_CHARACTERS:
        return []  # no step of it is planned
    common = common_spec(workflow["spec"])
    with errors_in_manifest():
        return [
            read_pod_template(
                template,
                f"spec.templates[{index}]",
                constants,
                merged_annotations(template, annotations),
                common,
            )
            for index, template in enumerate(workflow["spec"].get("templates") or ())
            if any(kind in template for kind in CACHEABLE_KINDS)
        ]


def ignored_warnings(pods: Sequence[PodTemplate]) -> list[str]:
    """A warning for each name that an annotation ignores and that no template has to which it applies."""
    warnings: dict[str, None] = {}
    for annotation in _IGNORED:
        applied: dict[frozenset[str], set[str]] = {}
        for pod in pods:
            names = pod.ignored.by_annotation[annotation]
            applied.setdefault(names, set()).update(pod.applied.by_annotation[annotation])
        for names, found in applied.items():
            for name in sorted(names - found):
                warnings[
                    f"{ANNOTATION_PREFIX}{annotation} names {name}, which no step has to which it applies"
                ] = None
    return list(warnings)
