"""Steps as they were seen to end, and what those that did not run have saved."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from periplus_cache.domain import Inputs, Mode, Phase, Verdict


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
    unkept: str = ""  # why it left no entry, though it ended well and was to be cached
    producer_run: str = ""
    producer_step: str = ""


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
