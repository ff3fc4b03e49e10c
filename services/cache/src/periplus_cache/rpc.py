"""gRPC in, domain out, and back. No decisions are taken here."""

# names and arguments are those of the contract

from typing import Any

from grpc import StatusCode

from periplus.cache.v1 import cache_pb2 as pb
from periplus.cache.v1 import cache_pb2_grpc as grpc
from periplus_cache import asked, wire
from periplus_cache.entry import Selector
from periplus_cache.service import Cache
from periplus_common import telemetry

_verdicts = telemetry.meter.create_counter("cache.verdicts")

NAME = pb.DESCRIPTOR.services_by_name["CacheService"].full_name


class CacheServicer(grpc.CacheServiceServicer):
    """The service as callers see it."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def ResolveSteps(self, request: pb.ResolveStepsRequest, context: Any) -> pb.ResolveStepsResponse:
        verdicts = await self._cache.resolve(asked.plan(request))
        for verdict in verdicts:
            for each in verdict.items or (verdict,):
                _verdicts.add(1, {"verdict": each.verdict.value})
        return asked.response(verdicts)

    async def ExplainMiss(self, request: pb.ExplainMissRequest, context: Any) -> pb.ExplainMissResponse:
        found = await self._cache.explain(
            request.project, wire.plain(request.run, "run"), wire.plain(request.step, "step")
        )
        return pb.ExplainMissResponse(
            reason=found.reason,
            fingerprint=found.fingerprint,
            nearest_fingerprint=found.nearest,
            producer_run=found.run,
            producer_step=found.step,
            recorded_at=None if found.recorded_at is None else wire.timestamp(found.recorded_at),
            changes=[pb.FieldChange(field=c.field, old=c.old, new=c.new) for c in found.changes],
            hit=found.hit,
        )

    async def GetEntry(self, request: pb.GetEntryRequest, context: Any) -> pb.GetEntryResponse:
        return pb.GetEntryResponse(
            entry=wire.entry_message(await self._cache.entry(request.project, request.fingerprint))
        )

    async def ListEntries(self, request: pb.ListEntriesRequest, context: Any) -> pb.ListEntriesResponse:
        await context.abort(StatusCode.UNIMPLEMENTED, "ListEntries is not implemented")
        raise AssertionError

    async def InvalidateEntries(
        self, request: pb.InvalidateEntriesRequest, context: Any
    ) -> pb.InvalidateEntriesResponse:
        selector = Selector(
            tuple(request.fingerprints),
            wire.plain(request.template, "template"),
            wire.plain(request.producer_run, "producer_run"),
        )
        count = await self._cache.invalidate(
            request.project,
            selector,
            wire.plain(request.reason, "reason"),
            only_count=request.validate_only,
        )
        return pb.InvalidateEntriesResponse(count=count)

    async def GetSavings(self, request: pb.GetSavingsRequest, context: Any) -> pb.GetSavingsResponse:
        savings = await self._cache.savings(request.project, wire.plain(request.run, "run"))
        return pb.GetSavingsResponse(hits=savings.hits, saved=wire.duration(savings.saved))
