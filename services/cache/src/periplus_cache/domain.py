"""What the cache knows of: policies, templates, artifacts, what steps gave, entries, attempts and hits."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum


class Mode(Enum):
    """How far the cache may be used for a step."""

    OFF = "off"
    READ = "read"
    WRITE = "write"
    READWRITE = "readwrite"
    REFRESH = "refresh"


class Verdict(Enum):
    """What is known of a step before it runs."""

    NONE = "none"
    HIT = "hit"
    MISS = "miss"
    PENDING = "pending"
    UNKNOWN = "unknown"
    UNCACHEABLE = "uncacheable"
    SKIPPED = "skipped"


class Phase(Enum):
    """How a step ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"
    CACHED = "cached"


LOOKED_UP = frozenset({Mode.READ, Mode.READWRITE})
RECORDED = frozenset({Mode.WRITE, Mode.READWRITE, Mode.REFRESH})


@dataclass(frozen=True, slots=True)
class Policy:
    """A step's cache policy."""

    mode: Mode = Mode.READWRITE
    ttl: timedelta | None = None
    ignored: frozenset[str] = frozenset()
    side_effects: bool = False

    def under(self, override: Mode | None) -> "Policy":
        """This policy in a run that overrides modes. A run may ask for less of a step, never for more."""
        if override is None or self.mode is Mode.OFF or override is self.mode:
            return self
        if override is Mode.REFRESH and self.mode is Mode.READ:
            return replace(self, mode=Mode.OFF)  # neither looked up nor recorded: nothing is left
        return replace(self, mode=override)


@dataclass(frozen=True, slots=True)
class Template:
    """What a step does. `document` is JSON text; `uncacheable` says why it can not be cached, or is empty."""

    name: str
    document: str
    policy: Policy = Policy()
    uncacheable: str = ""

    def forbidden(self) -> str:
        """Why a step of this template is neither looked up nor recorded; empty where it may be."""
        if self.uncacheable:
            return self.uncacheable
        if self.policy.side_effects:
            return "it has side effects, so it always runs"
        return "its cache policy is off" if self.policy.mode is Mode.OFF else ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object lies. Endpoint and bucket are empty for the default store's."""

    key: str
    bucket: str = ""
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Stat:
    """What the object store says of an object."""

    etag: str
    size: int
    modified: datetime | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact at its place; digest, ETag and size are those of the bytes when they were read."""

    name: str
    place: Place
    digest: str = ""
    etag: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a step was given."""

    parameters: tuple[tuple[str, str], ...] = ()
    artifacts: tuple[Artifact, ...] = ()


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a step gave."""

    parameters: tuple[tuple[str, str], ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    result: str | None = None
    exit_code: int | None = None

    def parameter(self, name: str) -> str | None:
        """The text of a named output."""
        return next((value for known, value in self.parameters if known == name), None)

    def artifact(self, name: str) -> Artifact | None:
        """A named artifact, where the step made it."""
        return next((artifact for artifact in self.artifacts if artifact.name == name), None)

    def differing(self, other: "Outputs") -> tuple[str, ...]:
        """Names of the outputs that are not the same in both, as paths. Where the bytes lie does not count."""
        mine, theirs = self._contents(), other._contents()
        return tuple(sorted(n for n in mine.keys() | theirs.keys() if mine.get(n) != theirs.get(n)))

    def _contents(self) -> dict[str, str | None]:
        found: dict[str, str | None] = {f"parameters.{name}": value for name, value in self.parameters}
        found |= {f"artifacts.{artifact.name}": artifact.digest for artifact in self.artifacts}
        if self.result is not None:
            found["result"] = self.result
        return found


@dataclass(frozen=True, slots=True)
class Maker:
    """The execution that made something."""

    run: str
    step: str
    at: datetime
    took: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class Entry:
    """A result that can be used again. `confirmed_at` is when a run last gave just this."""

    project: str
    fingerprint: str
    static_key: str
    template: str
    maker: Maker
    inputs: Inputs
    outputs: Outputs
    confirmed_at: datetime
    expires_at: datetime | None = None
    buried: str = ""

    def expired(self, now: datetime) -> bool:
        """Whether its own time is over."""
        return self.expires_at is not None and self.expires_at <= now


class Fate(Enum):
    """What a new result means for the entry that is there."""

    KEPT = "kept"  # the same outputs: the first stays
    DIVERGED = "diverged"  # other outputs: the first stays, and that is told
    REPLACED = "replaced"  # the old one may no longer be served, or was to be refreshed


def fate(kept: Entry, came: Entry, policy: Policy) -> Fate:
    """What becomes of `kept` when a step with the same fingerprint gives `came` under `policy`.

    First commit wins; an entry is replaced only where it could not be served to this step any more, or where
    the step was told to refresh it, and never by an older result.
    """
    if came.maker.at < kept.maker.at:
        replaceable = False
    elif policy.mode is Mode.REFRESH or kept.buried or kept.expired(came.maker.at):
        replaceable = True
    else:
        replaceable = policy.ttl is not None and kept.confirmed_at + policy.ttl <= came.maker.at
    if replaceable:
        return Fate.REPLACED
    return Fate.DIVERGED if kept.outputs.differing(came.outputs) and not kept.buried else Fate.KEPT


@dataclass(frozen=True, slots=True)
class Attempt:
    """A step of a run as it was seen to end: its key as far as it is known, and what the cache said."""

    project: str
    run: str
    step: str
    template: str
    phase: Phase
    verdict: Verdict
    finished_at: datetime
    mode: Mode = Mode.READWRITE
    fingerprint: str = ""
    static_key: str = ""
    inputs: Inputs | None = None
    reason: str = ""  # why it was not to be cached, where that is so
    from_run: str = ""
    from_step: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """A step that was not run, and the time that this saved."""

    project: str
    run: str
    step: str
    fingerprint: str
    saved: timedelta
    at: datetime


@dataclass(frozen=True, slots=True)
class Savings:
    """What hits have saved."""

    hits: int
    saved: timedelta


@dataclass(frozen=True, slots=True)
class Selector:
    """Which entries. Those that fit every selector given; an empty one does not select."""

    fingerprints: tuple[str, ...] = ()
    template: str = ""
    run: str = ""

    def __bool__(self) -> bool:
        return bool(self.fingerprints or self.template or self.run)
