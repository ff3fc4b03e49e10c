"""gRPC in, service, and back. No decisions are taken here."""

from periplus.snapshotter.v1 import snapshotter_pb2 as pb
from periplus.snapshotter.v1 import snapshotter_pb2_grpc as grpc
from periplus_snapshotter import wire
from periplus_snapshotter.images.reading import Images
from periplus_snapshotter.service import Snapshotter

NAME = pb.DESCRIPTOR.services_by_name["SnapshotterService"].full_name


class SnapshotterServicer(grpc.SnapshotterServiceServicer):
    """The RPCs of the snapshotter."""

    def __init__(self, snapshotter: Snapshotter, images: Images) -> None:
        self._snapshotter = snapshotter
        self._images = images

    async def TakeSnapshot(self, request: pb.TakeSnapshotRequest, context: object) -> pb.TakeSnapshotResponse:
        taken = await self._snapshotter.take(request.project, wire.decode_claim(request.claim))
        return wire.encode_taken_snapshot(taken)

    async def GetSnapshot(self, request: pb.GetSnapshotRequest, context: object) -> pb.GetSnapshotResponse:
        found = await self._snapshotter.get(
            request.project, request.snapshot, with_content=request.with_content
        )
        return wire.encode_snapshot(found)

    async def DiffSnapshots(
        self, request: pb.DiffSnapshotsRequest, context: object
    ) -> pb.DiffSnapshotsResponse:
        changes = await self._snapshotter.diff(request.project, request.old, request.new)
        return pb.DiffSnapshotsResponse(changes=map(wire.encode_change, changes))

    async def ResolveImages(
        self, request: pb.ResolveImagesRequest, context: object
    ) -> pb.ResolveImagesResponse:
        found = await self._images.resolve(request.project, request.images)
        return pb.ResolveImagesResponse(images=map(wire.encode_resolved_image, found))

    async def CheckImages(self, request: pb.CheckImagesRequest, context: object) -> pb.CheckImagesResponse:
        checked = await self._images.check(request.project)
        return pb.CheckImagesResponse(images=(wire.encode_checked_image(*each) for each in checked))

    async def ReadImage(self, request: pb.ReadImageRequest, context: object) -> pb.ReadImageResponse:
        return wire.encode_image_content(await self._images.read(request.project, request.image))

    async def FindPackage(self, request: pb.FindPackageRequest, context: object) -> pb.FindPackageResponse:
        return wire.encode_package_use(await self._images.find_package(request.project, request.name))
