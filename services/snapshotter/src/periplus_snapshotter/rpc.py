"""gRPC in, domain out, and back. No decisions are taken here."""

from periplus.snapshotter.v1 import snapshotter_pb2 as pb
from periplus.snapshotter.v1 import snapshotter_pb2_grpc as grpc
from periplus_snapshotter import wire
from periplus_snapshotter.service import Snapshotter

NAME = pb.DESCRIPTOR.services_by_name["SnapshotterService"].full_name


class SnapshotterServicer(grpc.SnapshotterServiceServicer):
    def __init__(self, snapshotter: Snapshotter) -> None:
        self._snapshotter = snapshotter

    async def TakeSnapshot(self, request: pb.TakeSnapshotRequest, context: object) -> pb.TakeSnapshotResponse:
        return wire.taken_to_proto(await self._snapshotter.take(request.project, wire.claim(request.claim)))

    async def GetSnapshot(self, request: pb.GetSnapshotRequest, context: object) -> pb.GetSnapshotResponse:
        found = await self._snapshotter.get(
            request.project, request.snapshot, with_content=request.with_content
        )
        return pb.GetSnapshotResponse(snapshot=wire.snapshot_to_proto(found))

    async def DiffSnapshots(
        self, request: pb.DiffSnapshotsRequest, context: object
    ) -> pb.DiffSnapshotsResponse:
        changes = await self._snapshotter.diff(request.project, request.old, request.new)
        return pb.DiffSnapshotsResponse(changes=map(wire.change_to_proto, changes))
