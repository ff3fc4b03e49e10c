"""The start of a follower: Argo is listed before the event stream is opened, and nothing between the two is lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest
from argo_proxy import Stream, argo_proxy, silent
from dispatcher_harness import WAIT_SECONDS, Harness
from test_service import gated, opened_gates, two

from periplus_dispatcher.argo import client as argo
from periplus_dispatcher.domain import Json, Run
from periplus_dispatcher.follow.followed import FollowedRun
from periplus_dispatcher.follow.follower import Follower, FollowerTimings

GONE = b'data: {"error":{"grpc_code":13,"http_code":410,"message":"too old resource version: 1 (2)"}}\n\n'


@asynccontextmanager
async def following(harness: Harness, stream: Stream = silent) -> AsyncIterator[None]:
    """A new follower that reaches the local Argo through a proxy, and does not poll."""
    client = harness.client
    async with (
        argo_proxy(client.address, stream) as address,
        argo.connect(address, client.token, client.namespace) as workflows,
    ):
        started = replace(harness, argo=workflows, poll_seconds=600.0, following=None)
        started.follow()
        try:
            yield
        finally:
            await started.crash()


async def is_answered(harness: Harness, name: str, gate: str, *, within: float) -> None:
    """Wait until a gate is closed; AssertionError after `within` seconds."""
    end = time.monotonic() + within
    while (await harness.argo.get(name) or {})["status"]["nodes"][gate]["phase"] == "Running":
        assert time.monotonic() < end
        await asyncio.sleep(0.02)
    assert gate in await harness.runs.get_answers(name)


def streams(body: bytes) -> bytes:
    """A response with a whole stream."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + body


async def test_a_gate_that_is_open_at_the_start_is_answered_although_the_event_stream_sends_nothing(
    harness: Harness,
) -> None:
    name, (gate,) = await gated(harness)
    async with following(harness):
        await is_answered(harness, name, gate["id"], within=WAIT_SECONDS)


async def test_a_gate_that_opens_between_the_list_and_the_stream_is_answered(harness: Harness) -> None:
    connected, opened = asyncio.Event(), asyncio.Event()

    async def late(client: asyncio.StreamWriter, forward: Callable[[], Awaitable[None]]) -> None:
        connected.set()
        await opened.wait()
        await forward()

    await harness.run(two())
    await harness.crash()
    async with following(harness, late):
        await connected.wait()
        name, (gate,) = await opened_gates(harness)
        opened.set()
        await is_answered(harness, name, gate["id"], within=WAIT_SECONDS)


async def test_a_stream_whose_version_has_expired_begins_again_with_a_list(harness: Harness) -> None:
    connections: list[asyncio.Event] = []
    opened = asyncio.Event()

    async def expired(client: asyncio.StreamWriter, forward: Callable[[], Awaitable[None]]) -> None:
        connections.append(asyncio.Event())
        if len(connections) == 1:
            await opened.wait()
            client.write(streams(GONE))
        else:
            await silent(client, forward)

    await harness.run(two())
    await harness.crash()
    async with following(harness, expired):
        async with asyncio.timeout(WAIT_SECONDS):
            while not connections:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)  # the list at the start would answer the gate before it is seen to be open
        name, (gate,) = await opened_gates(harness)
        opened.set()
        await is_answered(harness, name, gate["id"], within=WAIT_SECONDS)
    assert len(connections) == 2


async def test_a_stream_that_ends_at_once_is_not_opened_in_a_loop_without_a_pause(harness: Harness) -> None:
    opened = 0

    async def ends(client: asyncio.StreamWriter, forward: Callable[[], Awaitable[None]]) -> None:
        nonlocal opened
        opened += 1
        client.write(streams(b""))

    await harness.crash()
    async with following(harness, ends):
        await asyncio.sleep(1)
    assert opened <= 2  # and not hundreds


class HeldArgo:
    """An Argo that gives no Workflow before `release`, and whose stream of events is empty."""

    def __init__(self) -> None:
        self.asked, self.release = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def watch(self, selector: str) -> AsyncIterator[Json | None]:
        yield None
        await asyncio.Event().wait()

    async def list(self, selector: str, *, archived: bool) -> AsyncIterator[tuple[str, str]]:
        for none in ():
            yield none

    async def get(self, name: str) -> Json:
        self.asked.set()
        found: Json = await self.release
        return found


async def test_a_follower_that_is_stopped_while_it_checks_a_run_only_ends(harness: Harness) -> None:
    run = (await harness.submit(two())).run.id
    await harness.crash()
    stored = await harness.runs.get(run)

    class OneRun:
        async def list_open(self) -> list[str]:
            return [run]

        async def get(self, name: str) -> Run | None:
            return stored

    held = HeldArgo()
    stopped = replace(harness, argo=held, runs=OneRun())  # type: ignore[arg-type]
    stopped.follow()
    await held.asked.wait()
    assert stopped.following is not None
    stopped.following.cancel()
    held.release.set_result({"metadata": {"name": run}})
    with pytest.raises(asyncio.CancelledError):
        await stopped.following


@pytest.mark.parametrize("turns", range(5))
async def test_a_follower_that_is_stopped_as_a_check_becomes_due_ends(harness: Harness, turns: int) -> None:
    """`turns` of the event loop are between the two: asyncio.wait_for of Python 3.11 swallows a cancellation at some."""
    await harness.crash()
    follower = Follower(
        harness.dispatcher.launch, harness.runs, HeldArgo(), harness.cache, harness.repository, harness.observer,
        FollowerTimings(poll_interval=timedelta(minutes=1)),
    )  # type: ignore[arg-type] # fmt: skip
    task = asyncio.create_task(follower.follow())
    await asyncio.sleep(0.2)
    follower._check_now.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=60)
    task.cancel()
    assert done


def test_of_two_states_of_a_workflow_the_older_does_not_follow_the_newer() -> None:
    follower = Follower(*[cast("Any", None)] * 6, FollowerTimings())
    followed = FollowedRun(cast("Any", None))
    taken = []
    for version in ("9", "10", "9", "10", None, "11"):
        state = {"metadata": {} if version is None else {"resourceVersion": version}, "given": version}
        followed.newest = None  # processed
        follower._put(followed, state)
        taken.append(followed.newest and followed.newest["given"])
    assert taken == ["9", "10", None, "10", None, "11"]
    assert followed.version == "11"
