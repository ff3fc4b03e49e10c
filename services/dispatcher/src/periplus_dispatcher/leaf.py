"""What a leaf template does: the document that its key is made of, its policy, and why it can not be cached."""

import json
import re
from collections.abc import Mapping
from typing import Any

from periplus_common.errors import Invalid
from periplus_dispatcher.domain import Mode, Policy, Template
from periplus_manifest import tags
from periplus_manifest.duration import parse_duration
from periplus_manifest.errors import ManifestError

PREFIX = "periplus.dev/"
KINDS = ("container", "script")

CENTURY = 36_525 * 86_400  # seconds; no entry is served for longer
MAX_IGNORED = 100  # inputs that a policy may name

_DOES = ("image", "command", "args", "source", "env", "workingDir")
_STABLE = ("inputs.", "outputs.", "item")
_CHANCE = re.compile(r"\{\{=(?:(?!\}\}).)*?\b(now|uuidv4|rand\w*|shuffle)\(")

Json = dict[str, Any]


def leaf(
    template: Json,
    path: str,
    constants: Mapping[str, str],
    annotations: Json,
    environment: str,
    common: Json | None = None,
) -> Template:
    """Describe a container or script template.

    `path` is its field path, for errors; `constants` what `{{workflow.…}}` references stand for in every run;
    `annotations` those of the workflow, which a template's own override; `environment` the digest of what steps
    run in, where that is not the image's to say; `common` what the workflow adds to every template.
    """
    fixed = tags.substitute_all(template, constants.get, strict=False)
    own = {**annotations, **((template.get("metadata") or {}).get("annotations") or {})}
    policy = policy_of(own, f"{path}.metadata.annotations")
    document = _document(fixed, own, f"{path}.metadata.annotations")
    if environment:
        document["environment"] = environment
    if common:
        document["common"] = tags.substitute_all(common, constants.get, strict=False)
    outputs = template.get("outputs") or {}
    return Template(
        name=str(template["name"]),
        document=json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False),
        policy=policy,
        uncacheable=_chance(template) or _obstacle(fixed, document, policy),
        parameters=tuple(p["name"] for p in outputs.get("parameters") or ()),
        artifacts=tuple(a["name"] for a in outputs.get("artifacts") or ()),
    )


def _document(template: Json, annotations: Json, path: str) -> Json:
    """All that decides what the step does. Names, labels, retries, deadlines and resources do not."""
    document: Json = {}
    for kind in KINDS:
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
        "artifacts": {a["name"]: _picked(a, ("path", "mode")) for a in inputs.get("artifacts") or ()},
    }
    document["outputs"] = {
        "parameters": {p["name"]: p.get("valueFrom", {}) for p in outputs.get("parameters") or ()},
        "artifacts": {a["name"]: _picked(a, ("path", "archive")) for a in outputs.get("artifacts") or ()},
    }
    if code := annotations.get(PREFIX + "code"):
        document["code"] = _code(code, path)
    return document


def _container(container: Json) -> Json:
    found = _picked(container, _DOES)
    if "env" in found:
        found["env"] = {
            e.get("name", ""): e["valueFrom"] if "valueFrom" in e else e.get("value", "")
            for e in found["env"]
        }
    return found


def _picked(value: Json, names: tuple[str, ...]) -> Json:
    return {name: value[name] for name in names if value.get(name) not in (None, "", [], {})}


def _code(text: str, path: str) -> Json:
    field = f"{path}['{PREFIX}code']"
    try:
        code = json.loads(text)
    except ValueError as error:
        raise Invalid("is not JSON", field=field) from error
    if not isinstance(code, dict) or not all(isinstance(digest, str) for digest in code.values()):
        raise Invalid("is not a map of files to digests", field=field)
    return code


def policy_of(annotations: Json, path: str) -> Policy:
    """Read a policy from annotations. Raises `Invalid`, with the field's path."""

    def given(name: str) -> str:
        return str(annotations.get(PREFIX + name, "")).strip()

    def field(name: str) -> str:
        return f"{path}['{PREFIX}{name}']"

    try:
        mode = Mode(given("cache") or "readwrite")
    except ValueError as error:
        choices = ", ".join(mode.value for mode in Mode)
        raise Invalid(f"{given('cache')!r} is none of {choices}", field=field("cache")) from error
    if given("side-effects") not in ("", "true", "false"):
        raise Invalid(f"{given('side-effects')!r} is neither true nor false", field=field("side-effects"))
    ignored = tuple(name.strip() for name in given("ignore-inputs").split(",") if name.strip())
    if len(ignored) > MAX_IGNORED:
        raise Invalid(f"names more than {MAX_IGNORED} inputs", field=field("ignore-inputs"))
    return Policy(
        mode=mode,
        ttl=_seconds(given("ttl"), field("ttl")) if given("ttl") else None,
        ignore_inputs=ignored,
        side_effects=given("side-effects") == "true",
    )


def _seconds(text: str, field: str) -> float:
    """A duration like 1h30m, 7d or 90s, in seconds."""
    try:
        seconds = parse_duration(text, days=True).total_seconds()
    except ManifestError as error:
        raise Invalid(error.message, field=field) from None
    if seconds < 0:
        raise Invalid(f"{text[:40]!r} is negative", field=field)
    if seconds > CENTURY:
        raise Invalid(f"{text[:40]!r} is more than a century; leave it out for ever", field=field)
    return seconds


def _obstacle(template: Json, document: Json, policy: Policy) -> str:
    """Why the step can not be cached; empty where it can."""
    if policy.side_effects:
        return "its side-effects annotation says that it does more than give outputs"
    containers = [template.get(kind) or {} for kind in KINDS]
    for container in (
        *containers,
        *(template.get("initContainers") or ()),
        *(template.get("sidecars") or ()),
    ):
        if obstacle := _undeclared(container):
            return obstacle
    for field, why in _WAYS.items():
        if template.get(field):
            return why
    outputs = template.get("outputs") or {}
    for artifact in outputs.get("artifacts") or ():
        if set(artifact) & _STORES:
            return f"its output {artifact['name']} has a place of its own, where others may look for it"
    if any(
        "globalName" in output for key in ("parameters", "artifacts") for output in outputs.get(key) or ()
    ):
        return "it gives global outputs"
    volatile = sorted(name for name in tags.references(document) if not name.startswith(_STABLE))
    if volatile:
        return f"it uses {volatile[0]}, which differs from run to run"
    return ""


def _chance(template: Json) -> str:
    """What an expression uses that gives something else each time. Asked before any is evaluated."""
    found = next((m for _, text in tags.texts(template) if (m := _CHANCE.search(text))), None)
    return f"it uses {found[1]}, which differs from time to time" if found else ""


def _undeclared(container: Json) -> str:
    """What a container reads that no input declares."""
    if container.get("envFrom"):
        return "it takes its environment from a ConfigMap or Secret, whose version is not known"
    for variable in container.get("env") or ():
        if "valueFrom" in variable and "fieldRef" not in variable["valueFrom"]:
            return f"its variable {variable.get('name')} comes from a ConfigMap or Secret, whose version is not known"
    if container.get("volumeMounts"):
        return f"it mounts the volume {container['volumeMounts'][0].get('name')}, whose content is not known"
    return ""


_STORES = frozenset({"s3", "gcs", "azure", "oss", "hdfs", "http", "artifactory", "git", "plugin"})
_WAYS = {
    "daemon": "it is a daemon",
    "memoize": "it has a memoize of its own",
    "volumes": "it has volumes of its own, whose content is not known",
}
