"""What a finished step leaves here: its attempted key, an entry where that is allowed, or a hit."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from periplus_cache.attempt import Attempt, Hit
from periplus_cache.contents import Contents, Read
from periplus_cache.domain import (
    RECORDED,
    Artifact,
    Inputs,
    Mode,
    Outputs,
    Phase,
    Place,
    Policy,
    Template,
    Verdict,
)
from periplus_cache.entry import Entry, Maker
from periplus_cache.key import Roots, Scope
from periplus_cache.ports import Recording
from periplus_cache.values import Unreadable

log = logging.getLogger(__name__)

# Clocks of the object store and of Argo may be this far apart, and both tell whole seconds.
SLACK = timedelta(seconds=1)

RAN = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.ERROR})


@dataclass(frozen=True, slots=True)
class Finished:
    """A step as the dispatcher saw it end."""

    project: str
    run: str
    step: str
    template: Template
    phase: Phase
    verdict: Verdict
    inputs: Inputs
    outputs: Outputs
    started_at: datetime
    finished_at: datetime
    override: Mode | None = None
    message: str = ""
    fingerprint: str = ""
    producer_run: str = ""
    producer_step: str = ""
    saved: timedelta = timedelta()
    trace: Mapping[str, str] = field(default_factory=dict)
    """The headers that carry the trace in which it ended."""

    @property
    def policy(self) -> Policy:
        """The step's policy in its run."""
        return self.template.policy.under(self.override)

    @property
    def reads(self) -> bool:
        """Whether there are artifacts to be read before it can be recorded."""
        return self.phase in RAN and bool(self.inputs.artifacts or self.outputs.artifacts)


class Recorder:
    """Makes recordings: reads what has to be read, and decides what may be kept."""

    def __init__(self, contents: Contents, roots: Roots, epoch: int) -> None:
        self._contents, self._roots, self._epoch = contents, roots, epoch

    async def recording(self, step: Finished) -> Recording:
        """What `step` leaves. Raises `Unavailable` where its artifacts can not be read now, `Invalid` for a bad document."""
        attempt = Attempt(
            step.project,
            step.run,
            step.step,
            step.template.name,
            step.phase,
            step.verdict,
            step.finished_at,
            step.policy.mode,
            fingerprint=step.fingerprint,
            producer_run=step.producer_run,
            producer_step=step.producer_step,
            reason=replace(step.template, policy=step.policy).forbidden(),
        )
        if step.phase is Phase.CACHED:
            hit = Hit(step.project, step.run, step.step, step.fingerprint, step.saved, step.finished_at)
            recording = Recording(
                attempt, "", self._epoch, step.policy, hit=hit if step.fingerprint else None
            )
        elif step.phase in RAN:
            recording = await self._ran(step, attempt)
        else:
            recording = Recording(attempt, "", self._epoch, step.policy)
        return replace(recording, trace=step.trace)

    async def _ran(self, step: Finished, attempt: Attempt) -> Recording:
        contents = await self._contents.of(
            {a.place for a in (*step.inputs.artifacts, *step.outputs.artifacts)}
        )
        given, not_given = _read(step.inputs.artifacts, contents, changed_after=step.started_at)
        made, not_made = _read(step.outputs.artifacts, contents, changed_after=step.finished_at)
        recording = Recording(attempt, "", self._epoch, step.policy, given, made)
        if not step.template.document:
            return recording
        scope, policy = Scope(step.project, self._epoch), step.policy
        root = self._roots.of(scope, step.template.document)
        kept = Inputs(
            tuple((n, v) for n, v in step.inputs.parameters if n not in policy.ignored),
            tuple(artifact for artifact in given if artifact.name not in policy.ignored),
        )
        problems = [p for name, p in not_given.items() if name not in policy.ignored]
        fingerprint = ""
        if not problems:
            fingerprint = root.fingerprint(dict(kept.parameters), {a.name: a.digest for a in kept.artifacts})
        attempt = replace(
            attempt,
            fingerprint=fingerprint,
            static_key=root.static_key,
            inputs=kept,
            reason=attempt.reason or _joined(problems),
        )
        recording = replace(recording, attempt=attempt, document=step.template.document)
        if step.phase is not Phase.SUCCEEDED or attempt.reason or policy.mode not in RECORDED:
            return recording
        if not_made:
            reason = _joined(list(not_made.values()))
            log.warning("no entry for %s of run %s: %s", step.step, step.run, reason)
            return replace(recording, attempt=replace(attempt, unkept=reason))
        return replace(recording, entry=self._entry(step, attempt, replace(step.outputs, artifacts=made)))

    def _entry(self, step: Finished, attempt: Attempt, outputs: Outputs) -> Entry:
        assert attempt.inputs is not None
        ttl = step.policy.ttl
        return Entry(
            step.project,
            attempt.fingerprint,
            attempt.static_key,
            step.template.name,
            Maker(
                step.run, step.step, step.finished_at, max(step.finished_at - step.started_at, timedelta())
            ),
            attempt.inputs,
            outputs,
            confirmed_at=step.finished_at,
            expires_at=None if ttl is None else step.finished_at + ttl,
        )


def _read(
    artifacts: tuple[Artifact, ...], contents: Mapping[Place, Read | Unreadable], changed_after: datetime
) -> tuple[tuple[Artifact, ...], dict[str, str]]:
    """The artifacts with their digests; and, by name, why one has none that belongs to this step.

    An object that was written after `changed_after` is not what the step read or wrote: to name it in an
    entry would serve other bytes than were made.
    """
    found, problems = [], {}
    for artifact in artifacts:
        content = contents[artifact.place]
        if isinstance(content, Unreadable):
            problems[artifact.name] = content.why
            continue
        modified = content.stat.modified
        if modified is not None and modified > changed_after + SLACK:
            problems[artifact.name] = f"the object {artifact.place.key} was overwritten meanwhile"
            continue
        found.append(replace(artifact, digest=content.digest, etag=content.stat.etag, size=content.stat.size))
    return tuple(found), problems


def _joined(problems: list[str]) -> str:
    return "; ".join(problems)
