"""What steps are made of: policies, templates, artifacts, what goes in and what comes out."""

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
        """The policy in a run that overrides modes. A run may ask for less of a step, never for more."""
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
        if self.document == "{}":
            return "what it does is not known"  # else all such steps would be the same step
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
        """Names of the outputs that are not the same in both, as paths. Where the bytes lie does not count.

        A result counts only where both have one: Argo keeps it only if the workflow asks for it.
        """
        mine, theirs = _contents(self), _contents(other)
        found = {name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)}
        if None not in (self.result, other.result) and self.result != other.result:
            found.add("result")
        return tuple(sorted(found))


def _contents(outputs: Outputs) -> dict[str, str]:
    found = {f"parameters.{name}": value for name, value in outputs.parameters}
    return found | {f"artifacts.{artifact.name}": artifact.digest for artifact in outputs.artifacts}
