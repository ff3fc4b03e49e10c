"""The cache: resolves steps, records finished ones, explains, lists and invalidates entries."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime

from periplus_cache.content import Content, ContentReader, Unreadable
from periplus_cache.domain import (
    Divergence,
    EntryDetails,
    EntryFilter,
    EntryPage,
    EntryPosition,
    EntrySelector,
    PipelineShadow,
    Savings,
)
from periplus_cache.explain.explanation import Explanation, explain
from periplus_cache.key import TemplateKeys
from periplus_cache.lease.leasing import Leasing
from periplus_cache.lease.unit import Leases, LeaseTimings
from periplus_cache.ports import ObjectStore, Store
from periplus_cache.record.finished import FinishedStep
from periplus_cache.record.recorder import Recorder
from periplus_cache.resolve.request import ResolveRequest
from periplus_cache.resolve.resolution import ResolveLimits
from periplus_cache.resolve.resolver import Resolver
from periplus_common.errors import Invalid, NotFound
from periplus_model.queries import LeaseState, StepVerdict
from periplus_model.steps import ObjectRef

DEFAULT_PAGE_SIZE = 50
MAX_DIVERGENCES = 1000
"""Divergences of one answer."""
MAX_PIPELINES = 1000
"""Pipelines of one answer about observed runs."""


def _now() -> datetime:
    return datetime.now(UTC)


class Cache:
    """The cache. `epoch` is part of every key: raising it makes all existing entries unreachable."""

    def __init__(
        self,
        store: Store,
        objects: ObjectStore,
        *,
        epoch: int = 0,
        clock: Callable[[], datetime] = _now,
        limits: ResolveLimits | None = None,
        leases: Leases | None = None,
        lease_timings: LeaseTimings | None = None,
    ) -> None:
        self._store, self._clock = store, clock
        keys, contents = TemplateKeys(), ContentReader(store, objects)
        self._contents = contents
        self._leases = leases
        leasing = Leasing(leases, lease_timings or LeaseTimings()) if leases is not None else None
        self._resolver = Resolver(
            store,
            objects,
            contents,
            keys,
            epoch=epoch,
            clock=clock,
            limits=limits or ResolveLimits(),
            leasing=leasing,
        )
        self._recorder = Recorder(store, contents, keys, epoch=epoch, clock=clock)

    async def resolve(self, request: ResolveRequest) -> list[StepVerdict]:
        """A verdict for each step. Raises `Invalid` for a request that contradicts itself, and `Unavailable`."""
        return await self._resolver.resolve(request)

    async def record(self, *steps: FinishedStep) -> list[Invalid | None]:
        """Record finished steps; a step that is recorded already changes nothing. For each that is refused, why.

        Raises `Unavailable` if Postgres or S3 can not be reached.
        """
        return await self._recorder.record(steps)

    async def renew_leases(
        self, project: str, states: Mapping[int, LeaseState], waiting_runs: Collection[str]
    ) -> list[int]:
        """Renew leases by token, and the waits of runs. Gives the tokens that are not current any more. Raises `Unavailable`."""
        if self._leases is None:
            return list(states)
        return await self._leases.renew(project, states, waiting_runs)

    async def end_run(self, project: str, run: str) -> None:
        """A run has finished: what it did not make, others may. Raises `Unavailable`."""
        if self._leases is not None:
            await self._leases.end_run(project, run)

    async def explain(self, project: str, run: str, step: str) -> Explanation:
        """Why a step was not a hit. Raises `NotFound` if it is not recorded."""
        return await explain(self._store, project, run, step)

    async def entry(self, project: str, fingerprint: str) -> EntryDetails:
        """An entry with its key. Raises `NotFound`."""
        details = await self._store.entry(project, fingerprint)
        if details is None:
            raise NotFound(f"no entry has the fingerprint {fingerprint}", reason="ENTRY_NOT_FOUND")
        return details

    async def list_entries(
        self, project: str, chosen: EntryFilter, *, after: EntryPosition | None = None, page_size: int = 0
    ) -> EntryPage:
        """A page of the entries that match, newest first."""
        size = page_size or DEFAULT_PAGE_SIZE
        found = await self._store.list_entries(project, chosen, after, size + 1, self._clock())
        page = tuple(found[:size])
        if len(found) <= size:
            return EntryPage(page, None)
        last = page[-1].entry
        return EntryPage(page, EntryPosition(last.producer.finished_at, last.fingerprint))

    async def invalidate(
        self, project: str, selector: EntrySelector, reason: str, *, validate_only: bool = False
    ) -> int:
        """Invalidate the entries that match, or only count them. Raises `Invalid` for an empty selector."""
        if selector.is_empty:
            raise Invalid(
                "no selector is given",
                field="fingerprints",
                reason="SELECTOR_MISSING",
                fix="give fingerprints, a template or a run",
            )
        if validate_only:
            return await self._store.count_selected(project, selector)
        return await self._store.invalidate_selected(project, selector, reason, self._clock())

    async def digest_objects(
        self, project: str, refs: Collection[ObjectRef]
    ) -> Mapping[ObjectRef, Content | Unreadable]:
        """The content that objects have now. Raises `Unavailable`."""
        return await self._contents.read(project, refs)

    async def divergences(self, project: str, run: str) -> tuple[Sequence[Divergence], int]:
        """The newest divergences, of a run if it is not empty; and how many steps of that run are recorded."""
        # First the number: what is recorded after it may add a divergence, and never hides one.
        recorded = await self._store.recorded_steps(project, run) if run else 0
        return await self._store.divergences(project, run=run, limit=MAX_DIVERGENCES), recorded

    async def savings(self, project: str, run: str) -> Savings:
        """What the hits of a run saved; with an empty `run`, of all runs of the project."""
        return await self._store.savings(project, run)

    async def shadow_savings(
        self, project: str, pipeline: str, finished_after: datetime | None
    ) -> Sequence[PipelineShadow]:
        """What the cache would have saved in runs whose Workflows others submitted, by pipeline."""
        return await self._store.shadow_savings(project, pipeline, finished_after, MAX_PIPELINES)
