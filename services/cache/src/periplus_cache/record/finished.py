"""A step that finished, as the dispatcher reports it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from periplus_model.steps import (
    Artifact,
    CacheMode,
    CachePolicy,
    Inputs,
    Outputs,
    StepPhase,
    StepTemplate,
    Verdict,
)

EXECUTED = frozenset({StepPhase.SUCCEEDED, StepPhase.FAILED, StepPhase.ERROR})


@dataclass(frozen=True, slots=True)
class FinishedStep:
    """A finished step. `template.policy` is the step's own; `run_mode` is the run's cache mode, which restricts it.

    `trace_headers` carry the trace in which the step finished. Of the artifacts, only inputs whose content is in the manifest
    have a digest: they are no objects. `observed_pipeline` is set
    if others submitted the Workflow: the cache was not asked. `pods` is how many it had. `lease_token` is that of the lease under
    which it ran; 0 without one.
    """

    project: str
    run: str
    step: str
    template: StepTemplate
    phase: StepPhase
    verdict: Verdict
    inputs: Inputs
    outputs: Outputs
    started_at: datetime
    finished_at: datetime
    run_mode: CacheMode | None = None
    fingerprint: str = ""
    producer_run: str = ""
    producer_step: str = ""
    saved: timedelta = timedelta()
    trace_headers: Mapping[str, str] = field(default_factory=dict)
    observed_pipeline: str | None = None
    pods: int = 0
    pipeline: str = ""
    unserved_reason: str = ""
    lease_token: int = 0

    @property
    def policy(self) -> CachePolicy:
        """The step's policy as it applies in its run."""
        return self.template.policy.restricted_by(self.run_mode)

    @property
    def artifacts_to_read(self) -> tuple[Artifact, ...]:
        """The artifacts whose objects have to be read before it can be recorded."""
        if self.phase not in EXECUTED:
            return ()
        found = (*self.inputs.artifacts, *self.outputs.artifacts)
        return tuple(artifact for artifact in found if not artifact.digest)
