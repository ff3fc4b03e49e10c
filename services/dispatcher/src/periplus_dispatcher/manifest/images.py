"""The images of a manifest: which ones can change under their tags, and the same manifest with their digests instead."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum

from periplus_dispatcher.domain import Json, ResolvedImage
from periplus_dispatcher.manifest.read import CheckedManifest
from periplus_dispatcher.manifest.uncacheable import StepEnvironment, is_pinned
from periplus_dispatcher.manifest.undeclared import containers_of
from periplus_manifest import tags

MAX_IMAGES = 1000
"""The limit of `ResolveImagesRequest.images`."""
MAX_NAMED = 20
"""How many images one warning names."""


class ImagePolicy(StrEnum):
    """What is done with images that are named by a tag."""

    PIN = "pin"
    """The submitted workflow names them by digest."""
    CHECK = "check"
    """It is submitted as it is; a step is cached only if its pod was seen to run what the tag pointed to."""
    OFF = "off"
    """Nothing: their steps are not cached."""


def to_resolve(checked: CheckedManifest, environment: StepEnvironment) -> list[str]:
    """The images that a registry must be asked for, each once, in the order of the manifest."""
    if '"image"' not in checked.text:
        return []
    constants = {f"workflow.parameters.{name}": value for name, value in checked.values}
    found = dict.fromkeys(image for _, image in _images(checked.manifest, constants, environment))
    return list(found)[:MAX_IMAGES]


def pin(
    checked: CheckedManifest, environment: StepEnvironment, resolved: Sequence[ResolvedImage]
) -> CheckedManifest:
    """The manifest with the digests of the images that have one. Nothing but the fields `image` is changed."""
    pinned = {found.image: found.pinned for found in resolved if found.digest}
    if not pinned:
        return checked
    constants = {f"workflow.parameters.{name}": value for name, value in checked.values}
    manifest = checked.manifest
    for container, image in _images(manifest, constants, environment):
        container["image"] = pinned.get(image, container["image"])
    return replace(checked, text=json.dumps(manifest))


def unresolved(resolved: Sequence[ResolvedImage]) -> tuple[tuple[str, str], ...]:
    """Each image without a digest, and the reason with what removes it."""
    return tuple(
        (found.image, found.reason + (f" ({found.fix})" if found.fix else ""))
        for found in resolved
        if not found.digest
    )


def accepted(policy: ImagePolicy, resolved: Sequence[ResolvedImage]) -> dict[str, tuple[str, ...]]:
    """By image in the words of the submitted workflow, the digests by which a node may report it."""
    return {
        found.pinned if policy is ImagePolicy.PIN else found.image: (found.digest, *found.also)
        for found in resolved
        if found.digest
    }


def images_warning(policy: ImagePolicy, resolved: Sequence[ResolvedImage]) -> list[str]:
    """What the plan says about images that have digests."""
    named = [f"{found.image} to {found.digest}" for found in resolved if found.digest]
    if not named:
        return []
    more = f", and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
    done = {
        ImagePolicy.PIN: "images are pinned in the submitted workflow, as their tags can change",
        ImagePolicy.CHECK: "images are compared with what the pods run, as their tags can change",
    }
    return [f"{done[policy]}: {', '.join(named[:MAX_NAMED])}{more}"]


def _images(
    manifest: Json, constants: Mapping[str, str], environment: StepEnvironment
) -> Iterator[tuple[Json, str]]:
    """Each container whose image can change, and the image with the workflow's parameters filled in.

    Not those whose image only the run knows or whose node never asks a registry.
    """
    spec = manifest["spec"]
    for template in (*(spec.get("templates") or ()), spec.get("templateDefaults") or {}):
        for container in containers_of(template):
            if not container.get("image") or container.get("imagePullPolicy") == "Never":
                continue
            image = tags.substitute_all(str(container["image"]), constants.get, strict=False)
            if not tags.find(image) and not is_pinned(image, environment):
                yield container, image
