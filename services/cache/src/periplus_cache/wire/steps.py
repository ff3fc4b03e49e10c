"""StepFinished: a finished step as the dispatcher reports it."""

import re
from collections.abc import Mapping

from periplus.dispatcher.v1.events_pb2 import StepFinished
from periplus_cache.record.finished import FinishedStep
from periplus_common.errors import Invalid
from periplus_model.codec import (
    decode_duration,
    decode_enum,
    decode_inputs,
    decode_name,
    decode_outputs,
    decode_run_mode,
    decode_template,
    decode_time,
)
from periplus_model.steps import StepPhase, Verdict

_DIGEST_OR_EMPTY = re.compile(r"(sha256:[0-9a-f]{64})?", re.ASCII)


def decode_finished(event: StepFinished, headers: Mapping[str, str]) -> FinishedStep:
    """The finished step; the headers carry its trace. Raises `Invalid` for values that can not be stored.

    A verdict of a later version of the contract is UNSPECIFIED: nothing depends on it.
    """
    phase = decode_enum(StepPhase, event.phase, "phase")
    if not phase.is_final:
        raise Invalid(f"{phase.label} is not a final phase", field="phase", reason="FIELD_INVALID")
    if not event.HasField("finished_at"):
        raise Invalid("is required", field="finished_at", reason="FIELD_INVALID")
    if not _DIGEST_OR_EMPTY.fullmatch(event.fingerprint):
        raise Invalid("is not a digest", field="fingerprint", reason="FIELD_INVALID")
    finished_at = decode_time(event.finished_at, "finished_at")
    return FinishedStep(
        project=decode_name(event.project, "project"),
        run=decode_name(event.run, "run"),
        step=decode_name(event.step, "step"),
        template=decode_template(event.template),
        phase=phase,
        verdict=_decode_verdict(event.verdict),
        inputs=decode_inputs(event.inputs),
        outputs=decode_outputs(event.outputs),
        started_at=decode_time(event.started_at, "started_at")
        if event.HasField("started_at")
        else finished_at,
        finished_at=finished_at,
        run_mode=decode_run_mode(event.cache_mode),
        fingerprint=event.fingerprint,
        producer_run=decode_name(event.producer_run, "producer_run"),
        producer_step=decode_name(event.producer_step, "producer_step"),
        saved=decode_duration(event.saved),
        trace_headers=headers,
        observed_pipeline=decode_name(event.pipeline, "pipeline") if event.observed else None,
        pods=max(event.attempts, 0),
        pipeline=decode_name(event.pipeline, "pipeline"),
        unserved_reason=decode_name(event.unserved_reason, "unserved_reason"),
        lease_token=max(event.lease_token, 0),
    )


def _decode_verdict(number: int) -> Verdict:
    try:
        return Verdict(number)
    except ValueError:
        return Verdict.UNSPECIFIED
