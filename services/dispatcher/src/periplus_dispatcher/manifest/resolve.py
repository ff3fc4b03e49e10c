"""A manifest with the library templates that it refers to, read through Argo."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from periplus_common.errors import Unavailable
from periplus_dispatcher.domain import Json
from periplus_dispatcher.manifest.inline import inline, merge
from periplus_dispatcher.manifest.library import (
    GetTemplate,
    Library,
    LibraryBounds,
    LibraryReader,
    LibraryRef,
)
from periplus_dispatcher.manifest.read import CheckedManifest, with_library
from periplus_manifest.errors import BoundError

DEMANDED = (
    "Argo's controller takes only workflows with workflowTemplateRef (DISPATCHER_ARGO_DEMANDS_REFERENCES)"
)
NOT_READ = "no step of a library template is planned or cached: {}"


@dataclass(frozen=True)
class ResolvedManifest:
    """A manifest after its references were resolved, and the library objects that were read for it.

    If they could not be, `checked` is the manifest as it was, and `warnings` say why. `source` is the manifest as it was,
    with the spec of its template if that came with it.
    """

    source: Json
    checked: CheckedManifest
    objects: Mapping[LibraryRef, Json] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


async def resolve(
    checked: CheckedManifest,
    parameters: Mapping[str, str],
    get: GetTemplate,
    namespace: str,
    bounds: LibraryBounds,
    *,
    argo_demands_references: bool = False,
) -> ResolvedManifest:
    """Resolve `workflowTemplateRef` and `templateRef`. Raises `Invalid` with the field's path.

    If `argo_demands_references`, a workflow with `workflowTemplateRef` stays as it is: Argo takes no other.
    """
    manifest = source = checked.manifest
    if not checked.refers_to_library:
        return ResolvedManifest(source, checked)
    if argo_demands_references and "workflowTemplateRef" in manifest["spec"]:
        return ResolvedManifest(source, checked, warnings=(NOT_READ.format(DEMANDED),))
    given = {ref: json.loads(text) for ref, text in checked.library}
    reader = LibraryReader(get, given, namespace, bounds)
    merged = None
    try:
        async with asyncio.timeout(bounds.seconds):
            if reference := manifest["spec"].get("workflowTemplateRef"):
                merged = LibraryRef(reference["name"], bool(reference.get("clusterScope")))
                template = await reader.read_object(merged, "spec.workflowTemplateRef")
                manifest = merge(manifest, merged, template)
                source = manifest if merged in given else source
            await reader.read_used(manifest["spec"])
        # In a thread: thousands of templates take a second to copy and check, and would delay every other call.
        found = await asyncio.to_thread(_inlined, checked, manifest, parameters, merged, reader.library)
    except Unavailable as error:
        return ResolvedManifest(
            source, checked, warnings=(NOT_READ.format(f"they could not be read: {error}"),)
        )
    except TimeoutError:
        return ResolvedManifest(
            source, checked, warnings=(NOT_READ.format(f"Argo did not give it in {bounds.seconds:g} s"),)
        )
    except BoundError as error:
        return ResolvedManifest(source, checked, warnings=(NOT_READ.format(error.message),))
    return ResolvedManifest(source, found, reader.library.objects)


def _inlined(
    checked: CheckedManifest,
    manifest: Json,
    parameters: Mapping[str, str],
    merged: LibraryRef | None,
    library: Library,
) -> CheckedManifest:
    inlined, places = inline(manifest, library)
    return with_library(checked, inlined, parameters, merged, tuple(places))
