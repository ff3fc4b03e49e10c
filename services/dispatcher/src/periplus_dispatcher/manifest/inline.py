"""Copies the library templates that a workflow uses into it: what is planned is then what Argo runs, whoever edits them."""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass

from periplus_dispatcher.domain import Json
from periplus_dispatcher.manifest.library import (
    Key,
    Library,
    LibraryRef,
    LibraryTemplate,
    callers,
    callers_of_workflow,
    reference_of,
)
from periplus_dispatcher.manifest.policy import ANNOTATION_PREFIX
from periplus_manifest.merge import TEMPLATE_LABELS, merged_spec

MAX_TEMPLATE_NAME_CHARACTERS = 128


@dataclass(frozen=True)
class Place:
    """Where a template of a workflow was copied from, and the path of the workflow's field that led to it."""

    origin: str
    copied_from: str


def merge(manifest: Json, ref: LibraryRef, template: Json) -> Json:
    """The workflow with the spec that Argo runs for its `workflowTemplateRef`, and the label that Argo gives it.

    Annotations of Periplus on the template are those of the workflow, unless it has them.
    """
    metadata = dict(manifest.get("metadata") or {})
    metadata["labels"] = {**(metadata.get("labels") or {}), TEMPLATE_LABELS[ref.is_cluster]: ref.name}
    if ours := our_annotations(template):
        metadata["annotations"] = {**ours, **(metadata.get("annotations") or {})}
    return {
        **manifest,
        "metadata": metadata,
        "spec": merged_spec(manifest["spec"], template.get("spec") or {}),
    }


def inline(manifest: Json, library: Library) -> tuple[Json, list[Place]]:
    """The workflow with a copy of each used template, and where they were copied from.

    A call of a template that can not be moved stays, or becomes, a `templateRef`.
    """
    manifest = copy.deepcopy(manifest)
    spec = manifest["spec"]
    own = spec.get("templates") or []
    moved = [used for used in library.used.values() if used.is_movable]
    names = _names({str(template.get("name")) for template in own}, moved)
    for caller, _ in callers_of_workflow(spec):
        if (key := reference_of(caller)) is not None and key in names:
            _replace(caller, "templateRef", "template", names[key])
    copies = [_copy(used, names, library.objects[used.key[0]]) for used in moved]
    if copies:
        spec["templates"] = [*own, *copies]
    return manifest, [Place(used.origin, used.place) for used in moved]


def _names(taken: set[str], moved: list[LibraryTemplate]) -> dict[Key, str]:
    """A name for each copy that no template of the workflow has."""
    names: dict[Key, str] = {}
    for used in moved:
        ref, template = used.key
        wanted = f"{re.sub(r'[^-a-zA-Z0-9]', '-', ref.name)}--{template}"
        name, number = wanted[:MAX_TEMPLATE_NAME_CHARACTERS], 1
        while name in taken:
            number += 1
            ending = f"-{number}"
            name = wanted[: MAX_TEMPLATE_NAME_CHARACTERS - len(ending)] + ending
        taken.add(name)
        names[used.key] = name
    return names


def _copy(used: LibraryTemplate, names: Mapping[Key, str], source: Json) -> Json:
    """A template under its new name, whose calls of its own object's templates are calls of their copies."""
    ref, _ = used.key
    body = copy.deepcopy(used.body)
    body["name"] = names[used.key]
    for caller, _ in callers(body, ""):
        if (key := reference_of(caller)) is not None:
            if key in names:
                _replace(caller, "templateRef", "template", names[key])
        elif caller.get("template"):
            key = ref, caller["template"]
            if key in names:
                caller["template"] = names[key]
            else:
                _replace(caller, "template", "templateRef", _reference(key))
        if caller.get("onExit"):
            key = ref, caller["onExit"]
            if key in names:
                caller["onExit"] = names[key]
            else:
                del caller["onExit"]
                caller["hooks"] = {**(caller.get("hooks") or {}), "exit": {"templateRef": _reference(key)}}
    _add_metadata(body, source)
    return body


def _add_metadata(body: Json, source: Json) -> None:
    """Add the pod metadata of the object, as Argo does, and its annotations of Periplus; the template's own win."""
    added = (source.get("spec") or {}).get("podMetadata") or {}
    labels = added.get("labels") or {}
    is_step = "container" in body or "script" in body
    annotations = {**(our_annotations(source) if is_step else {}), **(added.get("annotations") or {})}
    for field, found in (("labels", labels), ("annotations", annotations)):
        if found:
            metadata = body.setdefault("metadata", {})
            metadata[field] = {**found, **(metadata.get(field) or {})}


def our_annotations(source: Json) -> dict[str, str]:
    annotations = (source.get("metadata") or {}).get("annotations") or {}
    return {name: value for name, value in annotations.items() if name.startswith(ANNOTATION_PREFIX)}


def _reference(key: Key) -> Json:
    ref, template = key
    return {"name": ref.name, "template": template, **({"clusterScope": True} if ref.is_cluster else {})}


def _replace(caller: Json, old: str, new: str, value: object) -> None:
    """Put a field in the place of another one."""
    fields = [(new, value) if name == old else (name, each) for name, each in caller.items()]
    caller.clear()
    caller.update(fields)
