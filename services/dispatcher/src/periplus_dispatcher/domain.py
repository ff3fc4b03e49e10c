"""What a run is made of: values that are known or not yet, calls of templates, what is known of each, and phases."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


@dataclass(frozen=True)
class Literal:
    """Text as it stands."""

    text: str


@dataclass(frozen=True)
class Output:
    """What another step will give: an output of this name, or its result (standard output)."""

    step: str
    name: str = ""
    result: bool = False


@dataclass(frozen=True)
class Item:
    """The item of a fan-out, or one member of it."""

    member: str = ""


@dataclass(frozen=True)
class Unknown:
    """What appears only mid-run; `what` says it for people."""

    what: str


Part = Literal | Output | Item | Unknown
Text = tuple[Part, ...]


def literal(text: str) -> Text:
    """A value that is known."""
    return (Literal(text),)


def known(text: Text) -> str | None:
    """The text itself, where every piece of it is known."""
    pieces = [part.text for part in text if isinstance(part, Literal)]
    return "".join(pieces) if len(pieces) == len(text) else None


@dataclass(frozen=True)
class Object:
    """An object in a store. Empty bucket or endpoint: the default store's."""

    key: str
    bucket: str = ""
    endpoint: str = ""


@dataclass(frozen=True)
class Raw:
    """An artifact whose bytes stand in the manifest."""

    data: str


Source = Output | Object | Raw | Unknown


class Mode(Enum):
    """How far the cache may be used for a step."""

    OFF = "off"
    READ = "read"
    WRITE = "write"
    READWRITE = "readwrite"
    REFRESH = "refresh"


@dataclass(frozen=True)
class Policy:
    """A step's cache policy, from its annotations. `ttl` in seconds."""

    mode: Mode = Mode.READWRITE
    ttl: float | None = None
    ignore_inputs: tuple[str, ...] = ()
    side_effects: bool = False


@dataclass(frozen=True)
class Template:
    """What a leaf template does, in the form that its key is made of."""

    name: str
    document: str
    policy: Policy = Policy()
    uncacheable: str = ""
    parameters: tuple[str, ...] = ()
    """Names of its output parameters."""
    artifacts: tuple[str, ...] = ()
    """Names of its output artifacts."""


class Verdict(Enum):
    """What is known of a step before it runs."""

    HIT = "hit"
    MISS = "miss"
    UNKNOWN = "unknown"
    UNCACHEABLE = "uncacheable"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Artifact:
    """An artifact at its place; `digest` is empty while nobody has read it."""

    name: str
    object: Object
    digest: str = ""
    size: int = 0


@dataclass(frozen=True)
class Inputs:
    """What a step was given."""

    parameters: dict[str, str] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()


@dataclass(frozen=True)
class Outputs:
    """What a step gave."""

    parameters: dict[str, str] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()
    result: str | None = None
    exit_code: int | None = None


@dataclass(frozen=True)
class Resolved:
    """What the cache says of one step, or of one item of a fan-out. `saved` in seconds."""

    verdict: Verdict
    reason: str = ""
    fingerprint: str = ""
    outputs: Outputs | None = None
    run: str = ""
    step: str = ""
    saved: float = 0.0
    items: tuple["Resolved", ...] = ()
    items_json: str = ""


@dataclass(frozen=True)
class Query:
    """One step of a plan, as the cache is asked for it."""

    id: str
    template: str
    parameters: Mapping[str, Text]
    artifacts: Mapping[str, Source]
    items: Text | None = None


class Phase(Enum):
    """How far a run or a step is."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ERROR = "error"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    CACHED = "cached"

    @property
    def final(self) -> bool:
        """Whether nothing comes after it."""
        return self not in (Phase.PENDING, Phase.RUNNING)
