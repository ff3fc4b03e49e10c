"""The gRPC service: decodes requests, calls the cache, encodes answers."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Protocol

from periplus.cache.v1 import cache_pb2 as pb
from periplus.cache.v1 import cache_pb2_grpc as grpc
from periplus_cache.service import Cache
from periplus_cache.wire import entries, resolving
from periplus_common import telemetry
from periplus_model.codec import decode_name, decode_object, decode_time
from periplus_model.queries import LeaseState

_verdicts = telemetry.counter(
    "periplus.cache.verdicts",
    unit="{step}",
    description="Verdicts of ResolveSteps, one for each step or item of a fan-out.",
    attributes=("periplus.verdict",),
)


class EndedWaits(Protocol):
    """Which runs' waits for a lease have ended."""

    def watch(self, project: str) -> AsyncGenerator[list[str]]:
        """Runs of a project whose waits have ended; first none, when none is missed any more. Raises `Unavailable`."""


NAME = pb.DESCRIPTOR.services_by_name["CacheService"].full_name


class CacheServicer(grpc.CacheServiceServicer):
    """`periplus.cache.v1.CacheService`."""

    def __init__(self, cache: Cache, waits: EndedWaits) -> None:
        self._cache, self._waits = cache, waits

    async def ResolveSteps(self, request: pb.ResolveStepsRequest, context: Any) -> pb.ResolveStepsResponse:
        verdicts = await self._cache.resolve(await resolving.decode_request(request))
        for verdict in verdicts:
            for each in verdict.items or (verdict,):
                _verdicts.add(1, {"periplus.verdict": each.verdict.label})
        return resolving.encode_response(verdicts)

    async def RenewLeases(self, request: pb.RenewLeasesRequest, context: Any) -> pb.RenewLeasesResponse:
        states = {renewal.token: LeaseState(renewal.state) for renewal in request.leases}
        runs = {decode_name(run, f"waiting_runs[{i}]") for i, run in enumerate(request.waiting_runs)}
        lost = await self._cache.renew_leases(request.project, states, runs)
        return pb.RenewLeasesResponse(lost_tokens=lost)

    async def WatchWaits(
        self, request: pb.WatchWaitsRequest, context: Any
    ) -> AsyncIterator[pb.WatchWaitsResponse]:
        async with aclosing(self._waits.watch(request.project)) as ended:
            async for runs in ended:
                yield pb.WatchWaitsResponse(runs=runs)

    async def ExplainMiss(self, request: pb.ExplainMissRequest, context: Any) -> pb.ExplainMissResponse:
        explanation = await self._cache.explain(
            request.project, decode_name(request.run, "run"), decode_name(request.step, "step")
        )
        return entries.encode_explanation(explanation)

    async def ListDivergences(
        self, request: pb.ListDivergencesRequest, context: Any
    ) -> pb.ListDivergencesResponse:
        found, recorded = await self._cache.divergences(request.project, decode_name(request.run, "run"))
        return entries.encode_divergences(found, recorded)

    async def GetEntry(self, request: pb.GetEntryRequest, context: Any) -> pb.GetEntryResponse:
        details = await self._cache.entry(request.project, request.fingerprint)
        return pb.GetEntryResponse(entry=entries.encode_entry(details))

    async def ListEntries(self, request: pb.ListEntriesRequest, context: Any) -> pb.ListEntriesResponse:
        page = await self._cache.list_entries(
            request.project,
            entries.decode_filter(request),
            after=entries.decode_page_token(request),
            page_size=request.page_size,
        )
        return entries.encode_page(request, page)

    async def InvalidateEntries(
        self, request: pb.InvalidateEntriesRequest, context: Any
    ) -> pb.InvalidateEntriesResponse:
        count = await self._cache.invalidate(
            request.project,
            entries.decode_selector(request),
            decode_name(request.reason, "reason"),
            validate_only=request.validate_only,
        )
        return pb.InvalidateEntriesResponse(count=count)

    async def DigestObjects(self, request: pb.DigestObjectsRequest, context: Any) -> pb.DigestObjectsResponse:
        refs = [decode_object(ref) for ref in request.objects]
        contents = await self._cache.digest_objects(request.project, set(refs))
        return entries.encode_contents(contents[ref] for ref in refs)

    async def GetSavings(self, request: pb.GetSavingsRequest, context: Any) -> pb.GetSavingsResponse:
        savings = await self._cache.savings(request.project, decode_name(request.run, "run"))
        return entries.encode_savings(savings)

    async def GetShadowSavings(
        self, request: pb.GetShadowSavingsRequest, context: Any
    ) -> pb.GetShadowSavingsResponse:
        finished_after = (
            decode_time(request.finished_after, "finished_after")
            if request.HasField("finished_after")
            else None
        )
        pipeline = decode_name(request.pipeline, "pipeline")
        return entries.encode_shadow(
            await self._cache.shadow_savings(request.project, pipeline, finished_after)
        )
