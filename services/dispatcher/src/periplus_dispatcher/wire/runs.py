"""Run requests, plans and submitted runs."""

import json

from periplus.dispatcher.v1 import dispatcher_pb2
from periplus.types.v1 import step_pb2
from periplus_dispatcher.adoption import AdoptedWorkflow
from periplus_dispatcher.domain import ObservedWorkflow, RunRequest
from periplus_dispatcher.planner import PlannedRun
from periplus_dispatcher.rewrite.plan import StepAction
from periplus_dispatcher.service import SubmittedRun
from periplus_model import codec
from periplus_model.steps import RunPhase, Verdict

NO_NODE = "so it has no node in Argo"
"""Of a cached item of a fan-out in a Workflow: whoever looks for the node by its name finds none."""


def decode_request(spec: dispatcher_pb2.RunSpec) -> RunRequest:
    return RunRequest(
        project=spec.project,
        manifest=spec.manifest,
        parameters=dict(spec.parameters),
        cache_mode=codec.decode_run_mode(spec.cache_mode),
        claim=spec.claim.SerializeToString(deterministic=True) if spec.HasField("claim") else None,
    )


def encode_plan(planned: PlannedRun) -> dispatcher_pb2.Plan:
    """The steps, and the items that are known, without the calls that contain them."""
    message = dispatcher_pb2.Plan(saved=codec.encode_duration(planned.plan.saved), warnings=planned.warnings)
    for step in planned.plan.steps:
        if step.call.is_expanded:
            continue
        is_served = step.action in (StepAction.SERVE, StepAction.SERVE_PART)
        without_node = step.call.is_fan_out and is_served and not planned.plan.is_complete
        for path, verdict in step.verdicts:
            note = NO_NODE if without_node and verdict.verdict is Verdict.HIT else ""
            message.steps.add(
                path=path,
                template=step.call.template,
                verdict=step_pb2.Verdict.ValueType(verdict.verdict),
                reason=", ".join(filter(None, (verdict.reason, note))),
                producer_run=verdict.producer_run,
                saved=codec.encode_duration(verdict.saved),
                fingerprint=verdict.fingerprint,
                depends_on=step.call.depends_on,
            )
    return message


def encode_planned(planned: PlannedRun, *, with_rewrite: bool) -> dispatcher_pb2.PlanRunResponse:
    response = dispatcher_pb2.PlanRunResponse(plan=encode_plan(planned))
    if with_rewrite:
        response.source = json.dumps(planned.source)
        response.submitted = json.dumps(planned.submitted) if planned.submitted else ""
    return response


def encode_submitted(submitted: SubmittedRun) -> dispatcher_pb2.SubmitRunResponse:
    run = submitted.run
    return dispatcher_pb2.SubmitRunResponse(
        run=run.id,
        phase=encode_phase(run.phase),
        plan=encode_plan(submitted.planned) if submitted.planned else None,
        outputs=codec.encode_outputs(run.outputs) if run.phase.is_final else None,
    )


def encode_adopted(adopted: AdoptedWorkflow) -> dispatcher_pb2.AdoptRunsResponse:
    return dispatcher_pb2.AdoptRunsResponse(
        run=adopted.run,
        workflow=encode_workflow(adopted.workflow),
        pipeline=adopted.pipeline,
        skipped_reason=adopted.skipped_reason,
    )


def encode_workflow(found: ObservedWorkflow) -> step_pb2.ObservedWorkflow:
    return step_pb2.ObservedWorkflow(
        namespace=found.namespace, name=found.name, uid=found.uid, display_name=found.display_name
    )


def encode_phase(phase: RunPhase) -> step_pb2.RunPhase.ValueType:
    return step_pb2.RunPhase.ValueType(phase)
