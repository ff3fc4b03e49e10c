"""gRPC: a server whose interceptor guards every call, and a channel for clients."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any, NoReturn, cast

import grpc
from google.protobuf.message import DecodeError, Message
from grpc import StatusCode
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from opentelemetry import trace

from periplus_common import auth, telemetry
from periplus_common.errors import Invalid, PeriplusError, TooLarge, Unauthenticated, Unavailable
from periplus_common.pauses import Pauses
from periplus_common.rpc_limits import DEFAULT_LIMITS, MAX_MESSAGE_BYTES, ServerLimits, max_request_bytes
from periplus_common.status import STATUS, from_status, to_status
from periplus_common.unix_socket import grpc_target
from periplus_common.validation import validate, validate_with_pauses

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

CLIENT_TIMEOUT = timedelta(seconds=10)

_HEALTH_CHECK = "/grpc.health.v1.Health/Check"
_REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/"
_LARGE_REQUEST_BYTES = 1 << 20  # smaller ones are validated in a third of a second, whatever they have

_call_duration = telemetry.histogram(
    "rpc.server.call.duration",
    unit="s",
    description="Duration of each RPC that was served; a stream's until its end.",
    attributes=("rpc.system.name", "rpc.method", "rpc.response.status_code", "error.type"),
)


class ServerInterceptor(grpc.aio.ServerInterceptor):
    """Around every call: the token, the rules of the request, a timeout, and the errors' statuses, logs and metrics."""

    def __init__(self, token: str, limits: ServerLimits = DEFAULT_LIMITS) -> None:
        self._token = token
        self._limits = limits
        self._running = 0
        self.status = HealthCheckResponse.SERVING
        """Of the whole server, for callers without a token."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Called by gRPC for every call, before its request is read."""
        handler = await continuation(details)
        method, metadata = details.method, details.invocation_metadata
        if handler is None:
            return None
        try:
            auth.check(metadata, self._token)
        except Unauthenticated as error:
            # The handlers of these do not read the request: a stranger's message is neither received nor parsed.
            return self._health() if method == _HEALTH_CHECK else _refusing(method, metadata, error)
        if method.startswith(_REFLECTION):
            return handler
        return self._wrapped(handler, method, metadata)

    def _wrapped(self, handler: Any, method: str, metadata: Any) -> Any:
        if handler.request_streaming:
            # No RPC of ours streams its request. One that does needs a wrapper of its own: nothing here would check
            # its messages.
            log.error("%s streams its request, which is not supported", method)
            return None

        async def unary(raw: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            with _observed(method, metadata) as call:
                remaining, limit = context.time_remaining(), self._limits.call_timeout.total_seconds()
                timeout = asyncio.timeout(limit if remaining is None else min(remaining, limit))
                try:
                    async with timeout:
                        request = await _read(raw, method, handler.request_deserializer)
                        with self._counted(), _logged(request):
                            return await handler.unary_unary(request, context)
                except Exception as error:  # noqa: BLE001 - the boundary: every failure gets its status
                    await call.abort(context, error, timed_out=timeout.expired())

        async def stream(raw: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            with _observed(method, metadata) as call:
                try:
                    request = await _read(raw, method, handler.request_deserializer)
                    # A stream has no timeout but its client's; a client that leaves early ends the handler at once.
                    with self._counted(), _logged(request):
                        async with aclosing(handler.unary_stream(request, context)) as responses:
                            async for response in responses:
                                with self._ends_unless_read(context):
                                    yield response
                except Exception as error:  # noqa: BLE001 - the boundary: every failure gets its status
                    await call.abort(context, error)

        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, None, handler.response_serializer)
        return grpc.unary_unary_rpc_method_handler(unary, None, handler.response_serializer)

    def _health(self) -> Any:
        """A handler for Kubernetes' probe, which has no token."""

        async def check(_: object, __: object) -> AsyncIterator[HealthCheckResponse]:
            yield HealthCheckResponse(status=self.status)

        return grpc.stream_stream_rpc_method_handler(check, None, HealthCheckResponse.SerializeToString)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Raise `Unavailable` if as many calls run as may."""
        if self._running >= self._limits.max_calls:
            raise Unavailable(f"the server has {self._running} calls, as many as it may")
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    @contextmanager
    def _ends_unless_read(self, context: grpc.aio.ServicerContext[Any, Any]) -> Iterator[None]:
        """End the call if its client does not read the message that is sent in the block."""
        task, seconds = asyncio.current_task(), self._limits.write_timeout.total_seconds()
        assert task is not None

        async def end() -> None:
            await asyncio.sleep(seconds)
            task.cancel()
            # Sent after the message, should the client ever read on.
            await context.abort(StatusCode.DEADLINE_EXCEEDED, f"no message was read for {seconds:g} s")

        ending = asyncio.create_task(end())
        ending.add_done_callback(lambda done: done.cancelled() or done.exception())  # abort always raises
        try:
            yield
        finally:
            if not task.cancelling():
                ending.cancel()


async def _read(raw: bytes, method: str, parse: Callable[[bytes], Any]) -> Any:
    """A request; raises `TooLarge`, and `Invalid` for one that breaks a rule of its proto."""
    limit = max_request_bytes(method)
    if len(raw) > limit:
        raise TooLarge(f"the request has {len(raw)} bytes, {limit} are allowed")
    try:
        request = parse(raw)
    except (DecodeError, ValueError) as error:
        raise Invalid("the request can not be parsed as its message") from error
    if len(raw) > _LARGE_REQUEST_BYTES:
        await validate_with_pauses(request, Pauses())
    else:
        validate(request)
    return request


def _refusing(method: str, metadata: Any, error: PeriplusError) -> Any:
    """A handler of any RPC that fails without reading its request."""

    async def refuse(_: object, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[bytes]:
        with _observed(method, metadata) as call:
            await call.abort(context, error)
        yield b""

    return grpc.stream_stream_rpc_method_handler(refuse)


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
def _observed(method: str, metadata: Sequence[tuple[str, str | bytes]] | None) -> Iterator[_Call]:
    """Trace context and the metric of a call."""
    call, started = _Call(method), time.perf_counter()
    # Where telemetry is on, OpenTelemetry's interceptor has read the headers and has begun a span.
    headers = {} if trace.get_current_span().get_span_context().is_valid else _texts(metadata)
    try:
        with telemetry.remote_context(headers):
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


def _logged(request: Message) -> AbstractContextManager[None]:
    """The fields of log lines that a request has."""
    found = {name: getattr(request, name, "") for name in ("project", "run")}
    return telemetry.log_context(**{name: value for name, value in found.items() if isinstance(value, str)})


def _texts(metadata: Sequence[tuple[str, str | bytes]] | None) -> dict[str, str]:
    return {key: value for key, value in metadata or () if isinstance(value, str)}


@asynccontextmanager
async def serving(
    address: str,
    token: str,
    *register: Callable[[grpc.aio.Server], None],
    names: Sequence[str],
    limits: ServerLimits = DEFAULT_LIMITS,
    grace: timedelta = timedelta(seconds=10),
) -> AsyncIterator[int]:
    """Serve until the block is left, then let running calls finish within `grace`. Yields the port.

    `address` is host:port, or unix:/path for a socket; one that a killed server left behind is replaced.
    `names` are the full names of the services. Every call needs the token but `Health.Check`, which says SERVING
    while the block is open; without the token it does not read which service it was asked about.
    """
    interceptor = ServerInterceptor(token, limits)
    server = grpc.aio.server(interceptors=[interceptor], options=limits.options(names))
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
        interceptor.status = HealthCheckResponse.NOT_SERVING
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
        # A name with an address for each replica: calls take turns. The servers' connection age makes clients look it up again.
        ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
    ]
    async with grpc.aio.insecure_channel(
        grpc_target(address), options=options, interceptors=[ClientInterceptor(token, call_timeout)]
    ) as opened:
        yield opened
