"""An order that is read, with all that is known of it before anything runs."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from periplus_common import digest
from periplus_common.errors import Invalid, Unavailable
from periplus_dispatcher import reading
from periplus_dispatcher.calls import Walk
from periplus_dispatcher.domain import Mode, Resolved, Template
from periplus_dispatcher.plan import Plan, decide
from periplus_dispatcher.ports import Argo, Cache, Snapshotter

Json = dict[str, Any]

LARGE = 64 << 10  # characters of a manifest that is read aside


@dataclass(frozen=True)
class Order:
    """What is to be run."""

    project: str
    manifest: str
    parameters: Mapping[str, str]
    cache: Mode | None
    claim: object | None
    claimed: str = ""
    """The digest of the claim."""

    @property
    def digest(self) -> str:
        """Names the order, so that a request id used twice for different ones is noticed."""
        mode = self.cache.value if self.cache else ""
        return digest.of([self.project, self.manifest, dict(self.parameters), mode, self.claimed])


@dataclass(frozen=True)
class Draft:
    """An order that was read, with all that is known of it before anything runs."""

    manifest: Json
    parameters: Mapping[str, str]
    walk: Walk
    plan: Plan
    snapshot: str
    warnings: tuple[str, ...]

    @property
    def pipeline(self) -> str:
        """What the runs of one pipeline share: the workflow's name, or the prefix of it."""
        metadata = self.manifest.get("metadata") or {}
        return str(metadata.get("generateName") or metadata.get("name") or "workflow").rstrip("-.")


class Reader:
    """Reads orders, and asks the others what is known of them."""

    def __init__(self, argo: Argo, cache: Cache, snapshotter: Snapshotter) -> None:
        self._argo = argo
        self._cache = cache
        self._snapshotter = snapshotter

    async def draft(self, order: Order) -> Draft:
        """Read an order. Raises `Invalid`, with the field's path."""
        if len(order.manifest) > LARGE:
            # A hostile one may take seconds to check: others are not to wait for it.
            read = await asyncio.to_thread(reading.read, order.manifest, order.parameters)
        else:
            read = reading.read(order.manifest, order.parameters)
        snapshot, environment = "", ""
        warnings: list[str] = []
        if order.claim is not None:
            try:
                snapshot, environment, warnings = await self._snapshotter.take(order.project, order.claim)
            except Unavailable as error:
                warnings = [f"no snapshot was taken: {error}"]
        try:
            if not await self._argo.local():
                environment = ""  # there, the image's digest says it
        except Unavailable as error:
            # Nobody can tell where the steps will run: with the environment, too much is in their keys, not too little.
            warnings = [*warnings, f"Argo was not asked: {error}"]
        walked = read.walk(environment)
        templates = _overridden(walked.templates, order.cache)
        walked = replace(walked, templates=templates)
        queries = [call.query for call in walked.calls if call.query is not None]
        resolved: dict[str, Resolved] = {}
        try:
            if queries:
                resolved = await self._cache.resolve(order.project, "", templates, queries)
        except (Unavailable, Invalid) as error:
            # What the cache can not be asked is run; the order itself is not at fault.
            warnings = [*warnings, f"the cache was not asked: {error}"]
        plan = decide(walked, resolved)
        return Draft(read.manifest, read.parameters, walked, plan, snapshot, tuple(warnings))


def nodes(draft: Draft) -> list[Json]:
    """The steps as the run plans them, for those who draw it before it has happened; items where they are known."""
    return [
        {
            "path": path,
            "template": step.call.template,
            "depends_on": list(step.call.depends_on),
            "verdict": found.verdict.value,
            "reason": found.reason,
        }
        for step in draft.plan.steps
        if not step.call.nested
        for path, found in step.each
    ]


def _overridden(templates: Mapping[str, Template], mode: Mode | None) -> Mapping[str, Template]:
    if mode is None:
        return templates
    return {name: replace(t, policy=replace(t.policy, mode=mode)) for name, t in templates.items()}
