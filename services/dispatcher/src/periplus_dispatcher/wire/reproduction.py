"""Requests of reproductions, and what was checked for them."""

import json

from periplus.dispatcher.v1 import dispatcher_pb2 as pb
from periplus_dispatcher.reproduce.reproducer import Reproduction, ReproductionRequest
from periplus_dispatcher.wire.runs import encode_phase
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
        requirements=[
            pb.Requirement(
                kind=pb.RequirementKind.ValueType(each.kind),
                name=each.name,
                state=pb.RequirementState.ValueType(each.state),
                reason=each.reason,
                fix=each.fix,
                steps=each.steps,
                expected_digest=each.expected,
                actual_digest=each.actual,
            )
            for each in found.requirements
        ],
    )
