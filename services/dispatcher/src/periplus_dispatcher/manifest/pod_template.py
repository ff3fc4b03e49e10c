"""A container template as it is read for its key: with its constants, with what the workflow adds to it, without what is ignored."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from periplus_dispatcher.domain import ConfigRef, Json
from periplus_dispatcher.manifest.node_platform import placement
from periplus_dispatcher.manifest.undeclared import (
    IgnoredSources,
    Source,
    applied,
    by_name,
    mounted,
    objects_of,
    read_ignored,
    sources,
    without_ignored,
)
from periplus_manifest import tags
from periplus_manifest.errors import ManifestError
from periplus_manifest.read import read

TAG = "periplus--tag"
"""Stands in a pod spec patch for a tag, in place of a value or inside of a string."""
MAX_ADDED_CHARACTERS = 16 << 20
"""As much as the cache takes for all templates of a question."""
CACHED_PATCHES = 8
"""The patch of a workflow is one of each of its templates."""
CACHEABLE_KINDS = ("container", "script")
_DEFAULTS_WITHOUT_EFFECT = frozenset(
    (
        "retryStrategy",
        "timeout",
        "activeDeadlineSeconds",
        "metadata",
        "metrics",
        "nodeSelector",
        "tolerations",
        "affinity",
    )
)
"""Fields of `templateDefaults` that do not change the outputs of a step."""


@dataclass(frozen=True)
class CommonSpec:
    """What a workflow adds to every template: `fields`, its `defaults` and pod spec `patch` among them, and volumes to mount.

    `artifact_gc` is the strategy by which Argo deletes the output artifacts; empty if it keeps them. `placement` are node selector
    and affinity of the spec, `default_placement` those of its template defaults.
    """

    fields: Json
    volumes: Mapping[str, tuple[Json, ...]] = field(default_factory=dict)
    artifact_gc: str = ""
    placement: Json = field(default_factory=dict)
    default_placement: Json = field(default_factory=dict)


NOTHING_COMMON = CommonSpec({})


@dataclass(frozen=True)
class PodTemplate:
    """A template whose constants were substituted.

    `template` and `common` are without what annotations ignore, `raw` are both before the substitution. `parts` are the
    template, the defaults and the pod spec patches: each can have containers and volumes. `unreadable` says why what it gets
    is not known; then it has no sources. `mounted_volumes` are, by name, the volumes that it mounts as they are declared.
    `applied` are those of the ignored names that it has. `placement` are its node selector and affinity.
    """

    template: Json
    common: Json
    raw: tuple[Json, Json]
    parts: tuple[Json, ...]
    mounted_volumes: Mapping[str, list[Json]]
    sources: tuple[Source, ...]
    ignored: IgnoredSources
    applied: IgnoredSources
    unreadable: str = ""
    placement: Json = field(default_factory=dict)

    @property
    def config(self) -> tuple[ConfigRef, ...]:
        """The data of config objects that it gets, as far as they are known before the run, each once."""
        refs = (ref for source in self.sources for ref in source.refs)
        return tuple(dict.fromkeys(ref for ref in refs if not is_known_only_during_the_run(ref)))


def common_spec(spec: Json) -> CommonSpec:
    """What a workflow of this spec adds to every template."""
    defaults = {
        k: v for k, v in (spec.get("templateDefaults") or {}).items() if k not in _DEFAULTS_WITHOUT_EFFECT
    }
    fields = {"defaults": defaults, "patch": spec.get("podSpecPatch")} | {
        name: spec.get(name) for name in ("securityContext", "hostAliases")
    }
    claims = [
        metadata.get("name")
        for claim in objects_of(spec.get("volumeClaimTemplates"))
        for metadata in objects_of([claim.get("metadata")])
    ]
    return CommonSpec(
        {name: value for name, value in fields.items() if value},
        by_name(
            (
                *objects_of(spec.get("volumes")),
                *({"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims),
            )
        ),
        str((spec.get("artifactGC") or {}).get("strategy") or ""),
        _placement(spec),
        _placement(spec.get("templateDefaults") or {}),
    )


def _placement(value: Json) -> Json:
    return {name: value[name] for name in ("nodeSelector", "affinity") if value.get(name)}


def added_characters(spec: Json, constants: Mapping[str, str]) -> int:
    """Characters that a workflow of this spec adds to the documents of its container templates, all together."""
    templates = sum(
        any(kind in template for kind in CACHEABLE_KINDS) for template in spec.get("templates") or ()
    )
    added = tags.substitute_all(common_spec(spec).fields, constants.get, strict=False)
    return templates * len(json.dumps(added))


def read_pod_template(
    template: Json, path: str, constants: Mapping[str, str], annotations: Json, common: CommonSpec
) -> PodTemplate:
    """`path` is the template's field path, for errors, `annotations` are its own and the workflow's. Raises `Invalid`."""
    ignored = read_ignored(annotations, f"{path}.metadata.annotations")

    def substituted(value: Any) -> Any:
        return tags.substitute_all(value, constants.get, strict=False)

    defaults = common.fields.get("defaults") or {}
    kept = {**common.fields, "defaults": without_ignored(defaults, ignored)}
    raw = without_ignored(template, ignored), {name: value for name, value in kept.items() if value}
    found, found_common = substituted(raw[0]), substituted(raw[1])
    found_defaults = found_common.get("defaults") or {}
    try:
        patches = [
            _read_patch(str(text))
            for text in (
                found.get("podSpecPatch"),
                found_defaults.get("podSpecPatch"),
                found_common.get("patch"),
            )
            if text
        ]
    except ManifestError:
        unreadable = "its podSpecPatch can not be read before the run"
        return PodTemplate(found, found_common, raw, (), {}, (), ignored, ignored, unreadable)
    parts = (found, found_defaults, *(without_ignored(patch, ignored) for patch in patches))
    own = by_name([v for part in parts for v in objects_of(part.get("volumes"))])
    volumes = {
        name: [*own.get(name, ()), *substituted(list(common.volumes.get(name, ())))]
        for name in mounted(parts)
    }
    return PodTemplate(
        found,
        found_common,
        raw,
        parts,
        volumes,
        tuple(sources(parts, volumes, ignored)),
        ignored,
        applied(ignored, (template, defaults, *patches), common.volumes),
        placement=placement(
            (*patches, found, substituted(common.default_placement)), substituted(common.placement)
        ),
    )


def is_known_only_during_the_run(ref: ConfigRef) -> bool:
    """Whether which data it names depends on values of the run."""
    names = (ref.object.name, ref.key)
    return not ref.object.name or any("{{" in name or TAG in name for name in names)


def merged_annotations(template: Json, annotations: Json) -> Json:
    """The annotations of a template, which override those of the workflow."""
    return {**annotations, **((template.get("metadata") or {}).get("annotations") or {})}


@lru_cache(CACHED_PATCHES)
def _read_patch(patch: str) -> Json:
    """A podSpecPatch with `TAG` for each tag. Nobody changes what is given. Raises `ManifestError`."""
    for tag in reversed(tags.find(patch)):
        patch = patch[: tag.start] + TAG + patch[tag.end :]
    return read(patch)
