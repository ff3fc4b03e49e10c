"""Whether the pods of steps ran the images that the steps' keys name."""

import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from periplus_common import telemetry
from periplus_common.errors import Unavailable
from periplus_dispatcher.domain import ContainerImage, ImageDrift, Json, Run, StepStatus
from periplus_dispatcher.ports import Pods
from periplus_model.steps import StepPhase

log = logging.getLogger(__name__)

_drifts = telemetry.counter(
    "periplus.images.drifted",
    unit="{container}",
    description="Containers that ran another image than the one that the key of their step names.",
)
MAIN_CONTAINER = "main"
"""The name of a template's own container (Argo)."""
PINNED_INTERVAL = timedelta(seconds=10)
"""Between two listings of the pods of a run whose images are pinned: a listing has all pods of the run."""
NOT_SEEN = "its image is named by a tag, and its pod was gone before it was seen what it ran"


@dataclass
class SeenImages:
    """The images of the pods of one run, by node, as far as they were seen. A pod may be deleted as soon as it ends."""

    by_node: dict[str, tuple[ContainerImage, ...]] = field(default_factory=dict)
    listed_at: float = -math.inf

    def add(self, found: dict[str, tuple[ContainerImage, ...]]) -> None:
        """Add what was listed; a digest that was seen before is not lost."""
        for node, images in found.items():
            if node not in self.by_node or all(image.digest for image in images):
                self.by_node[node] = images

    def are_complete(self, node: str) -> bool:
        """Whether every container of a pod was seen with its digest."""
        return node in self.by_node and all(image.digest for image in self.by_node[node])


async def check_images(
    run: Run, steps: Sequence[StepStatus], pods: Pods | None, seen: SeenImages, namespace: str
) -> list[StepStatus]:
    """The statuses; one whose pod ran another image than its key names says so, and is not to be cached.

    Pods are listed once for all steps that start or end. Where the submitted workflow names its images by digest, what runs
    differs only if something changed the pods: they are listed less often, and nothing is said of one that was not seen.
    Else a step whose pod was not seen is not cached. An observed step gets a key with the digests that its pod ran. `namespace` is
    that of the runs which are not observed.
    """
    to_see = {name for name, template in run.state.templates.items() if template.images}
    if pods is None or not (run.state.images or to_see):
        return list(steps)
    is_strict = run.state.images_are_checked or bool(to_see)
    phases = (StepPhase.RUNNING, StepPhase.SUCCEEDED) if is_strict else (StepPhase.SUCCEEDED,)
    unseen = {
        step.phase for step in steps if step.phase in phases and step.pod and not seen.are_complete(step.pod)
    }
    is_due = (
        run.state.images_are_checked
        or (to_see and StepPhase.SUCCEEDED in unseen)
        or time.monotonic() > seen.listed_at + PINNED_INTERVAL.total_seconds()
    )
    if unseen and is_due:
        seen.listed_at = time.monotonic()
        try:
            seen.add(await pods.list_images(*_place(run, namespace)))
        except Unavailable as error:
            log.warning("%s: the images of its pods are not known: %s", run.id, error)
    return [
        (_seen if step.template in to_see else _checked)(run, step, seen)
        if step.phase is StepPhase.SUCCEEDED
        else step
        for step in steps
    ]


def _place(run: Run, namespace: str) -> tuple[str, str]:
    """Where the Workflow of a run is, and its name."""
    return (run.observed.namespace, run.observed.name) if run.observed else (namespace, run.id)


def _seen(run: Run, step: StepStatus, seen: SeenImages) -> StepStatus:
    """An observed step with the digests that its pod ran in its key, in the place of tags."""
    template = run.state.templates[step.template]
    digests = {each.name: each.digest for each in seen.by_node.get(step.pod, ())}
    document = json.loads(template.step.document)
    for name, container in _named_containers(document):
        if container.get("image") in template.images:
            digest = digests.get(name, "")
            if not digest:
                return replace(step, uncacheable_reason=step.uncacheable_reason or NOT_SEEN)
            container["image"] = _pinned(container["image"], digest)
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return replace(step, document=text)


def _named_containers(document: Json) -> Iterator[tuple[str, Json]]:
    """The containers of a document that its pod has, by their names there. A default whose image the template replaces is none."""
    defaults = (document.get("common") or {}).get("defaults") or {}
    own = document.get("container") or document.get("script") or {}
    for part in (document, defaults):
        for kind in ("container", "script"):
            if kind in part and (part is document or not own.get("image")):
                yield MAIN_CONTAINER, part[kind]
        for kind in ("initContainers", "sidecars"):
            for each in part.get(kind) or ():
                yield str(each.get("name", "")), each


def _pinned(image: str, digest: str) -> str:
    """The image by its digest, in the words of its name, as the snapshotter gives it: `python:3.11` is `python@sha256:…`."""
    folder, slash, last = image.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}@{digest}"


def _checked(run: Run, step: StepStatus, seen: SeenImages) -> StepStatus:
    expected = _expected(run, step)
    if not step.pod or not expected:
        return step
    containers = seen.by_node.get(step.pod, ())
    drifts: list[ImageDrift] = []
    is_seen = bool(containers)
    for image, accepted in expected.items():
        # What changes pods (an admission webhook) may name the image by a mirror: then only the digest tells.
        named = [each for each in containers if each.image == image] or [
            each for each in containers if each.digest in accepted
        ]
        named = named or [each for each in containers if each.name == MAIN_CONTAINER]
        is_seen = is_seen and bool(named) and all(each.digest for each in named)
        drifts += [
            ImageDrift(each.name, image, accepted[0], each.digest)
            for each in named
            if each.digest and each.digest not in accepted
        ]
    if drifts:
        _drifts.add(len(drifts))
        first = drifts[0]
        reason = f"its container {first.container} ran {first.actual} instead of {first.expected}, to which {first.image} pointed"
        return replace(step, drifts=tuple(drifts), uncacheable_reason=reason)
    if run.state.images_are_checked and not is_seen:
        return replace(step, uncacheable_reason=NOT_SEEN)
    return step


def _expected(run: Run, step: StepStatus) -> dict[str, tuple[str, ...]]:
    """The images of a step that are compared: those whose digests its key has."""
    described = run.state.templates.get(step.template)
    if described is None:
        return {}
    document = json.loads(described.step.document)
    own = document.get("container") or document.get("script") or {}
    if own.get("image"):
        document.pop("common", None)  # defaults that its own image replaces
    text = json.dumps(document)
    return {image: accepted for image, accepted in run.state.images.items() if accepted[0] in text}
