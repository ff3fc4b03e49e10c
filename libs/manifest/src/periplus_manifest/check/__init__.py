"""Refuses what Argo's own validation refuses at submit, without a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from periplus_manifest import size
from periplus_manifest.errors import ManifestError

from . import argument, call, fields, naming, shape, template
from .manifest import Manifest, items

__all__ = ["check"]

_API = "argoproj.io/"
_TEMPLATES = ("WorkflowTemplate", "ClusterWorkflowTemplate")
_MAX_NAME_CHARACTERS = 63
_MAX_CRON_NAME_CHARACTERS = 52
_POD_GC = ("", "OnPodCompletion", "OnPodSuccess", "OnWorkflowCompletion", "OnWorkflowSuccess")
_CONCURRENCY = ("", "Allow", "Forbid", "Replace")


def check(
    workflow: Mapping[str, Any],
    *,
    parameters: Mapping[str, str] | None = None,
    referenced: size.ReferencedSpec = lambda _name, _cluster: None,
) -> None:
    """Refuse a Workflow, WorkflowTemplate, ClusterWorkflowTemplate or CronWorkflow that Argo would refuse.

    `workflow` is what `read.read` gives; `parameters` are the values of this run, by name. Templates of
    other objects (templateRef, workflowTemplateRef) are assumed to have the inputs and outputs that are used; for the bounds of
    the whole run `referenced` gives those that are known. Raises ManifestError with the path of the field, and for
    expressions and conditions in it that cannot be parsed as well; BoundError for more nodes, deeper calls or longer lists
    than `bounds` allows.
    """
    manifest = _manifest(workflow, parameters or {})
    spec, path = manifest.spec, manifest.path
    size.check_lists(spec, path)
    naming.check_fields(items(spec, "templates"), f"{path}.templates")
    if spec.get("workflowTemplateRef") is not None:
        _check_template_ref(manifest)
        return
    argument.check_arguments(
        {"parameters": manifest.arguments}, f"{path}.arguments", may_be_empty=manifest.is_template
    )
    argument.check_arguments({"artifacts": items(spec, "arguments", "artifacts")}, f"{path}.arguments")
    _check_entrypoints(manifest)
    scope = manifest.globals()
    for body, body_path in manifest.bodies():
        template.check(manifest, body, body_path, scope)
    size.check(spec, path, manifest.parameter, referenced)


def _manifest(workflow: Mapping[str, Any], parameters: Mapping[str, str]) -> Manifest:
    document = dict(workflow)
    shape.check(document, "Manifest", "")
    kind = _check_kind(document)
    spec, path = document.get("spec"), "spec"
    if not spec:
        raise ManifestError("spec", "is required")
    if kind == "CronWorkflow":
        _check_cron(document, spec)
        spec, path = spec.get("workflowSpec"), "spec.workflowSpec"
        if not spec:
            raise ManifestError(path, "is required")
    shape.check(spec, "Spec", path)
    templates = {each["name"]: each for each in items(spec, "templates") if each.get("name")}
    return Manifest(spec, path, document.get("metadata") or {}, kind in _TEMPLATES, parameters, templates)


def _check_kind(document: Mapping[str, Any]) -> str:
    kind, version = document.get("kind"), document.get("apiVersion")
    if kind not in ("Workflow", "CronWorkflow", *_TEMPLATES):
        raise ManifestError("kind", f"must be Workflow, WorkflowTemplate or CronWorkflow, not {kind!r}"[:120])
    if not version or not version.startswith(_API):
        raise ManifestError("apiVersion", f"must be argoproj.io/v1alpha1, not {version!r}"[:120])
    name = (document.get("metadata") or {}).get("name") or ""
    maximum = _MAX_CRON_NAME_CHARACTERS if kind == "CronWorkflow" else _MAX_NAME_CHARACTERS
    if len(name) > maximum:
        raise ManifestError(
            "metadata.name", f"must not be more than {maximum} characters long (currently {len(name)})"
        )
    return str(kind)


def _check_cron(document: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
    shape.check(document.get("spec"), "CronSpec", "spec")
    fields.check_schedules(spec)
    if (spec.get("concurrencyPolicy") or "") not in _CONCURRENCY:
        raise ManifestError(
            "spec.concurrencyPolicy", f"'{spec['concurrencyPolicy']}' is not a valid concurrencyPolicy"
        )
    if (spec.get("startingDeadlineSeconds") or 0) < 0:
        raise ManifestError("spec.startingDeadlineSeconds", "must be positive")


def _check_template_ref(manifest: Manifest) -> None:
    """Check a workflow whose templates are those of a WorkflowTemplate."""
    if items(manifest.spec, "templates"):
        raise ManifestError(f"{manifest.path}.templates", "cannot be used together with workflowTemplateRef")
    if not manifest.spec["workflowTemplateRef"].get("name"):
        raise ManifestError(f"{manifest.path}.workflowTemplateRef.name", "is required")
    argument.check_arguments(manifest.spec.get("arguments"), f"{manifest.path}.arguments", may_be_empty=True)


def _check_entrypoints(manifest: Manifest) -> None:
    spec, path = manifest.spec, manifest.path
    if spec.get("entrypoint"):
        template.check_entrypoint(manifest, spec["entrypoint"], f"{path}.entrypoint")
    elif not manifest.is_template:
        raise ManifestError(f"{path}.entrypoint", "is required")
    if spec.get("onExit"):
        template.check_entrypoint(manifest, spec["onExit"], f"{path}.onExit")
    call.check_hooks(spec.get("hooks"), f"{path}.hooks")
    fields.check_pod_resources(spec, path)
    strategy = (spec.get("podGC") or {}).get("strategy") or ""
    if strategy not in _POD_GC:
        raise ManifestError(f"{path}.podGC.strategy", f"unknown strategy '{strategy}'")
