"""Why a step ran: the nearest entry that was there, and how its key differs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from periplus_cache import difference, key
from periplus_cache.attempt import Attempt
from periplus_cache.difference import Change
from periplus_cache.domain import Inputs, Mode, Phase
from periplus_cache.key import Scope
from periplus_cache.ports import Earlier, Store, Tombstone
from periplus_common.errors import NotFound

COMPARED = 1 << 20  # characters of differing documents that one explanation reads


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a step ran, or who made what it was served with."""

    reason: str
    fingerprint: str
    nearest: str = ""
    run: str = ""
    step: str = ""
    recorded_at: datetime | None = None
    changes: tuple[Change, ...] = ()
    hit: bool = False


async def explain(store: Store, project: str, run: str, step: str) -> Explanation:
    """Why this step was not served from the cache. Raises `NotFound` where it is not recorded (yet)."""
    found = await store.attempt(project, run, step)
    if found is None:
        raise NotFound(
            f"step {step} of run {run} is not recorded",
            reason="STEP_NOT_RECORDED",
            fix="check the names, or ask again when the step has ended",
        )
    attempt, document, epoch = found
    if attempt.phase is Phase.CACHED:
        return await _hit(store, attempt)
    if attempt.phase is Phase.SKIPPED:
        return Explanation("it was skipped: neither run nor looked up", attempt.fingerprint)
    if attempt.reason:
        return Explanation(f"it is not cached: {attempt.reason}", attempt.fingerprint)
    if attempt.mode in (Mode.WRITE, Mode.REFRESH):
        reason = f"its cache policy was {attempt.mode.value}, so it was not looked up"
        return Explanation(reason, attempt.fingerprint)
    if not attempt.static_key or attempt.inputs is None:
        return Explanation("its key is not known", attempt.fingerprint)
    buried = await store.tombstone(project, attempt.fingerprint, attempt.finished_at)
    if buried is not None:
        return _buried(attempt, buried)
    same = await store.same(attempt)
    if same is not None and (same.phase is not Phase.SUCCEEDED or same.unkept or same.mode is Mode.READ):
        return _left_nothing(attempt, same)
    return _nearest(attempt, document, epoch, await store.earlier(attempt))


async def _hit(store: Store, attempt: Attempt) -> Explanation:
    kept = await store.entry(attempt.project, attempt.fingerprint) if attempt.fingerprint else None
    same = kept is not None and (kept.entry.maker.run, kept.entry.maker.step) == (
        attempt.producer_run,
        attempt.producer_step,
    )
    return Explanation(
        f"it was served from the cache: run {attempt.producer_run} made it in step {attempt.producer_step}",
        attempt.fingerprint,
        attempt.fingerprint,
        attempt.producer_run,
        attempt.producer_step,
        kept.entry.maker.at if kept is not None and same else None,
        hit=True,
    )


def _buried(attempt: Attempt, buried: Tombstone) -> Explanation:
    return Explanation(
        f"run {buried.run} did the same in step {buried.step}, but its result is no longer served: {buried.reason}",
        attempt.fingerprint,
        attempt.fingerprint,
        buried.run,
        buried.step,
    )


def _left_nothing(attempt: Attempt, same: Attempt) -> Explanation:
    if same.phase is not Phase.SUCCEEDED:
        told = "tried the same, and it did not end well"
    elif same.unkept:
        told = f"did the same, but its result could not be kept: {same.unkept}"
    else:
        told = "did the same, but its cache policy was read, so its result was not kept"
    return Explanation(
        f"run {same.run} {told}",
        attempt.fingerprint,
        run=same.run,
        step=same.step,
        recorded_at=same.finished_at,
    )


def _nearest(attempt: Attempt, document: str, epoch: int, earlier: Sequence[Earlier]) -> Explanation:
    if not earlier:
        return Explanation("no step of this template was recorded before", attempt.fingerprint)
    compared = [(_changes(attempt, document, epoch, other), other) for other in _affordable(attempt, earlier)]
    found, nearest = min(compared, key=lambda pair: _distance(attempt, *pair))
    same = f"run {nearest.run} did the same in step {nearest.step}, but not in time or too long ago"
    return Explanation(
        difference.sentence(found) if found else same,
        attempt.fingerprint,
        nearest.fingerprint,
        nearest.run,
        nearest.step,
        nearest.recorded_at,
        tuple(found),
    )


def _distance(attempt: Attempt, found: Sequence[Change], other: Earlier) -> tuple[int, bool, bool, float]:
    """Few differences first, then the same step of another run, then the newest."""
    return (
        len(found),
        other.run == attempt.run,
        other.step != attempt.step,
        -other.recorded_at.timestamp(),
    )


def _changes(attempt: Attempt, document: str, epoch: int, other: Earlier) -> list[Change]:
    if other.document is None:
        document = "{}"  # what both have in common need not be read
    return difference.changes(
        _key(attempt.project, other.document or "{}", other.epoch, other.inputs),
        _key(attempt.project, document, epoch, attempt.inputs),
    )


def _affordable(attempt: Attempt, earlier: Sequence[Earlier]) -> list[Earlier]:
    """Those whose documents are worth reading: a megabyte in all, and one at least."""
    budget, found = COMPARED, []
    for other in sorted(earlier, key=lambda other: _distance(attempt, (), other)):
        if budget > 0:
            budget -= len(other.document or "")
            found.append(other)
    return found


def _key(project: str, document: str, epoch: int, inputs: Inputs | None) -> dict[str, Any]:
    given = inputs or Inputs()
    artifacts = {artifact.name: artifact.digest for artifact in given.artifacts}
    return key.key(Scope(project, epoch), document, dict(given.parameters), artifacts)
