"""The services that the dispatcher calls."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import grpc

from periplus.cache.v1 import cache_pb2
from periplus.cache.v1.cache_pb2_grpc import CacheServiceStub
from periplus.snapshotter.v1 import snapshotter_pb2
from periplus.snapshotter.v1.snapshotter_pb2_grpc import SnapshotterServiceStub
from periplus_common import rpc
from periplus_common.errors import Invalid, Unavailable
from periplus_dispatcher.domain import Query, Resolved, Template
from periplus_dispatcher.wire import asking, step


class GrpcCache:
    """The cache, by gRPC."""

    def __init__(self, channel: grpc.aio.Channel, budget: float) -> None:
        self._stub = CacheServiceStub(channel)
        self._budget = budget

    async def resolve(
        self, project: str, run: str, templates: Mapping[str, Template], queries: Sequence[Query]
    ) -> dict[str, Resolved]:
        used = {query.template for query in queries}
        request = cache_pb2.ResolveStepsRequest(
            project=project,
            run=run,
            templates=step.templates({name: t for name, t in templates.items() if name in used}),
            steps=[asking.query(query) for query in queries],
        )
        with _told():
            response = await self._stub.ResolveSteps(request, timeout=self._budget)
        try:
            return {verdict.id: asking.resolved(verdict) for verdict in response.verdicts}
        except (ValueError, OverflowError, RecursionError) as error:
            raise Unavailable(f"the cache's answer makes no sense: {error}") from error


class GrpcSnapshotter:
    """The snapshotter, by gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = SnapshotterServiceStub(channel)

    async def take(self, project: str, claim: object) -> tuple[str, str, list[str]]:
        assert isinstance(claim, snapshotter_pb2.Claim)
        request = snapshotter_pb2.TakeSnapshotRequest(project=project, claim=claim)
        with _told("spec."):
            taken = await self._stub.TakeSnapshot(request)
        return taken.snapshot, taken.environment, list(taken.warnings)


@contextmanager
def _told(within: str = "") -> Iterator[None]:
    """How a call failed. Only what the order itself is refused for is told as it is; all else is being away."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        told = rpc.from_status(error)
        if not isinstance(told, Invalid):
            raise Unavailable(told.message) from error
        field = told.field and within + told.field
        raise Invalid(told.message, field=field, reason=told.reason, fix=told.fix) from error
