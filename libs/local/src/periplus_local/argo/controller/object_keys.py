"""The objects that a step names, checked once the tags of their keys have values."""

from typing import Any

from periplus_common.object_key import PROJECT_LABEL, malformed_reason, may_read, may_write
from periplus_local.argo.controller.workflow_run import WorkflowRun
from periplus_local.argo.templates import Template
from periplus_manifest.errors import ManifestError


def check_keys(run: WorkflowRun, template: Template) -> None:
    """Raise ManifestError, with the field, for the key of an object that the run's project may not read or write there.

    The dispatcher checks only what it knows before the run. A Workflow without the label of a project may name any.
    """
    project = (run.metadata.get("labels") or {}).get(PROJECT_LABEL)
    if not project:
        return
    for role, may_name in (("inputs", may_read), ("outputs", may_write)):
        for artifact in (template.get(role) or {}).get("artifacts") or ():
            key = str((artifact.get("s3") or {}).get("key") or "")
            if key and not may_name(project, key):
                reason = malformed_reason(key) or f"does not belong to the project {project}"
                raise ManifestError(_field(role, artifact), f"{key[:200]!r} {reason}")


def _field(role: str, artifact: dict[str, Any]) -> str:
    return f"{role}.artifacts.{artifact.get('name', '')}.s3.key"
