"""What the dispatcher needs from outside of its process."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from periplus_dispatcher.domain import (
    ConfigObject,
    ConfigRef,
    ConfigVersion,
    ContainerImage,
    Delay,
    GateAnswer,
    Json,
    ObjectContent,
    RecordedRun,
    ResolvedImage,
    Run,
    StepNode,
    StepStatus,
)
from periplus_model.queries import StepQuery, StepVerdict
from periplus_model.steps import CacheMode, ObjectRef, Outputs, RunPhase, StepTemplate


class Cache(Protocol):
    """The cache service."""

    async def resolve(
        self,
        project: str,
        run: str,
        cache_mode: CacheMode | None,
        templates: Mapping[str, StepTemplate],
        queries: Sequence[StepQuery],
        code_index: Mapping[str, str],
    ) -> dict[str, StepVerdict]:
        """The verdict of each query, by its id. `cache_mode` and `code_index` are the run's. Raises `Unavailable`, `Invalid`."""

    async def digest_objects(
        self, project: str, objects: Sequence[ObjectRef]
    ) -> dict[ObjectRef, ObjectContent]:
        """What objects contain now. Raises `Unavailable`, also if there is more to read than one call can: repeat it then."""


class Snapshotter(Protocol):
    """The snapshotter service."""

    async def take(
        self, project: str, claim: bytes, templates: Sequence[tuple[str, bytes]]
    ) -> tuple[str, str, list[str]]:
        """Store a serialized claim with library templates, by name. Gives the snapshot's id, the environment's digest and warnings.

        Raises `Unavailable`, and `Invalid` with the field's path in the run request.
        """

    async def resolve_images(self, project: str, images: Sequence[str]) -> list[ResolvedImage]:
        """The digests that images point to now, in order; one without a digest has a reason. Raises `Unavailable`."""


class Snapshots(Snapshotter, Protocol):
    """The snapshotter service, also to read what it stored."""

    async def environment(self, project: str, snapshot: str) -> str:
        """The digest of the environment of a snapshot; empty if it has none. Raises `NotFound`, `Unavailable`."""

    async def omitted(self, project: str, snapshot: str) -> list[tuple[str, str]]:
        """What a work tree had and its snapshot has not, as printable text, and why. Raises `NotFound`, `Unavailable`."""

    async def differences(self, project: str, old: str, new: str) -> list[str]:
        """What differs between two snapshots, as `package.numpy: 1.26 -> 2.0`. Raises `NotFound`, `Unavailable`."""

    async def library_template(self, project: str, snapshot: str, name: str) -> Json | None:
        """The library object of a snapshot with a name as `WorkflowTemplate/train`. Raises `NotFound`, `Unavailable`."""


class Lineage(Protocol):
    """The lineage service."""

    async def get_run(self, project: str, run: str) -> RecordedRun:
        """A run with its steps, as far as their events were received. Raises `NotFound`, `Unavailable`."""


class Templates(Protocol):
    """The WorkflowTemplates of a namespace and the ClusterWorkflowTemplates of an Argo."""

    @property
    def namespace(self) -> str:
        """The namespace."""

    async def get_template(self, name: str, *, cluster_scope: bool) -> Json | None:
        """A WorkflowTemplate or ClusterWorkflowTemplate; None if there is none of this name. Raises `Unavailable`."""


class WorkflowTemplates(Protocol):
    """The WorkflowTemplates and CronWorkflows of a namespace, to be changed."""

    async def read(self, kind: str, name: str) -> Json | None:
        """An object of a kind as it is stored; None if there is none of this name. Raises `Unavailable`."""

    async def replace(self, kind: str, found: Json) -> None:
        """Store an object that was read and changed. Raises `Conflict` if it has changed since, `Invalid`, `Unavailable`."""


class ObservedArgo(Protocol):
    """One namespace of an Argo, which is only read."""

    async def get(self, name: str) -> Json | None:
        """A Workflow; None if Argo has none of this name. Raises `Unavailable`."""

    async def get_archived(self, uid: str) -> Json | None:
        """A Workflow of Argo's archive; None if it is not there, or there is no archive. Raises `Unavailable`."""

    def list(self, selector: str, *, archived: bool) -> AsyncIterator[tuple[str, str]]:
        """Name and uid of each Workflow with these labels, or of each in Argo's archive. Raises `Unavailable`."""

    def watch(self, selector: str) -> AsyncIterator[Json | None]:
        """The Workflows with these labels as they change; None first, at once, as the changes before it were missed.

        Ends when Argo ends the stream. Raises `Unavailable`.
        """

    def logs(self, name: str, *, follow: bool) -> AsyncIterator[tuple[str, str]]:
        """Pod name and line of everything that the pods of a Workflow print."""


class Argo(Templates, ObservedArgo, Protocol):
    """One namespace of an Argo."""

    def in_namespace(self, namespace: str) -> "Argo":
        """Another namespace of the same Argo."""

    async def lint(self, manifest: Json) -> tuple[str, ...]:
        """Argo's warnings. Raises `Invalid` with Argo's message for a manifest that it would refuse."""

    async def create(self, manifest: Json) -> None:
        """Create a Workflow, unless one of this name exists. Raises `Invalid`, `Unavailable`."""

    async def answer_gates(self, name: str, answers: Mapping[str, GateAnswer]) -> set[str]:
        """Set the outputs of suspend nodes, by node id, and end them. Gives those that were not suspended any more.

        Raises `Unavailable`; some may be answered then.
        """

    async def stop(self, name: str, *, terminate: bool, message: str) -> None:
        """Stop a Workflow. One that has ended or does not exist stays as it is. Raises `Unavailable`."""


class Pods(Protocol):
    """The Pods of a Kubernetes."""

    async def list_images(self, namespace: str, workflow: str) -> dict[str, tuple[ContainerImage, ...]]:
        """The images of each pod of a Workflow, by Argo's node id. Raises `Unavailable`."""


class ConfigObjects(Protocol):
    """The Secrets and ConfigMaps of the namespace of the runs. Their values stay in it."""

    async def versions(self, refs: Sequence[ConfigRef]) -> dict[ConfigRef, ConfigVersion]:
        """The version of each; one that can not be read has a reason."""

    async def resource_versions(self, objects: Iterable[ConfigObject]) -> dict[str, str]:
        """The resource version of each object, by id, empty for one that does not exist; without those that can not be read."""


class WorkflowDefaults(Protocol):
    """What the controller of Argo adds to every Workflow."""

    async def read(self) -> Json:
        """Its `workflowDefaults`: fields of a Workflow's metadata and spec. Raises `Unavailable`."""


class Runs(Protocol):
    """The store of runs and of the events that are published of them."""

    async def find(self, project: str, request_id: str) -> Run | None:
        """The run of a request."""

    async def get(self, run: str) -> Run | None:
        """A run by its id."""

    async def get_resolved(self, run: str) -> str:
        """The resolved manifest of a run, as JSON; empty if none is stored."""

    async def list_open(self) -> list[str]:
        """The ids of all runs that have not finished, oldest first."""

    async def add(self, run: Run, statuses: Sequence[StepStatus], nodes: Sequence[StepNode]) -> Run:
        """Store a run and publish RunSubmitted, or give the run that was stored for its request before.

        Of a finished run also the end and the statuses are published. Raises `Conflict` if another request's run has
        the id.
        """

    async def set_running(self, run: str) -> None:
        """Store that Argo has the run."""

    async def set_cancelled(self, run: str) -> None:
        """Store that the run is to be cancelled."""

    async def get_answers(self, run: str) -> dict[str, GateAnswer]:
        """The answers to the gates of a run, by node id."""

    async def add_answers(self, run: str, answers: Mapping[str, GateAnswer]) -> None:
        """Store answers before they are sent; an answer that is stored already stays."""

    async def publish(self, run: Run, statuses: Sequence[StepStatus]) -> None:
        """Publish the statuses that have not been published: one event for each step and phase, whoever calls."""

    async def get_delays(self, run: str) -> dict[str, str]:
        """The reasons of the delays that were published, by path; of a step that is not delayed any more, empty."""

    async def publish_delays(self, run: Run, delays: Sequence[Delay], at: datetime) -> None:
        """Publish the delays whose reasons have changed, up to `MAX_DELAY_CHANGES` for each step."""

    async def finish(
        self,
        run: Run,
        statuses: Sequence[StepStatus],
        phase: RunPhase,
        message: str,
        outputs: Outputs,
        at: datetime,
    ) -> None:
        """Publish the last statuses and store and publish the run's end, in one transaction. The first end stays."""
