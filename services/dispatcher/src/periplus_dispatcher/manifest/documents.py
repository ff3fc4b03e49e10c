"""The documents of a file: the workflow that is run, and the library objects that come with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from periplus_common.errors import Invalid
from periplus_dispatcher.domain import Json
from periplus_dispatcher.manifest.library import LibraryRef, without_nulls
from periplus_dispatcher.manifest.policy import ANNOTATION_PREFIX
from periplus_manifest import check as checking
from periplus_manifest import read as texts
from periplus_manifest.errors import ManifestError
from periplus_manifest.merge import TEMPLATE_LABELS

CRON_LABEL = "workflows.argoproj.io/cron-workflow"
"""Of the workflows of a CronWorkflow."""
_INSTANCE_LABEL = "workflows.argoproj.io/controller-instanceid"
_LIBRARY_KINDS = {"WorkflowTemplate": False, "ClusterWorkflowTemplate": True}


@dataclass(frozen=True)
class Documents:
    """The workflow, and the library objects: they are read from here before they are read from Argo."""

    workflow: Json
    library: Mapping[LibraryRef, Json] = field(default_factory=dict)


def read_documents(text: str, parameters: Mapping[str, str]) -> Documents:
    """Read and check the documents of a text. Raises `Invalid` with the field's path.

    What is run is the Workflow or the CronWorkflow, of which there may be one; without them the one WorkflowTemplate or
    ClusterWorkflowTemplate with an entrypoint, as `argo submit --from` does.
    """
    try:
        found = [without_nulls(each) for each in texts.read_all(text)]
    except ManifestError as error:
        raise invalid(error) from error
    paths = [f"[{index}]" if len(found) > 1 else "" for index in range(len(found))]
    for document, path in zip(found, paths, strict=True):
        is_run = str(document.get("kind")) not in _LIBRARY_KINDS
        try:
            checking.check(document, parameters=parameters if is_run else {})
        except ManifestError as error:
            raise invalid(error, path) from error
    library: dict[LibraryRef, Json] = {}
    for document, path in zip(found, paths, strict=True):
        if (is_cluster := _LIBRARY_KINDS.get(document["kind"])) is not None:
            ref = LibraryRef(_name(document, path), is_cluster)
            if ref in library:
                raise Invalid(f"the file has {ref} twice", field=f"spec.manifest{path}.metadata.name")
            library[ref] = document
    return Documents(_workflow(found, paths, library), library)


def invalid(error: ManifestError, document: str = "") -> Invalid:
    """The error for callers; `document` is the index of the document, "[1]", where there are several."""
    path = f"spec.manifest{document}.{error.path}" if error.path else f"spec.manifest{document}"
    return Invalid(error.message, field=path, reason="MANIFEST_INVALID")


def _workflow(found: list[Json], paths: list[str], library: Mapping[LibraryRef, Json]) -> Json:
    runs = [
        (each, path) for each, path in zip(found, paths, strict=True) if each["kind"] not in _LIBRARY_KINDS
    ]
    if len(runs) == 1:
        document, path = runs[0]
        return document if document["kind"] == "Workflow" else _of_cron(document, _name(document, path))
    if runs:
        raise Invalid(
            f"has {len(runs)} Workflows and CronWorkflows, and a run is one of them",
            field="spec.manifest",
            reason="MANIFEST_INVALID",
            fix="give each of them a file of its own, with the WorkflowTemplates that it needs",
        )
    entries = [ref for ref, each in library.items() if each["spec"].get("entrypoint")]
    if len(entries) != 1:
        what = (
            f"has {len(entries)} templates with an entrypoint"
            if entries
            else "has no template with an entrypoint"
        )
        raise Invalid(
            f"{what}, and a run starts at one",
            field="spec.manifest",
            reason="MANIFEST_INVALID",
            fix="add a Workflow whose workflowTemplateRef names the template to run, as a document of its own after ---",
        )
    return _of_template(entries[0])


def _of_template(ref: LibraryRef) -> Json:
    reference = {"name": ref.name, **({"clusterScope": True} if ref.is_cluster else {})}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": f"{ref.name}-", "labels": {TEMPLATE_LABELS[ref.is_cluster]: ref.name}},
        "spec": {"workflowTemplateRef": reference},
    }


def _of_cron(document: Json, name: str) -> Json:
    """The workflow that Argo makes of a CronWorkflow, whatever its schedule."""
    metadata, spec = document.get("metadata") or {}, document["spec"]
    added = spec.get("workflowMetadata") or {}
    labels = metadata.get("labels") or {}
    ours = {n: v for n, v in (metadata.get("annotations") or {}).items() if n.startswith(ANNOTATION_PREFIX)}
    return {
        "apiVersion": document["apiVersion"],
        "kind": "Workflow",
        "metadata": {
            "generateName": f"{name}-",
            "labels": {
                **({_INSTANCE_LABEL: labels[_INSTANCE_LABEL]} if _INSTANCE_LABEL in labels else {}),
                CRON_LABEL: name,
                **(added.get("labels") or {}),
            },
            "annotations": {**ours, **(added.get("annotations") or {})},
        },
        "spec": spec["workflowSpec"],
    }


def _name(document: Json, path: str) -> str:
    name = (document.get("metadata") or {}).get("name")
    if not name:
        raise Invalid(
            f"is required: a {document['kind']} is referred to by it",
            field=f"spec.manifest{path}.metadata.name",
        )
    return str(name)
