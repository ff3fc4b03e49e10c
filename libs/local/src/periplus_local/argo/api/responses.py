"""Responses: JSON, errors, and streams in the form that the client asked for."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from periplus_local.argo.errors import INVALID_ARGUMENT, ArgoError
from periplus_manifest.errors import ManifestError

Handler = Callable[[Request], Awaitable[Response]]
EVENT_STREAM = "text/event-stream"


def json_response(value: Any) -> Response:
    """A value as JSON; bytes are JSON already."""
    body = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
    return Response(body, media_type="application/json")


def with_error_responses(handler: Handler) -> Handler:
    """The handler, with the errors it raises turned into responses."""

    async def wrapped(request: Request) -> Response:
        try:
            return await handler(request)
        except ArgoError as error:
            return error_response(request, error)
        except ManifestError as error:
            return error_response(request, ArgoError(INVALID_ARGUMENT, str(error)))

    return wrapped


def error_json(error: ArgoError) -> bytes:
    """The body of an error response."""
    body = {"code": error.code, "message": error.message}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def error_response(request: Request, error: ArgoError) -> Response:
    """An error; where the path is that of a stream also in the form that errors have in streams."""
    body = error_json(error)
    if request.url.path.endswith("/log") or "/workflow-events/" in request.url.path:
        in_stream = {"grpc_code": error.code, "http_code": error.http_status, "message": error.message}
        phrase = HTTPStatus(error.http_status).phrase
        both = {**json.loads(body), "error": {**in_stream, "http_status": phrase}}
        body = json.dumps(both, ensure_ascii=False).encode()
    return Response(body, error.http_status, media_type="application/json")


def stream_response(request: Request, results: AsyncIterator[bytes]) -> Response:
    """A stream of JSON results: server-sent events if the client accepts those, else one result per line."""
    as_events = EVENT_STREAM in request.headers.get("accept", "") or "workflow-events" in request.url.path
    before, after = (b"data: ", b"\n\n") if as_events else (b"", b"\n")

    async def framed() -> AsyncIterator[bytes]:
        if as_events:
            yield b":\n\n"
        async for result in results:
            yield before + result + after

    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    media_type = EVENT_STREAM if as_events else "application/json"
    return StreamingResponse(framed(), media_type=media_type, headers=headers)
