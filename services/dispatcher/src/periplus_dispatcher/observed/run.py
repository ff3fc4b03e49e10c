"""The run of a Workflow that others submitted: its pipeline, its steps, and what each of its templates does."""

import json
import logging
import re
from dataclasses import replace
from datetime import datetime

from periplus_common.digest import sha256
from periplus_common.errors import Invalid
from periplus_dispatcher.domain import (
    MANAGED_LABEL,
    ContainerTemplate,
    Json,
    ObservedWorkflow,
    Run,
    RunState,
    StepNode,
)
from periplus_dispatcher.manifest import read as manifests
from periplus_dispatcher.manifest import rewritten
from periplus_dispatcher.manifest.calls import Call, ExpandedWorkflow, is_invocator
from periplus_dispatcher.manifest.defaults import COMMON_FIELDS
from periplus_dispatcher.manifest.rewritten import Rewrite
from periplus_dispatcher.manifest.uncacheable import StepEnvironment
from periplus_dispatcher.observed import kubeflow
from periplus_dispatcher.observed.workflow import run_id
from periplus_model.steps import CacheMode, RunPhase, Verdict

log = logging.getLogger(__name__)

REQUEST_PREFIX = "observed:"
"""The request id of a run that no request made begins so, and no other's does: of an observed or a resubmitted Workflow."""
_PIPELINE_LABELS = (
    "workflows.argoproj.io/cron-workflow",
    "workflows.argoproj.io/workflow-template",
    "workflows.argoproj.io/cluster-workflow-template",
    "scheduledworkflows.kubeflow.org/scheduledWorkflowName",
)
_MAX_PIPELINE_CHARACTERS = 256
_ADDED = (
    "workflows.argoproj.io/", "kubectl.kubernetes.io/", "periplus.dev/rewrit", MANAGED_LABEL, "periplus.dev/project",
)  # fmt: skip
"""How labels and annotations begin that are of one Workflow, and not of what it was made from."""


def new_run(
    workflow: Json,
    observed: ObservedWorkflow,
    project: str,
    environment: StepEnvironment,
    *,
    is_recorded: bool,
) -> tuple[Run, list[StepNode]]:
    """The run of a checked Workflow, and the steps of its plan; none if the plan can not be read.

    `is_recorded`: results of its steps become entries of the cache. A Workflow that was rewritten has the state that it carries.
    """
    metadata, spec = workflow["metadata"], _spec(workflow)
    display_name = kubeflow.run_name(metadata, spec) if kubeflow.is_compiled(spec) else ""
    run = Run(
        project=project,
        id=run_id(observed.name, observed.uid),
        request_id=REQUEST_PREFIX + observed.uid,
        request_digest=sha256(f"{observed.namespace}/{observed.uid}".encode()),
        pipeline=pipeline(workflow),
        phase=RunPhase.PENDING,
        manifest=json.dumps(_submitted(workflow)),
        state=RunState({}),
        snapshot="",
        cache_mode=CacheMode.WRITE if is_recorded else CacheMode.OFF,
        submitted_at=datetime.fromisoformat(metadata["creationTimestamp"]),
        parameters=workflow_parameters(spec),
        source=json.dumps(workflow["spec"], sort_keys=True),
        observed=replace(observed, display_name=display_name),
    )
    run = replace(run, resolved=_resolved(workflow, spec, run.pipeline))
    rewrite = rewritten.read(metadata)
    if rewrite is not None and rewrite.entrypoint == spec.get("entrypoint"):
        if rewrite.state.generated or rewrite.fits(spec):
            return _rewritten(run, rewrite, workflow, environment, is_recorded=is_recorded)
    expanded = _expand(workflow, environment)
    calls = [call for call in expanded.calls if not call.is_invocator] if expanded else []
    nodes = [StepNode(call.path, call.template, call.depends_on, Verdict.UNSPECIFIED) for call in calls]
    templates = dict(expanded.templates) if expanded else {}
    state = RunState(templates, verdicts={call.path: Verdict.UNSPECIFIED for call in calls})
    return replace(run, state=state), nodes


def _rewritten(
    run: Run, rewrite: Rewrite, workflow: Json, environment: StepEnvironment, *, is_recorded: bool
) -> tuple[Run, list[StepNode]]:
    """The run of a Workflow with the rewrite that it carries."""
    spec, state, nodes = _spec(workflow), rewrite.state, list(rewrite.nodes)
    before = rewrite.source
    if rewrite.is_of_template:
        given = {name: value for name, value in spec.items() if name != "workflowTemplateRef"}
        before = given | {name: before[name] for name in ("entrypoint", "templates") if name in before}
        expanded = _expand_spec(before, workflow, environment)
        calls = [call for call in expanded.calls if not call.is_expanded] if expanded else []
        nodes = [StepNode(c.path, c.template, c.depends_on, _verdict(c), c.uncacheable_reason) for c in calls]
        templates = dict(expanded.templates) if expanded else {}
        state = replace(state, templates=templates, verdicts={node.path: node.verdict for node in nodes})
    mode = None if is_recorded else CacheMode.READ
    if not rewritten.has_templates(state):
        state = replace(state, generated={}, stretches={}, fan_outs={})
    if not rewrite.fits(spec) or state.generated.keys() != rewrite.state.generated.keys():
        mode = CacheMode.OFF
        log.warning("%s: was changed after it was rewritten: none of its steps is served or recorded", run.id)
    source = json.dumps(before, sort_keys=True)
    resolved = json.dumps({**json.loads(run.resolved), "spec": _without_reference(before)})
    return replace(run, state=state, cache_mode=mode, source=source, resolved=resolved), nodes


def _verdict(call: Call) -> Verdict:
    """Of a call of an adopted template, before its gate was answered."""
    return Verdict.UNCACHEABLE if call.uncacheable_reason else Verdict.UNKNOWN


def with_stored_templates(run: Run, workflow: Json, environment: StepEnvironment) -> Run:
    """The run with the templates of WorkflowTemplates that its Workflow has called so far, which Argo stores in its status."""
    stored = workflow["status"].get("storedTemplates") or {}
    new = {name: template for name, template in stored.items() if name not in run.state.templates}
    described = {name: _describe(template, workflow, environment) for name, template in new.items()}
    found = {name: template for name, template in described.items() if template is not None}
    if not found:
        return run
    return replace(run, state=replace(run.state, templates={**run.state.templates, **found}))


def pipeline(workflow: Json) -> str:
    """What runs of the same pipeline have in common: the schedule, the WorkflowTemplate or the name that they come from."""
    metadata, spec = workflow["metadata"], workflow["spec"]
    labels = metadata.get("labels") or {}
    reference = spec.get("workflowTemplateRef")
    names = (
        labels.get(_PIPELINE_LABELS[0]),
        reference.get("name") if isinstance(reference, dict) else None,
        *(labels.get(label) for label in _PIPELINE_LABELS[1:]),
        kubeflow.pipeline(spec) if kubeflow.is_compiled(spec) else None,
        metadata.get("generateName", "").rstrip("-."),
    )
    found = next((name for name in names if isinstance(name, str) and name), metadata["name"])
    return str(found)[:_MAX_PIPELINE_CHARACTERS]


def _submitted(workflow: Json) -> Json:
    metadata = {
        name: value
        for name, value in workflow["metadata"].items()
        if name in ("name", "labels", "annotations")
    }
    if rewritten.ANNOTATION in (annotations := metadata.get("annotations") or {}):
        metadata["annotations"] = {n: v for n, v in annotations.items() if n != rewritten.ANNOTATION}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": metadata,
        "spec": workflow["spec"],
    }


def _resolved(workflow: Json, spec: Json, pipeline: str) -> str:
    """What can be run again, as JSON: the merged spec, without what Argo and Periplus added to the Workflow.

    Images by tag and templates of a `templateRef` stay as they are named: nothing was resolved before it ran.
    """
    metadata = workflow["metadata"]
    kept = {
        name: {
            key: value
            for key, value in (metadata.get(name) or {}).items()
            if key in _PIPELINE_LABELS or not key.startswith(_ADDED)
        }
        for name in ("labels", "annotations")
    }
    prefix = re.sub(r"[^-a-z0-9.]", "-", pipeline.lower()).strip("-.") or "workflow"
    return json.dumps(
        {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"generateName": f"{prefix}-", **kept},
            "spec": _without_reference(spec),
        }
    )


def _without_reference(spec: Json) -> Json:
    left_out = (
        ("workflowTemplateRef", "shutdown", "suspend") if spec.get("templates") else ("shutdown", "suspend")
    )
    return {name: value for name, value in spec.items() if name not in left_out}


def _spec(workflow: Json) -> Json:
    """The spec; of a Workflow with a workflowTemplateRef, the one that Argo merged."""
    found: Json = workflow["status"].get("storedWorkflowTemplateSpec") or workflow["spec"]
    return found


def workflow_parameters(spec: Json) -> dict[str, str]:
    """The values of the workflow's parameters, as far as they are in the spec."""
    arguments = spec.get("arguments")
    declared = arguments.get("parameters") if isinstance(arguments, dict) else None
    found = {}
    for p in declared if isinstance(declared, list) else ():
        if isinstance(p, dict) and isinstance(p.get("name"), str) and p.get("value") is not None:
            value = p["value"]
            found[p["name"]] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found


def _expand(workflow: Json, environment: StepEnvironment) -> ExpandedWorkflow | None:
    """The calls and templates of a Workflow; None if its spec can not be read."""
    spec = {name: value for name, value in _spec(workflow).items() if name != "workflowTemplateRef"}
    return _expand_spec(spec, workflow, environment)


def _describe(template: Json, workflow: Json, environment: StepEnvironment) -> ContainerTemplate | None:
    """What a stored template does; None if it calls others or can not be read."""
    if is_invocator(template) or not isinstance(template.get("name"), str):
        return None
    rest = {name: value for name, value in _spec(workflow).items() if name in ("arguments", *COMMON_FIELDS)}
    entrypoint = {"name": "periplus-entrypoint", "suspend": {}}
    spec = {**rest, "entrypoint": entrypoint["name"], "templates": [entrypoint, template]}
    expanded = _expand_spec(spec, workflow, environment)
    return expanded.templates.get(template["name"]) if expanded else None


def _expand_spec(spec: Json, workflow: Json, environment: StepEnvironment) -> ExpandedWorkflow | None:
    annotations = workflow["metadata"].get("annotations") or {}
    policies = {
        name: value
        for name, value in annotations.items()
        if name.startswith("periplus.dev/") and name != rewritten.ANNOTATION
    }
    manifest = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": "observed-", "annotations": policies},
        "spec": spec,
    }
    try:
        return manifests.read(json.dumps(manifest), {}).expand(environment)
    except Invalid as error:
        log.info("%s: its spec can not be read: %s", workflow["metadata"]["name"], error)
    except Exception:
        # Others wrote it, and Argo took it: whatever it is, its steps are recorded without their keys.
        log.exception("%s: its spec can not be read", workflow["metadata"]["name"])
    return None
