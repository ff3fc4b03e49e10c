"""gRPC in, queries, and back. No decisions are taken here."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from periplus.lineage.v1 import lineage_pb2 as pb
from periplus.lineage.v1.lineage_pb2_grpc import LineageServiceServicer
from periplus_lineage.graph.traversal import GraphQueries
from periplus_lineage.runs.queries import RunQueries
from periplus_lineage.wire import graph, runs
from periplus_model import codec
from periplus_model.steps import RunPhase

NAME = pb.DESCRIPTOR.services_by_name["LineageService"].full_name
Context = grpc.aio.ServicerContext[Any, Any]


class LineageServicer(LineageServiceServicer):
    """The RPCs of lineage."""

    def __init__(self, run_queries: RunQueries, graph_queries: GraphQueries) -> None:
        self._runs = run_queries
        self._graph = graph_queries

    async def GetRun(self, request: pb.GetRunRequest, _: Context) -> pb.GetRunResponse:
        found = await self._runs.get(request.project, request.run)
        return pb.GetRunResponse(run=runs.encode_run_with_steps(found))

    async def ListRuns(self, request: pb.ListRunsRequest, _: Context) -> pb.ListRunsResponse:
        page, next_page_token = await self._runs.list(
            request.project,
            request.pipeline,
            RunPhase(request.phase),
            request.page_size,
            request.page_token,
        )
        return runs.encode_run_list(page, next_page_token)

    async def WatchRun(self, request: pb.WatchRunRequest, _: Context) -> AsyncIterator[pb.WatchRunResponse]:
        async for update in self._runs.watch(
            request.project, request.run, codec.decode_duration(request.wait)
        ):
            yield pb.WatchRunResponse(run=runs.encode_run(update.run), steps=runs.encode_steps(update.steps))

    async def Traverse(self, request: pb.TraverseRequest, _: Context) -> pb.TraverseResponse:
        page = await self._graph.traverse(
            request.project,
            request.start,
            upstream=request.direction == pb.DIRECTION_UPSTREAM,
            depth=request.depth,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return graph.encode_traversal_page(page)

    async def DiffRuns(self, request: pb.DiffRunsRequest, _: Context) -> pb.DiffRunsResponse:
        return graph.encode_differences(await self._runs.diff(request.project, request.old, request.new))

    async def GradeReproduction(
        self, request: pb.GradeReproductionRequest, _: Context
    ) -> pb.GradeReproductionResponse:
        return runs.encode_graded(await self._runs.grade_reproduction(request.project, request.run))
