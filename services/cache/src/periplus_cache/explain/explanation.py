"""Why a step ran: the most similar entry of before, and how its key differs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from periplus_cache.domain import Attempt, AttemptDetails, ComparableEntry, Divergence, PastInvalidation
from periplus_cache.explain import difference
from periplus_cache.explain.difference import Change
from periplus_cache.history import expired, no_entry_reason
from periplus_cache.key import Scope, whole_key
from periplus_cache.ports import Store
from periplus_common.errors import NotFound
from periplus_model.steps import CacheMode, Inputs, StepPhase, Verdict

MAX_DIVERGENCES = 10  # of one explanation
_ARGO_SECOND = timedelta(seconds=1)
"""Argo's times are whole seconds: what was invalidated in the second in which a step finished may have been before."""
MAX_COMPARED_CHARACTERS = 1 << 20  # of differing documents, for one explanation


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a step ran, or which producer's outputs it was served."""

    reason: str
    fingerprint: str
    nearest_fingerprint: str = ""
    producer_run: str = ""
    producer_step: str = ""
    recorded_at: datetime | None = None
    changes: tuple[Change, ...] = ()
    hit: bool = False
    divergences: tuple[Divergence, ...] = ()


async def explain(store: Store, project: str, run: str, step: str) -> Explanation:
    """Why this step was not a hit, with the divergences of its key. Raises `NotFound` if it is not recorded (yet)."""
    explanation = await _explain(store, project, run, step)
    if not explanation.fingerprint:
        return explanation
    found = await store.divergences(project, fingerprint=explanation.fingerprint, limit=MAX_DIVERGENCES)
    return replace(explanation, divergences=tuple(found))


async def _explain(store: Store, project: str, run: str, step: str) -> Explanation:
    found = await store.attempt(project, run, step)
    if found is None:
        raise NotFound(
            f"step {step} of run {run} is not recorded",
            reason="STEP_NOT_RECORDED",
            fix="check the names, or ask again when the step has finished",
        )
    attempt = found.attempt
    if attempt.phase is StepPhase.CACHED:
        return await _explain_hit(store, attempt)
    excluded = _excluded_reason(attempt)
    if excluded:
        return Explanation(excluded, attempt.fingerprint)
    if attempt.verdict is Verdict.UNCACHEABLE:
        diverged = await store.unresolved_divergences(project, [attempt.static_key])
        if found_one := diverged.get(attempt.static_key):
            return Explanation(f"it is not cached: {found_one.stop_reason}", attempt.fingerprint)
    if attempt.unserved_reason:
        return await _explain_unserved(store, attempt)
    until = attempt.finished_at + _ARGO_SECOND
    invalidation = await store.last_invalidation(project, attempt.fingerprint, until)
    if invalidation is not None and invalidation.producer_run != attempt.run:
        return _explain_invalidation(attempt, invalidation)
    previous = await store.previous_attempt(attempt)
    if previous is not None and (reason := no_entry_reason(previous)):
        return Explanation(
            reason,
            attempt.fingerprint,
            producer_run=previous.run,
            producer_step=previous.step,
            recorded_at=previous.finished_at,
        )
    return _explain_nearest(found, await store.comparable_entries(attempt))


def _excluded_reason(attempt: Attempt) -> str:
    """Why the step was not looked up at all; empty if it was."""
    if attempt.phase is StepPhase.SKIPPED:
        return "it was skipped: neither run nor looked up"
    if attempt.uncacheable_reason:
        return f"it is not cached: {attempt.uncacheable_reason}"
    if attempt.observed_pipeline is not None:
        return "others submitted its Workflow, which Periplus only observes, so it was not looked up"
    if attempt.cache_mode in (CacheMode.WRITE, CacheMode.REFRESH):
        return f"its cache mode was {attempt.cache_mode.label}, so it was not looked up"
    if not attempt.static_key or attempt.inputs is None:
        return "its key is not known"
    return ""


async def _explain_hit(store: Store, attempt: Attempt) -> Explanation:
    details = await store.entry(attempt.project, attempt.fingerprint) if attempt.fingerprint else None
    producer = details.entry.producer if details else None
    is_current = producer is not None and (producer.run, producer.step) == (
        attempt.producer_run,
        attempt.producer_step,
    )
    return Explanation(
        f"it was served from the cache: run {attempt.producer_run} produced it in step {attempt.producer_step}",
        attempt.fingerprint,
        nearest_fingerprint=attempt.fingerprint,
        producer_run=attempt.producer_run,
        producer_step=attempt.producer_step,
        recorded_at=producer.finished_at if producer is not None and is_current else None,
        hit=True,
    )


async def _explain_unserved(store: Store, attempt: Attempt) -> Explanation:
    """Of a step that ran although the cache had outputs of its key: what the plan said, and whose outputs they are."""
    details = await store.entry(attempt.project, attempt.fingerprint) if attempt.fingerprint else None
    producer = details.entry.producer if details else None
    return Explanation(
        attempt.unserved_reason,
        attempt.fingerprint,
        nearest_fingerprint=attempt.fingerprint if producer else "",
        producer_run=producer.run if producer else "",
        producer_step=producer.step if producer else "",
        recorded_at=producer.finished_at if producer else None,
    )


def _explain_invalidation(attempt: Attempt, past: PastInvalidation) -> Explanation:
    return Explanation(
        f"run {past.producer_run} did the same in step {past.producer_step}, "
        f"but its result is no longer served: {past.reason}",
        attempt.fingerprint,
        nearest_fingerprint=attempt.fingerprint,
        producer_run=past.producer_run,
        producer_step=past.producer_step,
    )


def _explain_nearest(details: AttemptDetails, entries: Sequence[ComparableEntry]) -> Explanation:
    attempt = details.attempt
    if not entries:
        return Explanation("no step of this template was recorded before", attempt.fingerprint)
    compared = [(_changes(details, entry), entry) for entry in _within_budget(attempt, entries)]
    changes, nearest = min(compared, key=lambda pair: _distance(attempt, *pair))
    return Explanation(
        difference.sentence(changes) if changes else _same_reason(attempt, nearest),
        attempt.fingerprint,
        nearest_fingerprint=nearest.fingerprint,
        producer_run=nearest.producer_run,
        producer_step=nearest.producer_step,
        recorded_at=nearest.recorded_at,
        changes=tuple(changes),
    )


def _same_reason(attempt: Attempt, entry: ComparableEntry) -> str:
    """Why an entry with the key of an attempt was not served to it, as far as that is known."""
    started_at = attempt.finished_at - attempt.duration
    if entry.recorded_at >= started_at:
        return f"step {entry.producer_step} of run {entry.producer_run} did the same at the same time"
    same = f"run {entry.producer_run} did the same in step {entry.producer_step}"
    if entry.expires_at is not None and entry.expires_at <= attempt.finished_at:
        return f"{same}, but {expired(entry.expires_at)}"
    return f"{same}, but its result was older than this step's time to live, or the cache could not be asked"


def _distance(
    attempt: Attempt, changes: Sequence[Change], entry: ComparableEntry
) -> tuple[int, bool, bool, float]:
    """Few differences first, then the same step of another run, then the newest."""
    return (
        len(changes),
        entry.producer_run == attempt.run,
        entry.producer_step != attempt.step,
        -entry.recorded_at.timestamp(),
    )


def _changes(details: AttemptDetails, entry: ComparableEntry) -> list[Change]:
    attempt = details.attempt
    # A document that both share is left out of the comparison.
    document = "{}" if entry.document is None else details.document
    return difference.changes(
        _key(attempt.project, entry.document or "{}", entry.epoch, entry.inputs),
        _key(attempt.project, document, details.epoch, attempt.inputs),
    )


def _within_budget(attempt: Attempt, entries: Sequence[ComparableEntry]) -> list[ComparableEntry]:
    """The nearest entries whose documents have at most `MAX_COMPARED_CHARACTERS` together, and at least one."""
    budget, found = MAX_COMPARED_CHARACTERS, []
    for entry in sorted(entries, key=lambda entry: _distance(attempt, (), entry)):
        if budget > 0:
            budget -= len(entry.document or "")
            found.append(entry)
    return found


def _key(project: str, document: str, epoch: int, inputs: Inputs | None) -> dict[str, Any]:
    return whole_key(Scope(project, epoch), document, inputs or Inputs())
