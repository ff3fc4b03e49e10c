"""Events of the others as facts."""

import hashlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from periplus.cache.v1.events_pb2 import ArtifactsDigested
from periplus.dispatcher.v1.events_pb2 import RunFinished, RunSubmitted, StepFinished, StepStarted
from periplus.snapshotter.v1.events_pb2 import SnapshotTaken
from periplus.types.v1.step_pb2 import Artifact
from periplus_common.errors import Invalid
from periplus_lineage.domain.fact import End, Facts, FlowFact, FlowKey, RunFact, RunKey, StepFact, StepKey
from periplus_lineage.domain.graph import object_name, place
from periplus_lineage.domain.run import RunPhase, StepPhase
from periplus_lineage.wire import noun

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CACHED = int(StepPhase.CACHED)
_RAN = frozenset(map(int, (StepPhase.SUCCEEDED, StepPhase.FAILED, StepPhase.ERROR)))
_STEP_ENDS = frozenset(int(phase) for phase in StepPhase if phase.final)
_RUN_ENDS = frozenset(int(phase) for phase in RunPhase if phase.final)

# Names become keys of Postgres indexes, whose entries hold 2,700 bytes. Argo allows less than any of these.
_LONGEST = {"project": 63, "run": 256, "step": 1024, "name": 256, "key": 1024, "endpoint": 255, "bucket": 255}


class Reader:
    """Reads events. `endpoint` and `bucket` are those of the default artifact store, which events leave empty."""

    def __init__(self, endpoint: str, bucket: str) -> None:
        self._endpoint = endpoint
        self._bucket = bucket
        self._place = lru_cache(maxsize=4096)(self._located)
        self._kinds: dict[str, Callable[[bytes, Facts], None]] = {
            RunSubmitted.DESCRIPTOR.full_name: self._run_submitted,
            RunFinished.DESCRIPTOR.full_name: self._run_finished,
            StepStarted.DESCRIPTOR.full_name: self._step_started,
            StepFinished.DESCRIPTOR.full_name: self._step_finished,
            ArtifactsDigested.DESCRIPTOR.full_name: self._artifacts_digested,
            SnapshotTaken.DESCRIPTOR.full_name: self._snapshot_taken,
        }

    def read(self, kind: str, body: bytes, into: Facts) -> None:
        """Add what an event tells. A kind that is not ours tells nothing. Raises `Invalid`, having added nothing."""
        read = self._kinds.get(kind)
        if read is None:
            return
        try:
            read(body, into)
        except (DecodeError, UnicodeError) as error:
            raise Invalid(f"not a {kind}") from error

    def _run_submitted(self, body: bytes, into: Facts) -> None:
        event = RunSubmitted.FromString(body)
        key = _run_key(event)
        at = _time(event.submitted_at)
        nodes = [(_text("step", node.path, 1), node) for node in event.steps]
        links = {
            (*key, path, key[1], _text("step", after, 1).removesuffix("(*)"), False)
            for path, node in nodes
            for after in node.depends_on
        }
        facts = [
            StepFact(_text("name", node.template), ordinal=place, planned=node.SerializeToString())
            for place, (_, node) in enumerate(nodes)
        ]
        event.ClearField("steps")
        told = event.SerializeToString()
        into.run(key, RunFact(at, _text("name", event.pipeline), submitted_at=at, submitted=told))
        for (path, _), fact in zip(nodes, facts, strict=True):
            into.step((*key, path), fact)
        into.links |= links

    def _run_finished(self, body: bytes, into: Facts) -> None:
        event = RunFinished.FromString(body)
        if event.phase not in _RUN_ENDS:
            raise Invalid(f"{event.phase} is no end", field="phase")
        at = _time(event.finished_at)
        accepted = _time(event.submitted_at) if event.HasField("submitted_at") else None
        end = End(at, body, event.phase, noun.micros(event))
        into.run(_run_key(event), RunFact(at, _text("name", event.pipeline), submitted_at=accepted, end=end))

    def _step_started(self, body: bytes, into: Facts) -> None:
        event = StepStarted.FromString(body)
        at = _time(event.started_at)
        key = _step_key(event)
        into.step(key, StepFact(_text("name", event.template), started_at=at))
        into.seen(key[:2], at, begun=True)

    def _step_finished(self, body: bytes, into: Facts) -> None:
        event = StepFinished.FromString(body)
        key = _step_key(event)
        if event.phase not in _STEP_ENDS:
            raise Invalid(f"{event.phase} is no end", field="phase")
        at = _time(event.finished_at)
        name = _text("name", event.template.name)
        cached = event.phase == _CACHED
        flows = self._flows(key, event.inputs.artifacts, event.outputs.artifacts, cached=cached)
        origin = _text("run", event.producer_run), _text("step", event.producer_step)
        started = _time(event.started_at) if event.HasField("started_at") and not cached else None
        ran = event.phase in _RAN
        if document := event.template.document:
            # Only what ran says what it does.
            digest, event.template.document = _named(document) if ran else (b"", "")
            body = event.SerializeToString()
            if ran:
                into.templates[key[0], digest] = document
        into.step(key, StepFact(name, started_at=started, end=End(at, body, event.phase, noun.micros(event))))
        into.seen(key[:2], started or at, begun=ran)
        for flow, fact in flows:
            into.flow(flow, fact)
        if cached and all(origin):
            into.links.add((*key, *origin, True))

    def _artifacts_digested(self, body: bytes, into: Facts) -> None:
        event = ArtifactsDigested.FromString(body)
        # Whether the step ran is for its end to tell.
        for flow, fact in self._flows(_step_key(event), event.inputs, event.outputs, cached=False):
            into.flow(flow, fact)

    def _snapshot_taken(self, body: bytes, into: Facts) -> None:
        event = SnapshotTaken.FromString(body)
        into.snapshot(_text("project", event.project, 1), _text("name", event.snapshot, 1), body)

    def _flows(
        self, step: StepKey, given: Iterable[Artifact], gave: Iterable[Artifact], *, cached: bool
    ) -> list[tuple[FlowKey, FlowFact]]:
        flows: list[tuple[FlowKey, FlowFact]] = []
        project, run, path = step
        for made, artifacts in ((False, given), (True, gave)):
            for artifact in artifacts:
                ref = artifact.object
                where, object_ = self._place(project, ref.endpoint, ref.bucket, ref.key)
                key = (project, run, path, made, _text("name", artifact.name), where)
                fact = FlowFact(object_, _digest(artifact.digest), artifact.size_bytes, cached and made)
                flows.append((key, fact))
        return flows

    def _located(self, project: str, endpoint: str, bucket: str, key: str) -> tuple[bytes, str]:
        for part, value in (("endpoint", endpoint), ("bucket", bucket), ("key", key)):
            _text(part, value)
        foreign = endpoint if endpoint != self._endpoint else ""
        name = object_name(foreign, bucket or self._bucket, key)
        return place(project, name), name


def _run_key(event: RunSubmitted | RunFinished | StepStarted | StepFinished | ArtifactsDigested) -> RunKey:
    return _text("project", event.project, 1), _text("run", event.run, 1)


def _step_key(event: StepStarted | StepFinished | ArtifactsDigested) -> StepKey:
    return (*_run_key(event), _text("step", event.step, 1))


def _text(field: str, value: str, least: int = 0) -> str:
    """`value`, if Postgres can keep it."""
    if "\0" in value:
        raise Invalid("a NUL character", field=field)
    longest = _LONGEST[field]
    # A character takes four bytes at most: most texts need not be measured.
    if len(value) < least or (4 * len(value) > longest and len(value.encode()) > longest):
        raise Invalid(f"{least} to {longest} bytes are needed", field=field)
    return value


@lru_cache(maxsize=1024)
def _named(document: str) -> tuple[bytes, str]:
    """The digest of a template's document, as bytes and as text. Many steps share one."""
    if "\0" in document:
        raise Invalid("a NUL character", field="template.document")
    digest = hashlib.sha256(document.encode()).digest()
    return digest, "sha256:" + digest.hex()


@lru_cache(maxsize=4096)
def _digest(text: str) -> bytes | None:
    """A digest's bytes; None for the empty text."""
    if not text:
        return None
    try:
        digest = bytes.fromhex(text.removeprefix("sha256:"))
    except ValueError:
        digest = b""
    if not text.startswith("sha256:") or len(digest) != 32:
        raise Invalid(f"no digest: {text[:80]!r}", field="digest")
    return digest


def _time(stamp: Timestamp) -> datetime:
    try:
        return _EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)
    except OverflowError as error:
        raise Invalid("no time", field="timestamp") from error


def kinds() -> tuple[type[Message], ...]:
    """The events that tell something here."""
    return RunSubmitted, RunFinished, StepStarted, StepFinished, ArtifactsDigested, SnapshotTaken
