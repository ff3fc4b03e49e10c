"""gRPC in, domain out, and back. No decisions are taken here."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from periplus.lineage.v1 import lineage_pb2 as pb
from periplus.lineage.v1.lineage_pb2_grpc import LineageServiceServicer
from periplus_lineage.domain.run import RunPhase
from periplus_lineage.service.comparing import Comparisons
from periplus_lineage.service.runs import RunQueries
from periplus_lineage.service.walking import Walks
from periplus_lineage.wire import answer, graph

NAME = pb.DESCRIPTOR.services_by_name["LineageService"].full_name
Context = grpc.aio.ServicerContext[Any, Any]


class LineageServicer(LineageServiceServicer):
    """The RPCs of lineage."""

    def __init__(self, runs: RunQueries, walks: Walks, comparisons: Comparisons) -> None:
        self._runs = runs
        self._walks = walks
        self._comparisons = comparisons

    async def GetRun(self, request: pb.GetRunRequest, _: Context) -> pb.GetRunResponse:
        return pb.GetRunResponse(run=answer.to_recorded(await self._runs.get(request.project, request.run)))

    async def ListRuns(self, request: pb.ListRunsRequest, _: Context) -> pb.ListRunsResponse:
        runs, token = await self._runs.list(
            request.project,
            request.pipeline,
            RunPhase(request.phase),
            request.page_size,
            request.page_token,
        )
        return answer.to_list(runs, token)

    async def WatchRun(self, request: pb.WatchRunRequest, _: Context) -> AsyncIterator[pb.WatchRunResponse]:
        async for news in self._runs.follow(request.project, request.run):
            yield pb.WatchRunResponse(run=answer.to_run(news.run), steps=answer.to_steps(news.steps))

    async def Traverse(self, request: pb.TraverseRequest, _: Context) -> pb.TraverseResponse:
        walked = await self._walks.walk(
            request.project,
            request.start,
            request.depth,
            request.page_size,
            request.page_token,
            up=request.direction == pb.DIRECTION_UPSTREAM,
        )
        return graph.to_walked(walked)

    async def DiffRuns(self, request: pb.DiffRunsRequest, _: Context) -> pb.DiffRunsResponse:
        return graph.to_changes(await self._comparisons.diff(request.project, request.old, request.new))
