"""What the packages of the dispatcher hand to each other: run requests, runs, their state, and statuses of steps."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from periplus_common import digest
from periplus_model.queries import Raw, StepVerdict
from periplus_model.steps import (
    CacheMode,
    Inputs,
    ObjectRef,
    Outputs,
    RunPhase,
    StepPhase,
    StepTemplate,
    Verdict,
)

Json = dict[str, Any]

MANAGED_LABEL = "periplus.dev/managed"
"""Of the Workflows of runs."""

RAW_CONTENT = ObjectRef("raw")
"""In place of the object of an artifact whose content is in the manifest."""

ITEM_NAME = re.compile(r"^(.*?)\((\d+)(?::.*)?\)$", re.DOTALL)
"""Name of an item's node or step: `train(2)`, in Argo also `train(2:value)`."""


@dataclass(frozen=True)
class RunRequest:
    """What a caller asks to run. `manifest` is YAML or JSON; `claim` is the serialized `Claim`, None without one.

    `reproduces` is set for a reproduction, which has the snapshot of the run that it reproduces.
    """

    project: str
    manifest: str
    parameters: Mapping[str, str]
    cache_mode: CacheMode | None = None
    claim: bytes | None = None
    reproduces: "Reproduced | None" = None

    @property
    def digest(self) -> str:
        """Digest of the whole request: two requests with one request id are compared by it."""
        mode = self.cache_mode.label if self.cache_mode else ""
        claim = "" if self.claim is None else digest.sha256(self.claim)
        parts: list[object] = [self.project, self.manifest, dict(self.parameters), mode, claim]
        if self.reproduces is not None:
            parts += [self.reproduces.run, self.reproduces.step]
        return digest.of(parts)


@dataclass(frozen=True)
class Reproduced:
    """The run that another one reproduces, its snapshot, and the path of the one step that is run again; empty for all."""

    run: str
    step: str = ""
    snapshot: str = ""


@dataclass(frozen=True)
class ContainerTemplate:
    """A template that starts a pod: what its cache key consists of, and the names of the outputs that it declares.

    `config` are the ids of the config objects of whose data the key has versions. `images` are, of an observed step, those in its
    document that are named by a tag: the key has the digests that its pod ran. `optional` are the artifacts that a step need not write.
    """

    step: StepTemplate
    parameters: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()
    config: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


@dataclass(frozen=True, order=True)
class ConfigObject:
    """A Secret or a ConfigMap of the namespace of the runs; `kind` is Kubernetes' name for it."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    @property
    def id(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, order=True)
class ConfigRef:
    """Data of a config object that a step gets: that of one key, or if `key` is empty, of all keys that are not in `without`."""

    object: ConfigObject
    key: str = ""
    without: tuple[str, ...] = ()
    is_optional: bool = False

    @property
    def label(self) -> str:
        """What it is called in a key."""
        return f"{self.object.id}/{self.key}" if self.key else self.object.id


ABSENT = "absent"
"""The version of optional data that does not exist."""


@dataclass(frozen=True)
class ConfigVersion:
    """The version of what a `ConfigRef` names; without one, `reason` says why, as the end of a sentence about the object.

    `resource_version` is that of the object when it was read; empty if there was none.
    """

    version: str = ""
    resource_version: str = ""
    reason: str = ""


@dataclass(frozen=True)
class ResolvedImage:
    """An image as the manifest names it, and the same by its digest; without one, `reason` and `fix` say why.

    `also` are other digests by which a node may report it; `is_absent` is whether its registry answered that it has none.
    """

    image: str
    digest: str = ""
    pinned: str = ""
    also: tuple[str, ...] = ()
    reason: str = ""
    fix: str = ""
    is_absent: bool = False


@dataclass(frozen=True)
class ContainerImage:
    """The image of a container of a pod: as the pod names it, and the digest of what ran, empty until that is known."""

    name: str
    image: str
    digest: str


@dataclass(frozen=True)
class ImageDrift:
    """A container ran another image than the one that its tag pointed to when the run was planned."""

    container: str
    image: str
    expected: str
    actual: str


class TemplateRole(StrEnum):
    """What a template is for that the rewrite generated."""

    HIT = "hit"
    """Returns the outputs of a hit and runs nothing."""
    GATED = "gated"
    """The wrapper of a step: a gate, then a selection."""
    GATE = "gate"
    SELECTION = "selection"
    """Runs the user's template unless the gate was answered with a hit."""
    FAN_OUT = "fan-out"
    """The wrapper of a fan-out: a gate for all items, then the loop over the items that are no hits."""
    FAN_OUT_GATE = "fan-out-gate"
    STRETCH_GATE = "stretch-gate"
    """The gate of all members of a stretch."""
    STRETCHED = "stretched"
    """A member of a stretch: returns the outputs of a hit, runs, or asks at a gate of its own."""
    PARTIAL_FAN_OUT = "partial-fan-out"
    """The wrapper of a fan-out some items of which were hits when the run was submitted."""
    COPY = "copy"
    """A copy of a DAG or steps template for one of its calls."""
    NO_OP = "no-op"


@dataclass(frozen=True)
class GeneratedTemplate:
    """A template that the rewrite added, and the name of the user's template that it stands for.

    `supplied` are, of a gate, the output parameters that an answer may set.
    """

    role: TemplateRole
    template: str
    supplied: tuple[str, ...] = ()


@dataclass(frozen=True)
class FanOut:
    """A rewritten fan-out.

    `arguments` are those of one item. `remaining` are, if the items were known at submission, the indices of those that
    run. `parameters` and `artifacts` are the template's defaults for inputs that the arguments do not set.
    """

    arguments: Json
    remaining: tuple[int, ...] | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, ObjectRef | Raw] = field(default_factory=dict)


@dataclass(frozen=True)
class StretchMember:
    """The question of a call behind the gate of a stretch.

    In `arguments`, `items` (of a fan-out) and `condition`, `{{inputs.…}}` are inputs of the gate, `{{tasks.…}}` outputs of
    members before it, and `{{item…}}` is the item. `parameters` and `artifacts` are the template's defaults for inputs
    that the arguments do not set. `supplied` are the parameters that carry the answer.
    """

    template: str
    arguments: Json
    supplied: tuple[str, ...]
    condition: str = ""
    items: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, ObjectRef | Raw] = field(default_factory=dict)


@dataclass(frozen=True)
class RunState:
    """What was decided at submission and is needed to read the run's Workflow later, by any replica.

    `stretches` are, by the name of their gate's template, the members of each stretch in order, by their task's name.
    `resolved` are the verdicts of the steps whose calls were rewritten, `verdicts` those of all steps, both by path.
    `cached_steps` and `saved` are set for a run that was complete at submission. `images` are, for each image in the words of
    the submitted workflow, the digests by which a node may report what the keys name, that of the tag first;
    `images_are_checked` is whether a step is cached only if its pod was seen to run one of them. `config` are the resource
    versions, by id, that the config objects had of whose data keys have versions; empty for one that did not exist. `unserved` says,
    by path, why a step runs whose outputs the cache had. `leases` are the tokens that the run got at its submission, by the path of
    the step that holds them, and `planned` the planned fingerprints of steps that ask at gates.
    """

    templates: Mapping[str, ContainerTemplate]
    generated: Mapping[str, GeneratedTemplate] = field(default_factory=dict)
    fan_outs: Mapping[str, FanOut] = field(default_factory=dict)
    stretches: Mapping[str, Mapping[str, StretchMember]] = field(default_factory=dict)
    resolved: Mapping[str, StepVerdict] = field(default_factory=dict)
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    cached_steps: int = 0
    saved: timedelta = timedelta()
    images: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    images_are_checked: bool = False
    config: Mapping[str, str] = field(default_factory=dict)
    unserved: Mapping[str, str] = field(default_factory=dict)
    leases: Mapping[str, int] = field(default_factory=dict)
    planned: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class GateAnswer:
    """The output parameters that a gate is answered with, and the verdict that they express.

    `remaining` are, for a fan-out, the indices of the items that run. `members` are the answers for the members of a
    stretch by their task's name, without their parameters: at its gate all, at the gate of a member those behind it.
    """

    parameters: Mapping[str, str]
    verdict: StepVerdict
    remaining: tuple[int, ...] = ()
    members: Mapping[str, "GateAnswer"] = field(default_factory=dict)

    @property
    def is_asked(self) -> bool:
        """Whether a member of a stretch asks at a gate of its own. A fan-out with verdicts of its items does not."""
        return self.verdict.verdict is Verdict.UNKNOWN and not self.verdict.items


@dataclass(frozen=True)
class ObservedWorkflow:
    """The Workflow of a run that others submitted. Of two of one name, the later one has another `uid`.

    `display_name`, which people gave the run, is published with RunSubmitted and is not stored.
    """

    namespace: str
    name: str
    uid: str
    display_name: str = ""


@dataclass(frozen=True)
class Run:
    """A run as it is stored.

    `manifest` is what Argo runs, as JSON; empty if every step was a hit. `parameters` and `source`, the manifest before
    the rewrite, are published with RunSubmitted and are not stored. `resolved` is the resolved manifest, as JSON: it is
    stored, and not read with the run. `reproduces` has no snapshot of its own. `traceparent` is the trace of the submission (W3C
    Trace Context), empty if it has none. `observed` is set if others submitted the Workflow: its name is then not the run's id,
    and nothing is done to it, but that its gates are answered if it was rewritten before.
    """

    project: str
    id: str
    request_id: str
    request_digest: str
    pipeline: str
    phase: RunPhase
    manifest: str
    state: RunState
    snapshot: str
    cache_mode: CacheMode | None
    submitted_at: datetime
    parameters: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    outputs: Outputs = field(default_factory=Outputs)
    finished_at: datetime | None = None
    message: str = ""
    is_cancelled: bool = False
    traceparent: str = ""
    observed: ObservedWorkflow | None = None
    resolved: str = ""
    reproduces: Reproduced | None = None
    rolled_back_to: str = ""
    """Of a rollback: the earlier run whose outputs it was served. It is published with RunSubmitted and is not stored."""

    @property
    def is_only_observed(self) -> bool:
        """Whether others submitted its Workflow and nobody asked the cache about it, so that its steps have no verdicts."""
        verdicts = self.state.verdicts.values()
        return self.observed is not None and all(each is Verdict.UNSPECIFIED for each in verdicts)


@dataclass(frozen=True)
class StepNode:
    """A step of a plan as it is published with RunSubmitted."""

    path: str
    template: str
    depends_on: tuple[str, ...]
    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True)
class StepStatus:
    """A step of a run: its phase, and what Argo reports of its node.

    `verdict` is set for a step that was a hit. `pod` is the node of the pod whose outputs the step has. `uncacheable_reason`
    says why its outputs are not to be cached, though its template could be; `drifts` are images that differ. `host` is
    the machine that its pod ran on. `component` is what people call its template, where that has another name in Argo.
    `document` is that of its key, where it is not its template's.
    `unserved_reason` says why it ran although the cache had outputs of its key. `lease_token` is that of its lease; 0 without one.
    `outer_attempt` is, of a step inside of a retried DAG or steps template, how many attempts of that came before.
    """

    path: str
    phase: StepPhase
    template: str
    node: str = ""
    message: str = ""
    inputs: Inputs = field(default_factory=Inputs)
    outputs: Outputs = field(default_factory=Outputs)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempts: int = 0
    verdict: StepVerdict | None = None
    pod: str = ""
    uncacheable_reason: str = ""
    drifts: tuple[ImageDrift, ...] = ()
    host: str = ""
    component: str = ""
    document: str = ""
    outer_attempt: int = 0
    unserved_reason: str = ""
    lease_token: int = 0

    @property
    def key(self) -> tuple[str, StepPhase, int]:
        """What of a step is published once."""
        return (self.path, self.phase, self.outer_attempt)


@dataclass(frozen=True)
class RecordedStep:
    """A step of a run as lineage has it: artifacts have the digests that they had then, as far as they were read."""

    path: str
    template: str
    phase: StepPhase
    inputs: Inputs = field(default_factory=Inputs)
    outputs: Outputs = field(default_factory=Outputs)
    depends_on: tuple[str, ...] = ()
    fingerprint: str = ""
    producer_run: str = ""
    producer_step: str = ""


@dataclass(frozen=True)
class RecordedRun:
    """A run as lineage has it. `is_complete`: it has finished, and the events of all its steps were received."""

    is_complete: bool
    steps: tuple[RecordedStep, ...]
    parameters: Mapping[str, str] = field(default_factory=dict)
    outputs: Outputs = field(default_factory=Outputs)


@dataclass(frozen=True)
class ObjectContent:
    """The content digest of an object; without one `reason` says why. `is_absent`: there is no such object."""

    digest: str = ""
    reason: str = ""
    is_absent: bool = False


@dataclass(frozen=True)
class Delay:
    """What keeps a step from its end, in Argo's words; without a reason, nothing does (any more)."""

    path: str
    template: str
    node: str
    reason: str


def plan_path(path: str) -> str:
    """The path in the plan of a path in a run: a plan has one step for all items of a fan-out.

    A loop over a template invocator is expanded once, as `name(*)`.
    """
    outer, dot, name = path.rpartition(".")
    item = ITEM_NAME.match(name)
    return re.sub(r"\(\d+\)", "(*)", outer) + dot + (item[1] if item else name)
