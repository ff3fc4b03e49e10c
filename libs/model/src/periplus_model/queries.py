"""What `ResolveSteps` asks and answers: values that are known or not yet, step queries and step verdicts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum

from periplus_model.steps import ObjectRef, Outputs, Verdict


@dataclass(frozen=True, slots=True)
class Literal:
    """Literal text."""

    text: str


@dataclass(frozen=True, slots=True)
class OutputRef:
    """An output of an earlier step: the one of this name, or `outputs.result` if `result` is true."""

    step: str
    name: str = ""
    result: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """The item of the step's fan-out, or the member of the item with this name."""

    member: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A value that is known only during the run. `description` is for error messages."""

    description: str


@dataclass(frozen=True, slots=True)
class Raw:
    """The content of an artifact, as text (Argo's `raw`)."""

    text: str


TextPart = Literal | OutputRef | Item | Unknown
Text = tuple[TextPart, ...]
"""A text as the concatenation of its parts."""

ArtifactSource = OutputRef | ObjectRef | Raw | Unknown


def literal(text: str) -> Text:
    """A text that is known."""
    return (Literal(text),) if text else ()


def literal_text(text: Text) -> str | None:
    """The text, if every part of it is literal."""
    parts = [part.text for part in text if isinstance(part, Literal)]
    return "".join(parts) if len(parts) == len(text) else None


class LeaseMode(IntEnum):
    """What a step that is no hit asks for (`periplus.cache.v1.LeaseMode`)."""

    NONE = 0
    RESERVE = 1
    """The lease: the run makes the step when its turn comes."""
    ACQUIRE = 2
    """The lease, or else to wait until it ends: the step is ready."""


class LeaseState(IntEnum):
    """How far the step of a lease is (`periplus.cache.v1.LeaseState`)."""

    RESERVED = 0
    STARTED = 1
    ENDED = 2


@dataclass(frozen=True, slots=True)
class Lease:
    """Who makes a step: the run and the step that hold it, and its token, greater than those of earlier leases."""

    token: int
    run: str
    step: str
    acquired_at: datetime


@dataclass(frozen=True, slots=True)
class StepQuery:
    """A step to look up: the id of its template and the sources of its inputs and, for a fan-out, of its items.

    `step` is its path, which holds the `lease` that it asks for; empty if it is the id. `planned_fingerprint` is that of the
    run's plan, where the inputs are values by now.
    """

    id: str
    template: str
    parameters: Mapping[str, Text] = field(default_factory=dict)
    artifacts: Mapping[str, ArtifactSource] = field(default_factory=dict)
    items: Text | None = None
    step: str = ""
    lease: LeaseMode = LeaseMode.NONE
    planned_fingerprint: str = ""

    @property
    def path(self) -> str:
        """The step's path in the run."""
        return self.step or self.id


@dataclass(frozen=True, slots=True)
class StepVerdict:
    """The verdict of a step or of an item of a fan-out.

    Of a hit: `outputs`, the producer and `saved`, the producer's run time. Of a fan-out whose items are known: `items`,
    one verdict each, and `items_json`, the items as a JSON array. `lease` is the one that a PENDING step waits for, or that
    another holds. `planned_fingerprint` has references to outputs of earlier steps in place of their values; empty without any.
    """

    id: str
    verdict: Verdict
    reason: str = ""
    fingerprint: str = ""
    outputs: Outputs | None = None
    producer_run: str = ""
    producer_step: str = ""
    saved: timedelta = timedelta()
    items: tuple["StepVerdict", ...] = ()
    items_json: str = ""
    lease: Lease | None = None
    planned_fingerprint: str = ""
