"""What became of the last result of a key that has no entry which could be served, as a sentence."""

from dataclasses import dataclass
from datetime import datetime

from periplus_cache.domain import Attempt
from periplus_model.steps import CacheMode, StepPhase


@dataclass(frozen=True, slots=True)
class PastEntry:
    """An entry of a key: its producer, and why it may not be served any more."""

    producer_run: str
    producer_step: str
    invalidation_reason: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class PastResult:
    """The last attempt of a key that was no hit, and the entry of the key; None where there is none."""

    attempt: Attempt | None
    entry: PastEntry | None


def reason(past: PastResult, now: datetime) -> str:
    """Why the key has no entry that could be served, though it ran; empty if nothing says why."""
    entry, attempt = past.entry, past.attempt
    if entry is not None and entry.invalidation_reason:
        return (
            f"run {entry.producer_run} did the same, but its result is no longer served: "
            f"{entry.invalidation_reason}"
        )
    if entry is not None and entry.expires_at is not None and entry.expires_at <= now:
        return f"run {entry.producer_run} did the same, but {expired(entry.expires_at)}"
    if attempt is None or entry is not None:
        return ""
    return no_entry_reason(attempt) or f"run {attempt.run} did the same, but its result is not kept any more"


def expired(at: datetime) -> str:
    """The sentence about a time to live that is over."""
    return f"its time to live was over on {at:%Y-%m-%d at %H:%M:%S %Z}"


def no_entry_reason(attempt: Attempt) -> str:
    """Why an attempt left no entry; empty if it left one."""
    run = attempt.run
    if attempt.phase is not StepPhase.SUCCEEDED:
        return f"run {run} tried the same and did not succeed"
    if attempt.not_recorded_reason:
        return f"run {run} did the same, but its result could not be recorded: {attempt.not_recorded_reason}"
    if attempt.uncacheable_reason:
        return f"run {run} did the same, but its result was not cached: {attempt.uncacheable_reason}"
    if attempt.observed_pipeline is not None and not attempt.cache_mode.is_recorded:
        return (
            f"run {run} did the same, but others submitted it, and results of observed steps are not recorded"
        )
    if attempt.cache_mode is CacheMode.READ:
        return f"run {run} did the same, but its cache mode was read, so its result was not recorded"
    return ""
