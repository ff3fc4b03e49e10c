"""Requests of reproductions and rollbacks, and what was checked for them."""

import json

from periplus.dispatcher.v1 import dispatcher_pb2 as pb
from periplus_dispatcher.reproduce.reproducer import Reproduction, ReproductionRequest
from periplus_dispatcher.reproduce.requirements import Requirement
from periplus_dispatcher.reproduce.rollback import Rollback, RollbackRequest, described
from periplus_dispatcher.wire.runs import encode_phase
from periplus_model import codec
from periplus_model.steps import RunPhase


def decode_reproduction(message: pb.ReproduceRunRequest) -> ReproductionRequest:
    return ReproductionRequest(
        project=message.project,
        run=message.run,
        step=message.step,
        accept_unmet=message.accept_unmet,
        claim=_environment(message) if message.HasField("claim") else None,
    )


def _environment(message: pb.ReproduceRunRequest) -> bytes:
    """The claim with nothing but the environment."""
    claim = message.claim
    for field in ("git", "lockfile", "code_archive", "templates"):
        claim.ClearField(field)
    return claim.SerializeToString(deterministic=True)


def encode_reproduction(found: Reproduction) -> pb.ReproduceRunResponse:
    return pb.ReproduceRunResponse(
        run=found.run.id if found.run else "",
        phase=encode_phase(found.run.phase if found.run else RunPhase.UNSPECIFIED),
        manifest=json.dumps(found.manifest, ensure_ascii=False) if found.manifest else "",
        requirements=map(_encode_requirement, found.requirements),
    )


def decode_rollback(message: pb.RollBackPipelineRequest) -> RollbackRequest:
    return RollbackRequest(
        message.project, message.pipeline, message.run, keep_template=message.keep_template
    )


def encode_rollback(found: Rollback) -> pb.RollBackPipelineResponse:
    template = found.template
    return pb.RollBackPipelineResponse(
        run=found.run.id if found.run else "",
        requirements=map(_encode_requirement, found.requirements),
        template=pb.TemplateRollback(
            name=template.name,
            current=json.dumps(described(template.current)),
            earlier=json.dumps(described(template.earlier)) if template.earlier else "",
            kept_reason=template.kept_reason,
            replaced_snapshot=template.replaced_snapshot,
        )
        if template
        else None,
        outputs=codec.encode_outputs(found.outputs) if found.outputs else None,
    )


def _encode_requirement(each: Requirement) -> pb.Requirement:
    return pb.Requirement(
        kind=pb.RequirementKind.ValueType(each.kind),
        name=each.name,
        state=pb.RequirementState.ValueType(each.state),
        reason=each.reason,
        fix=each.fix,
        steps=each.steps,
        expected_digest=each.expected,
        actual_digest=each.actual,
    )
