"""Why a container template can not be cached: it does or reads what is not part of its cache key."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from periplus_dispatcher.domain import Json
from periplus_manifest import tags
from periplus_manifest.errors import ManifestError
from periplus_manifest.read import read
from periplus_model.steps import CachePolicy

_ARTIFACT_STORES = frozenset({"s3", "gcs", "azure", "oss", "hdfs", "http", "artifactory", "git", "plugin"})
_STABLE_REFERENCES = ("inputs.", "outputs.", "item")
_FIELDS = {
    "daemon": "it is a daemon",
    "memoize": "it has Argo's memoize",
    "volumes": "it has volumes, whose content is not part of the key",
}
_TAG = "tag"
_POD_FIELDS = ("fieldRef", "resourceFieldRef")


@dataclass(frozen=True)
class StepEnvironment:
    """What a step runs in.

    If `runs_images`, it is the image of its container; an image that is not pinned by digest can change, unless its
    name begins with one of `immutable_image_prefixes`. `unresolved` are images whose digests are not known, each with the
    reason. Else steps are processes of this machine, and `digest` is that of their environment, or empty if it is not known.
    """

    runs_images: bool = True
    immutable_image_prefixes: tuple[str, ...] = ()
    digest: str = ""
    unresolved: tuple[tuple[str, str], ...] = ()


def uncacheable_reason(
    template: Json, common: Json, document: Json, policy: CachePolicy, environment: StepEnvironment
) -> str:
    """Why a template can not be cached; empty if it can.

    `common` is what the workflow adds to every template, its `defaults` and its pod spec `patch`. References to
    constants are substituted in all three.
    """
    if policy.side_effects:
        return "its side-effects annotation says that it does more than write its outputs"
    defaults = common.get("defaults") or {}
    try:
        patches = [_read_patch(p) for p in (template.get("podSpecPatch"), common.get("patch")) if p]
        if defaults.get("podSpecPatch"):
            patches.append(_read_patch(defaults["podSpecPatch"]))
    except ManifestError:
        return "its podSpecPatch can not be read before the run"
    containers = [
        *containers_of(template),
        *containers_of(defaults),
        *(c for p in patches for c in containers_of(p)),
    ]
    for container in containers:
        if reason := _undeclared_input_reason(container):
            return reason
    for field, reason in _FIELDS.items():
        if template.get(field) or defaults.get(field):
            return reason
    if reason := _output_reason(template.get("outputs") or {}):
        return reason
    volatile = sorted(name for name in tags.references(document) if not name.startswith(_STABLE_REFERENCES))
    if volatile:
        return f"it uses {volatile[0]}, which differs from run to run"
    return _image_reason(template, defaults, containers, environment) if environment.runs_images else ""


def volatile_function_reason(templates: list[Json | None]) -> str:
    """An expression calls a function whose value differs at each call. For templates before and after substitution:
    an expression that is evaluated is in the first alone, one that a parameter brings in the second alone.
    """
    found = sorted(tags.volatile_functions(templates))
    return f"it uses {found[0].removeprefix('sprig.')}, whose value differs at each call" if found else ""


def containers_of(template: Json) -> Iterator[Json]:
    """All containers of a template, of template defaults or of a pod spec."""
    for kind in ("container", "script"):
        if template.get(kind):
            yield template[kind]
    for kind in ("initContainers", "sidecars", "containers"):
        yield from template.get(kind) or ()
    yield from (template.get("containerSet") or {}).get("containers") or ()


def _read_patch(text: Any) -> Json:
    """A podSpecPatch with `tag` for each tag, which is valid inside of a string and in place of a value."""
    patch = str(text)
    for tag in reversed(tags.find(patch)):
        patch = patch[: tag.start] + _TAG + patch[tag.end :]
    return read(patch)


def _undeclared_input_reason(container: Json) -> str:
    """A container reads what no input declares; empty if it does not."""
    if container.get("envFrom"):
        return "its environment comes from a ConfigMap or Secret, whose content is not part of the key"
    for variable in container.get("env") or ():
        source = variable.get("valueFrom")
        if source is None:
            continue
        name = variable.get("name")
        if any(field in source for field in _POD_FIELDS):
            return f"its variable {name} comes from a field of the pod, which is not part of the key"
        return f"its variable {name} comes from a ConfigMap or Secret, whose content is not part of the key"
    for mount in (*(container.get("volumeMounts") or ()), *(container.get("volumeDevices") or ())):
        return f"it mounts the volume {mount.get('name')}, whose content is not part of the key"
    return ""


def _output_reason(outputs: Json) -> str:
    """Others can read an output by another way than a reference to the step."""
    for artifact in outputs.get("artifacts") or ():
        if set(artifact) & _ARTIFACT_STORES:
            return (
                f"its output {artifact['name']} names the object that it is written to, which others may read"
            )
    if any(
        "globalName" in output for key in ("parameters", "artifacts") for output in outputs.get(key) or ()
    ):
        return "it has global outputs"
    return ""


def _image_reason(
    template: Json, defaults: Json, containers: list[Json], environment: StepEnvironment
) -> str:
    """An image of the step can change while its name stays the same."""
    main = template.get("container") or template.get("script") or {}
    default = defaults.get("container") or defaults.get("script") or {}
    if not main.get("image") and not default.get("image"):
        return "it names no image, so that the image is Argo's to choose: name one, pinned by digest"
    for container in containers:
        image = str(container.get("image") or "")
        if tags.find(image) or image == _TAG:
            return (
                f"its image {image} is known only during the run: write it in the template, pinned (image@sha256:…), "
                "or take all of it from a parameter of the workflow"
            )
        if image and not is_pinned(image, environment):
            why = dict(environment.unresolved).get(image, "")
            if container.get("imagePullPolicy") == "Never":
                why = "its node never asks a registry"
            return (
                f"UNPINNED: its image {image} can change under its tag{f', and {why}' if why else ''}: pin it "
                f"({image}@sha256:…), or name its prefix in DISPATCHER_IMMUTABLE_IMAGE_PREFIXES"
            )
    return ""


def is_pinned(image: str, environment: StepEnvironment) -> bool:
    """Whether an image can not change: it is named by its digest, or a setting says so."""
    return "@sha256:" in image or image.startswith(environment.immutable_image_prefixes)
