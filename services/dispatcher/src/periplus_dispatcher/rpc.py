"""The RPCs of dispatcher.proto: decode, call the service, encode."""

from collections.abc import AsyncIterator
from typing import Any

from periplus.dispatcher.v1 import dispatcher_pb2 as pb
from periplus.dispatcher.v1.dispatcher_pb2_grpc import DispatcherServiceServicer
from periplus_dispatcher.adoption import Adoption
from periplus_dispatcher.reproduce.reproducer import Reproducer
from periplus_dispatcher.reproduce.rollback import Rollbacks
from periplus_dispatcher.service import Dispatcher
from periplus_dispatcher.template_adoption import TemplateAdoption
from periplus_dispatcher.wire.reproduction import (
    decode_reproduction,
    decode_rollback,
    encode_reproduction,
    encode_rollback,
)
from periplus_dispatcher.wire.runs import (
    decode_request,
    encode_adopted,
    encode_phase,
    encode_planned,
    encode_submitted,
)
from periplus_dispatcher.wire.templates import (
    decode_name,
    encode_adopted_template,
    encode_released_template,
)

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["DispatcherService"].full_name


class DispatcherServicer(DispatcherServiceServicer):
    """The servicer of the dispatcher."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        adoption: Adoption,
        templates: TemplateAdoption,
        reproducer: Reproducer,
        rollbacks: Rollbacks,
    ) -> None:
        self._dispatcher = dispatcher
        self._adoption = adoption
        self._templates = templates
        self._reproducer = reproducer
        self._rollbacks = rollbacks

    async def PlanRun(self, request: pb.PlanRunRequest, context: Any) -> pb.PlanRunResponse:
        planned = await self._dispatcher.plan(decode_request(request.spec))
        return encode_planned(planned, with_rewrite=request.with_rewrite)

    async def SubmitRun(self, request: pb.SubmitRunRequest, context: Any) -> pb.SubmitRunResponse:
        submitted = await self._dispatcher.submit(decode_request(request.spec), request.request_id)
        return encode_submitted(submitted)

    async def GetRunPhase(self, request: pb.GetRunPhaseRequest, context: Any) -> pb.GetRunPhaseResponse:
        phase = await self._dispatcher.phase(request.project, request.run)
        return pb.GetRunPhaseResponse(phase=encode_phase(phase))

    async def CancelRun(self, request: pb.CancelRunRequest, context: Any) -> pb.CancelRunResponse:
        phase = await self._dispatcher.cancel(
            request.project, request.run, terminate=request.terminate, reason=request.reason
        )
        return pb.CancelRunResponse(phase=encode_phase(phase))

    async def ReadLogs(self, request: pb.ReadLogsRequest, context: Any) -> AsyncIterator[pb.ReadLogsResponse]:
        lines = self._dispatcher.logs(request.project, request.run, request.step, follow=request.follow)
        async for step, line in lines:
            yield pb.ReadLogsResponse(step=step, line=line)

    async def AdoptRuns(
        self, request: pb.AdoptRunsRequest, context: Any
    ) -> AsyncIterator[pb.AdoptRunsResponse]:
        found = self._adoption.adopt(request.project, request.namespace, validate_only=request.validate_only)
        async for adopted in found:
            yield encode_adopted(adopted)

    async def AdoptTemplate(self, request: pb.AdoptTemplateRequest, context: Any) -> pb.AdoptTemplateResponse:
        name, only = decode_name(request.template), request.validate_only
        return encode_adopted_template(await self._templates.adopt(*name, validate_only=only))

    async def ReleaseTemplate(
        self, request: pb.ReleaseTemplateRequest, context: Any
    ) -> pb.ReleaseTemplateResponse:
        name, only = decode_name(request.template), request.validate_only
        return encode_released_template(await self._templates.release(*name, validate_only=only))

    async def ReproduceRun(self, request: pb.ReproduceRunRequest, context: Any) -> pb.ReproduceRunResponse:
        wanted = decode_reproduction(request)
        if request.validate_only:
            return encode_reproduction(await self._reproducer.check(wanted))
        return encode_reproduction(await self._reproducer.reproduce(wanted, request.request_id))

    async def RollBackPipeline(
        self, request: pb.RollBackPipelineRequest, context: Any
    ) -> pb.RollBackPipelineResponse:
        wanted = decode_rollback(request)
        if request.validate_only:
            return encode_rollback(await self._rollbacks.check(wanted))
        return encode_rollback(await self._rollbacks.roll_back(wanted, request.request_id))
