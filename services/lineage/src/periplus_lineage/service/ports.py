"""What lineage needs of others."""

from asyncio import Event
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from periplus_lineage.domain.graph import Flow, Instance, Link, Origin, StepKey
from periplus_lineage.domain.run import Change, Recorded, Run, RunPhase, Snapshot, Step


class Runs(Protocol):
    """The runs that are recorded."""

    async def get(self, project: str, run: str) -> Recorded | None:
        """A run with its steps, in order; None if nothing is known of it."""

    async def changed(self, project: str, run: str, since: str | None) -> Change | None:
        """A run and its steps that changed since the moment of an earlier answer; without one, all of them."""

    async def list(
        self, project: str, pipeline: str, phase: RunPhase, before: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Run]:
        """The newest runs that come after a place in the list."""


class Notices(Protocol):
    """Who says that a run may have changed."""

    over: bool
    """Whether no more will be said, as the process is about to end."""

    def following(self, project: str, run: str) -> AbstractContextManager[Event]:
        """An event that is set whenever the run may have changed."""


class Steps(Protocol):
    """The steps that are recorded."""

    async def steps(self, project: str, keys: Collection[StepKey]) -> Sequence[Step]:
        """Those of the steps that something is known of."""


class Templates(Protocol):
    """What steps did, and with what."""

    async def documents(self, project: str, digests: Collection[str]) -> dict[str, str]:
        """What templates do, as JSON objects, by digest."""

    async def snapshots(self, project: str, identities: Collection[str]) -> dict[str, Snapshot]:
        """What was told of snapshots."""


class Links(Protocol):
    """Which steps hang on which, where no artifact says so."""

    async def known(self, project: str, step: StepKey) -> bool:
        """Whether anything was told of a step."""

    async def sources(self, project: str, steps: Collection[StepKey]) -> list[Link]:
        """What the steps waited for, and whose outputs they have."""

    async def followers(self, project: str, steps: Collection[StepKey]) -> list[Link]:
        """What waited for the steps, or has its outputs from them."""


class Flows(Protocol):
    """Who wrote and who read what."""

    async def flows(self, project: str, steps: Collection[StepKey], *, made: bool) -> list[Flow]:
        """What the steps made, or were given."""

    async def outputs(self, project: str, run: str) -> list[Flow]:
        """What all steps of a run made."""

    async def barren(self, project: str, run: str) -> list[StepKey]:
        """The steps of a run that made no artifact."""

    async def at(self, places: Collection[bytes]) -> list[Instance]:
        """What was found at places."""

    async def of(self, project: str, digest: bytes) -> list[Instance]:
        """Every place where some contents were found."""

    async def makers(self, project: str, instances: Collection[Instance]) -> list[tuple[Instance, Flow]]:
        """Who wrote the artifacts."""

    async def users(self, project: str, instances: Collection[Instance]) -> list[tuple[Instance, Flow]]:
        """Who was given the artifacts."""

    async def origins(self, instances: Collection[Instance]) -> dict[Instance, Origin]:
        """Of artifacts that were made where they lie: who made them first."""
