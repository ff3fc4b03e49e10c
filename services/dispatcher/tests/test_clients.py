"""Calls of the cache and the snapshotter: which answers are valid, and what their errors mean."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import pytest

from periplus.cache.v1 import cache_pb2
from periplus.cache.v1.cache_pb2_grpc import CacheServiceServicer, add_CacheServiceServicer_to_server
from periplus.snapshotter.v1.snapshotter_pb2_grpc import (
    SnapshotterServiceServicer,
    add_SnapshotterServiceServicer_to_server,
)
from periplus.types.v1 import step_pb2
from periplus_common import rpc
from periplus_common.errors import Conflict, Invalid, NotFound, Refused, Unauthenticated, Unavailable
from periplus_dispatcher.clients import CacheClient, SnapshotterClient
from periplus_dispatcher.domain import ObjectContent
from periplus_model.queries import Literal, StepQuery
from periplus_model.steps import ObjectRef, StepTemplate, Verdict

READ_TIMEOUT = timedelta(seconds=1)
HIT, MISS = step_pb2.VERDICT_HIT, step_pb2.VERDICT_MISS
GAVE = step_pb2.Outputs(parameters=[step_pb2.Parameter(name="y", value="1")])
verdict_message = cache_pb2.StepVerdict


class FakeService(CacheServiceServicer, SnapshotterServiceServicer):
    """Answers with what `answer` gives or raises."""

    def __init__(self, answer: Callable[[], object]) -> None:
        self._answer = answer

    async def ResolveSteps(self, request, context):  # noqa: N802 - the contract's
        return self._answer()

    async def TakeSnapshot(self, request, context):  # noqa: N802
        return self._answer()

    async def GetSnapshot(self, request, context):  # noqa: N802
        return self._answer()

    async def DigestObjects(self, request, context):  # noqa: N802
        answer = self._answer()
        return await answer if asyncio.iscoroutine(answer) else answer


def raising(error: Exception) -> None:
    raise error


@asynccontextmanager
async def services(answer: Callable[[], object]) -> AsyncIterator[tuple[CacheClient, SnapshotterClient]]:
    service = FakeService(answer)
    add = (add_CacheServiceServicer_to_server, add_SnapshotterServiceServicer_to_server)
    async with (
        rpc.serving("127.0.0.1:0", "t", *(partial(each, service) for each in add), names=[]) as port,
        rpc.channel(f"127.0.0.1:{port}", "t") as channel,
    ):
        yield CacheClient(channel, timedelta(seconds=5), READ_TIMEOUT), SnapshotterClient(channel)


async def resolved(*verdicts: cache_pb2.StepVerdict):
    queries = [StepQuery("one", "t", {}, {}), StepQuery("fan", "t", {}, {}, (Literal('["a","b"]'),))]
    async with services(lambda: cache_pb2.ResolveStepsResponse(verdicts=verdicts)) as (cache, _):
        return await cache.resolve("p", "r", None, {"t": StepTemplate("t", "{}")}, queries, {})


async def test_a_valid_answer_of_the_cache_is_decoded():
    items = [
        verdict_message(id="fan(0)", verdict=HIT, outputs=GAVE),
        verdict_message(id="fan(1)", verdict=MISS),
    ]
    found = await resolved(
        verdict_message(id="one", verdict=HIT, outputs=GAVE),
        verdict_message(id="fan", verdict=step_pb2.VERDICT_UNKNOWN, items=items, items_json='["a","b"]'),
    )
    assert found["one"].outputs.parameters == {"y": "1"}
    assert [item.verdict for item in found["fan"].items] == [Verdict.HIT, Verdict.MISS]


ITEM = verdict_message(verdict=HIT, outputs=GAVE)


@pytest.mark.parametrize(
    "verdict",
    [
        verdict_message(id="one"),
        verdict_message(id="one", verdict=99),
        verdict_message(id="one", verdict=HIT),
        verdict_message(id="fan", verdict=99),
        verdict_message(id="fan", verdict=HIT, outputs=GAVE, items=[ITEM, ITEM], items_json="["),
        verdict_message(
            id="fan", verdict=HIT, outputs=GAVE, items=[ITEM, ITEM], items_json='{"a": 1, "b": 2}'
        ),
        verdict_message(id="fan", verdict=HIT, outputs=GAVE, items=[ITEM], items_json='["a","b"]'),
        verdict_message(
            id="fan",
            verdict=HIT,
            outputs=GAVE,
            items=[ITEM, verdict_message(verdict=HIT)],
            items_json='["a","b"]',
        ),
        verdict_message(
            id="fan",
            verdict=HIT,
            outputs=GAVE,
            items=[ITEM, verdict_message(verdict=99)],
            items_json='["a","b"]',
        ),
        verdict_message(id="fan", verdict=HIT, outputs=GAVE, items_json='["a","b"]'),
        verdict_message(id="one", verdict=MISS, saved={"seconds": 2**62}),
    ],
    ids=str,
)
async def test_an_invalid_answer_of_the_cache_is_unavailable(verdict: cache_pb2.StepVerdict):
    with pytest.raises(Unavailable, match="is invalid"):
        await resolved(verdict)


@pytest.mark.parametrize("kind", [NotFound, Conflict, Refused, Unauthenticated, Unavailable, KeyError])
async def test_every_other_failure_of_a_service_is_unavailable(kind: type[Exception]):
    def fail() -> object:
        raise kind("so it is")

    async with services(fail) as (cache, snapshotter):
        with pytest.raises(Unavailable):
            await cache.resolve("p", "r", None, {}, [], {})
        with pytest.raises(Unavailable):
            await snapshotter.take("p", b"", [])


async def test_a_refused_claim_is_invalid_with_its_field_in_the_run_request():
    def refuse() -> object:
        raise Invalid(
            "is no uv.lock", field="claim.lockfile.content", reason="LOCKFILE_INVALID", fix="uv lock"
        )

    async with services(refuse) as (_, snapshotter):
        with pytest.raises(Invalid, match=r"uv\.lock") as caught:
            await snapshotter.take("p", b"", [])
    error = caught.value
    assert (error.field, error.reason, error.fix) == (
        "spec.claim.lockfile.content",
        "LOCKFILE_INVALID",
        "uv lock",
    )


async def test_a_service_that_refuses_the_token_is_unavailable():
    async with (
        rpc.serving("127.0.0.1:0", "other", names=[]) as port,
        rpc.channel(f"127.0.0.1:{port}", "t") as channel,
    ):
        with pytest.raises(Unavailable):
            await CacheClient(channel, timedelta(seconds=5)).resolve("p", "r", None, {}, [], {})


async def test_objects_that_take_longer_to_read_than_a_call_are_asked_for_again():
    async with services(lambda: asyncio.sleep(60)) as (cache, _):
        with pytest.raises(Unavailable) as raised:
            await cache.digest_objects("p", [ObjectRef("k")])
    assert raised.value.reason == "OBJECTS_BEING_READ"


async def test_objects_are_asked_for_in_requests_of_a_thousand():
    refs = [ObjectRef(str(number)) for number in range(1001)]
    sizes = iter((1000, 1))

    def answer():
        found = cache_pb2.DigestedObject(digest="sha256:1")
        return cache_pb2.DigestObjectsResponse(objects=[found] * next(sizes))

    async with services(answer) as (cache, _):
        assert await cache.digest_objects("p", refs) == dict.fromkeys(refs, ObjectContent("sha256:1"))


async def test_a_snapshot_that_is_too_large_for_a_message_has_no_template():
    async with services(partial(raising, Refused("too large"))) as (_, snapshotter):
        with pytest.raises(NotFound):
            await snapshotter.library_template("p", "sha256:" + "1" * 64, "WorkflowTemplate/t")
