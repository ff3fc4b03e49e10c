"""Requests to Argo: what is sent, what its errors mean, and what happens if it does not answer."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from dispatcher_harness import Harness
from manifests import ANY_KEYS, PROCESSES, say, workflow

from periplus_common.errors import Invalid, Unavailable
from periplus_dispatcher.argo import client as argo
from periplus_dispatcher.argo.connection import ArgoTimeouts
from periplus_dispatcher.planner import Planner
from periplus_dispatcher.service import Dispatcher
from periplus_model.steps import RunPhase

Json = dict[str, Any]
HTML = b"<html>please log in</html>"
MANIFEST = workflow(say("a", "1")) | {"metadata": {"name": "w"}}
UNKNOWN_TO_HERA = workflow(say("a", "1", newField={"of": "a newer Argo"})) | {"metadata": {"name": "w"}}


@asynccontextmanager
async def server(*answers: tuple[str, bytes | None], status: int = 200) -> AsyncIterator[str]:
    """A server that answers each path by its ending, with `status`; an answer of None never comes."""

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


def test_of_the_two_manifests_only_one_is_sent_as_heras_model() -> None:
    assert argo._model(MANIFEST) is not None
    assert argo._model(UNKNOWN_TO_HERA) is None


@asynccontextmanager
async def recorder(bodies: list[Json]) -> AsyncIterator[str]:
    """An address that answers {} and notes the bodies of requests."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line.partition(b":")[2])
                    for line in head.splitlines()
                    if line.lower().startswith(b"content-length")
                )
                bodies.append(json.loads(await reader.readexactly(length)))
                writer.write(b"HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\n{}")

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()


@pytest.mark.parametrize("manifest", [MANIFEST, UNKNOWN_TO_HERA], ids=["hera's model", "raw"])
async def test_a_manifest_that_lint_refuses_is_invalid_although_argo_answers_500(manifest: Json) -> None:
    refusal = b'{"code":2,"message":"template name \'nope\' undefined"}'
    async with server(("", refusal), status=500) as url, argo.connect(url, "", "n") as found:
        with pytest.raises(Invalid, match="template name 'nope' undefined"):
            await found.lint(manifest)


@pytest.mark.parametrize("manifest", [MANIFEST, UNKNOWN_TO_HERA], ids=["hera's model", "raw"])
async def test_warnings_of_argos_lint_are_given(manifest: Json) -> None:
    linted = {
        **manifest,
        "status": {"conditions": [{"type": "SpecWarning", "message": "careful"}, {"type": "Other"}]},
    }
    async with server(("", json.dumps(linted).encode())) as url, argo.connect(url, "", "n") as found:
        assert await found.lint(manifest) == ("careful",)


@pytest.mark.parametrize(("manifest", "field"), [(MANIFEST, False), (UNKNOWN_TO_HERA, True)])
async def test_a_field_that_hera_does_not_know_reaches_argo(manifest: Json, field: bool) -> None:
    bodies: list[Json] = []
    async with recorder(bodies) as url, argo.connect(url, "", "n") as found:
        await found.create(manifest)
    assert [body["workflow"] for body in bodies] == [manifest]
    assert ("newField" in bodies[0]["workflow"]["spec"]["templates"][0]) == field


@pytest.mark.parametrize("manifest", [MANIFEST, UNKNOWN_TO_HERA], ids=["hera's model", "raw"])
async def test_creating_a_workflow_that_exists_already_succeeds(manifest: Json) -> None:
    conflict = b'{"code":6,"message":"workflows.argoproj.io \\"w\\" already exists"}'
    async with server(("", conflict), status=409) as url, argo.connect(url, "", "n") as found:
        await found.create(manifest)


@pytest.mark.parametrize("manifest", [MANIFEST, UNKNOWN_TO_HERA], ids=["hera's model", "raw"])
@pytest.mark.parametrize(
    ("status", "code", "kind"), [(400, 3, Invalid), (500, 13, Unavailable), (409, 10, Unavailable)]
)
async def test_a_refusal_that_says_already_exists_of_something_else_is_a_refusal(
    status: int, code: int, kind: type[Exception], manifest: Json
) -> None:
    refusal = b'{"code":%d,"message":"template name \'a\' already exists"}' % code
    async with server(("", refusal), status=status) as url, argo.connect(url, "", "n") as found:
        with pytest.raises(kind, match="already exists"):
            await found.create(manifest)


@pytest.mark.parametrize("body", [HTML, b"[1]", b"{}"])
async def test_a_failure_of_argo_is_unavailable(body: bytes) -> None:
    async with server(("", body), status=500) as url, argo.connect(url, "", "n") as found:
        with pytest.raises(Unavailable):
            await found.lint({})


@pytest.mark.parametrize("body", [HTML, b"", b"[1]", b'"x"', b"{"])
async def test_an_answer_that_is_no_json_object_is_unavailable(body: bytes) -> None:
    async with server(("", body)) as url, argo.connect(url, "", "n") as found:
        for ask in (
            found.lint({}),
            found.lint(MANIFEST),
            found.get("w"),
            found.create({"metadata": {"name": "w"}}),
            found.create(MANIFEST),
            anext(found.watch("a=b")),
        ):
            with pytest.raises(Unavailable, match="no JSON"):
                await ask


@pytest.mark.parametrize("line", [b"data: {", b"data: []", b'data: {"result": 1}', b'{"error": "no"}', b"{}"])
async def test_an_invalid_line_of_a_stream_is_unavailable(line: bytes) -> None:
    async with server(("", line + b"\n\n")) as url, argo.connect(url, "", "n") as found:
        with pytest.raises(Unavailable):
            [each async for each in found.logs("w", follow=False)]


async def test_only_a_newline_ends_a_line_of_a_stream() -> None:
    texts = ["a\x85b", "a\u2028b\u2029c", "\x0b\x0c\x1c\r", "é" * 70_000]
    lines = [json.dumps({"result": {"podName": "p", "content": text}}, ensure_ascii=False) for text in texts]
    body = ": ping\r\n\r\n" + "".join(f"data: {line}\r\n\r\n" for line in lines[:2]) + "\n".join(lines[2:])
    async with server(("/log", body.encode())) as url, argo.connect(url, "", "n") as found:
        assert [content async for _, content in found.logs("w", follow=True)] == texts


async def test_followed_logs_do_not_block_other_requests_to_argo() -> None:
    slow = timedelta(seconds=60)  # of the 150 that connect at once
    timeouts = ArgoTimeouts(connect=slow, request=slow, stream_connect=slow)
    async with server(("log", None), ("", b"{}")) as url, argo.connect(url, "", "n", timeouts) as found:

        async def follow() -> None:
            async for _ in found.logs("w", follow=True):
                pass

        followers = [asyncio.create_task(follow()) for _ in range(150)]
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            assert await found.get("w") == {}
        for each in followers:
            each.cancel()
        await asyncio.gather(*followers, return_exceptions=True)


async def test_requests_to_an_argo_that_hangs_time_out_before_the_callers_deadline(harness: Harness) -> None:
    requests_of_a_submission = 2  # lint and create
    usual = ArgoTimeouts()
    assert requests_of_a_submission * (usual.request + usual.connect) < timedelta(seconds=40)
    short = ArgoTimeouts(connect=timedelta(seconds=0.2), request=timedelta(seconds=0.2))
    async with server(("", None)) as url, argo.connect(url, "", "n", short) as hangs:
        planner = Planner(harness.cache, harness.snapshotter, harness.argo, PROCESSES, ANY_KEYS)
        done = await Dispatcher(
            harness.runs, hangs, planner, harness.repository, timedelta(seconds=30)
        ).submit(harness.request(workflow(say("a", "1"))), str(uuid.uuid4()))
    assert done.run.phase is RunPhase.PENDING
