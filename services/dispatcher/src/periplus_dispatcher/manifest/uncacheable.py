"""Why a container template can not be cached: it does or reads what is not part of its cache key."""

from dataclasses import dataclass
from functools import cached_property

from periplus_dispatcher.domain import ConfigRef, ConfigVersion, Json
from periplus_dispatcher.manifest.node_platform import is_one_platform
from periplus_dispatcher.manifest.pod_template import TAG, PodTemplate, is_known_only_during_the_run
from periplus_dispatcher.manifest.policy import ANNOTATION_PREFIX
from periplus_dispatcher.manifest.undeclared import Source, containers_of
from periplus_manifest import tags
from periplus_model.steps import CachePolicy

_ARTIFACT_STORES = frozenset({"s3", "gcs", "azure", "oss", "hdfs", "http", "artifactory", "git", "plugin"})
_STABLE_REFERENCES = ("inputs.", "outputs.", "item")
MIXED = 2
"""So many platforms make a cluster mixed."""
_FIELDS = {"daemon": "it is a daemon", "memoize": "it has Argo's memoize"}
NOT_READ = "whose content the dispatcher does not read: set DISPATCHER_KUBERNETES_URL and DISPATCHER_CONFIG_VERSION_KEY"
OBSERVED = "whose content when an observed step started is not known"
ADMITTED = "whose content is not read at the admission of a Workflow of others"


@dataclass(frozen=True)
class StepEnvironment:
    """What a step runs in.

    If `runs_images`, it is the image of its container; an image that is not pinned by digest can change, unless its
    name begins with one of `immutable_image_prefixes`. `unresolved` are images whose digests are not known, each with the
    reason. Else steps are processes of this machine, and `digest` is that of their environment, or empty if it is not known.
    `config` are the versions of the data of config objects that steps get; `without_version` says why another one has none,
    as the end of a sentence about it. `images_are_seen` is whether the key gets the digests of images by tag once the step ran.
    `unknown_defaults` is why it is not known what Argo's controller adds to workflows; empty if it is. `node_platforms` are those
    of the cluster's nodes, as `linux/amd64`; empty if they are not known.
    """

    runs_images: bool = True
    immutable_image_prefixes: tuple[str, ...] = ()
    digest: str = ""
    unresolved: tuple[tuple[str, str], ...] = ()
    config: tuple[tuple[ConfigRef, ConfigVersion], ...] = ()
    without_version: str = NOT_READ
    images_are_seen: bool = False
    unknown_defaults: str = ""
    node_platforms: tuple[str, ...] = ()

    @cached_property
    def versions(self) -> dict[ConfigRef, ConfigVersion]:
        """`config`, by what it is a version of."""
        return dict(self.config)


def uncacheable_reason(
    pod: PodTemplate, document: Json, policy: CachePolicy, environment: StepEnvironment
) -> str:
    """Why a template can not be cached; empty if it can."""
    template, defaults = pod.template, pod.common.get("defaults") or {}
    if policy.side_effects:
        return "its side-effects annotation says that it does more than write its outputs"
    if pod.unreadable:
        return pod.unreadable
    if environment.unknown_defaults:
        return f"what Argo's controller adds to it is not known: {environment.unknown_defaults}"
    for source in pod.sources:
        if reason := _source_reason(source, environment):
            return reason
    for field, reason in _FIELDS.items():
        if template.get(field) or defaults.get(field):
            return reason
    if reason := _output_reason(template.get("outputs") or {}):
        return reason
    volatile = sorted(name for name in tags.references(document) if not name.startswith(_STABLE_REFERENCES))
    if volatile:
        return f"it uses {volatile[0]}, which differs from run to run"
    if not environment.runs_images:
        return ""
    return _platform_reason(pod, environment) or _image_reason(pod, environment)


def _platform_reason(pod: PodTemplate, environment: StepEnvironment) -> str:
    """Nodes of several platforms may run the step; empty if it chooses one."""
    if len(environment.node_platforms) < MIXED or is_one_platform(pod.placement):
        return ""
    platforms = " or ".join(environment.node_platforms)
    return (
        f"its pod may run on {platforms} (DISPATCHER_NODE_PLATFORMS), where the same image runs other programs: choose one, "
        "nodeSelector: {kubernetes.io/arch: amd64}"
    )


def volatile_function_reason(templates: list[Json | None]) -> str:
    """An expression calls a function whose value differs at each call. For templates before and after substitution:
    an expression that is evaluated is in the first alone, one that a parameter brings in the second alone.
    """
    found = sorted(tags.volatile_functions(templates))
    return f"it uses {found[0].removeprefix('sprig.')}, whose value differs at each call" if found else ""


def deleted_output_reason(outputs: Json, artifact_gc: str) -> str:
    """Argo deletes an output artifact with its workflow or before, so that a later run could not read it.

    `artifact_gc` is the strategy of the workflow, which that of an artifact overrides.
    """
    for artifact in outputs.get("artifacts") or ():
        strategy = (artifact.get("artifactGC") or {}).get("strategy") or artifact_gc
        if strategy not in ("", "Never"):
            return (
                f"artifactGC deletes its output {artifact['name']} ({strategy}), which a later run could then not read: "
                "give the output artifactGC: {strategy: Never}"
            )
    return ""


def _source_reason(source: Source, environment: StepEnvironment) -> str:
    """A container gets something that can not be part of the key; empty if it can."""
    ignore = f"annotate {ANNOTATION_PREFIX}{source.annotation} if it does not change the result"
    if not source.refs:
        return f"{source.what} comes from {source.origin}, which is not part of the key: {ignore}"
    for ref in source.refs:
        if is_known_only_during_the_run(ref):
            return f"which {ref.object.kind} {source.what} comes from is known only during the run: {ignore}"
        found = environment.versions.get(ref, ConfigVersion(reason=environment.without_version))
        if found.reason:
            return f"{source.what} comes from the {source.origin}, {found.reason}, or {ignore}"
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


def _image_reason(pod: PodTemplate, environment: StepEnvironment) -> str:
    """An image of the step can change while its name stays the same."""
    template, defaults = pod.template, pod.common.get("defaults") or {}
    main = template.get("container") or template.get("script") or {}
    default = defaults.get("container") or defaults.get("script") or {}
    if not main.get("image") and not default.get("image"):
        return "it names no image, so that the image is Argo's to choose: name one, pinned by digest"
    seen = images_to_see(pod, environment)
    for container in (c for part in pod.parts for c in containers_of(part)):
        image = str(container.get("image") or "")
        if tags.find(image) or image == TAG:
            return (
                f"its image {image} is known only during the run: write it in the template, pinned (image@sha256:…), "
                "or take all of it from a parameter of the workflow"
            )
        if image and image not in seen and not is_pinned(image, environment):
            why = dict(environment.unresolved).get(image, "")
            if container.get("imagePullPolicy") == "Never":
                why = "its node never asks a registry"
            return (
                f"UNPINNED: its image {image} can change under its tag{f', and {why}' if why else ''}: pin it "
                f"({image}@sha256:…), or name its prefix in DISPATCHER_IMMUTABLE_IMAGE_PREFIXES"
            )
    return ""


def images_to_see(pod: PodTemplate, environment: StepEnvironment) -> tuple[str, ...]:
    """The images by tag of the template and the defaults, whose digests the key gets from the pod; those of a patch stay as they are."""
    if not environment.runs_images or not environment.images_are_seen:
        return ()
    parts = (pod.template, pod.common.get("defaults") or {})
    patched = {c.get("image") for part in pod.parts[len(parts) :] for c in containers_of(part)}
    images = (str(c.get("image") or "") for part in parts for c in containers_of(part))
    unpinned = (i for i in images if i and not tags.find(i) and not is_pinned(i, environment))
    return tuple(dict.fromkeys(image for image in unpinned if image not in patched))


def is_pinned(image: str, environment: StepEnvironment) -> bool:
    """Whether an image can not change: it is named by its digest, or a setting says so."""
    return "@sha256:" in image or image.startswith(environment.immutable_image_prefixes)
