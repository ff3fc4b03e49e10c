"""The events of a run, as dispatcher and cache publish them."""

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


def timestamp(seconds: float) -> Timestamp:
    at = Timestamp()
    at.FromDatetime(START + timedelta(seconds=seconds))
    return at


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def artifact(name: str, key: str, content: str = "") -> types.Artifact:
    """An artifact; with `content`, its digest is known."""
    read = {"digest": digest(content), "size_bytes": len(content)} if content else {}
    return types.Artifact(name=name, object=types.ObjectRef(key=key), **read)


def cloud_event(event: Message, copy: str) -> bus.CloudEvent:
    """The event to publish. Each copy has its own id, so that JetStream does not drop it as a duplicate."""
    key = f"{getattr(event, 'step', '')}/{getattr(event, 'node', '')}/{copy}"
    return bus.cloud_event(event, project=event.project, run=getattr(event, "run", ""), key=key, at=START)


@dataclass
class RunEvents:
    """Builds the events of a run step by step. Events of steps are in the order in which the steps were added."""

    run: str
    at: float = 0.0
    parameters: dict[str, str] = field(default_factory=dict)
    snapshot: str = ""
    plan: list[StepNode] = field(default_factory=list)
    step_events: list[Message] = field(default_factory=list)
    phase: int = types.RUN_PHASE_SUCCEEDED
    cached_steps: int = 0

    @property
    def events(self) -> list[Message]:
        submitted = RunSubmitted(
            project=PROJECT, run=self.run, pipeline="digits", snapshot=self.snapshot,
            parameters=_parameters(self.parameters), steps=self.plan, submitted_at=timestamp(self.at),
        )  # fmt: skip
        finished = RunFinished(
            project=PROJECT, run=self.run, phase=self.phase, pipeline="digits", cached_steps=self.cached_steps,
            submitted_at=timestamp(self.at), finished_at=timestamp(self.at + 100),
            saved=Duration(seconds=7 * self.cached_steps),
            finished_steps=sum(isinstance(event, StepFinished) for event in self.step_events),
        )  # fmt: skip
        return [submitted, *self.step_events, finished]

    def step(
        self,
        path: str,
        *,
        depends_on: tuple[str, ...] = (),
        inputs: tuple[types.Artifact, ...] = (),
        outputs: tuple[types.Artifact, ...] = (),
        parameters: dict[str, str] | None = None,
        output_parameters: dict[str, str] | None = None,
        producer: tuple[str, str] | None = None,
        phase: int = types.STEP_PHASE_SUCCEEDED,
        document: str = "{}",
        planned: bool = True,
        digested: bool = True,
        ignored_inputs: tuple[str, ...] = (),
    ) -> "RunEvents":
        """Add a step; with a producer, a cached one. Its artifacts' digests follow in an event of their own."""
        name = path.partition("(")[0].rpartition(".")[2]
        if planned:
            self.plan.append(StepNode(path=path, template=name, depends_on=depends_on, reason="no entry"))
        started_at = self.at + len(self.step_events)
        key = {"project": PROJECT, "run": self.run, "step": path}
        if producer:
            phase = types.STEP_PHASE_CACHED
            self.cached_steps += 1
        elif phase != types.STEP_PHASE_SKIPPED:
            self.step_events.append(
                StepStarted(**key, template=name, node=f"{path}-node", started_at=timestamp(started_at))
            )
        finished = StepFinished(
            **key,
            template=types.StepTemplate(
                name=name,
                document="{}" if producer else document,
                policy=types.CachePolicy(ignore_inputs=ignored_inputs),
            ),
            phase=phase,
            inputs=types.Inputs(
                parameters=_parameters(parameters), artifacts=[_without_digest(a) for a in inputs]
            ),
            # The cache brings the digests of what it serves; the dispatcher does not know those of what a step wrote.
            outputs=types.Outputs(
                parameters=_parameters(output_parameters),
                artifacts=outputs if producer else [_without_digest(a) for a in outputs],
            ),
            started_at=timestamp(started_at),
            finished_at=timestamp(started_at + 1),
            attempts=0 if producer else 1,
        )
        if producer:
            finished.fingerprint, finished.producer_run, finished.producer_step = digest(path), *producer
            finished.saved.FromTimedelta(timedelta(seconds=7))
        self.step_events.append(finished)
        if digested and any(a.digest for a in (*inputs, *outputs)):
            self.step_events.append(ArtifactsDigested(**key, inputs=inputs, outputs=outputs))
        return self

    def chain(self, *paths: str) -> "RunEvents":
        """Add steps of which each reads what the one before wrote."""
        depends_on: tuple[str, ...] = ()
        inputs: tuple[types.Artifact, ...] = ()
        for path in paths:
            output = artifact("out", f"{self.run}/{path}/out.tgz", f"{self.run} {path}")
            self.step(path, depends_on=depends_on, inputs=inputs, outputs=(output,))
            depends_on = (path,)
            inputs = (renamed(output, "in"),)
        return self


def renamed(known: types.Artifact, name: str) -> types.Artifact:
    """The same artifact as an input or output with another name."""
    other = types.Artifact()
    other.CopyFrom(known)
    other.name = name
    return other


def _parameters(values: dict[str, str] | None) -> list[types.Parameter]:
    return [types.Parameter(name=name, value=value) for name, value in (values or {}).items()]


def _without_digest(known: types.Artifact) -> types.Artifact:
    return types.Artifact(name=known.name, object=known.object)
