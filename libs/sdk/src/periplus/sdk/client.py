"""The services as a Python program calls them: one channel each, opened when it is first needed.

    with Client(connection()) as client:
        for run in client.list_runs().runs:
            print(run.id)

Requests and answers are the messages of the contracts; a call that fails raises CallError.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from periplus.sdk.connection import Connection, connection
from periplus.sdk.refusal import CallError, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

    from periplus.cache.v1 import cache_pb2 as cache
    from periplus.dispatcher.v1 import dispatcher_pb2 as dispatcher
    from periplus.lineage.v1 import lineage_pb2 as lineage
    from periplus.snapshotter.v1 import snapshotter_pb2 as snapshotter

__all__ = ["CallError", "Client", "Connection", "connection"]

Answer = TypeVar("Answer")

MAX_MESSAGE = 32 << 20  # bytes; what the services take
PATIENCE = 60.0  # seconds for a call
AGAIN = 20  # attempts to go on with a stream that broke, half a second apart
PAUSE = 0.5  # seconds
ENDED = (3, 4, 5, 6)
"""RunPhase of a run that has ended: SUCCEEDED, FAILED, ERROR, CANCELLED."""


class Client:
    """Calls the services of one connection, in its project. A context manager; safe to share by threads."""

    def __init__(self, to: Connection) -> None:
        self.connection = to
        self._channels: dict[str, grpc.Channel] = {}
        self._metadata = (("authorization", f"Bearer {to.token}"),)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    # Each service's stub is imported with its first call: a command needs one or two of them.

    def plan(self, spec: dispatcher.RunSpec) -> dispatcher.Plan:
        """What a run would do."""
        from periplus.dispatcher.v1.dispatcher_pb2 import PlanRunRequest

        spec.project = spec.project or self.connection.project
        answer: dispatcher.PlanRunResponse = self._call("dispatcher", "PlanRun", PlanRunRequest(spec=spec))
        return answer.plan

    def submit(self, spec: dispatcher.RunSpec, request_id: str) -> dispatcher.SubmitRunResponse:
        """Run a manifest. Sent again with the same id when the answer is lost: it is the same run."""
        from periplus.dispatcher.v1.dispatcher_pb2 import SubmitRunRequest

        spec.project = spec.project or self.connection.project
        request = SubmitRunRequest(spec=spec, request_id=request_id)
        answer: dispatcher.SubmitRunResponse
        try:
            answer = self._call("dispatcher", "SubmitRun", request)
        except CallError as error:
            if error.code != "UNAVAILABLE":
                raise
            time.sleep(PAUSE)
            answer = self._call("dispatcher", "SubmitRun", request)
        return answer

    def cancel(self, run: str, *, terminate: bool = False, reason: str = "") -> int:
        """Stop a run, and return its RunPhase."""
        from periplus.dispatcher.v1.dispatcher_pb2 import CancelRunRequest

        request = CancelRunRequest(project=self._project, run=run, terminate=terminate, reason=reason)
        return int(self._call("dispatcher", "CancelRun", request).phase)

    def logs(
        self, run: str, *, step: str = "", follow: bool = False
    ) -> Iterator[dispatcher.ReadLogsResponse]:
        """What the steps of a run print, line by line; with `follow` until the run ends."""
        from periplus.dispatcher.v1.dispatcher_pb2 import ReadLogsRequest

        request = ReadLogsRequest(project=self._project, run=run, step=step, follow=follow)
        return self._stream("dispatcher", "ReadLogs", request)

    def get_run(self, run: str) -> lineage.Run:
        """A run with its steps."""
        from periplus.lineage.v1.lineage_pb2 import GetRunRequest

        answer: lineage.GetRunResponse = self._call(
            "lineage", "GetRun", GetRunRequest(project=self._project, run=run)
        )
        return answer.run

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
        answer: lineage.ListRunsResponse = self._call("lineage", "ListRuns", request)
        return answer

    def watch(self, run: str) -> Iterator[lineage.WatchRunResponse]:
        """A run's state, then each change, until it has ended; goes on by itself when the stream breaks."""
        from periplus.lineage.v1.lineage_pb2 import WatchRunRequest

        request = WatchRunRequest(project=self._project, run=run)
        failures, phase = 0, 0
        while phase not in ENDED:
            try:
                for change in self._stream("lineage", "WatchRun", request):
                    failures, phase = 0, change.run.phase
                    yield change
            except CallError as error:
                if error.code not in ("UNAVAILABLE", "DEADLINE_EXCEEDED") or failures >= AGAIN:
                    raise
            if phase not in ENDED:
                failures += 1
                time.sleep(PAUSE)

    def walk(
        self, start: str, direction: int, *, depth: int = 0, size: int = 0, page: str = ""
    ) -> lineage.TraverseResponse:
        """A page of what made a node (1) or of what came of it (2)."""
        from periplus.lineage.v1.lineage_pb2 import TraverseRequest

        request = TraverseRequest(
            project=self._project,
            start=[start],
            direction=direction,  # type: ignore[arg-type]
            depth=depth,
            page_size=size,
            page_token=page,
        )
        answer: lineage.TraverseResponse = self._call("lineage", "Traverse", request)
        return answer

    def diff_runs(self, old: str, new: str) -> lineage.DiffRunsResponse:
        """How two runs differ."""
        from periplus.lineage.v1.lineage_pb2 import DiffRunsRequest

        request = DiffRunsRequest(project=self._project, old=old, new=new)
        answer: lineage.DiffRunsResponse = self._call("lineage", "DiffRuns", request)
        return answer

    def explain(self, run: str, step: str) -> cache.ExplainMissResponse:
        """Why a step was not served from the cache."""
        from periplus.cache.v1.cache_pb2 import ExplainMissRequest

        request = ExplainMissRequest(project=self._project, run=run, step=step)
        answer: cache.ExplainMissResponse = self._call("cache", "ExplainMiss", request)
        return answer

    def diff_snapshots(self, old: str, new: str) -> snapshotter.DiffSnapshotsResponse:
        """How two snapshots differ."""
        from periplus.snapshotter.v1.snapshotter_pb2 import DiffSnapshotsRequest

        request = DiffSnapshotsRequest(project=self._project, old=old, new=new)
        answer: snapshotter.DiffSnapshotsResponse = self._call("snapshotter", "DiffSnapshots", request)
        return answer

    @property
    def _project(self) -> str:
        return self.connection.project

    def _stub(self, service: str) -> Any:
        address = getattr(self.connection, service)
        if service not in self._channels:
            options = [
                ("grpc.max_receive_message_length", MAX_MESSAGE),
                ("grpc.max_send_message_length", MAX_MESSAGE),
            ]
            self._channels[service] = grpc.insecure_channel(address, options=options)
        import importlib

        module = importlib.import_module(f"periplus.{service}.v1.{service}_pb2_grpc")
        return getattr(module, f"{service.capitalize()}ServiceStub")(self._channels[service])

    def _call(self, service: str, method: str, request: Any) -> Any:
        call: Callable[..., Any] = getattr(self._stub(service), method)
        try:
            return call(request, timeout=PATIENCE, metadata=self._metadata)
        except grpc.RpcError as error:
            raise told(error, service, getattr(self.connection, service)) from error

    def _stream(self, service: str, method: str, request: Any) -> Iterator[Any]:
        call: Callable[..., Any] = getattr(self._stub(service), method)
        stream = call(request, metadata=self._metadata)
        try:
            yield from stream
        except grpc.RpcError as error:
            raise told(error, service, getattr(self.connection, service)) from error
        finally:
            stream.cancel()
