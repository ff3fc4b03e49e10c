"""What lineage needs of others."""

from asyncio import Event
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from periplus_lineage.domain.run import Change, Recorded, Run, RunPhase


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

    def following(self, project: str, run: str) -> AbstractContextManager[Event]:
        """An event that is set whenever the run may have changed."""
