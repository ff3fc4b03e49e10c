"""How the stack asks a service or the local Argo whether it is ready."""

from __future__ import annotations

import asyncio
import json

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from periplus_local.stack.part import NotReadyError

_PATIENCE = 2.0
# The one that the environment names for the web would be asked for 127.0.0.1 too.
_NO_PROXY = (("grpc.enable_http_proxy", 0),)
_ANSWER_LIMIT = 65_536


async def serving(address: str) -> None:
    """Return when the service at host:port says that it serves. Raises NotReadyError."""
    host, _, port = address.rpartition(":")
    try:
        # A channel that was refused once waits a second before it tries again.
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError as error:
        raise NotReadyError(f"{address}: {error.strerror}") from error
    writer.close()
    async with grpc.aio.insecure_channel(address, _NO_PROXY) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_PATIENCE)
        except grpc.aio.AioRpcError as error:
            raise NotReadyError(f"{address}: {error.code().name}: {error.details()}") from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        raise NotReadyError(f"{address}: {name}")


async def answering(address: str, path: str, token: str) -> None:
    """Return when the HTTP server at host:port answers 200 with JSON. Raises NotReadyError."""
    try:
        status, body = await asyncio.wait_for(_get(address, path, token), _PATIENCE)
    except (OSError, TimeoutError, ValueError) as error:
        raise NotReadyError(f"{address}: {error or type(error).__name__}") from error
    if status != 200:
        raise NotReadyError(f"{address}{path}: HTTP {status}")
    try:
        json.loads(body)
    except ValueError as error:
        raise NotReadyError(f"{address}{path}: the answer is not JSON") from error


async def _get(address: str, path: str, token: str) -> tuple[int, bytes]:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(
            f"GET {path} HTTP/1.0\r\nHost: {address}\r\n"
            f"Authorization: Bearer {token}\r\nAccept: application/json\r\n\r\n".encode()
        )
        answer = await reader.read(_ANSWER_LIMIT)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/") else 0, body
