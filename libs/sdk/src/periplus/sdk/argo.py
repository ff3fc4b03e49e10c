"""Running Argo workflows from Python: hera's, or manifests as text, a map or a file.

from periplus.sdk import argo

with Workflow(generate_name="train-", entrypoint="main") as workflow:
    ...
run = argo.submit(workflow, parameters={"seed": "7"})
print(run.run, [step.path for step in run.plan.steps if step.verdict == 1])
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from periplus.dispatcher.v1.dispatcher_pb2 import Plan, RunSpec, SubmitRunResponse


class HeraWorkflow(Protocol):
    """What is used of hera's Workflow, WorkflowTemplate, ClusterWorkflowTemplate and CronWorkflow."""

    def to_dict(self) -> Any:
        """The manifest."""


_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")

Workflow = HeraWorkflow | Mapping[str, Any] | str | Path
"""hera's object, a manifest as a map or as YAML or JSON text, or the path of a manifest's file."""


def manifest(workflow: Workflow | Sequence[Workflow]) -> str:
    """The manifest as text; several, as a workflow with the WorkflowTemplates that it needs, are one document each."""
    if isinstance(workflow, Path):
        return workflow.read_text(encoding="utf-8")
    if isinstance(workflow, str):
        return workflow
    if isinstance(workflow, Sequence):
        if len(workflow) == 1:
            return manifest(workflow[0])
        return "".join(f"---\n{manifest(each)}\n" for each in workflow)
    document = workflow if isinstance(workflow, Mapping) else workflow.to_dict()
    # Several documents are YAML, which has no escaped surrogates, and reads some characters as line breaks.
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def plan(
    workflow: Workflow | Sequence[Workflow],
    *,
    parameters: Mapping[str, str] | None = None,
    project: str = "",
    directory: str | Path = ".",
) -> Plan:
    """What a run would do; nothing is run. Raises as `submit`."""
    from periplus.sdk.client import Client, connection

    with Client(connection(project=project)) as client:
        return client.plan(_spec(workflow, parameters, directory))


def submit(
    workflow: Workflow | Sequence[Workflow],
    *,
    parameters: Mapping[str, str] | None = None,
    request_id: str = "",
    project: str = "",
    directory: str | Path = ".",
) -> SubmitRunResponse:
    """Run a workflow, without the steps whose results are in the cache, and return at once: id, phase and plan of the run.

    `request_id` makes a retry safe: the same one gives the same run. The snapshot is that of the project in `directory`.
    Raises CallError for what the services refuse, NotConnectedError where none are configured.
    """
    from periplus.sdk.client import Client, connection

    with Client(connection(project=project)) as client:
        return client.submit(_spec(workflow, parameters, directory), request_id or str(uuid.uuid4()))


def _spec(
    workflow: Workflow | Sequence[Workflow], parameters: Mapping[str, str] | None, directory: str | Path
) -> RunSpec:
    from periplus.dispatcher.v1.dispatcher_pb2 import RunSpec
    from periplus.sdk.snapshots.claim import claim

    spec = RunSpec(manifest=manifest(workflow), parameters=dict(parameters or {}))
    claimed, _ = claim(Path(directory), b"")
    spec.claim.CopyFrom(claimed)
    return spec
