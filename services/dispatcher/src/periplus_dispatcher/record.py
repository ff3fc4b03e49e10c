"""What the dispatcher remembers of a run: enough to go on with it after a crash, by any replica."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import TypeAdapter

from periplus_dispatcher.domain import Outputs, Phase, Resolved, Template
from periplus_dispatcher.written import Fan, Generated


@dataclass(frozen=True)
class Record:
    """What was decided at the start, and is needed to read what Argo tells."""

    templates: Mapping[str, Template]
    generated: Mapping[str, Generated] = field(default_factory=dict)
    fans: Mapping[str, Fan] = field(default_factory=dict)
    resolved: Mapping[str, Resolved] = field(default_factory=dict)
    """By path: what the cache said at the start of the steps whose call was rewritten."""
    verdicts: Mapping[str, str] = field(default_factory=dict)
    """By path: the verdict of every step at the start."""
    cached: int = 0
    saved: float = 0.0


@dataclass(frozen=True)
class Answer:
    """What a gate was told, and what the cache had said. `items` for a fan-out, one for each."""

    parameters: Mapping[str, str]
    resolved: Resolved
    todo: tuple[int, ...] = ()


@dataclass(frozen=True)
class Run:
    """A run as the dispatcher holds it."""

    project: str
    id: str
    request_id: str
    request_digest: str
    pipeline: str
    phase: Phase
    manifest: str
    """What Argo runs, as JSON; empty where nothing had to run."""
    record: Record
    snapshot: str
    cache: str
    """The mode that overrides the steps' own, or empty."""
    submitted_at: datetime
    parameters: Mapping[str, str] = field(default_factory=dict)
    """The workflow's, with their values."""
    source: str = ""
    """The manifest as the user gave it; told once, and not kept twice."""
    outputs: Outputs = field(default_factory=Outputs)
    finished_at: datetime | None = None
    message: str = ""
    cancelled: bool = False


RECORD = TypeAdapter(Record)
ANSWER = TypeAdapter(Answer)
OUTPUTS = TypeAdapter(Outputs)
