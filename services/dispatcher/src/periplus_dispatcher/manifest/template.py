"""A container template: the document that its cache key is made of, its policy, and why it can not be cached."""

import json
import re
from collections.abc import Mapping

from periplus_dispatcher.domain import ContainerTemplate, Json
from periplus_dispatcher.manifest.policy import read_code, read_policy
from periplus_manifest import tags
from periplus_model.steps import CachePolicy, StepTemplate

CACHEABLE_KINDS = ("container", "script")

_KEY_FIELDS = ("image", "command", "args", "source", "env", "workingDir")
"""Fields of a container that decide what it does."""
_ARTIFACT_STORES = frozenset({"s3", "gcs", "azure", "oss", "hdfs", "http", "artifactory", "git", "plugin"})
_STABLE_REFERENCES = ("inputs.", "outputs.", "item")
_VOLATILE_FUNCTION = re.compile(r"\{\{=(?:(?!\}\}).)*?\b(now|uuidv4|rand\w*|shuffle)\(")
_UNCACHEABLE_FIELDS = {
    "daemon": "it is a daemon",
    "memoize": "it has Argo's memoize",
    "volumes": "it has volumes, whose content is not part of the key",
}


def describe_template(
    template: Json,
    path: str,
    constants: Mapping[str, str],
    annotations: Json,
    environment: str,
    common: Json | None = None,
) -> ContainerTemplate:
    """Describe a container or script template.

    `path` is its field path, for errors; `constants` are the values of references that are the same for the whole
    workflow; `annotations` are those of the workflow, which the template's override; `environment` is the digest of the
    environment that steps run in, empty if the image says it; `common` is what the workflow adds to every template.
    """
    resolved = tags.substitute_all(template, constants.get, strict=False)
    merged = {**annotations, **((template.get("metadata") or {}).get("annotations") or {})}
    policy = read_policy(merged, f"{path}.metadata.annotations")
    document = _document(resolved)
    if (code := read_code(merged, f"{path}.metadata.annotations")) is not None:
        document["code"] = code
    if environment:
        document["environment"] = environment
    if common:
        document["common"] = tags.substitute_all(common, constants.get, strict=False)
    outputs = template.get("outputs") or {}
    return ContainerTemplate(
        StepTemplate(
            name=str(template["name"]),
            document=json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False),
            policy=policy,
            uncacheable_reason=_volatile_function_reason(template)
            or _uncacheable_reason(resolved, document, policy),
        ),
        parameters=tuple(p["name"] for p in outputs.get("parameters") or ()),
        artifacts=tuple(a["name"] for a in outputs.get("artifacts") or ()),
    )


def _document(template: Json) -> Json:
    """Everything that decides what the step does: not names, labels, retries, deadlines and resources."""
    document: Json = {}
    for kind in CACHEABLE_KINDS:
        if kind in template:
            document[kind] = _container(template[kind])
    if template.get("podSpecPatch"):
        document["podSpecPatch"] = template["podSpecPatch"]
    for kind in ("initContainers", "sidecars"):
        if template.get(kind):
            document[kind] = [{"name": c.get("name", ""), **_container(c)} for c in template[kind]]
    inputs, outputs = template.get("inputs") or {}, template.get("outputs") or {}
    document["inputs"] = {
        "parameters": sorted(p["name"] for p in inputs.get("parameters") or ()),
        "artifacts": {a["name"]: _fields(a, ("path", "mode")) for a in inputs.get("artifacts") or ()},
    }
    document["outputs"] = {
        "parameters": {p["name"]: p.get("valueFrom", {}) for p in outputs.get("parameters") or ()},
        "artifacts": {a["name"]: _fields(a, ("path", "archive")) for a in outputs.get("artifacts") or ()},
    }
    return document


def _container(container: Json) -> Json:
    found = _fields(container, _KEY_FIELDS)
    if "env" in found:
        found["env"] = {
            e.get("name", ""): e["valueFrom"] if "valueFrom" in e else e.get("value", "")
            for e in found["env"]
        }
    return found


def _fields(value: Json, names: tuple[str, ...]) -> Json:
    """The fields of these names that are set."""
    return {name: value[name] for name in names if value.get(name) not in (None, "", [], {})}


def _uncacheable_reason(template: Json, document: Json, policy: CachePolicy) -> str:
    """Why the step can not be cached; empty if it can."""
    if policy.side_effects:
        return "its side-effects annotation says that it does more than write its outputs"
    containers = [template.get(kind) or {} for kind in CACHEABLE_KINDS]
    for container in (
        *containers,
        *(template.get("initContainers") or ()),
        *(template.get("sidecars") or ()),
    ):
        if reason := _undeclared_input_reason(container):
            return reason
    for field, reason in _UNCACHEABLE_FIELDS.items():
        if template.get(field):
            return reason
    outputs = template.get("outputs") or {}
    for artifact in outputs.get("artifacts") or ():
        if set(artifact) & _ARTIFACT_STORES:
            return (
                f"its output {artifact['name']} names the object that it is written to, which others may read"
            )
    if any(
        "globalName" in output for key in ("parameters", "artifacts") for output in outputs.get(key) or ()
    ):
        return "it has global outputs"
    volatile = sorted(name for name in tags.references(document) if not name.startswith(_STABLE_REFERENCES))
    if volatile:
        return f"it uses {volatile[0]}, which differs from run to run"
    return ""


def _volatile_function_reason(template: Json) -> str:
    """An expression calls a function whose value differs at each call. Checked before constants are substituted."""
    found = next((m for _, text in tags.texts(template) if (m := _VOLATILE_FUNCTION.search(text))), None)
    return f"it uses {found[1]}, whose value differs at each call" if found else ""


def _undeclared_input_reason(container: Json) -> str:
    """A container reads what no input declares; empty if it does not."""
    if container.get("envFrom"):
        return "its environment comes from a ConfigMap or Secret, whose content is not part of the key"
    for variable in container.get("env") or ():
        if "valueFrom" in variable and "fieldRef" not in variable["valueFrom"]:
            return (
                f"its variable {variable.get('name')} comes from a ConfigMap or Secret, "
                "whose content is not part of the key"
            )
    if container.get("volumeMounts"):
        return f"it mounts the volume {container['volumeMounts'][0].get('name')}, whose content is not part of the key"
    return ""
