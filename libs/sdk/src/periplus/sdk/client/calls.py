"""Calls of the services from Python: one channel each, opened with its first call.

    with Client(connection()) as client:
        for run in client.list_runs().runs:
            print(run.id)

Requests and responses are the messages in proto/; a call that fails raises CallError.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from periplus.sdk.client.addresses import grpc_target
from periplus.sdk.client.call_error import CallError, call_error
from periplus.sdk.client.connections import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from periplus.cache.v1 import cache_pb2 as cache
    from periplus.dispatcher.v1 import dispatcher_pb2 as dispatcher
    from periplus.lineage.v1 import lineage_pb2 as lineage
    from periplus.snapshotter.v1 import snapshotter_pb2 as snapshotter


MAX_MESSAGE_BYTES = 32 << 20
"""What the services accept, and what they may send."""

FINISHED = (3, 4, 5, 6, 7)
"""RunPhase of a run that has finished: SUCCEEDED, FAILED, ERROR, CANCELLED, UNOBSERVED."""


@dataclass(frozen=True)
class CallSettings:
    """`timeout_seconds` is for each unary call. A submit is sent once more, and a stream is opened up to
    `max_stream_retries` times, `retry_delay_seconds` after a failure.
    """

    timeout_seconds: float = 60.0
    max_stream_retries: int = 20
    retry_delay_seconds: float = 0.5


class Client:
    """Calls the services of one connection, in its project. A context manager; safe to share by threads."""

    def __init__(self, to: Connection, settings: CallSettings | None = None) -> None:
        self.connection = to
        self._settings = settings or CallSettings()
        self._channels: dict[str, grpc.Channel] = {}
        self._metadata = (("authorization", f"Bearer {to.token}"),)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channels."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    # Each service's stub is imported with its first call: a command needs one or two of them.

    def plan(self, spec: dispatcher.RunSpec) -> dispatcher.Plan:
        """What a run would do."""
        return self.plan_with_rewrite(spec, with_rewrite=False).plan

    def plan_with_rewrite(
        self, spec: dispatcher.RunSpec, *, with_rewrite: bool = True
    ) -> dispatcher.PlanRunResponse:
        """What a run would do, and the manifest before and after the rewrite."""
        from periplus.dispatcher.v1.dispatcher_pb2 import PlanRunRequest

        spec.project = spec.project or self.connection.project
        request = PlanRunRequest(spec=spec, with_rewrite=with_rewrite)
        response: dispatcher.PlanRunResponse = self._call("dispatcher", "PlanRun", request)
        return response

    def submit(self, spec: dispatcher.RunSpec, request_id: str) -> dispatcher.SubmitRunResponse:
        """Run a manifest. A request whose response is lost is sent again with the same id, which gives the same run."""
        from periplus.dispatcher.v1.dispatcher_pb2 import SubmitRunRequest

        spec.project = spec.project or self.connection.project
        request = SubmitRunRequest(spec=spec, request_id=request_id)
        response: dispatcher.SubmitRunResponse
        try:
            response = self._call("dispatcher", "SubmitRun", request)
        except CallError as error:
            if error.code != "UNAVAILABLE":
                raise
            time.sleep(self._settings.retry_delay_seconds)
            response = self._call("dispatcher", "SubmitRun", request)
        return response

    def cancel(self, run: str, *, terminate: bool = False, reason: str = "") -> int:
        """Stop a run, and return its RunPhase."""
        from periplus.dispatcher.v1.dispatcher_pb2 import CancelRunRequest

        request = CancelRunRequest(project=self._project, run=run, terminate=terminate, reason=reason)
        return int(self._call("dispatcher", "CancelRun", request).phase)

    def get_run_phase(self, run: str) -> int:
        """The RunPhase of a run, from the moment that it was accepted."""
        from periplus.dispatcher.v1.dispatcher_pb2 import GetRunPhaseRequest

        request = GetRunPhaseRequest(project=self._project, run=run)
        return int(self._call("dispatcher", "GetRunPhase", request).phase)

    def logs(
        self, run: str, *, step: str = "", follow: bool = False
    ) -> Iterator[dispatcher.ReadLogsResponse]:
        """The log lines of a run's steps; with `follow` until the run finishes."""
        from periplus.dispatcher.v1.dispatcher_pb2 import ReadLogsRequest

        request = ReadLogsRequest(project=self._project, run=run, step=step, follow=follow)
        return self._stream("dispatcher", "ReadLogs", request)

    def adopt(
        self, namespace: str = "", *, validate_only: bool = False
    ) -> Iterator[dispatcher.AdoptRunsResponse]:
        """Record the Workflows that others submitted and that Argo still has; `validate_only` lists them."""
        from periplus.dispatcher.v1.dispatcher_pb2 import AdoptRunsRequest

        request = AdoptRunsRequest(project=self._project, namespace=namespace, validate_only=validate_only)
        return self._stream("dispatcher", "AdoptRuns", request)

    def adopt_template(
        self, kind: int, name: str, namespace: str = "", *, validate_only: bool = False
    ) -> dispatcher.AdoptTemplateResponse:
        """Let every later run of a template ask the cache; `kind` is a `TemplateKind`, `validate_only` only shows the change."""
        from periplus.dispatcher.v1.dispatcher_pb2 import AdoptTemplateRequest

        template = self._template_name(kind, name, namespace)
        request = AdoptTemplateRequest(template=template, validate_only=validate_only)
        response: dispatcher.AdoptTemplateResponse = self._call("dispatcher", "AdoptTemplate", request)
        return response

    def release_template(
        self, kind: int, name: str, namespace: str = "", *, validate_only: bool = False
    ) -> dispatcher.ReleaseTemplateResponse:
        """Make an adopted template what it was before; `validate_only` only shows the change."""
        from periplus.dispatcher.v1.dispatcher_pb2 import ReleaseTemplateRequest

        template = self._template_name(kind, name, namespace)
        request = ReleaseTemplateRequest(template=template, validate_only=validate_only)
        response: dispatcher.ReleaseTemplateResponse = self._call("dispatcher", "ReleaseTemplate", request)
        return response

    def _template_name(self, kind: int, name: str, namespace: str) -> dispatcher.TemplateName:
        from periplus.dispatcher.v1.dispatcher_pb2 import TemplateKind, TemplateName

        return TemplateName(
            project=self._project, namespace=namespace, kind=TemplateKind.ValueType(kind), name=name
        )

    def reproduce(
        self,
        run: str,
        *,
        step: str = "",
        request_id: str = "",
        validate_only: bool = False,
        accept_unmet: bool = False,
        claim: snapshotter.Claim | None = None,
    ) -> dispatcher.ReproduceRunResponse:
        """Run a run, or one step of it, again as it was; `validate_only` checks what that needs.

        A request whose response is lost is sent again with the same id, which gives the same run.
        """
        from periplus.dispatcher.v1.dispatcher_pb2 import ReproduceRunRequest

        request = ReproduceRunRequest(
            project=self._project,
            run=run,
            step=step,
            request_id=request_id,
            validate_only=validate_only,
            accept_unmet=accept_unmet,
            claim=claim,
        )
        response: dispatcher.ReproduceRunResponse
        try:
            response = self._call("dispatcher", "ReproduceRun", request)
        except CallError as error:
            if error.code != "UNAVAILABLE":
                raise
            time.sleep(self._settings.retry_delay_seconds)
            response = self._call("dispatcher", "ReproduceRun", request)
        return response

    def roll_back(
        self,
        pipeline: str,
        run: str,
        *,
        request_id: str = "",
        validate_only: bool = False,
        keep_template: bool = False,
    ) -> dispatcher.RollBackPipelineResponse:
        """Make the outputs of an earlier run the newest of its pipeline; `validate_only` checks that their bytes are there."""
        from periplus.dispatcher.v1.dispatcher_pb2 import RollBackPipelineRequest

        request = RollBackPipelineRequest(
            project=self._project,
            pipeline=pipeline,
            run=run,
            request_id=request_id,
            validate_only=validate_only,
            keep_template=keep_template,
        )
        response: dispatcher.RollBackPipelineResponse = self._call("dispatcher", "RollBackPipeline", request)
        return response

    def grade_reproduction(self, run: str) -> lineage.GradeReproductionResponse:
        """How the outputs of a reproduction compare with those of the run that it reproduces."""
        from periplus.lineage.v1.lineage_pb2 import GradeReproductionRequest

        request = GradeReproductionRequest(project=self._project, run=run)
        response: lineage.GradeReproductionResponse = self._call("lineage", "GradeReproduction", request)
        return response

    def get_run(self, run: str) -> lineage.Run:
        """A run with its steps."""
        from periplus.lineage.v1.lineage_pb2 import GetRunRequest

        response: lineage.GetRunResponse = self._call(
            "lineage", "GetRun", GetRunRequest(project=self._project, run=run)
        )
        return response.run

    def list_runs(
        self, *, pipeline: str = "", phase: int = 0, size: int = 50, page: str = ""
    ) -> lineage.ListRunsResponse:
        """A page of runs, newest first."""
        from periplus.lineage.v1.lineage_pb2 import ListRunsRequest

        request = ListRunsRequest(
            project=self._project,
            pipeline=pipeline,
            phase=phase,  # type: ignore[arg-type]
            page_size=size,
            page_token=page,
        )
        response: lineage.ListRunsResponse = self._call("lineage", "ListRuns", request)
        return response

    def watch(self, run: str, *, wait_seconds: int = 0) -> Iterator[lineage.WatchRunResponse]:
        """A run's state, then each change until it has finished. A stream that breaks is opened again.

        `wait_seconds`, up to 300, is for the first event of a run that was submitted a moment ago.
        """
        from periplus.lineage.v1.lineage_pb2 import WatchRunRequest

        request = WatchRunRequest(project=self._project, run=run)
        request.wait.seconds = wait_seconds
        failures, phase = 0, 0
        while phase not in FINISHED:
            try:
                for change in self._stream("lineage", "WatchRun", request):
                    failures, phase = 0, change.run.phase
                    yield change
            except CallError as error:
                if (
                    error.code not in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
                    or failures >= self._settings.max_stream_retries
                ):
                    raise
            if phase not in FINISHED:
                failures += 1
                time.sleep(self._settings.retry_delay_seconds)

    def traverse(
        self, start: str, direction: int, *, depth: int = 0, size: int = 0, page: str = ""
    ) -> lineage.TraverseResponse:
        """A page of the nodes upstream (1) or downstream (2) of a node, with the edges between them."""
        from periplus.lineage.v1.lineage_pb2 import TraverseRequest

        request = TraverseRequest(
            project=self._project,
            start=[start],
            direction=direction,  # type: ignore[arg-type]
            depth=depth,
            page_size=size,
            page_token=page,
        )
        response: lineage.TraverseResponse = self._call("lineage", "Traverse", request)
        return response

    def diff_runs(self, old: str, new: str) -> lineage.DiffRunsResponse:
        """How two runs differ."""
        from periplus.lineage.v1.lineage_pb2 import DiffRunsRequest

        request = DiffRunsRequest(project=self._project, old=old, new=new)
        response: lineage.DiffRunsResponse = self._call("lineage", "DiffRuns", request)
        return response

    def explain(self, run: str, step: str) -> cache.ExplainMissResponse:
        """Why a step was not served from the cache."""
        from periplus.cache.v1.cache_pb2 import ExplainMissRequest

        request = ExplainMissRequest(project=self._project, run=run, step=step)
        response: cache.ExplainMissResponse = self._call("cache", "ExplainMiss", request)
        return response

    def get_entry(self, fingerprint: str) -> cache.Entry:
        """An entry of the cache, with its key."""
        from periplus.cache.v1.cache_pb2 import GetEntryRequest

        request = GetEntryRequest(project=self._project, fingerprint=fingerprint)
        response: cache.GetEntryResponse = self._call("cache", "GetEntry", request)
        return response.entry

    def list_entries(
        self, *, template: str = "", run: str = "", invalidated: bool = False, size: int = 50, page: str = ""
    ) -> cache.ListEntriesResponse:
        """A page of the cache's entries, newest first; with `invalidated` also those that are not served any more."""
        from periplus.cache.v1.cache_pb2 import ListEntriesRequest

        request = ListEntriesRequest(
            project=self._project,
            template=template,
            producer_run=run,
            show_invalidated=invalidated,
            page_size=size,
            page_token=page,
        )
        response: cache.ListEntriesResponse = self._call("cache", "ListEntries", request)
        return response

    def invalidate_entries(
        self,
        *,
        fingerprints: Sequence[str] = (),
        template: str = "",
        run: str = "",
        reason: str,
        validate_only: bool = False,
    ) -> int:
        """Take the entries that match every selector out of use, and return how many; `validate_only` counts them."""
        from periplus.cache.v1.cache_pb2 import InvalidateEntriesRequest

        request = InvalidateEntriesRequest(
            project=self._project,
            fingerprints=fingerprints,
            template=template,
            producer_run=run,
            reason=reason,
            validate_only=validate_only,
        )
        return int(self._call("cache", "InvalidateEntries", request).count)

    def get_shadow_savings(
        self, pipeline: str = "", finished_after: float | None = None
    ) -> Sequence[cache.PipelineShadow]:
        """What the cache would have saved in observed runs, by pipeline; `finished_after` is a Unix time."""
        from periplus.cache.v1.cache_pb2 import GetShadowSavingsRequest

        request = GetShadowSavingsRequest(project=self._project, pipeline=pipeline)
        if finished_after is not None:
            request.finished_after.FromMilliseconds(int(finished_after * 1000))
        found: cache.GetShadowSavingsResponse = self._call("cache", "GetShadowSavings", request)
        return found.pipelines

    def list_divergences(self, run: str = "") -> cache.ListDivergencesResponse:
        """Steps that gave other outputs than the entry of their key: of a run, or of the whole project."""
        from periplus.cache.v1.cache_pb2 import ListDivergencesRequest

        request = ListDivergencesRequest(project=self._project, run=run)
        response: cache.ListDivergencesResponse = self._call("cache", "ListDivergences", request)
        return response

    def get_savings(self, run: str = "") -> cache.GetSavingsResponse:
        """The hits of a run, or of the whole project, and the run time that they saved."""
        from periplus.cache.v1.cache_pb2 import GetSavingsRequest

        request = GetSavingsRequest(project=self._project, run=run)
        response: cache.GetSavingsResponse = self._call("cache", "GetSavings", request)
        return response

    def get_snapshot(self, snapshot: str, *, content: bool = False) -> snapshotter.Snapshot:
        """A snapshot; with `content` also the patch, the untracked files and the lockfile."""
        from periplus.snapshotter.v1.snapshotter_pb2 import GetSnapshotRequest

        request = GetSnapshotRequest(project=self._project, snapshot=snapshot, with_content=content)
        response: snapshotter.GetSnapshotResponse = self._call("snapshotter", "GetSnapshot", request)
        return response.snapshot

    def diff_snapshots(self, old: str, new: str) -> snapshotter.DiffSnapshotsResponse:
        """How two snapshots differ."""
        from periplus.snapshotter.v1.snapshotter_pb2 import DiffSnapshotsRequest

        request = DiffSnapshotsRequest(project=self._project, old=old, new=new)
        response: snapshotter.DiffSnapshotsResponse = self._call("snapshotter", "DiffSnapshots", request)
        return response

    def check_images(self) -> list[snapshotter.CheckedImage]:
        """The project's images as they were resolved last, and as they are now."""
        from periplus.snapshotter.v1.snapshotter_pb2 import CheckImagesRequest

        response: snapshotter.CheckImagesResponse = self._call(
            "snapshotter", "CheckImages", CheckImagesRequest(project=self._project)
        )
        return list(response.images)

    def read_image(self, image: str) -> snapshotter.ReadImageResponse:
        """An image with its packages; a CallError with the reason IMAGE_BEING_READ: ask again."""
        from periplus.snapshotter.v1.snapshotter_pb2 import ReadImageRequest

        request = ReadImageRequest(project=self._project, image=image)
        response: snapshotter.ReadImageResponse = self._call("snapshotter", "ReadImage", request)
        return response

    def find_package(self, name: str) -> snapshotter.FindPackageResponse:
        """The images that were read, and the snapshots, that have a package."""
        from periplus.snapshotter.v1.snapshotter_pb2 import FindPackageRequest

        request = FindPackageRequest(project=self._project, name=name)
        response: snapshotter.FindPackageResponse = self._call("snapshotter", "FindPackage", request)
        return response

    @property
    def _project(self) -> str:
        return self.connection.project

    def _stub(self, service: str) -> Any:
        address = getattr(self.connection, service)
        if service not in self._channels:
            options = [
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ]
            self._channels[service] = grpc.insecure_channel(grpc_target(address), options=options)
        import importlib

        module = importlib.import_module(f"periplus.{service}.v1.{service}_pb2_grpc")
        return getattr(module, f"{service.capitalize()}ServiceStub")(self._channels[service])

    def _call(self, service: str, method: str, request: Any) -> Any:
        call: Callable[..., Any] = getattr(self._stub(service), method)
        try:
            return call(request, timeout=self._settings.timeout_seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            raise call_error(error, service, getattr(self.connection, service)) from error

    def _stream(self, service: str, method: str, request: Any) -> Iterator[Any]:
        call: Callable[..., Any] = getattr(self._stub(service), method)
        stream = call(request, metadata=self._metadata)
        try:
            yield from stream
        except grpc.RpcError as error:
            raise call_error(error, service, getattr(self.connection, service)) from error
        finally:
            stream.cancel()
