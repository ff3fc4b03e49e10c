"""From a run request to a planned run: read the manifest, take a snapshot, look up the steps, decide."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from periplus_common.errors import Invalid, Unavailable
from periplus_dispatcher.domain import Json, RunRequest
from periplus_dispatcher.manifest import read as manifests
from periplus_dispatcher.manifest.calls import ExpandedWorkflow
from periplus_dispatcher.manifest.locations import SharedKeys, check_locations
from periplus_dispatcher.manifest.uncacheable import StepEnvironment
from periplus_dispatcher.ports import Cache, Snapshotter
from periplus_dispatcher.rewrite.plan import Plan, decide
from periplus_model.queries import StepVerdict

MAX_INLINE_READ_CHARACTERS = 64 << 10
"""Longer manifests are read in a thread: some take seconds to check, and would delay every other call."""


@dataclass(frozen=True)
class PlannedRun:
    """A run request after reading and planning."""

    manifest: Json
    parameters: Mapping[str, str]
    expanded: ExpandedWorkflow
    plan: Plan
    snapshot: str
    warnings: tuple[str, ...]

    @property
    def pipeline(self) -> str:
        """The workflow's name, or the prefix that its runs' names begin with."""
        metadata = self.manifest.get("metadata") or {}
        return str(metadata.get("generateName") or metadata.get("name") or "workflow").rstrip("-.")


class Planner:
    """Plans run requests with the help of the snapshotter and the cache. If one can not be reached, a warning says so."""

    def __init__(
        self, cache: Cache, snapshotter: Snapshotter, environment: StepEnvironment, shared: SharedKeys
    ) -> None:
        self._cache = cache
        self._snapshotter = snapshotter
        self._environment = environment
        self._shared = shared

    async def plan(self, request: RunRequest) -> PlannedRun:
        """Plan a run. Raises `Invalid` with the field's path."""
        if len(request.manifest) > MAX_INLINE_READ_CHARACTERS:
            checked = await asyncio.to_thread(manifests.read, request.manifest, request.parameters)
        else:
            checked = manifests.read(request.manifest, request.parameters)
        manifest = checked.manifest
        check_locations(manifest, checked.parameters, request.project, self._shared)
        snapshot, digest, warnings = await self._take_snapshot(request)
        environment = self._environment
        if not environment.runs_images:
            environment = replace(environment, digest=digest)
        # In a thread: thousands of calls take a second, and would delay every other call.
        expanded = await asyncio.to_thread(checked.expand, environment)
        warnings += expanded.warnings
        verdicts: dict[str, StepVerdict] = {}
        if queries := [call.query for call in expanded.calls if call.query is not None]:
            templates = {name: template.step for name, template in expanded.templates.items()}
            try:
                verdicts = await self._cache.resolve(
                    request.project, "", request.cache_mode, templates, queries
                )
            except (Unavailable, Invalid) as error:
                # `Invalid` as well: the steps run, as the request itself is valid.
                warnings.append(f"every step runs, as the cache could not be asked: {error}")
        plan = decide(expanded, verdicts)
        if plan.exit_cost:
            warnings.append(plan.exit_cost)
        return PlannedRun(manifest, checked.parameters, expanded, plan, snapshot, tuple(warnings))

    async def _take_snapshot(self, request: RunRequest) -> tuple[str, str, list[str]]:
        """The snapshot's id, the environment's digest, and warnings."""
        if request.claim is None:
            return "", "", []
        try:
            return await self._snapshotter.take(request.project, request.claim)
        except Unavailable as error:
            return "", "", [f"the run has no snapshot: {error}"]
