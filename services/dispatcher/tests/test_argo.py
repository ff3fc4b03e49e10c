"""What the dispatcher makes of an Argo that hangs, is somebody else, or is asked by many at once."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import pytest
from manifests import say, workflow
from world import World

from periplus_common.errors import Invalid, Unavailable
from periplus_dispatcher import argo
from periplus_dispatcher.planner import Planner
from periplus_dispatcher.service import Dispatcher
from periplus_model.steps import RunPhase

HTML = b"<html>please log in</html>"


@asynccontextmanager
async def server(*answers: tuple[str, bytes | None], status: int = 200) -> AsyncIterator[str]:
    """An address where each path that ends so is answered so, by 200 unless told; None: never."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split()[1].decode().partition("?")[0]
                body = next(body for end, body in answers if path.endswith(end))
                if body is None:
                    await asyncio.Event().wait()
                writer.write(b"HTTP/1.1 %d \r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body))

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()


async def test_what_argos_lint_refuses_is_no_trouble_of_argo() -> None:
    refusal = b'{"code":2,"message":"template name \'nope\' undefined"}'
    async with server(("", refusal), status=500) as url, argo.connect(url, "", "n") as found:
        with pytest.raises(Invalid, match="template name 'nope' undefined"):
            await found.lint({})


@pytest.mark.parametrize("body", [HTML, b"[1]", b"{}"])
async def test_an_argo_that_fails_is_away(body: bytes) -> None:
    async with server(("", body), status=500) as url, argo.connect(url, "", "n") as found:
        with pytest.raises(Unavailable):
            await found.lint({})


@pytest.mark.parametrize("body", [HTML, b"", b"[1]", b'"x"', b"{"])
async def test_what_answers_no_json_is_no_argo(body: bytes) -> None:
    async with server(("", body)) as url, argo.connect(url, "", "n") as found:
        for ask in (
            found.is_local(),
            found.lint({}),
            found.get("w"),
            found.create({"metadata": {"name": "w"}}),
        ):
            with pytest.raises(Unavailable, match="no JSON"):
                await ask


@pytest.mark.parametrize("line", [b"data: {", b"data: []", b'data: {"result": 1}', b'{"error": "no"}', b"{}"])
async def test_a_stream_that_makes_no_sense_has_ended(line: bytes) -> None:
    async with server(("", line + b"\n\n")) as url, argo.connect(url, "", "n") as found:
        with pytest.raises(Unavailable):
            [each async for each in found.logs("w", follow=False)]


async def test_those_who_follow_logs_keep_nobody_from_argo() -> None:
    async with server(("log", None), ("", b"{}")) as url, argo.connect(url, "", "n") as found:

        async def follow() -> None:
            async for _ in found.logs("w", follow=True):
                pass

        followers = [asyncio.create_task(follow()) for _ in range(150)]
        await asyncio.sleep(0)
        async with asyncio.timeout(8):
            assert not await found.is_local()
        for each in followers:
            each.cancel()
        await asyncio.gather(*followers, return_exceptions=True)


async def test_an_argo_that_hangs_is_away_before_the_callers_time_is_up(world: World, monkeypatch) -> None:
    asked = 3  # whether it is local, whether the manifest is sound, and to run it
    assert asked * (argo.TIMEOUT.read + argo.TIMEOUT.connect) < 40
    monkeypatch.setattr(argo, "TIMEOUT", httpx.Timeout(0.2))
    async with server(("", None)) as url, argo.connect(url, "", "n") as hangs:
        reader = Planner(hangs, world.cache, world.snapshotter)
        done = await Dispatcher(world.runs, hangs, reader, world.store, timedelta(seconds=30)).submit(
            world.order(workflow(say("a", "1"))), str(uuid.uuid4())
        )
    assert done.run.phase is RunPhase.PENDING
