"""A container template: the document that its cache key is made of, and its cache policy."""

import json
from collections.abc import Mapping
from typing import Any

from periplus_dispatcher.domain import ContainerTemplate, Json
from periplus_dispatcher.manifest import discovered
from periplus_dispatcher.manifest.node_platform import chosen_platform
from periplus_dispatcher.manifest.pod_template import (
    CACHEABLE_KINDS,
    NOTHING_COMMON,
    CommonSpec,
    PodTemplate,
    merged_annotations,
    read_pod_template,
)
from periplus_dispatcher.manifest.policy import read_code, read_policy
from periplus_dispatcher.manifest.uncacheable import (
    StepEnvironment,
    deleted_output_reason,
    images_to_see,
    uncacheable_reason,
    volatile_function_reason,
)
from periplus_model.steps import StepTemplate

_KEY_FIELDS = (
    "image", "command", "args", "source", "env", "envFrom", "workingDir", "lifecycle", "securityContext", "volumeMounts",
    "volumeDevices", "mirrorVolumeMounts",
)  # fmt: skip
"""Fields of a container that decide what it does."""


def describe_template(
    template: Json,
    path: str,
    constants: Mapping[str, str],
    annotations: Json,
    environment: StepEnvironment,
    common: CommonSpec = NOTHING_COMMON,
) -> ContainerTemplate:
    """Describe a container or script template.

    `path` is its field path, for errors; `constants` are the values of references that are the same for the whole
    workflow; `annotations` are those of the workflow, which the template's override; `common` is what the workflow adds
    to every template.
    """
    merged = merged_annotations(template, annotations)
    policy = read_policy(merged, f"{path}.metadata.annotations")
    pod = read_pod_template(template, path, constants, merged, common)
    document = _document(pod.template)
    if (code := read_code(merged, f"{path}.metadata.annotations")) is not None:
        document["code"] = code
    if environment.digest:
        document["environment"] = environment.digest
    if pod.common:
        document["common"] = _without_empty(pod.common)
    if volumes := pod.mounted_volumes:
        document["volumes"] = dict(volumes)
    if environment.runs_images and (platform := chosen_platform(pod.placement)):
        document["platform"] = platform
    if pod.config:
        document["config"] = _config(pod, environment)
    outputs = template.get("outputs") or {}
    return ContainerTemplate(
        StepTemplate(
            name=str(template["name"]),
            document=json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False),
            policy=policy,
            uncacheable_reason=volatile_function_reason([*pod.raw, pod.template, pod.common])
            or uncacheable_reason(pod, document, policy, environment)
            or deleted_output_reason(outputs, common.artifact_gc),
        ),
        parameters=tuple(p["name"] for p in _parameters(outputs)),
        artifacts=tuple(a["name"] for a in outputs.get("artifacts") or ()),
        config=tuple(dict.fromkeys(ref.object.id for ref in pod.config)),
        images=images_to_see(pod, environment),
        optional=tuple(a["name"] for a in outputs.get("artifacts") or () if a.get("optional")),
    )


def _config(pod: PodTemplate, environment: StepEnvironment) -> Json:
    """The versions of the data of config objects, in the order of the fields that name them."""
    versions = environment.versions
    found: dict[str, list[str]] = {}
    for ref in pod.config:
        known = found.setdefault(ref.label, [])
        version = versions[ref].version if ref in versions else ""
        if version not in known:
            known.append(version)
    return {label: known[0] if len(known) == 1 else known for label, known in found.items()}


def _document(template: Json) -> Json:
    """Everything that decides what the step does: not names, labels, retries, deadlines and resources."""
    document: Json = {}
    for kind in CACHEABLE_KINDS:
        if kind in template:
            document[kind] = _container(template[kind])
    if template.get("podSpecPatch"):
        document["podSpecPatch"] = template["podSpecPatch"]
    document |= _fields(template, ("securityContext", "hostAliases"))
    for kind in ("initContainers", "sidecars"):
        if template.get(kind):
            document[kind] = [{"name": c.get("name", ""), **_container(c)} for c in template[kind]]
    inputs, outputs = template.get("inputs") or {}, template.get("outputs") or {}
    document["inputs"] = {
        "parameters": sorted(p["name"] for p in inputs.get("parameters") or ()),
        "artifacts": {a["name"]: _fields(a, ("path", "mode")) for a in inputs.get("artifacts") or ()},
    }
    document["outputs"] = {
        "parameters": {p["name"]: p.get("valueFrom", {}) for p in _parameters(outputs)},
        "artifacts": {a["name"]: _fields(a, ("path", "archive")) for a in outputs.get("artifacts") or ()},
    }
    return document


def _parameters(outputs: Json) -> list[Json]:
    """The output parameters without that of discovered inputs, which is no output."""
    return [p for p in outputs.get("parameters") or () if p["name"] != discovered.OUTPUT]


def _container(container: Json) -> Json:
    found = _fields(container, _KEY_FIELDS)
    if "env" in found:
        found["env"] = {
            e.get("name", ""): e["valueFrom"] if "valueFrom" in e else e.get("value", "")
            for e in found["env"]
        }
    return found


def _without_empty(value: Any) -> Any:
    """A value without fields that are absent for Argo, which writes some of them into the Workflows that it stores."""
    if isinstance(value, dict):
        kept = {name: _without_empty(each) for name, each in value.items()}
        return {name: each for name, each in kept.items() if each not in (None, "", [], {})}
    return [_without_empty(each) for each in value] if isinstance(value, list) else value


def _fields(value: Json, names: tuple[str, ...]) -> Json:
    """The fields of these names that are set."""
    return {name: value[name] for name in names if value.get(name) not in (None, "", [], {})}
