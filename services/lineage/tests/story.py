"""Runs as their events tell them: what the others would publish."""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from periplus.cache.v1.events_pb2 import ArtifactsDigested
from periplus.dispatcher.v1.events_pb2 import RunFinished, RunSubmitted, StepFinished, StepNode, StepStarted
from periplus.types.v1 import step_pb2 as types
from periplus_common import bus

PROJECT = "default"
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def stamp(seconds: float) -> Timestamp:
    at = Timestamp()
    at.FromDatetime(START + timedelta(seconds=seconds))
    return at


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def artifact(name: str, key: str, contents: str = "") -> types.Artifact:
    """An artifact; with `contents` its digest is known."""
    known = {"digest": digest(contents), "size_bytes": len(contents)} if contents else {}
    return types.Artifact(name=name, object=types.ObjectRef(key=key), **known)


def published(event: Message, copy: str) -> bus.CloudEvent:
    """An event as its publisher makes it. Each copy has an id of its own: JetStream does not know it again."""
    key = f"{getattr(event, 'step', '')}/{getattr(event, 'node', '')}/{copy}"
    return bus.cloud_event(event, project=event.project, run=getattr(event, "run", ""), key=key, at=START)


@dataclass
class Story:
    """A run, told step by step. Each step's events come when it is told; `events` is all of them."""

    run: str
    at: float = 0.0
    parameters: dict[str, str] = field(default_factory=dict)
    snapshot: str = ""
    steps: list[StepNode] = field(default_factory=list)
    told: list[Message] = field(default_factory=list)
    phase: int = types.RUN_PHASE_SUCCEEDED
    cached: int = 0

    @property
    def events(self) -> list[Message]:
        named = [types.Parameter(name=k, value=v) for k, v in self.parameters.items()]
        submitted = RunSubmitted(
            project=PROJECT, run=self.run, pipeline="digits", snapshot=self.snapshot, parameters=named,
            steps=self.steps, submitted_at=stamp(self.at),
        )  # fmt: skip
        finished = RunFinished(
            project=PROJECT, run=self.run, phase=self.phase, pipeline="digits", cached_steps=self.cached,
            submitted_at=stamp(self.at), finished_at=stamp(self.at + 100), saved=Duration(seconds=7 * self.cached),
        )  # fmt: skip
        return [submitted, *self.told, finished]

    def step(
        self,
        path: str,
        *,
        depends_on: tuple[str, ...] = (),
        inputs: tuple[types.Artifact, ...] = (),
        outputs: tuple[types.Artifact, ...] = (),
        given: dict[str, str] | None = None,
        gave: dict[str, str] | None = None,
        origin: tuple[str, str] | None = None,
        phase: int = types.STEP_PHASE_SUCCEEDED,
        document: str = "{}",
        planned: bool = True,
        digests: bool = True,
        ignored: tuple[str, ...] = (),
    ) -> "Story":
        """Tell of a step. The digests of its artifacts come by an event of their own, after its end."""
        name = path.partition("(")[0].rpartition(".")[2]
        if planned:
            self.steps.append(StepNode(path=path, template=name, depends_on=depends_on, reason="no entry"))
        begun = self.at + len(self.told)
        who = {"project": PROJECT, "run": self.run, "step": path}
        if origin:
            phase = types.STEP_PHASE_CACHED
            self.cached += 1
        elif phase != types.STEP_PHASE_SKIPPED:
            self.told.append(StepStarted(**who, template=name, node=f"{path}-node", started_at=stamp(begun)))
        end = StepFinished(
            **who,
            template=types.StepTemplate(
                name=name,
                document="{}" if origin else document,
                policy=types.CachePolicy(ignore_inputs=ignored),
            ),
            phase=phase,
            inputs=types.Inputs(parameters=_parameters(given), artifacts=[_bare(a, keep=False) for a in inputs]),
            outputs=types.Outputs(parameters=_parameters(gave), artifacts=[_bare(a, keep=bool(origin)) for a in outputs]),
            started_at=stamp(begun),
            finished_at=stamp(begun + 1),
            attempts=0 if origin else 1,
        )  # fmt: skip
        if origin:
            end.fingerprint, end.producer_run, end.producer_step = digest(path), *origin
            end.saved.FromTimedelta(timedelta(seconds=7))
        self.told.append(end)
        if digests and any(a.digest for a in (*inputs, *outputs)):
            self.told.append(ArtifactsDigested(**who, inputs=inputs, outputs=outputs))
        return self

    def chain(self, *paths: str) -> "Story":
        """Steps that each read what the one before wrote."""
        before: tuple[str, ...] = ()
        inputs: tuple[types.Artifact, ...] = ()
        for path in paths:
            made = artifact("out", f"{self.run}/{path}/out.tgz", f"{self.run} {path}")
            self.step(path, depends_on=before, inputs=inputs, outputs=(made,))
            before = (path,)
            read = types.Artifact()
            read.CopyFrom(made)
            read.name = "in"
            inputs = (read,)
        return self


def _parameters(values: dict[str, str] | None) -> list[types.Parameter]:
    return [types.Parameter(name=name, value=value) for name, value in (values or {}).items()]


def _bare(known: types.Artifact, *, keep: bool) -> types.Artifact:
    """The artifact as the dispatcher knows it: without its digest, unless the cache gave it."""
    bare = types.Artifact()
    bare.CopyFrom(known)
    if not keep:
        bare.digest, bare.size_bytes = "", 0
    return bare
