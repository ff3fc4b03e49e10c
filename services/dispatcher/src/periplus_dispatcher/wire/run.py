"""Orders, plans and runs: proto ↔ domain."""

from periplus.dispatcher.v1 import dispatcher_pb2
from periplus_common.digest import sha256
from periplus_dispatcher.draft import Draft, Order
from periplus_dispatcher.service import Submitted
from periplus_dispatcher.wire.step import FROM_MODE, VERDICTS, duration, outputs, run_phase


def order(spec: dispatcher_pb2.RunSpec) -> Order:
    """What a caller wants run."""
    claim = spec.claim if spec.HasField("claim") else None
    claimed = sha256(claim.SerializeToString(deterministic=True)) if claim is not None else ""
    return Order(
        spec.project, spec.manifest, dict(spec.parameters), FROM_MODE.get(spec.cache_mode), claim, claimed
    )


def plan(draft: Draft) -> dispatcher_pb2.Plan:
    """A plan as people and programs are shown it: steps, and items where they are known."""
    shown = dispatcher_pb2.Plan(saved=duration(draft.plan.saved), warnings=draft.warnings)
    for step in draft.plan.steps:
        call = step.call
        if call.nested and not call.obstacle:
            continue
        for path, found in step.each:
            shown.steps.add(
                path=path,
                template=call.template,
                verdict=VERDICTS[found.verdict],
                reason=found.reason,
                producer_run=found.run,
                saved=duration(found.saved),
                fingerprint=found.fingerprint,
                depends_on=call.depends_on,
            )
    return shown


def submitted(done: Submitted) -> dispatcher_pb2.SubmitRunResponse:
    """A run that was accepted."""
    return dispatcher_pb2.SubmitRunResponse(
        run=done.run.id,
        phase=run_phase(done.run.phase),
        plan=plan(done.draft) if done.draft else None,
        outputs=outputs(done.run.outputs) if done.run.phase.final else None,
    )
