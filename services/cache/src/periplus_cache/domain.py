"""What the cache stores: entries, attempts, hits and invalidations. Which entry stays when a step runs again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum

from periplus_model.steps import (
    Artifact,
    CacheMode,
    CachePolicy,
    Inputs,
    ObjectRef,
    Outputs,
    StepPhase,
    StepTemplate,
    Verdict,
)

LEASE_LOST = "its lease was not renewed in time, and had ended or was another run's when its result arrived"


def restricted(template: StepTemplate, run_mode: CacheMode | None) -> StepTemplate:
    """The template with its policy as it applies in a run with a cache mode of its own."""
    policy = template.policy.restricted_by(run_mode)
    if policy is template.policy:
        return template
    reason = uncacheable_reason(template)
    if run_mode is not None and policy.mode is CacheMode.OFF and not reason:
        reason = f"the run's cache mode is {run_mode.label}"
        if run_mode is not CacheMode.OFF:
            reason += f" and its own is {template.policy.mode.label}, so it is neither looked up nor recorded"
    return replace(template, policy=policy, uncacheable_reason=reason)


def uncacheable_reason(template: StepTemplate) -> str:
    """Why steps of this template are neither looked up nor recorded; empty if they are."""
    if template.uncacheable_reason:
        return template.uncacheable_reason
    if template.document == "{}":
        return "what it does is not known"  # all such steps would have the same key
    if template.policy.side_effects:
        return "it has side effects, so it always runs"
    return "its cache mode is off" if template.policy.mode is CacheMode.OFF else ""


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """An object's ETag and size, which tell two contents of one ObjectRef apart, and when it was written."""

    etag: str
    size_bytes: int
    modified_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class VersionedObject:
    """An object at one version. The reference names its bucket and endpoint."""

    object: ObjectRef
    version: ObjectVersion


@dataclass(frozen=True, slots=True)
class Producer:
    """The step that produced an entry."""

    run: str
    step: str
    finished_at: datetime
    duration: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class Entry:
    """A result that can be served. `confirmed_at`: when a run last produced the same outputs.

    `base_fingerprint`: of an entry with discovered inputs, the fingerprint without them, by which it is looked up.
    """

    project: str
    fingerprint: str
    static_key: str
    template: str
    producer: Producer
    inputs: Inputs
    outputs: Outputs
    confirmed_at: datetime
    expires_at: datetime | None = None
    invalidation_reason: str = ""
    base_fingerprint: str = ""
    pipeline: str = ""

    def is_expired(self, now: datetime) -> bool:
        """Whether its time to live has passed."""
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True, slots=True)
class EntryDetails:
    """An entry and how often it was a hit; in answers that show the key also its template's document and epoch."""

    entry: Entry
    hits: int
    document: str = ""
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """The entries to list: of this template, of this producer run; with `include_invalid` also those not served."""

    template: str = ""
    producer_run: str = ""
    include_invalid: bool = False


@dataclass(frozen=True, slots=True)
class EntryPosition:
    """A position in a list of entries, which is sorted by these two, newest first."""

    recorded_at: datetime
    fingerprint: str


@dataclass(frozen=True, slots=True)
class EntryPage:
    """Entries of a list, and the position of the last one if there are more."""

    entries: tuple[EntryDetails, ...]
    next_position: EntryPosition | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A live entry that a step may hit. `load_outputs` decodes its outputs, which most candidates do not need.

    With a `base_fingerprint` it is one of several entries for one key, a hit only where its `discovered` inputs are the same.
    """

    fingerprint: str
    static_key: str
    producer_run: str
    producer_step: str
    confirmed_at: datetime
    duration: timedelta
    load_outputs: Callable[[], Outputs]
    base_fingerprint: str = ""
    discovered: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ComparableEntry:
    """An entry that a step is compared with. `document` is its template's; None if it is that of the step."""

    fingerprint: str
    producer_run: str
    producer_step: str
    recorded_at: datetime
    document: str | None
    epoch: int
    inputs: Inputs
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class EntrySelector:
    """The entries that match every field that is not empty."""

    fingerprints: tuple[str, ...] = ()
    template: str = ""
    producer_run: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether no field is set."""
        return not (self.fingerprints or self.template or self.producer_run)


@dataclass(frozen=True, slots=True)
class Invalidation:
    """Takes an entry out of use if it is still the one that this producer recorded."""

    fingerprint: str
    producer_run: str
    producer_step: str
    reason: str


@dataclass(frozen=True, slots=True)
class PastInvalidation:
    """An entry that was taken out of use or replaced."""

    producer_run: str
    producer_step: str
    reason: str
    invalidated_at: datetime


@dataclass(frozen=True, slots=True)
class Divergence:
    """A step gave other outputs than the entry of its key, whose producer is named. `outputs` are paths.

    `is_resolved`: that entry is not served any more.
    """

    project: str
    run: str
    step: str
    template: str
    fingerprint: str
    static_key: str
    producer_run: str
    producer_step: str
    outputs: tuple[str, ...]
    detected_at: datetime
    is_resolved: bool = False

    @property
    def stop_reason(self) -> str:
        """Why steps of the template are not cached, where its policy says so."""
        return (
            f"it stops on divergence: step {self.step} of run {self.run} gave another {self.outputs[0]} than step "
            f"{self.producer_step} of run {self.producer_run} for the same key; change its code, or invalidate the entry"
        )


def divergence(
    new: "Entry", existing: "Entry", outcome: "WriteOutcome", policy: CachePolicy
) -> Divergence | None:
    """That of a new result from the entry of its key, which stayed, or which was refreshed although it could be served."""
    is_refreshed = (
        outcome is WriteOutcome.REPLACED
        and policy.mode is CacheMode.REFRESH
        and not existing.invalidation_reason
        and not existing.is_expired(new.producer.finished_at)
    )
    outputs = differing_outputs(existing.outputs, new.outputs)
    if not outputs or not (is_refreshed or outcome is WriteOutcome.DIVERGED):
        return None
    return Divergence(
        project=new.project,
        run=new.producer.run,
        step=new.producer.step,
        template=new.template,
        fingerprint=new.fingerprint,
        static_key=new.static_key,
        producer_run=existing.producer.run,
        producer_step=existing.producer.step,
        outputs=outputs,
        detected_at=new.producer.finished_at,
        is_resolved=is_refreshed,
    )


@dataclass(frozen=True, slots=True)
class Attempt:
    """A finished step of a run: its key as far as it is known, and what the cache decided.

    `uncacheable_reason`: why it was not to be recorded. `not_recorded_reason`: why a step that succeeded and was to be
    recorded has no entry. `observed_pipeline` is set if others submitted the Workflow, so that it was not looked up.
    `unserved_reason`: why it ran although the cache had outputs of its key.
    """

    project: str
    run: str
    step: str
    template: str
    phase: StepPhase
    verdict: Verdict
    finished_at: datetime
    cache_mode: CacheMode = CacheMode.READWRITE
    fingerprint: str = ""
    static_key: str = ""
    inputs: Inputs | None = None
    uncacheable_reason: str = ""
    not_recorded_reason: str = ""
    producer_run: str = ""
    producer_step: str = ""
    observed_pipeline: str | None = None
    duration: timedelta = timedelta()
    pods: int = 0
    pipeline: str = ""
    unserved_reason: str = ""


@dataclass(frozen=True, slots=True)
class AttemptDetails:
    """An attempt with its template's document (empty if the step did not run) and its epoch."""

    attempt: Attempt
    document: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Hit:
    """A step that was served an entry, and the run time of the entry's producer."""

    project: str
    run: str
    step: str
    fingerprint: str
    saved: timedelta
    hit_at: datetime


@dataclass(frozen=True, slots=True)
class Savings:
    """How many steps were hits, and the sum of their producers' run times."""

    hits: int
    saved: timedelta


@dataclass(frozen=True, slots=True)
class PipelineShadow:
    """What the cache would have saved in the runs of a pipeline whose Workflows others submitted.

    `steps` ran, `hits` of them after a step with the same key had succeeded; `saved` and `saved_pods` are those of the hits.
    """

    pipeline: str
    runs: int
    steps: int
    hits: int
    saved: timedelta
    saved_pods: int
    duration: timedelta
    uncacheable_steps: int = 0
    uncacheable_reason: str = ""


@dataclass(frozen=True, slots=True)
class Recording:
    """What a finished step adds to the store, in one transaction.

    `document` is JSON text, empty if the step did not run. Inputs and outputs are the artifacts with a digest. With a `lease_token`
    the entry is stored only if the token is current, and the step's lease ends.
    """

    attempt: Attempt
    document: str
    epoch: int
    policy: CachePolicy
    inputs: tuple[Artifact, ...] = ()
    outputs: tuple[Artifact, ...] = ()
    entry: Entry | None = None
    hit: Hit | None = None
    trace_headers: Mapping[str, str] = field(default_factory=dict)
    lease_token: int = 0

    def fenced(self) -> "Recording":
        """What is stored of a step whose lease another run had taken over before its result arrived."""
        if self.entry is None:
            return self
        return replace(self, entry=None, attempt=replace(self.attempt, not_recorded_reason=LEASE_LOST))


class WriteOutcome(Enum):
    """What a new result does to the entry with its fingerprint."""

    ADDED = "added"  # there was none
    UNCHANGED = "unchanged"  # the existing entry stays: it has the same outputs, or the new result is older
    DIVERGED = "diverged"  # the existing entry stays although its outputs differ; EntryDiverged is published
    REPLACED = "replaced"  # the existing entry could not be served any more, or was to be refreshed


def write_outcome(existing: Entry, new: Entry, policy: CachePolicy) -> WriteOutcome:
    """What becomes of `existing` when a step with its fingerprint produces `new` under `policy`.

    The first result stays. It is replaced only if it could not be served to this step any more or if the mode is
    REFRESH, and never by an older result.
    """
    if new.producer.finished_at >= existing.producer.finished_at and replacement_reason(
        existing, new, policy
    ):
        return WriteOutcome.REPLACED
    differs = not existing.invalidation_reason and differing_outputs(existing.outputs, new.outputs)
    return WriteOutcome.DIVERGED if differs else WriteOutcome.UNCHANGED


def replacement_reason(existing: Entry, new: Entry, policy: CachePolicy) -> str:
    """Why `existing` could not be served to the step that produced `new`, as a sentence; empty if it could."""
    if existing.invalidation_reason:
        return existing.invalidation_reason
    if policy.mode is CacheMode.REFRESH:
        return "it was refreshed"
    now = new.producer.finished_at
    if existing.is_expired(now) or (policy.ttl is not None and existing.confirmed_at + policy.ttl <= now):
        return "its time to live was over"
    if existing.outputs.result is None and new.outputs.result is not None:
        return "its result was not recorded"
    return ""


def differing_outputs(one: Outputs, other: Outputs) -> tuple[str, ...]:
    """Names of the outputs that differ, as paths ("parameters.accuracy"). Artifacts are compared by digest.

    A result counts only if both have one: Argo stores it only for workflows that refer to it.
    """
    first, second = _values_by_path(one), _values_by_path(other)
    names = {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}
    if None not in (one.result, other.result) and one.result != other.result:
        names.add("result")
    return tuple(sorted(names))


def _values_by_path(outputs: Outputs) -> dict[str, str]:
    values = {f"parameters.{name}": value for name, value in outputs.parameters.items()}
    return values | {f"artifacts.{artifact.name}": artifact.digest for artifact in outputs.artifacts}
