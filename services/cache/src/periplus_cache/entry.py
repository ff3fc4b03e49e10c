"""Entries: results that can be used again, and what becomes of one when its step is done again."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from periplus_cache.domain import Inputs, Mode, Outputs, Policy


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
    """What a new result means for the entries that are there."""

    ADDED = "added"  # there was none
    KEPT = "kept"  # the same outputs: the first stays
    DIVERGED = "diverged"  # other outputs: the first stays, and that is told
    REPLACED = "replaced"  # the old one may no longer be served, or was to be refreshed


def fate(kept: Entry, came: Entry, policy: Policy) -> Fate:
    """What becomes of `kept` when a step with the same fingerprint gives `came` under `policy`.

    First commit wins; an entry is replaced only where it could not be served to this step any more, or where
    the step was told to refresh it, and never by an older result.
    """
    if came.maker.at >= kept.maker.at and replaceable(kept, came, policy):
        return Fate.REPLACED
    return Fate.DIVERGED if kept.outputs.differing(came.outputs) and not kept.buried else Fate.KEPT


def replaceable(kept: Entry, came: Entry, policy: Policy) -> str:
    """Why `kept` could not be served where `came` was made, in words; empty where it could."""
    if kept.buried:
        return kept.buried
    if policy.mode is Mode.REFRESH:
        return "it was refreshed"
    if kept.expired(came.maker.at) or (
        policy.ttl is not None and kept.confirmed_at + policy.ttl <= came.maker.at
    ):
        return "its time to live was over"
    if kept.outputs.result is None and came.outputs.result is not None:
        return "its result was not kept"
    return ""


@dataclass(frozen=True, slots=True)
class Selector:
    """Which entries. Those that fit every selector given; an empty one does not select."""

    fingerprints: tuple[str, ...] = ()
    template: str = ""
    run: str = ""

    def __bool__(self) -> bool:
        return bool(self.fingerprints or self.template or self.run)
