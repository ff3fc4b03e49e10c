"""Answers of the API: JSON that is ready, and streams of it as a client asked for them."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from periplus_local.argo import submission
from periplus_local.argo.faults import Fault, invalid
from periplus_local.argo.rest.guard import encoded
from periplus_manifest.errors import ManifestError

Handler = Callable[[Request], Awaitable[Response]]
EVENTS = "text/event-stream"
SECONDS_FOR_A_BODY = 30


def answer(value: Any) -> Response:
    """A value as JSON; bytes are JSON already."""
    body = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
    return Response(body, media_type="application/json")


def faulty(handler: Handler) -> Handler:
    """The handler with its faults made into Argo's answers."""

    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except Fault as fault:
            return refused(request, fault)
        except ManifestError as error:
            return refused(request, Fault(3, str(error)))

    return guarded


def refused(request: Request, fault: Fault) -> Response:
    """A fault as the answer; where a stream was asked for it says the same in the form of streams, too."""
    body = encoded(fault)
    if request.url.path.endswith("/log") or "/workflow-events/" in request.url.path:
        said = {"grpc_code": fault.code, "http_code": fault.status, "message": fault.message}
        whole = {**json.loads(body), "error": {**said, "http_status": HTTPStatus(fault.status).phrase}}
        body = json.dumps(whole, ensure_ascii=False).encode()
    return Response(body, fault.status, media_type="application/json")


async def sent(request: Request) -> dict[str, Any]:
    """The JSON object that the client sent; reads no more of it than is allowed."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(SECONDS_FOR_A_BODY):
            async for part in request.stream():
                size += len(part)
                if size > 2 * submission.LARGEST:
                    break
                parts.append(part)
    except TimeoutError as error:
        raise Fault(4, f"the request did not come within {SECONDS_FOR_A_BODY} seconds") from error
    return submission.body(b"".join(parts))


def texts(asked: dict[str, Any], field: str) -> list[str]:
    """A list of texts in what the client sent; Fault when it is something else."""
    value = asked.get(field) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise invalid(f"{field}: is not a list of texts")
    return value


def streamed(request: Request, lines: AsyncIterator[bytes]) -> Response:
    """A stream of results, as server-sent events if the client wants those, else one JSON per line."""
    wanted = EVENTS in request.headers.get("accept", "") or "workflow-events" in request.url.path
    before, after = (b"data: ", b"\n\n") if wanted else (b"", b"\n")

    async def framed() -> AsyncIterator[bytes]:
        if wanted:
            yield b":\n\n"
        async for line in lines:
            yield before + line + after

    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(framed(), media_type=EVENTS if wanted else "application/json", headers=headers)
