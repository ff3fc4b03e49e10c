"""What `ResolveSteps` asks and answers: values that are known or not yet, step queries and step verdicts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

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


@dataclass(frozen=True, slots=True)
class StepQuery:
    """A step to look up: the id of its template and the sources of its inputs and, for a fan-out, of its items."""

    id: str
    template: str
    parameters: Mapping[str, Text] = field(default_factory=dict)
    artifacts: Mapping[str, ArtifactSource] = field(default_factory=dict)
    items: Text | None = None


@dataclass(frozen=True, slots=True)
class StepVerdict:
    """The verdict of a step or of an item of a fan-out.

    Of a hit: `outputs`, the producer and `saved`, the producer's run time. Of a fan-out whose items are known: `items`,
    one verdict each, and `items_json`, the items as a JSON array.
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
