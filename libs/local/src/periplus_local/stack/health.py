"""Whether a service or the local Argo is ready."""

from __future__ import annotations

import asyncio
import json

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from periplus_common.unix_socket import PREFIX, grpc_target, short_path
from periplus_local.stack.process import NotReadyError

_TIMEOUT_SECONDS = 2.0
# gRPC would use the proxy of $http_proxy for 127.0.0.1 too.
_NO_PROXY = (("grpc.enable_http_proxy", 0),)
_MAX_ANSWER_BYTES = 65_536


async def serving(address: str) -> None:
    """Return if the health service at unix:/path answers SERVING. Raises NotReadyError."""
    try:
        # Checked first, because a channel whose connection is refused waits a second before it connects again.
        _, writer = await _open(address)
    except OSError as error:
        raise NotReadyError(f"{address}: {error.strerror}") from error
    writer.close()
    async with grpc.aio.insecure_channel(grpc_target(address), _NO_PROXY) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise NotReadyError(f"{address}: {error.code().name}: {error.details()}") from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        raise NotReadyError(f"{address}: {name}")


async def answering(address: str, path: str, token: str) -> None:
    """Return if the HTTP server at host:port or unix:/path answers 200 with JSON. Raises NotReadyError."""
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            status, body = await _get(address, path, token)
    except (OSError, TimeoutError, ValueError) as error:
        raise NotReadyError(f"{address}: {error or type(error).__name__}") from error
    if status != 200:
        raise NotReadyError(f"{address}{path}: HTTP {status}")
    try:
        json.loads(body)
    except ValueError as error:
        raise NotReadyError(f"{address}{path}: the answer is not JSON") from error


async def _get(address: str, path: str, token: str) -> tuple[int, bytes]:
    reader, writer = await _open(address)
    try:
        writer.write(
            f"GET {path} HTTP/1.0\r\nHost: localhost\r\n"
            f"Authorization: Bearer {token}\r\nAccept: application/json\r\n\r\n".encode()
        )
        answer = await reader.read(_MAX_ANSWER_BYTES)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/") else 0, body


async def _open(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if address.startswith(PREFIX):
        return await asyncio.open_unix_connection(short_path(address.removeprefix(PREFIX)))
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))
