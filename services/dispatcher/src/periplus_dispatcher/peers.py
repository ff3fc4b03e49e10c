"""The services that the dispatcher calls."""

from collections.abc import Mapping, Sequence

import grpc

from periplus.cache.v1 import cache_pb2
from periplus.cache.v1.cache_pb2_grpc import CacheServiceStub
from periplus.snapshotter.v1 import snapshotter_pb2
from periplus.snapshotter.v1.snapshotter_pb2_grpc import SnapshotterServiceStub
from periplus_common import rpc
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
        try:
            response = await self._stub.ResolveSteps(request, timeout=self._budget)
        except grpc.aio.AioRpcError as error:
            raise rpc.from_status(error) from error
        return {verdict.id: asking.resolved(verdict) for verdict in response.verdicts}


class GrpcSnapshotter:
    """The snapshotter, by gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = SnapshotterServiceStub(channel)

    async def take(self, project: str, claim: object) -> tuple[str, str, list[str]]:
        assert isinstance(claim, snapshotter_pb2.Claim)
        request = snapshotter_pb2.TakeSnapshotRequest(project=project, claim=claim)
        try:
            taken = await self._stub.TakeSnapshot(request)
        except grpc.aio.AioRpcError as error:
            raise rpc.from_status(error) from error
        return taken.snapshot, taken.environment, list(taken.warnings)
