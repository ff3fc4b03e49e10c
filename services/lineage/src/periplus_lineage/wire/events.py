"""Events of the other services as changes of the projection."""

import hashlib
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import lru_cache
from typing import Any

from google.protobuf.message import Message

from periplus.cache.v1.events_pb2 import ArtifactsDigested
from periplus.dispatcher.v1.events_pb2 import (
    RunFinished,
    RunSubmitted,
    StepDelayed,
    StepFinished,
    StepStarted,
)
from periplus.snapshotter.v1.events_pb2 import SnapshotTaken
from periplus.types.v1 import step_pb2
from periplus_common.errors import Invalid
from periplus_lineage.objects import object_hash, object_uri
from periplus_lineage.projection import (
    Delay,
    DependencyKey,
    Finish,
    ProjectionDelta,
    RunKey,
    RunUpdate,
    StepKey,
    StepUpdate,
    UsageKey,
    UsageUpdate,
)
from periplus_model import codec
from periplus_model.steps import ObjectRef, RunPhase, StepPhase

# As numbers: it is quicker to look a number up than to make an enum of it.
_CACHED = int(StepPhase.CACHED)
_RAN = frozenset(map(int, (StepPhase.SUCCEEDED, StepPhase.FAILED, StepPhase.ERROR)))
_FINAL_STEP_PHASES = frozenset(int(phase) for phase in StepPhase if phase.is_final)
_FINAL_RUN_PHASES = frozenset(int(phase) for phase in RunPhase if phase.is_final)

_MAX_BYTES = {
    "project": 63,
    "run": 256,
    "step": 1024,
    "name": 256,
    "key": 1024,
    "endpoint": 255,
    "bucket": 255,
    "reason": 4000,
}
"""Names (not reasons) are keys of Postgres indexes, whose entries hold 2,700 bytes. Argo allows less than any of these."""
_MAX_UNENCODED = {field: size // 4 for field, size in _MAX_BYTES.items()}
"""Characters that fit without being encoded: one takes four bytes at most."""

_StepEvent = StepDelayed | StepStarted | StepFinished | ArtifactsDigested


class EventProjector:
    """Adds events to a delta. `endpoint` and `bucket` are the default artifact repository's, which events leave empty."""

    def __init__(self, endpoint: str, bucket: str) -> None:
        self._endpoint = endpoint
        self._bucket = bucket
        self._object = lru_cache(maxsize=4096)(self._hash_and_uri)
        # `Any`: each method takes the type of its key.
        self._by_type: dict[type[Message], Callable[[Any, ProjectionDelta], None]] = {
            RunSubmitted: self._run_submitted,
            RunFinished: self._run_finished,
            StepDelayed: self._step_delayed,
            StepStarted: self._step_started,
            StepFinished: self._step_finished,
            ArtifactsDigested: self._artifacts_digested,
            SnapshotTaken: self._snapshot_taken,
        }

    @property
    def event_types(self) -> tuple[type[Message], ...]:
        return tuple(self._by_type)

    def add(self, event: Message, delta: ProjectionDelta) -> None:
        """Add an event to the delta; the event is left as it was. Raises `Invalid`, and then nothing was added."""
        self._by_type[type(event)](event, delta)

    def _run_submitted(self, event: RunSubmitted, delta: ProjectionDelta) -> None:
        key = _run_key(event)
        at = codec.decode_time(event.submitted_at, "submitted_at")
        paths = [_text("step", node.path, 1) for node in event.steps]
        dependencies: set[DependencyKey] = {
            (*key, path, key[1], _text("step", upstream, 1).removesuffix("(*)"), False)
            for path, node in zip(paths, event.steps, strict=True)
            for upstream in node.depends_on
        }
        steps = [
            StepUpdate(_text("name", node.template), plan_index=index, plan_node=node.SerializeToString())
            for index, node in enumerate(event.steps)
        ]
        without_steps = RunSubmitted()
        without_steps.CopyFrom(event)
        without_steps.ClearField("steps")
        run = RunUpdate(
            at,
            pipeline=_text("name", event.pipeline),
            submitted_at=at,
            submitted_event=without_steps.SerializeToString(),
            snapshot=_text("name", event.snapshot),
        )
        delta.add_run(key, run)
        for path, step in zip(paths, steps, strict=True):
            delta.add_step((*key, path), step)
        delta.dependencies |= dependencies

    def _run_finished(self, event: RunFinished, delta: ProjectionDelta) -> None:
        if event.phase not in _FINAL_RUN_PHASES:
            raise Invalid(f"{event.phase} is not the phase of a finished run", field="phase")
        at = codec.decode_time(event.finished_at, "finished_at")
        submitted_at = (
            codec.decode_time(event.submitted_at, "submitted_at") if event.HasField("submitted_at") else None
        )
        codec.decode_outputs(event.outputs)  # what can not be decoded would make the run unreadable
        finish = Finish(at, event.SerializeToString(), event.phase, decode_saved(event))
        run = RunUpdate(at, pipeline=_text("name", event.pipeline), submitted_at=submitted_at, finish=finish)
        delta.add_run(_run_key(event), run)

    def _step_delayed(self, event: StepDelayed, delta: ProjectionDelta) -> None:
        at = codec.decode_time(event.observed_at, "observed_at")
        key = _step_key(event)
        delay = Delay(at, _text("reason", event.reason))
        delta.add_step(key, StepUpdate(_text("name", event.template), delay=delay))
        delta.add_step_event(key[:2], at, started=False)

    def _step_started(self, event: StepStarted, delta: ProjectionDelta) -> None:
        at = codec.decode_time(event.started_at, "started_at")
        key = _step_key(event)
        delta.add_step(key, StepUpdate(_text("name", event.template), started_at=at))
        delta.add_step_event(key[:2], at, started=True)

    def _step_finished(self, event: StepFinished, delta: ProjectionDelta) -> None:
        key = _step_key(event)
        phase = event.phase
        if phase not in _FINAL_STEP_PHASES:
            raise Invalid(f"{phase} is not the phase of a finished step", field="phase")
        at = codec.decode_time(event.finished_at, "finished_at")
        name = _text("name", event.template.name)
        is_cached, has_run = phase == _CACHED, phase in _RAN
        usages = self._usages(key, event.inputs.artifacts, event.outputs.artifacts, cached=is_cached)
        producer = _text("run", event.producer_run), _text("step", event.producer_step)
        started_at = None
        if event.HasField("started_at") and not is_cached:
            started_at = codec.decode_time(event.started_at, "started_at")
        document = event.template.document
        digest, digest_text = _document_digest(document) if document and has_run else (None, "")
        encoded = _encode(event, digest_text) if document else event.SerializeToString()
        if digest:
            delta.templates[key[0], digest] = document
        finish = Finish(at, encoded, phase, decode_saved(event), digest)
        delta.add_step(key, StepUpdate(name, started_at=started_at, finish=finish))
        delta.add_step_event(key[:2], started_at or at, started=has_run)
        for usage_key, usage in usages:
            delta.add_usage(usage_key, usage)
        if is_cached and all(producer):
            delta.dependencies.add((*key, *producer, True))

    def _artifacts_digested(self, event: ArtifactsDigested, delta: ProjectionDelta) -> None:
        # Whether the step was served its outputs is known from its StepFinished.
        for key, usage in self._usages(_step_key(event), event.inputs, event.outputs, cached=False):
            delta.add_usage(key, usage)

    def _snapshot_taken(self, event: SnapshotTaken, delta: ProjectionDelta) -> None:
        project = _text("project", event.project, 1)
        delta.add_snapshot(project, _text("name", event.snapshot, 1), event.SerializeToString())

    def _usages(
        self,
        step: StepKey,
        inputs: Iterable[step_pb2.Artifact],
        outputs: Iterable[step_pb2.Artifact],
        *,
        cached: bool,
    ) -> list[tuple[UsageKey, UsageUpdate]]:
        usages: list[tuple[UsageKey, UsageUpdate]] = []
        project, run, path = step
        for is_output, artifacts in ((False, inputs), (True, outputs)):
            for artifact in artifacts:
                ref = artifact.object
                hash_, uri = self._object(project, ref.endpoint, ref.bucket, ref.key)
                key = (project, run, path, is_output, _text("name", artifact.name), hash_)
                digest = _digest(artifact.digest)
                usages.append((key, UsageUpdate(uri, digest, artifact.size_bytes, cached and is_output)))
        return usages

    def _hash_and_uri(self, project: str, endpoint: str, bucket: str, key: str) -> tuple[bytes, str]:
        for part, value in (("endpoint", endpoint), ("bucket", bucket), ("key", key)):
            _text(part, value)
        uri = object_uri(
            ObjectRef(
                key=key,
                bucket=bucket or self._bucket,
                endpoint=endpoint if endpoint != self._endpoint else "",
            )
        )
        return object_hash(project, uri), uri


def _encode(event: StepFinished, document_digest: str) -> bytes:
    """The event with a digest in place of its template's document, which is stored once for all steps."""
    document = event.template.document
    event.template.document = document_digest
    try:
        return event.SerializeToString()
    finally:
        event.template.document = document


def decode_saved(event: RunFinished | StepFinished) -> timedelta:
    """The time that hits saved; zero if the event has none."""
    return max(codec.decode_duration(event.saved), timedelta()) if event.HasField("saved") else timedelta()


def _run_key(event: RunSubmitted | RunFinished | _StepEvent) -> RunKey:
    return _text("project", event.project, 1), _text("run", event.run, 1)


def _step_key(event: _StepEvent) -> StepKey:
    return (*_run_key(event), _text("step", event.step, 1))


def _text(field: str, value: str, min_length: int = 0) -> str:
    """`value`. Raises `Invalid` if Postgres can not store or index it."""
    if "\0" in value:
        raise Invalid("contains the character U+0000", field=field)
    if not min_length <= len(value) <= _MAX_UNENCODED[field]:
        max_bytes = _MAX_BYTES[field]
        if len(value) < min_length or len(value.encode()) > max_bytes:
            raise Invalid(f"must have {min_length} to {max_bytes} bytes", field=field)
    return value


@lru_cache(maxsize=1024)
def _document_digest(document: str) -> tuple[bytes, str]:
    """Digest of a template's document, as bytes and as text. Cached, as many steps have the same document."""
    if "\0" in document:
        raise Invalid("contains the character U+0000", field="template.document")
    digest = hashlib.sha256(document.encode()).digest()
    return digest, "sha256:" + digest.hex()


@lru_cache(maxsize=4096)
def _digest(text: str) -> bytes | None:
    """The bytes of "sha256:…"; None if the text is empty."""
    if not text:
        return None
    try:
        digest = bytes.fromhex(text.removeprefix("sha256:"))
    except ValueError:
        digest = b""
    if not text.startswith("sha256:") or len(digest) != 32:
        raise Invalid(f"is not a sha256 digest: {text[:80]!r}", field="digest")
    return digest
