"""gRPC in, domain out, and back. No decisions are taken here."""

from collections.abc import AsyncIterator
from typing import Any

from periplus.dispatcher.v1 import dispatcher_pb2 as pb
from periplus.dispatcher.v1.dispatcher_pb2_grpc import DispatcherServiceServicer
from periplus_dispatcher.service import Dispatcher
from periplus_dispatcher.wire import run as wire
from periplus_dispatcher.wire.step import run_phase

NAME = pb.DESCRIPTOR.services_by_name["DispatcherService"].full_name


class DispatcherServicer(DispatcherServiceServicer):
    """The RPCs of dispatcher.proto."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def PlanRun(self, request: pb.PlanRunRequest, context: Any) -> pb.PlanRunResponse:
        return pb.PlanRunResponse(plan=wire.plan(await self._dispatcher.plan(wire.order(request.spec))))

    async def SubmitRun(self, request: pb.SubmitRunRequest, context: Any) -> pb.SubmitRunResponse:
        return wire.submitted(await self._dispatcher.submit(wire.order(request.spec), request.request_id))

    async def CancelRun(self, request: pb.CancelRunRequest, context: Any) -> pb.CancelRunResponse:
        phase = await self._dispatcher.cancel(
            request.project, request.run, terminate=request.terminate, reason=request.reason
        )
        return pb.CancelRunResponse(phase=run_phase(phase))

    async def ReadLogs(self, request: pb.ReadLogsRequest, context: Any) -> AsyncIterator[pb.ReadLogsResponse]:
        lines = self._dispatcher.logs(request.project, request.run, request.step, follow=request.follow)
        async for step, line in lines:
            yield pb.ReadLogsResponse(step=step, line=line)
