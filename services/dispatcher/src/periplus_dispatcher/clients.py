"""Clients of the cache and the snapshotter."""

import json
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

import grpc

from periplus.cache.v1 import cache_pb2
from periplus.cache.v1.cache_pb2_grpc import CacheServiceStub
from periplus.lineage.v1 import lineage_pb2
from periplus.lineage.v1.lineage_pb2_grpc import LineageServiceStub
from periplus.snapshotter.v1 import snapshotter_pb2
from periplus.snapshotter.v1.snapshotter_pb2_grpc import SnapshotterServiceStub
from periplus_common import rpc
from periplus_common.errors import Invalid, NotFound, Unavailable
from periplus_dispatcher.domain import Json, ObjectContent, RecordedRun, RecordedStep, ResolvedImage
from periplus_model import codec
from periplus_model.queries import LeaseState, StepQuery, StepVerdict
from periplus_model.steps import CacheMode, ObjectRef, StepPhase, StepTemplate, Verdict

MAX_RENEWED = 10_000
"""The limits of `RenewLeasesRequest`."""
MAX_DIGESTED_OBJECTS = 1000
"""The limit of `DigestObjectsRequest.objects`."""


class CacheClient:
    """The cache, by gRPC. A call without an answer after `timeout` has failed; one that reads objects, after `read_timeout`."""

    def __init__(
        self, channel: grpc.aio.Channel, timeout: timedelta, read_timeout: timedelta = timedelta(seconds=30)
    ) -> None:
        self._stub = CacheServiceStub(channel)
        self._timeout = timeout.total_seconds()
        self._read_timeout = read_timeout.total_seconds()

    async def resolve(
        self,
        project: str,
        run: str,
        cache_mode: CacheMode | None,
        templates: Mapping[str, StepTemplate],
        queries: Sequence[StepQuery],
        code_index: Mapping[str, str],
    ) -> dict[str, StepVerdict]:
        used = {query.template for query in queries}
        request = cache_pb2.ResolveStepsRequest(
            project=project,
            run=run,
            templates={name: codec.encode_template(t) for name, t in templates.items() if name in used},
            steps=map(codec.encode_query, queries),
            cache_mode=codec.encode_run_mode(cache_mode),
            code_index=code_index,
        )
        with _errors():
            response = await self._stub.ResolveSteps(request, timeout=self._timeout)
        try:
            return {message.id: _decode_verdict(message) for message in response.verdicts}
        except (Invalid, ValueError, RecursionError) as error:
            raise Unavailable(f"the answer of the cache is invalid: {error}") from error

    async def renew_leases(
        self, project: str, states: Mapping[int, LeaseState], waiting_runs: Collection[str]
    ) -> list[int]:
        lost: list[int] = []
        renewals = [
            cache_pb2.LeaseRenewal(token=token, state=cache_pb2.LeaseState.ValueType(state))
            for token, state in states.items()
        ]
        runs = sorted(waiting_runs)
        for start in range(0, max(len(renewals), len(runs)), MAX_RENEWED):
            request = cache_pb2.RenewLeasesRequest(
                project=project,
                leases=renewals[start : start + MAX_RENEWED],
                waiting_runs=runs[start : start + MAX_RENEWED],
            )
            with _errors():
                response = await self._stub.RenewLeases(request, timeout=self._timeout)
            lost += response.lost_tokens
        return lost

    async def watch_waits(self, project: str) -> AsyncIterator[list[str]]:
        with _errors():
            async for response in self._stub.WatchWaits(cache_pb2.WatchWaitsRequest(project=project)):
                yield list(response.runs)

    async def digest_objects(
        self, project: str, objects: Sequence[ObjectRef]
    ) -> dict[ObjectRef, ObjectContent]:
        found: dict[ObjectRef, ObjectContent] = {}
        for start in range(0, len(objects), MAX_DIGESTED_OBJECTS):
            part = objects[start : start + MAX_DIGESTED_OBJECTS]
            request = cache_pb2.DigestObjectsRequest(project=project, objects=map(codec.encode_object, part))
            with _errors():
                try:
                    response = await self._stub.DigestObjects(request, timeout=self._read_timeout)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                        raise
                    raise Unavailable(
                        "the cache still reads objects: repeat the request, which goes on where it was",
                        reason="OBJECTS_BEING_READ",
                    ) from error
            contents = [ObjectContent(each.digest, each.reason, each.is_absent) for each in response.objects]
            found |= zip(part, contents, strict=True)
        return found


class SnapshotterClient:
    """The snapshotter, by gRPC. Images without an answer after `image_timeout`, more than its own budget, have none."""

    def __init__(self, channel: grpc.aio.Channel, image_timeout: timedelta = timedelta(seconds=10)) -> None:
        self._stub = SnapshotterServiceStub(channel)
        self._image_timeout = image_timeout.total_seconds()

    async def take(
        self, project: str, claim: bytes, templates: Sequence[tuple[str, bytes]]
    ) -> tuple[str, str, list[str]]:
        request = snapshotter_pb2.TakeSnapshotRequest(
            project=project, claim=snapshotter_pb2.Claim.FromString(claim)
        )
        request.claim.ClearField("templates")  # the client does not say what Argo has
        for name, content in templates:
            request.claim.templates.add(name=name, content=content)
        with _errors("spec."):
            response = await self._stub.TakeSnapshot(request)
        return response.snapshot, response.environment, list(response.warnings)

    async def resolve_images(self, project: str, images: Sequence[str]) -> list[ResolvedImage]:
        request = snapshotter_pb2.ResolveImagesRequest(project=project, images=images)
        try:
            with _errors():
                response = await self._stub.ResolveImages(request, timeout=self._image_timeout)
        except Invalid as error:
            raise Unavailable(error.message) from error
        found = [
            ResolvedImage(
                each.image, each.digest, each.pinned, tuple(each.also), each.reason, each.fix, each.is_absent
            )
            for each in response.images
        ]
        if [each.image for each in found] != list(images):
            raise Unavailable("the answer of the snapshotter has other images than the request")
        return found

    async def environment(self, project: str, snapshot: str) -> str:
        request = snapshotter_pb2.GetSnapshotRequest(project=project, snapshot=snapshot)
        with _errors(may_be_absent=True):
            response = await self._stub.GetSnapshot(request, timeout=self._image_timeout)
        found = response.snapshot
        # Without a client's claim, a snapshot of library templates has the digest of nothing.
        return found.environment if found.claim.platform.python_version else ""

    async def omitted(self, project: str, snapshot: str) -> list[tuple[str, str]]:
        request = snapshotter_pb2.GetSnapshotRequest(project=project, snapshot=snapshot)
        with _errors(may_be_absent=True):
            response = await self._stub.GetSnapshot(request, timeout=self._image_timeout)
        return [
            (each.path.decode("utf-8", "backslashreplace"), each.reason)
            for each in response.snapshot.claim.omitted
        ]

    async def differences(self, project: str, old: str, new: str) -> list[str]:
        request = snapshotter_pb2.DiffSnapshotsRequest(project=project, old=old, new=new)
        with _errors(may_be_absent=True):
            response = await self._stub.DiffSnapshots(request, timeout=self._image_timeout)
        return [
            f"{each.field}: {each.old if each.HasField('old') else 'none'} -> {each.new if each.HasField('new') else 'none'}"
            for each in response.changes
        ]

    async def library_template(self, project: str, snapshot: str, name: str) -> Json | None:
        request = snapshotter_pb2.GetSnapshotRequest(project=project, snapshot=snapshot, with_content=True)
        with _errors(may_be_absent=True):
            try:
                response = await self._stub.GetSnapshot(request, timeout=self._image_timeout)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                    raise
                raise NotFound("the snapshot is too large for a message") from error
        for template in response.snapshot.claim.templates:
            if template.name == name:
                found: Json = json.loads(template.content)
                return found
        return None


class LineageClient:
    """Lineage, by gRPC. A call without an answer after `timeout` has failed."""

    def __init__(self, channel: grpc.aio.Channel, timeout: timedelta = timedelta(seconds=20)) -> None:
        self._stub = LineageServiceStub(channel)
        self._timeout = timeout.total_seconds()

    async def get_run(self, project: str, run: str) -> RecordedRun:
        request = lineage_pb2.GetRunRequest(project=project, run=run)
        with _errors(may_be_absent=True):
            response = await self._stub.GetRun(request, timeout=self._timeout)
        steps = [
            RecordedStep(
                path=step.path,
                template=step.template,
                phase=StepPhase(step.phase),
                inputs=codec.decode_inputs(step.inputs),
                outputs=codec.decode_outputs(step.outputs),
                depends_on=tuple(step.depends_on),
                fingerprint=step.fingerprint,
                producer_run=step.producer_run,
                producer_step=step.producer_step,
            )
            for step in response.run.steps
        ]
        found = response.run
        return RecordedRun(
            found.complete,
            tuple(steps),
            codec.decode_parameters(found.parameters),
            codec.decode_outputs(found.outputs),
        )


def _decode_verdict(message: cache_pb2.StepVerdict) -> StepVerdict:
    """A verdict that is consistent in itself. Raises `Invalid`, `ValueError`."""
    verdict = codec.decode_verdict(message)
    for each in (verdict, *verdict.items):
        if each.verdict is Verdict.UNSPECIFIED:
            raise ValueError(f"{each.id!r} has no verdict")
        if abs(each.saved) >= codec.MAX_DURATION:
            raise ValueError(f"{each.id!r} saved {each.saved}")
    if verdict.items_json or verdict.items:
        items = json.loads(verdict.items_json)
        if not isinstance(items, list) or len(items) != len(verdict.items):
            raise ValueError(f"{verdict.id!r} has another number of items than of verdicts")
    return verdict


@contextmanager
def _errors(field_prefix: str = "", *, may_be_absent: bool = False) -> Iterator[None]:
    """Raise `Invalid` for a request that was refused, `NotFound` if `may_be_absent`, and `Unavailable` for everything else."""
    try:
        yield
    except grpc.aio.AioRpcError as failure:
        error = rpc.from_status(failure)
        if may_be_absent and isinstance(error, NotFound):
            raise error from failure
        if not isinstance(error, Invalid):
            raise Unavailable(error.message) from failure
        field = error.field and field_prefix + error.field
        raise Invalid(error.message, field=field, reason=error.reason, fix=error.fix) from failure
