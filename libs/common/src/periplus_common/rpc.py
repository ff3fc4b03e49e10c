"""gRPC: a server whose interceptor guards every call, and a channel for clients."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any, NoReturn, cast

import grpc
from google.protobuf.message import Message
from grpc import StatusCode
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from opentelemetry import trace

from periplus_common import auth, telemetry
from periplus_common.errors import PeriplusError
from periplus_common.status import STATUS, from_status, to_status
from periplus_common.unix_socket import grpc_target
from periplus_common.validation import validate

__all__ = [
    "STATUS",
    "ServerInterceptor",
    "channel",
    "from_status",
    "serving",
    "to_status",
    "validate",
]

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 32 << 20  # a claim holds a patch, a lockfile and an archive of 8 MiB each
MAX_CONNECTION_AGE_MS = 10 * 60_000  # clients reconnect so often, and find new replicas
UNARY_TIMEOUT = timedelta(seconds=60)  # of a call whose client sets none
CLIENT_TIMEOUT = timedelta(seconds=10)

_PUBLIC_STREAMS = ("/grpc.reflection.v1alpha.ServerReflection/",)  # the protos are no secret

_call_duration = telemetry.histogram(
    "rpc.server.call.duration",
    unit="s",
    description="Duration of each RPC that was served; a stream's until its end.",
    attributes=("rpc.system.name", "rpc.method", "rpc.response.status_code", "error.type"),
)


class ServerInterceptor(grpc.aio.ServerInterceptor):
    """Around every call: the token, the rules of the request, a timeout, and the errors' statuses, logs and metrics."""

    def __init__(self, token: str, unary_timeout: timedelta = UNARY_TIMEOUT) -> None:
        self._token = token
        self._unary_timeout = unary_timeout.total_seconds()

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Called by gRPC for every call, before its request is read."""
        handler = await continuation(details)
        method, metadata = details.method, details.invocation_metadata
        if handler is None or method.startswith(_PUBLIC_STREAMS):
            return handler
        if handler.request_streaming:
            # No RPC of ours streams its request. One that does needs a wrapper of its own: nothing here would check
            # its token.
            log.error(
                "%s streams its request, which is not supported: its token would not be checked", method
            )
            return None

        def admit(request: Message) -> None:
            auth.check(method, metadata, self._token)
            validate(request)

        async def unary(request: Message, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            with _observed(method, metadata, request) as call:
                remaining = context.time_remaining()
                timeout = asyncio.timeout(self._unary_timeout if remaining is None else remaining)
                try:
                    admit(request)
                    async with timeout:
                        return await handler.unary_unary(request, context)
                except Exception as error:  # noqa: BLE001 - the boundary: every failure gets its status
                    await call.abort(context, error, timed_out=timeout.expired())

        async def stream(request: Message, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            with _observed(method, metadata, request) as call:
                try:
                    admit(request)
                    # A stream has no timeout but its client's; a client that leaves early ends the handler at once.
                    async with aclosing(handler.unary_stream(request, context)) as responses:
                        async for response in responses:
                            yield response
                except Exception as error:  # noqa: BLE001 - the boundary: every failure gets its status
                    await call.abort(context, error)

        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                stream, handler.request_deserializer, handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            unary, handler.request_deserializer, handler.response_serializer
        )


_STATUS_OF_NUMBER = {code.value[0]: code for code in StatusCode}
"""gRPC's contexts have the status as a number."""


class _Call:
    """A call that is being served: how it ended."""

    def __init__(self, method: str) -> None:
        self._method = method
        self.status = StatusCode.OK
        self.error_type = ""

    async def abort(
        self,
        context: grpc.aio.ServicerContext[Any, Any],
        error: Exception,
        *,
        timed_out: bool = False,
    ) -> NoReturn:
        """End the call with the error's status. An error that is not ours is logged, and hidden from the client."""
        self.error_type = type(error).__name__
        if isinstance(error, grpc.aio.AbortError):
            self.status = _STATUS_OF_NUMBER.get(int(cast("int", context.code())), StatusCode.UNKNOWN)
            raise error
        if timed_out and isinstance(error, TimeoutError):
            await self._abort(context, StatusCode.DEADLINE_EXCEEDED, "the call's deadline has passed")
        if not isinstance(error, PeriplusError):
            log.error("unhandled error in %s", self._method, exc_info=error)
            await self._abort(context, StatusCode.INTERNAL, "internal error")
        status = rpc_status.to_status(to_status(error))
        await self._abort(context, status.code, status.details or "", status.trailing_metadata or ())

    async def _abort(
        self, context: grpc.aio.ServicerContext[Any, Any], code: StatusCode, details: str, metadata: Any = ()
    ) -> NoReturn:
        self.status = code
        await context.abort(code, details, metadata)


@contextmanager
def _observed(
    method: str, metadata: Sequence[tuple[str, str | bytes]] | None, request: Message
) -> Iterator[_Call]:
    """Trace context, fields of log lines, and the metric of a call."""
    call, started = _Call(method), time.perf_counter()
    fields = {
        name: value for name in ("project", "run") if isinstance(value := getattr(request, name, ""), str)
    }
    # Where telemetry is on, OpenTelemetry's interceptor has read the headers and has begun a span.
    headers = {} if trace.get_current_span().get_span_context().is_valid else _texts(metadata)
    try:
        with telemetry.remote_context(headers), telemetry.log_context(**fields):
            yield call
    except (asyncio.CancelledError, GeneratorExit):
        call.status, call.error_type = StatusCode.CANCELLED, StatusCode.CANCELLED.name
        raise
    finally:
        attributes = {
            "rpc.system.name": "grpc",
            "rpc.method": method.removeprefix("/"),
            "rpc.response.status_code": call.status.name,
        }
        if call.error_type:
            attributes["error.type"] = call.error_type
        _call_duration.record(time.perf_counter() - started, attributes)


def _texts(metadata: Sequence[tuple[str, str | bytes]] | None) -> dict[str, str]:
    return {key: value for key, value in metadata or () if isinstance(value, str)}


@asynccontextmanager
async def serving(
    address: str,
    token: str,
    *register: Callable[[grpc.aio.Server], None],
    names: Sequence[str],
    unary_timeout: timedelta = UNARY_TIMEOUT,
    grace: timedelta = timedelta(seconds=10),
) -> AsyncIterator[int]:
    """Serve until the block is left, then let running calls finish within `grace`. Yields the port.

    `address` is host:port, or unix:/path for a socket; one that a killed server left behind is replaced.
    `names` are the full names of the services, for reflection. Health is SERVING while the block is open.
    """
    server = grpc.aio.server(
        interceptors=[ServerInterceptor(token, unary_timeout)],
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_connection_age_ms", MAX_CONNECTION_AGE_MS),
            (
                "grpc.so_reuseport",
                0,
            ),  # a second process on our port is an error, and gets no share of the calls
        ],
    )
    for add in register:
        add(server)
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    port = server.add_insecure_port(grpc_target(address))
    await server.start()
    for name in ("", *names):
        await servicer.set(name, HealthCheckResponse.SERVING)
    try:
        yield port
    finally:
        await servicer.enter_graceful_shutdown()
        await server.stop(grace.total_seconds())


class ClientInterceptor(grpc.aio.UnaryUnaryClientInterceptor):
    """Around every unary call of ours: the token, the trace, and a timeout where the call has none."""

    def __init__(self, token: str, timeout: timedelta) -> None:
        self._token = token
        self._timeout = timeout.total_seconds()

    async def intercept_unary_unary(
        self, continuation: Callable[..., Awaitable[Any]], details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        """Called by gRPC for every unary call."""
        metadata = [*(details.metadata or ()), *auth.metadata(self._token)]
        if all(
            key != "traceparent" for key, _ in metadata
        ):  # where telemetry is on, OpenTelemetry's has set it
            metadata += telemetry.trace_headers().items()
        timeout = details.timeout if details.timeout is not None else self._timeout
        changed = grpc.aio.ClientCallDetails(
            details.method, timeout, grpc.aio.Metadata(*metadata), details.credentials, details.wait_for_ready
        )
        return await continuation(changed, request)


@asynccontextmanager
async def channel(
    address: str, token: str, *, call_timeout: timedelta = CLIENT_TIMEOUT
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to host:port or unix:/path whose unary calls carry the token and end after `call_timeout`."""
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.enable_http_proxy", 0),  # services are reached directly, whatever the environment says
    ]
    async with grpc.aio.insecure_channel(
        grpc_target(address), options=options, interceptors=[ClientInterceptor(token, call_timeout)]
    ) as opened:
        yield opened
