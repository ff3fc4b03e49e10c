"""What the dispatcher needs of the world outside its process."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from periplus_dispatcher.domain import Outputs, Phase, Query, Resolved, Template
from periplus_dispatcher.observe import Seen
from periplus_dispatcher.record import Answer, Run

Json = dict[str, Any]


class Cache(Protocol):
    """Who knows what was done before."""

    async def resolve(
        self, project: str, run: str, templates: Mapping[str, Template], queries: Sequence[Query]
    ) -> dict[str, Resolved]:
        """The verdict of each query, by its id. Raises `Unavailable`."""


class Snapshotter(Protocol):
    """Who keeps what runs are made with."""

    async def take(self, project: str, claim: object) -> tuple[str, str, list[str]]:
        """Keep a claim: the snapshot's id, the environment's digest, warnings. Raises `Unavailable`, `Invalid`."""


class Argo(Protocol):
    """Who runs Workflows."""

    @property
    def namespace(self) -> str:
        """Where the Workflows live."""

    async def local(self) -> bool:
        """Whether steps run as processes of this machine, so that images say nothing of their environment.

        Raises `Unavailable`.
        """

    async def lint(self, manifest: Json) -> tuple[str, ...]:
        """What Argo warns of. Raises `Invalid` for a manifest that it would refuse, with its words."""

    async def create(self, manifest: Json) -> None:
        """Create a Workflow; one of the same name is taken for it. Raises `Invalid`, `Unavailable`."""

    async def get(self, name: str) -> Json | None:
        """A Workflow, or None where Argo has none of that name."""

    def watch(self) -> AsyncIterator[Json | None]:
        """Our Workflows as they change; None whenever the stream begins anew, as some may have been missed."""

    async def supply(self, name: str, node: str, parameters: Mapping[str, str], message: str) -> None:
        """Answer a gate. One that is answered already stays as it is."""

    async def stop(self, name: str, *, terminate: bool, message: str) -> None:
        """Stop a Workflow. One that has ended stays as it is."""

    def logs(self, name: str, *, follow: bool) -> AsyncIterator[tuple[str, str]]:
        """What its pods print: pod name and line."""


class Runs(Protocol):
    """Where runs are kept, with the events that tell of them."""

    async def find(self, project: str, request_id: str) -> Run | None:
        """The run that a request made before."""

    async def get(self, run: str) -> Run | None:
        """A run by its id."""

    async def open(self) -> list[str]:
        """The ids of all runs that have not ended."""

    async def add(self, run: Run, steps: Sequence[Seen], nodes: Sequence[Json]) -> Run:
        """Keep a run with its first events, unless its request made one before; return the one kept."""

    async def started(self, run: str) -> None:
        """Argo has the run."""

    async def cancel(self, run: str) -> None:
        """Note that a person stopped the run."""

    async def answers(self, run: str) -> dict[str, Answer]:
        """What the gates of a run were told, by node."""

    async def answer(self, run: str, answers: Mapping[str, Answer]) -> None:
        """Keep what gates are about to be told; the first answer to a gate stays."""

    async def tell(self, run: Run, steps: Sequence[Seen]) -> None:
        """Publish what is new of steps. Each step is told once in each phase, by whoever comes first."""

    async def finish(
        self, run: Run, steps: Sequence[Seen], phase: Phase, message: str, outputs: Outputs, at: datetime
    ) -> None:
        """Publish the last of the steps and the run's end, together."""
