"""gRPC: one server with its wrapper around every call, and one channel for callers."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message
from grpc import StatusCode
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from opentelemetry.trace import SpanKind

from periplus_common import auth, telemetry
from periplus_common.errors import PeriplusError
from periplus_common.status import STATUS, from_status, to_status
from periplus_common.validation import validate

__all__ = ["STATUS", "Wrapper", "channel", "from_status", "serving", "to_status", "validate"]

log = logging.getLogger(__name__)

MAX_MESSAGE = 32 << 20  # bytes; a claim holds a patch, a lockfile and an archive of 8 MiB each
PATIENCE = 60.0  # seconds for a unary call whose caller set no deadline

# What a server says of its own interface is no secret; the contracts are public.
OPEN_STREAMS = ("/grpc.reflection.v1alpha.ServerReflection/",)

_calls = telemetry.meter.create_histogram("rpc.server.duration", unit="ms")


class Wrapper(grpc.aio.ServerInterceptor):
    """Around every call: its trace, the caller's token, the rules of the request, and the errors' statuses."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        method, sent = details.method, details.invocation_metadata
        if handler is None or method.startswith(OPEN_STREAMS):
            return handler
        if handler.request_streaming:
            # None of our RPCs streams its request. One that does needs a wrapper of its own before it is served:
            # nothing here would ask for its token.
            log.error("%s streams its request, which nobody would check", method)
            return None

        def admit(request: Message) -> None:
            auth.check(method, sent, self._token)
            validate(request)

        async def unary(request: Message, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            with telemetry.continuing(method, _texts(sent), SpanKind.SERVER), _timed(method):
                remaining = context.time_remaining()
                patience = asyncio.timeout(PATIENCE if remaining is None else remaining)
                try:
                    admit(request)
                    async with patience:
                        return await handler.unary_unary(request, context)
                except Exception as error:  # noqa: BLE001 - the boundary: every failure gets its status
                    await _abort(context, method, error, late=patience.expired())

        async def stream(request: Message, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            with telemetry.continuing(method, _texts(sent), SpanKind.SERVER), _timed(method):
                try:
                    admit(request)
                    # A stream may last for ever; who asks sets its end, and leaving early ends the handler at once.
                    async with aclosing(handler.unary_stream(request, context)) as responses:
                        async for response in responses:
                            yield response
                except Exception as error:  # noqa: BLE001 - the boundary: every failure gets its status
                    await _abort(context, method, error)

        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                stream, handler.request_deserializer, handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            unary, handler.request_deserializer, handler.response_serializer
        )


@contextmanager
def _timed(method: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        _calls.record((time.perf_counter() - began) * 1000, {"rpc.method": method})


def _texts(sent: Sequence[tuple[str, str | bytes]] | None) -> dict[str, str]:
    return {key: value for key, value in sent or () if isinstance(value, str)}


async def _abort(
    context: grpc.aio.ServicerContext[Any, Any], method: str, error: Exception, *, late: bool = False
) -> NoReturn:
    """End the call with the status of the error. What is not ours to tell is logged, and told as INTERNAL."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if late and isinstance(error, TimeoutError):
        await context.abort(StatusCode.DEADLINE_EXCEEDED, "the caller's time is up")
    if not isinstance(error, PeriplusError):
        log.error("unhandled error in %s", method, exc_info=error)
        await context.abort(StatusCode.INTERNAL, "internal error")
    status = rpc_status.to_status(to_status(error))
    await context.abort(status.code, status.details or "", status.trailing_metadata or ())


@asynccontextmanager
async def serving(
    address: str,
    token: str,
    *register: Callable[[grpc.aio.Server], None],
    names: Sequence[str],
    grace: float = 10,
) -> AsyncIterator[int]:
    """Serve until the block is left, then let calls in flight finish. Yields the port.

    `names` are the full names of the services, for reflection. Health says SERVING while the block is open.
    """
    server = grpc.aio.server(
        interceptors=[Wrapper(token)],
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.max_send_message_length", MAX_MESSAGE),
            ("grpc.max_connection_age_ms", 10 * 60_000),  # so that clients find new replicas
            ("grpc.so_reuseport", 0),  # a second process on our port is an error, not a sharer
        ],
    )
    for add in register:
        add(server)
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    port = server.add_insecure_port(address)
    await server.start()
    for name in ("", *names):
        await healthy.set(name, HealthCheckResponse.SERVING)
    try:
        yield port
    finally:
        await healthy.enter_graceful_shutdown()
        await server.stop(grace)


class Caller(grpc.aio.UnaryUnaryClientInterceptor):
    """Around every unary call of ours: the token, the trace and, where the caller set none, a deadline."""

    def __init__(self, token: str, timeout: float) -> None:
        self._token = token
        self._timeout = timeout

    async def intercept_unary_unary(
        self, continuation: Callable[..., Awaitable[Any]], details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        sent = grpc.aio.Metadata(
            *(details.metadata or ()), *auth.metadata(self._token), *telemetry.carry().items()
        )
        timeout = details.timeout if details.timeout is not None else self._timeout
        changed = grpc.aio.ClientCallDetails(
            details.method, timeout, sent, details.credentials, details.wait_for_ready
        )
        return await continuation(changed, request)


@asynccontextmanager
async def channel(address: str, token: str, *, deadline: float = 10) -> AsyncIterator[grpc.aio.Channel]:
    """A channel whose unary calls carry the token and end after `deadline` seconds."""
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE),
        ("grpc.max_send_message_length", MAX_MESSAGE),
        ("grpc.enable_http_proxy", 0),  # services are reached directly, whatever a shell says
    ]
    async with grpc.aio.insecure_channel(
        address, options=options, interceptors=[Caller(token, deadline)]
    ) as opened:
        yield opened
