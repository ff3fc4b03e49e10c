"""Workflows that `argo resubmit` made of those of our runs: each is a run of its own, with the rewrite of the original."""

from dataclasses import replace
from datetime import UTC, datetime

from periplus_common.digest import sha256
from periplus_common.object_key import PROJECT_LABEL
from periplus_dispatcher.domain import MANAGED_LABEL, Json, Run
from periplus_dispatcher.follow.nodes import parse_time
from periplus_dispatcher.manifest import rewritten
from periplus_dispatcher.observed.run import REQUEST_PREFIX, workflow_parameters
from periplus_model.steps import Outputs, RunPhase

_ORIGINAL_LABEL = "workflows.argoproj.io/resubmitted-from-workflow"
OPEN_SELECTOR = f"{MANAGED_LABEL}=true,{_ORIGINAL_LABEL},workflows.argoproj.io/completed!=true"
"""Those that have not finished, by their labels."""

OTHER_PARAMETERS = (
    "it was resubmitted with other parameters, but its hits and its questions to the cache are those of the original's:"
    " submit it with `periplus run -p`"
)


def original_of(workflow: Json) -> str:
    """The name of the Workflow that this one was resubmitted from; empty if it was not."""
    return str((workflow["metadata"].get("labels") or {}).get(_ORIGINAL_LABEL) or "")


def new_run(workflow: Json, original: Run, original_workflow: Json) -> Run | None:
    """The run of a resubmitted Workflow; None if its steps are not those of the original, whose rewrite it would not have."""
    spec, original_spec = workflow.get("spec") or {}, original_workflow.get("spec") or {}
    labels = workflow["metadata"].get("labels") or {}
    if labels.get(PROJECT_LABEL) != original.project:
        return None
    if any(spec.get(field) != original_spec.get(field) for field in ("entrypoint", "onExit", "templates")):
        return None
    name, request_id = workflow["metadata"]["name"], f"{REQUEST_PREFIX}{workflow['metadata']['uid']}"
    created_at = parse_time(workflow["metadata"].get("creationTimestamp")) or datetime.now(UTC)
    return replace(
        original,
        id=name,
        request_id=request_id,
        request_digest=sha256(request_id.encode()),
        phase=RunPhase.RUNNING,
        submitted_at=created_at,
        parameters=workflow_parameters(spec),
        outputs=Outputs(),
        finished_at=None,
        message="",
        is_cancelled=False,
        traceparent="",
        state=replace(original.state, leases={}),
    )


def has_other_arguments(run: Run, workflow: Json) -> bool:
    """Whether a Workflow that was rewritten when others submitted it was resubmitted with other parameters."""
    if not run.state.generated or not original_of(workflow):
        return False
    rewrite = rewritten.read(workflow["metadata"])
    if rewrite is None or rewrite.is_of_template:
        return False
    return rewrite.arguments != rewritten.arguments_digest(workflow.get("spec") or {})


def has_other_parameters(workflow: Json, original_workflow: Json) -> bool:
    """Whether the resubmission replaced parameters of the workflow."""
    return workflow_parameters(workflow.get("spec") or {}) != workflow_parameters(
        original_workflow.get("spec") or {}
    )
