"""What a finished step adds to the store: an attempt, and an entry if that is allowed, or a hit."""

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from periplus_cache.content import Content, ContentReader, Unreadable
from periplus_cache.domain import (
    Attempt,
    Entry,
    Hit,
    ObjectVersion,
    Producer,
    Recording,
    restricted,
    uncacheable_reason,
)
from periplus_cache.key import Scope, TemplateKeys
from periplus_cache.ports import Store
from periplus_cache.record.finished import EXECUTED, FinishedStep
from periplus_common.errors import Invalid
from periplus_model.steps import Artifact, Inputs, ObjectRef, Outputs, StepPhase

log = logging.getLogger(__name__)

MAX_CLOCK_SKEW = timedelta(days=1)
"""A step that finished later than this from now is refused: no later result could replace its entry."""
MODIFIED_TOLERANCE = timedelta(seconds=1)
"""Where Argo does not say which version a step read or wrote: Argo and S3 report whole seconds, and their clocks may differ by as much."""
OWN_MODIFIED_TOLERANCE = timedelta(minutes=5)
"""The same of an object of a pod of the run, which nothing else writes: only the clocks of Argo and of the object store differ."""


class Recorder:
    """Records finished steps. `epoch` is part of every key."""

    def __init__(
        self,
        store: Store,
        contents: ContentReader,
        keys: TemplateKeys,
        *,
        epoch: int,
        clock: Callable[[], datetime],
    ) -> None:
        self._store, self._contents, self._keys = store, contents, keys
        self._epoch, self._clock = epoch, clock

    async def record(self, steps: Sequence[FinishedStep]) -> list[Invalid | None]:
        """Record steps; a step that is recorded already changes nothing. For each step that is refused, the reason.

        Raises `Unavailable` if Postgres or S3 can not be reached.
        """
        # Steps without artifacts are stored together. Reading a large artifact takes long and delays no other step.
        alone = [index for index, step in enumerate(steps) if step.artifacts_to_read]
        together = [index for index, step in enumerate(steps) if not step.artifacts_to_read]
        groups = [group for group in (together, *([index] for index in alone)) if group]
        results = await asyncio.gather(
            *(self._record_group([steps[index] for index in group]) for group in groups),
            return_exceptions=True,
        )
        refused: dict[int, Invalid | None] = {}
        for group, result in zip(groups, results, strict=True):
            if isinstance(result, BaseException):
                raise result
            refused |= zip(group, result, strict=True)
        return [refused[index] for index in range(len(steps))]

    async def _record_group(self, steps: Sequence[FinishedStep]) -> list[Invalid | None]:
        recordings, refused = [], list[Invalid | None]()
        for step in steps:
            try:
                recordings.append(await self._recording(step))
                refused.append(None)
            except Invalid as error:
                refused.append(error)
        if recordings:
            await self._store.record(*recordings)
        return refused

    async def _recording(self, step: FinishedStep) -> Recording:
        """Raises `Unavailable` if its artifacts can not be read now, `Invalid` for an invalid document or time."""
        if step.finished_at > self._clock() + MAX_CLOCK_SKEW:
            raise Invalid(f"is in the future: {step.finished_at.isoformat()}", field="finished_at")
        recording = Recording(
            attempt=_attempt(step),
            document="",
            epoch=self._epoch,
            policy=step.policy,
            trace_headers=step.trace_headers,
            lease_token=step.lease_token,
        )
        if step.phase in EXECUTED:
            return await self._executed(step, recording)
        if step.phase is StepPhase.CACHED and step.fingerprint:
            return replace(recording, hit=_hit(step))
        return recording

    async def _executed(self, step: FinishedStep, recording: Recording) -> Recording:
        stored = step.artifacts_to_read
        contents = await self._contents.read(step.project, {artifact.object for artifact in stored})
        inputs, missing_inputs = _with_digests(step.inputs.artifacts, contents, step.started_at, step.run)
        outputs, missing_outputs = _with_digests(step.outputs.artifacts, contents, step.finished_at, step.run)
        missing_outputs |= {
            name: f"its {f'output {name}' if name else 'result'} has {value.size_bytes:,} bytes, which is too large to be kept"
            for name, value in step.outputs.omitted.items()
        }
        in_manifest = {artifact.name for artifact in step.inputs.artifacts if artifact.digest}
        read = tuple(artifact for artifact in inputs if artifact.name not in in_manifest)
        recording = replace(recording, inputs=read, outputs=outputs)
        if not step.template.document:
            return recording
        policy = step.policy
        key = self._keys.get(Scope(step.project, self._epoch), step.template.document)
        key_inputs = Inputs(
            parameters={n: v for n, v in step.inputs.parameters.items() if n not in policy.ignore_inputs},
            artifacts=tuple(artifact for artifact in inputs if artifact.name not in policy.ignore_inputs),
            discovered=step.inputs.discovered,
            omitted={n: v for n, v in step.inputs.omitted.items() if n not in policy.ignore_inputs},
        )
        missing = [reason for name, reason in missing_inputs.items() if name not in policy.ignore_inputs]
        fingerprint = base = ""
        if not missing:
            digests = {artifact.name: artifact.digest for artifact in key_inputs.artifacts}
            parameters, omitted = key_inputs.parameters, key_inputs.omitted
            fingerprint = key.fingerprint(parameters, digests, key_inputs.discovered, omitted)
            base = key.fingerprint(parameters, digests, None, omitted) if key_inputs.discovered else ""
        attempt = replace(
            recording.attempt,
            fingerprint=fingerprint,
            static_key=key.static_key,
            inputs=key_inputs,
            uncacheable_reason=recording.attempt.uncacheable_reason or "; ".join(missing),
        )
        if step.observed_pipeline is not None and step.phase is StepPhase.SUCCEEDED:
            attempt = replace(attempt, not_recorded_reason="; ".join(missing_outputs.values()))
        recording = replace(recording, attempt=attempt, document=step.template.document)
        if step.phase is not StepPhase.SUCCEEDED or attempt.uncacheable_reason or not policy.mode.is_recorded:
            return recording
        if missing_outputs:
            reason = "; ".join(missing_outputs.values())
            log.warning("no entry for step %s of run %s: %s", step.step, step.run, reason)
            return replace(recording, attempt=replace(attempt, not_recorded_reason=reason))
        entry = _entry(step, attempt, key_inputs, replace(step.outputs, artifacts=outputs))
        return replace(recording, entry=replace(entry, base_fingerprint=base))


def _attempt(step: FinishedStep) -> Attempt:
    return Attempt(
        project=step.project,
        run=step.run,
        step=step.step,
        template=step.template.name,
        phase=step.phase,
        verdict=step.verdict,
        finished_at=step.finished_at,
        cache_mode=step.policy.mode,
        fingerprint=step.fingerprint,
        producer_run=step.producer_run,
        producer_step=step.producer_step,
        # Of an observed step, the run's mode only says whether it is recorded, and not that it could not be cached.
        uncacheable_reason=uncacheable_reason(
            restricted(step.template, step.run_mode) if step.observed_pipeline is None else step.template
        ),
        observed_pipeline=step.observed_pipeline,
        duration=max(step.finished_at - step.started_at, timedelta()),
        pods=step.pods,
        pipeline=step.pipeline,
        unserved_reason=step.unserved_reason,
    )


def _hit(step: FinishedStep) -> Hit:
    return Hit(
        project=step.project,
        run=step.run,
        step=step.step,
        fingerprint=step.fingerprint,
        saved=step.saved,
        hit_at=step.finished_at,
    )


def _entry(step: FinishedStep, attempt: Attempt, inputs: Inputs, outputs: Outputs) -> Entry:
    ttl = step.policy.ttl
    return Entry(
        project=step.project,
        fingerprint=attempt.fingerprint,
        static_key=attempt.static_key,
        template=step.template.name,
        producer=Producer(
            run=step.run,
            step=step.step,
            finished_at=step.finished_at,
            duration=max(step.finished_at - step.started_at, timedelta()),
        ),
        inputs=inputs,
        outputs=outputs,
        confirmed_at=step.finished_at,
        expires_at=None if ttl is None else step.finished_at + ttl,
        pipeline=step.pipeline,
    )


def _with_digests(
    artifacts: tuple[Artifact, ...],
    contents: Mapping[ObjectRef, Content | Unreadable],
    unchanged_since: datetime,
    run: str,
) -> tuple[tuple[Artifact, ...], dict[str, str]]:
    """The artifacts with their digests; and, by name, why an artifact has none that belongs to this step.

    An object of another version than the step read or wrote has other content than the step's: an entry that refers to it would
    serve that. Where Argo does not say which version that was, an object that was written after `unchanged_since` is another one.
    """
    found, missing = [], {}
    for artifact in artifacts:
        if artifact.digest:  # its content is in the manifest
            found.append(artifact)
            continue
        content = contents[artifact.object]
        if isinstance(content, Unreadable):
            missing[artifact.name] = content.reason
            continue
        version = content.version
        if _was_overwritten(artifact, version, unchanged_since, run):
            missing[artifact.name] = f"the object {artifact.object.key} was overwritten meanwhile"
            continue
        found.append(
            replace(artifact, digest=content.digest, etag=version.etag, size_bytes=version.size_bytes)
        )
    return tuple(found), missing


def _was_overwritten(artifact: Artifact, version: ObjectVersion, since: datetime, run: str) -> bool:
    if artifact.etag:
        return artifact.etag != version.etag
    if version.modified_at is None:
        return False
    own = re.search(
        rf"(^|/){re.escape(run)}-(\S+-)?\d+/", artifact.object.key
    )  # `<workflow>-<template>-<hash>`
    return version.modified_at > since + (OWN_MODIFIED_TOLERANCE if own else MODIFIED_TOLERANCE)
