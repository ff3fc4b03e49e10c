"""Validation of a submitted workflow: normalized, checked by Argo's rules, refused by field where it cannot run."""

import json
from dataclasses import dataclass
from typing import Any

from periplus_local.argo.errors import ArgoError, invalid_argument
from periplus_local.argo.submission.runnable import check_runnable
from periplus_local.argo.submission.unsupported import unsupported_fields
from periplus_local.argo.templates import TemplateGetter
from periplus_manifest import check, gotext
from periplus_manifest.bounds import MAX_MANIFEST_BYTES
from periplus_manifest.errors import ManifestError
from periplus_manifest.merge import merged_spec
from periplus_manifest.size import ReferencedSpec

TEXT_FIELDS = ("value", "default")


@dataclass(frozen=True)
class ValidWorkflow:
    """A workflow that may run.

    `template_spec` is the spec that runs where the workflow refers to a WorkflowTemplate. `ignored_fields` are the
    paths of the fields that have no effect here.
    """

    workflow: dict[str, Any]
    template_spec: dict[str, Any] | None
    ignored_fields: list[str]


def validated(workflow: dict[str, Any], templates: TemplateGetter, s3_endpoint: str) -> ValidWorkflow:
    """The workflow normalized and checked; raises ArgoError that names the field that is wrong or cannot run here."""
    if not isinstance(workflow.get("spec"), dict):
        raise invalid_argument("spec: is not an object")
    if len(json.dumps(workflow, ensure_ascii=False, separators=(",", ":")).encode()) > MAX_MANIFEST_BYTES:
        raise invalid_argument(f"workflow: is larger than {MAX_MANIFEST_BYTES} bytes")
    workflow = {key: value for key, value in workflow.items() if key != "status" or not _is_empty(value)}
    ignored = ignored_fields("workflow", workflow)
    check_argo_rules("Workflow", workflow, templates)
    workflow = normalized(workflow)
    template_spec = with_template(workflow, templates)
    if template_spec is not None:
        check_argo_rules("Workflow", {**workflow, "spec": template_spec}, templates)
        ignored = ignored_fields("spec", template_spec, "spec")
    check_runnable(template_spec or workflow["spec"], templates, s3_endpoint)
    return ValidWorkflow(workflow, template_spec, ignored)


def _is_empty(status: Any) -> bool:
    """Whether a status is the empty one that Argo's own client sends along."""
    return all(value is None for value in status.values()) if isinstance(status, dict) else not status


def check_argo_rules(kind: str, document: dict[str, Any], templates: TemplateGetter) -> None:
    """Refuse what Argo's own validation refuses, and what exceeds a bound; raises ArgoError."""
    manifest = {"apiVersion": "argoproj.io/v1alpha1", "kind": kind, **document}
    try:
        check.check(manifest, referenced=known_specs(templates))
    except ManifestError as error:
        raise invalid_argument(str(error)) from error


def known_specs(templates: TemplateGetter) -> ReferencedSpec:
    """The specs of the stored templates, for counting the nodes of the workflows that call them."""

    def spec_of(name: str, cluster_scope: bool) -> dict[str, Any] | None:
        try:
            return templates.spec_of(name, cluster_scope)
        except ArgoError:
            return None  # refused by check_runnable

    return spec_of


def ignored_fields(kind: str, value: Any, path: str = "") -> list[str]:
    """The paths of the fields that have no effect here; raises ArgoError for the first that is refused."""
    ignored: list[str] = []
    for field in unsupported_fields(kind, value, path):
        if field.refusal:
            raise invalid_argument(f"{field.path}: {field.refusal}")
        ignored.append(field.path)
    return ignored


def normalized(value: Any, path: tuple[str, ...] = ()) -> Any:
    """The manifest as Argo stores it: without nulls, and with values of parameters as text."""
    if path and path[-1] == "withItems":
        return value
    if isinstance(value, dict):
        item = {key: normalized(held, (*path, key)) for key, held in value.items() if held is not None}
        return _with_texts(item) if path and path[-1] in {"parameters", "valueFrom"} else item
    if isinstance(value, list):
        return [normalized(item, path) for item in value]
    return value


def _with_texts(item: dict[str, Any]) -> dict[str, Any]:
    for key in TEXT_FIELDS:
        if key in item and not isinstance(item[key], str):
            item[key] = gotext.parameter_text(item[key])
    if isinstance(item.get("enum"), list):
        item["enum"] = [gotext.parameter_text(choice) for choice in item["enum"]]
    return item


def with_template(workflow: dict[str, Any], templates: TemplateGetter) -> dict[str, Any] | None:
    """The spec that runs for a workflow that refers to a WorkflowTemplate; None when it refers to none."""
    reference = (workflow.get("spec") or {}).get("workflowTemplateRef")
    if not reference:
        return None
    if not isinstance(reference, dict) or not isinstance(reference.get("name"), str):
        raise invalid_argument("spec.workflowTemplateRef.name: is required")
    spec = templates.spec_of(reference["name"], bool(reference.get("clusterScope")))
    return merged_spec(workflow["spec"], spec)
