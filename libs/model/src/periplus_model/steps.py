"""What a step is: its template and cache policy, its phase and verdict, its inputs and outputs."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import IntEnum
from typing import Self


class _ContractEnum(IntEnum):
    """An enum of the contract, with its numbers."""

    @property
    def label(self) -> str:
        """The name in lower case, for people, JSON and SQL."""
        return self.name.lower()

    @classmethod
    def from_label(cls, label: str) -> Self:
        """The member with this label. Raises `ValueError`."""
        try:
            return cls[label.upper()]
        except KeyError:
            raise ValueError(f"{label!r} is not one of {', '.join(member.label for member in cls)}") from None


class StepPhase(_ContractEnum):
    """Phase of a step (`periplus.types.v1.StepPhase`)."""

    UNSPECIFIED = 0
    PENDING = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    ERROR = 5
    SKIPPED = 6
    CACHED = 7

    @property
    def is_final(self) -> bool:
        """Whether no other phase follows."""
        return self >= StepPhase.SUCCEEDED


class RunPhase(_ContractEnum):
    """Phase of a run (`periplus.types.v1.RunPhase`)."""

    UNSPECIFIED = 0
    PENDING = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    ERROR = 5
    CANCELLED = 6
    UNOBSERVED = 7

    @property
    def is_final(self) -> bool:
        """Whether no other phase follows."""
        return self >= RunPhase.SUCCEEDED


class Verdict(_ContractEnum):
    """What the cache says about a step before it runs (`periplus.types.v1.Verdict`)."""

    UNSPECIFIED = 0
    HIT = 1
    MISS = 2
    PENDING = 3
    UNKNOWN = 4
    UNCACHEABLE = 5
    SKIPPED = 6


class CacheMode(_ContractEnum):
    """Which cache operations are allowed for a step (`periplus.types.v1.CacheMode`)."""

    OFF = 1
    READ = 2
    WRITE = 3
    READWRITE = 4
    REFRESH = 5

    @property
    def is_looked_up(self) -> bool:
        """Whether an entry may be served."""
        return self in (CacheMode.READ, CacheMode.READWRITE)

    @property
    def is_recorded(self) -> bool:
        """Whether the result may be recorded."""
        return self in (CacheMode.WRITE, CacheMode.READWRITE, CacheMode.REFRESH)

    def restricted_by(self, run_mode: "CacheMode | None") -> "CacheMode":
        """A step's mode in a run with a mode of its own. A run takes permissions away and never adds one.

        The result looks up only if both do and records only if both do; a recorded result replaces the existing entry
        if one of the two says so.
        """
        if run_mode is None:
            return self
        if self.is_recorded and run_mode.is_recorded:
            if CacheMode.REFRESH in (self, run_mode):
                return CacheMode.REFRESH
            return CacheMode.READWRITE if self.is_looked_up and run_mode.is_looked_up else CacheMode.WRITE
        return CacheMode.READ if self.is_looked_up and run_mode.is_looked_up else CacheMode.OFF


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """A step's cache policy. `ttl` bounds how long an entry is served after it was recorded; None: without limit.

    With `stop_on_divergence`, steps are not cached once one gave other outputs than the entry of its key.
    """

    mode: CacheMode = CacheMode.READWRITE
    ttl: timedelta | None = None
    ignore_inputs: frozenset[str] = frozenset()
    side_effects: bool = False
    stop_on_divergence: bool = False

    def restricted_by(self, run_mode: CacheMode | None) -> "CachePolicy":
        """The policy in a run with a cache mode of its own."""
        mode = self.mode.restricted_by(run_mode)
        return self if mode is self.mode else replace(self, mode=mode)


@dataclass(frozen=True, slots=True)
class StepTemplate:
    """What a step does. `document` is JSON text; `uncacheable_reason` is empty if the step can be cached."""

    name: str
    document: str
    policy: CachePolicy = CachePolicy()
    uncacheable_reason: str = ""


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """An object in S3. Bucket and endpoint are empty for those of the default artifact repository."""

    key: str
    bucket: str = ""
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact and the object that holds it.

    `digest` and `size_bytes` describe the content when it was read, and are empty or 0 until then. `etag` is that of the version
    that the step wrote or read, where Argo says it; then that of the version which the cache read.
    """

    name: str
    object: ObjectRef
    digest: str = ""
    etag: str = ""
    size_bytes: int = 0


MAX_PLAIN_CHARACTERS = 65_536
"""A parameter with more is in the key of its step by digest and size, so that an event need not have its value."""


@dataclass(frozen=True, slots=True)
class OmittedValue:
    """The digest and the size of a text in UTF-8 that is not kept."""

    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Inputs:
    """Inputs of a step. Parameters are in the template's order.

    `discovered`: what it used of the project's code beyond its template's document, with digests by name. `omitted` are parameters
    that are too large to be in `parameters`.
    """

    parameters: Mapping[str, str] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()
    discovered: Mapping[str, str] = field(default_factory=dict)
    omitted: Mapping[str, OmittedValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outputs:
    """Outputs of a step or a workflow. `result` and `exit_code` are None if Argo reports none.

    `omitted` are parameters, and under the empty name the result, that are too large to be in the other fields.
    """

    parameters: Mapping[str, str] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()
    result: str | None = None
    exit_code: int | None = None
    omitted: Mapping[str, OmittedValue] = field(default_factory=dict)

    def artifact(self, name: str) -> Artifact | None:
        """The artifact of this name."""
        return next((artifact for artifact in self.artifacts if artifact.name == name), None)
