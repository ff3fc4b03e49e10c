"""What callers of a service's gRPC may send: who is answered at all, how large, how often and for how long."""

import asyncio
import re
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.unknown_fields import UnknownFieldSet
from google.protobuf.wrappers_pb2 import BytesValue
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from periplus.cache.v1 import cache_pb2, cache_pb2_grpc
from periplus.dispatcher.v1 import dispatcher_pb2, dispatcher_pb2_grpc
from periplus.lineage.v1 import lineage_pb2, lineage_pb2_grpc
from periplus.snapshotter.v1 import snapshotter_pb2, snapshotter_pb2_grpc
from periplus_common import auth, rpc
from periplus_common.rpc_limits import DEFAULT_REQUEST_BYTES, ServerLimits, max_request_bytes

TOKEN = "token"
TEXTS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
MIB = 1 << 20
SERVICES = {
    module.DESCRIPTOR.services_by_name[name].full_name: getattr(servicers, f"add_{name}Servicer_to_server")
    for name, module, servicers in (
        ("CacheService", cache_pb2, cache_pb2_grpc),
        ("DispatcherService", dispatcher_pb2, dispatcher_pb2_grpc),
        ("LineageService", lineage_pb2, lineage_pb2_grpc),
        ("SnapshotterService", snapshotter_pb2, snapshotter_pb2_grpc),
    )
}
METHODS = [
    f"/{service}/{method.name}"
    for service in SERVICES
    for method in descriptor_pool.Default().FindServiceByName(service).methods
]
LARGE = {
    "/periplus.cache.v1.CacheService/ResolveSteps": 16 * MIB,
    "/periplus.dispatcher.v1.DispatcherService/PlanRun": 32 * MIB,
    "/periplus.dispatcher.v1.DispatcherService/SubmitRun": 32 * MIB,
    "/periplus.snapshotter.v1.SnapshotterService/TakeSnapshot": 32 * MIB,
}
SMALL = "/periplus.lineage.v1.LineageService/GetRun"


class Anything:
    """Stands for the services: each of its methods answers an empty message."""

    def __getattr__(self, name: str) -> Any:
        async def handle(request: object, context: object) -> Empty:
            return Empty()

        async def watch(request: object, context: object) -> AsyncIterator[BytesValue]:
            while True:
                yield BytesValue(value=bytes(MIB))

        return watch if name in ("WatchRun", "ReadLogs", "AdoptRuns") else handle


@asynccontextmanager
async def serving(*services: str, **limits: Any) -> AsyncIterator[tuple[int, grpc.aio.Channel]]:
    """A server of all services, or these, on the rules of `rpc`; gives its port and a channel without a token."""
    names = services or tuple(SERVICES)

    def register(server: grpc.aio.Server) -> None:
        for name in names:
            methods = descriptor_pool.Default().FindServiceByName(name).methods
            handlers = {method.name: handler(method) for method in methods}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))

    async with (
        rpc.serving(
            "127.0.0.1:0", TOKEN, register, names=names, grace=timedelta(0), limits=ServerLimits(**limits)
        ) as port,
        grpc.aio.insecure_channel(
            f"127.0.0.1:{port}",
            options=[("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)],
        ) as channel,
    ):
        yield port, channel


def handler(method: Any) -> grpc.RpcMethodHandler:
    make = (
        grpc.unary_stream_rpc_method_handler
        if method.server_streaming
        else grpc.unary_unary_rpc_method_handler
    )
    parse = method.input_type._concrete_class.FromString
    return make(getattr(Anything(), method.name), parse, lambda message: message.SerializeToString())


async def status_of(channel: grpc.aio.Channel, method: str, raw: bytes, **call: Any) -> StatusCode:
    """The status of a call with these bytes as its request."""
    try:
        await channel.unary_unary(method)(raw, **call)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return StatusCode.OK


async def reflected(channel: grpc.aio.Channel, **call: Any) -> set[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    names = set()
    async for answer in stub.ServerReflectionInfo(iter([request]), **call):
        names |= {service.name for service in answer.list_services_response.service}
    return names


NO_TOKENS = {
    "none": (),
    "empty": ("",),
    "another": ("Bearer other",),
    "shorter": (f"Bearer {TOKEN[:-1]}",),
    "longer": (f"Bearer {TOKEN}x",),
    "no scheme": (TOKEN,),
    "another scheme": (f"Basic {TOKEN}",),
    "two": ("Bearer other", f"Bearer {TOKEN}"),
}
"""What callers without the token send as `authorization`."""


@pytest.mark.parametrize("sent", NO_TOKENS.values(), ids=NO_TOKENS)
async def test_every_call_but_the_health_check_needs_the_token(sent: tuple[str, ...]):
    metadata = tuple((auth.HEADER, value) for value in sent)
    health = [f"/grpc.health.v1.Health/{name}" for name in ("Watch", "List")]
    async with serving() as (_, channel):
        for method in [*METHODS, *health]:
            assert await status_of(channel, method, b"", metadata=metadata) is StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await reflected(channel, metadata=metadata)
        assert refused.value.code() is StatusCode.UNAUTHENTICATED


async def test_every_call_with_the_token_is_answered():
    """Else the test above would hold for a server that refuses everyone."""
    async with serving() as (_, channel):
        for method in METHODS:
            found = await status_of(channel, method, b"", metadata=auth.metadata(TOKEN))
            assert found is StatusCode.INVALID_ARGUMENT  # of its missing fields
        assert set(SERVICES) <= await reflected(channel, metadata=auth.metadata(TOKEN))


async def test_the_health_check_of_a_stranger_says_serving_whatever_it_asks_and_reads_nothing():
    async with serving() as (_, channel):
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "periplus.cache.v1.CacheService", "no.such.Service"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer == health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert await check(b"\xff" * 100) == answer.SerializeToString()
        request = health_pb2.HealthCheckRequest(service="no.such.Service")
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await stub.Check(request, metadata=auth.metadata(TOKEN))
        assert unknown.value.code() is StatusCode.NOT_FOUND


async def test_a_strangers_message_is_not_received():
    """32 MiB each: only what the transport's window holds is ever read."""
    async with serving() as (_, channel):
        before = psutil.Process().memory_info().rss
        message = bytes(32 * MIB)
        for method in LARGE:
            statuses = await asyncio.gather(*(status_of(channel, method, message) for _ in range(3)))
            assert set(statuses) == {StatusCode.UNAUTHENTICATED}
        assert psutil.Process().memory_info().rss - before < 5 * 32 * MIB  # the client's own copies


def test_requests_have_4_mib_except_for_those_whose_proto_says_more():
    assert DEFAULT_REQUEST_BYTES == 4 * MIB
    assert {method: size for method in METHODS if (size := max_request_bytes(method)) != 4 * MIB} == LARGE
    published = (Path(__file__).parents[2] / "docs/limits.md").read_text()
    for method, size in LARGE.items():
        assert re.search(rf"\| `{method.rsplit('/')[-1]}`[^\n]*\| {size // MIB} MiB \|", published), method


@pytest.mark.parametrize("method", [SMALL, *LARGE])
async def test_a_request_is_refused_by_its_own_limit_before_it_is_parsed(method: str):
    limit = LARGE.get(method, 4 * MIB)
    # Field 999 of length-delimited bytes, which no message has, so that the message can be parsed.
    head = bytes([0xBA, 0x3E])
    async with serving() as (_, channel):

        async def status(size: int) -> StatusCode:
            count = size - len(head) - 4
            length = bytes(
                [count & 0x7F | 0x80, count >> 7 & 0x7F | 0x80, count >> 14 & 0x7F | 0x80, count >> 21]
            )
            return await status_of(
                channel, method, head + length + bytes(count), metadata=auth.metadata(TOKEN)
            )

        assert await status(limit) is StatusCode.INVALID_ARGUMENT  # of its missing fields
        assert await status(limit + 1) is StatusCode.RESOURCE_EXHAUSTED


async def test_a_service_receives_no_more_than_its_largest_request():
    """By gRPC itself, before the message is in memory."""
    async with serving("periplus.lineage.v1.LineageService") as (_, channel):
        call = channel.unary_unary(SMALL)
        with pytest.raises(grpc.aio.AioRpcError, match=r"larger than max \(4194306 vs. 4194304\)"):
            await call(bytes(4 * MIB + 2), metadata=auth.metadata(TOKEN))


@pytest.mark.parametrize(
    "raw", [b"\xff", b"\x0a\xff", b"\x0a\x01", b"\x0b" * 5000, b"\x0a\x02\xff\xfe"], ids=["tag", "length", "cut", "deep", "utf8"]
)  # fmt: skip
@pytest.mark.parametrize("method", [SMALL, "/periplus.lineage.v1.LineageService/WatchRun"])
async def test_bytes_that_are_no_message_are_invalid(raw: bytes, method: str):
    async with serving() as (_, channel):
        assert (
            await status_of(channel, method, raw, metadata=auth.metadata(TOKEN))
            is StatusCode.INVALID_ARGUMENT
        )


def test_every_field_of_a_request_has_a_bound():
    unbounded = set()
    for service in SERVICES:
        for method in descriptor_pool.Default().FindServiceByName(service).methods:
            unbounded |= set(_unbounded(method.input_type, set()))
    assert unbounded == set()


def _unbounded(message: Descriptor, seen: set[str]) -> Iterator[str]:
    """Texts, bytes, lists and maps below a message that no rule of their proto bounds."""
    if message.full_name in seen or message.full_name.startswith("google."):
        return
    seen.add(message.full_name)
    for field in message.fields:
        if not _is_bounded(field):
            yield field.full_name
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            yield from _unbounded(field.message_type, seen)


def _is_bounded(field: FieldDescriptor) -> bool:
    """By the field numbers of buf.validate's rules, whose Python our clients do not have."""
    rules = {}
    for option in UnknownFieldSet(field.GetOptions()):
        if option.field_number == 1159:
            rules = _decoded(option.data)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        of_map = _decoded(rules.get(19, b""))
        texts = [
            (number, field.message_type.fields_by_number[place].type) for number, place in ((4, 1), (5, 2))
        ]
        return 2 in of_map and all(_is_bounded_text(kind, of_map.get(number, b"")) for number, kind in texts)
    if field.is_repeated:
        of_list = _decoded(rules.get(18, b""))
        return 2 in of_list and _is_bounded_text(field.type, of_list.get(4, b""))
    return field.type not in TEXTS or _has_bound(rules)


def _is_bounded_text(kind: int, rules: bytes) -> bool:
    return kind not in TEXTS or _has_bound(_decoded(rules))


def _has_bound(rules: dict[int, Any]) -> bool:
    """A length, a pattern, or a list of values."""
    return bool({1, 3, 5, 6, 10, 19} & _decoded(rules.get(14, rules.get(15, b""))).keys())


def _decoded(message: bytes) -> dict[int, Any]:
    return {field.field_number: field.data for field in UnknownFieldSet(Empty.FromString(message))}


# What the transport itself is sent, as frames of HTTP/2.

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY = 4, 6, 7


def frame(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + bytes(4) + body


async def frames(reader: asyncio.StreamReader) -> list[tuple[int, bytes]]:
    """What a server sends until it closes the connection."""
    found = []
    while head := await reader.read(9):
        head += await reader.readexactly(9 - len(head))
        found.append((head[3], await reader.readexactly(int.from_bytes(head[:3], "big"))))
    return found


async def test_a_client_that_pings_all_the_time_is_sent_away():
    async with serving() as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PREFACE + frame(SETTINGS) + frame(PING, bytes(8)) * 6)
        received = await asyncio.wait_for(frames(reader), 10)
        writer.close()
    last = [body for kind, body in received if kind == GOAWAY][-1]
    assert last.endswith(b"too_many_pings")


@pytest.mark.parametrize(
    "sent",
    [b"", PREFACE[:10], PREFACE, b"GET / HTTP/1.1\r\n"],
    ids=["nothing", "part", "no settings", "http/1"],
)
async def test_a_client_that_does_not_finish_its_greeting_is_cut_off(sent: bytes):
    async with serving(handshake_timeout=timedelta(seconds=0.5)) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        async with asyncio.timeout(60):
            while await reader.read(4096):
                pass
        writer.close()


async def test_a_connection_without_calls_is_closed():
    async with serving(connection_idle=timedelta(seconds=0.5)) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PREFACE + frame(SETTINGS))
        received = await asyncio.wait_for(frames(reader), 10)
        writer.close()
    assert GOAWAY in [kind for kind, _ in received]


async def test_a_connection_has_no_more_than_100_calls_at_a_time():
    async with serving() as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(PREFACE + frame(SETTINGS))
        async with asyncio.timeout(60):
            head = await reader.readexactly(9)
            body = await reader.readexactly(int.from_bytes(head[:3], "big"))
        writer.close()
    settings = dict(struct.iter_unpack(">HI", body))
    assert settings[3] == ServerLimits().max_streams_per_connection == 100


async def test_metadata_of_more_than_16_kib_is_refused():
    async with serving() as (_, channel):

        async def status(size: int) -> StatusCode:
            return await status_of(channel, SMALL, b"", metadata=(*auth.metadata(TOKEN), ("x", "y" * size)))

        assert await status(15 << 10) is StatusCode.INVALID_ARGUMENT
        assert await status(17 << 10) is StatusCode.RESOURCE_EXHAUSTED


async def test_a_client_that_does_not_read_its_stream_ends_it():
    """The window of the transport is filled; then the call ends, and its handler with it."""
    ended = asyncio.Event()

    async def endless(request: object, context: object) -> AsyncIterator[BytesValue]:
        try:
            while True:
                yield BytesValue(value=bytes(MIB))
        finally:
            ended.set()

    make = grpc.unary_stream_rpc_method_handler(endless, Empty.FromString, BytesValue.SerializeToString)
    service = grpc.method_handlers_generic_handler("test.Service", {"Do": make})
    limits = ServerLimits(write_timeout=timedelta(seconds=0.5))
    async with (
        rpc.serving(
            "127.0.0.1:0", TOKEN, lambda s: s.add_generic_rpc_handlers((service,)), names=[], limits=limits
        ) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        call = channel.unary_stream("/test.Service/Do")(b"", metadata=auth.metadata(TOKEN))
        assert await call.read()
        await asyncio.wait_for(ended.wait(), 10)
        with suppress(grpc.aio.AioRpcError):  # should it read on, it gets what was sent, and the status
            async with asyncio.timeout(60):
                while await call.read():
                    pass
        assert await call.code() is StatusCode.DEADLINE_EXCEEDED


async def test_a_server_with_too_many_calls_answers_others_that_it_is_busy():
    release = asyncio.Event()

    async def hang(request: object, context: object) -> Empty:
        await release.wait()
        return Empty()

    make = grpc.unary_unary_rpc_method_handler(hang, Empty.FromString, Empty.SerializeToString)
    service = grpc.method_handlers_generic_handler("test.Service", {"Do": make})
    async with (
        rpc.serving(
            "127.0.0.1:0", TOKEN, lambda s: s.add_generic_rpc_handlers((service,)), names=[],
            limits=ServerLimits(max_calls=2),
        ) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):  # fmt: skip
        statuses = [
            asyncio.ensure_future(status_of(channel, "/test.Service/Do", b"", metadata=auth.metadata(TOKEN)))
            for _ in range(5)
        ]
        async with asyncio.timeout(60):
            while sum(task.done() for task in statuses) < 3:  # noqa: ASYNC110 - tasks have no event
                await asyncio.sleep(0.01)
        release.set()
        assert (
            sorted(status.name for status in await asyncio.gather(*statuses))
            == ["OK"] * 2 + ["UNAVAILABLE"] * 3
        )


async def test_a_call_may_not_ask_for_more_than_the_servers_time():
    async def hang(request: object, context: object) -> Empty:
        await asyncio.Event().wait()
        return Empty()

    make = grpc.unary_unary_rpc_method_handler(hang, Empty.FromString, Empty.SerializeToString)
    service = grpc.method_handlers_generic_handler("test.Service", {"Do": make})
    async with (
        rpc.serving(
            "127.0.0.1:0", TOKEN, lambda s: s.add_generic_rpc_handlers((service,)), names=[],
            limits=ServerLimits(call_timeout=timedelta(seconds=0.2)),
        ) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):  # fmt: skip
        async with asyncio.timeout(60):  # less than the client asks for
            status = await status_of(
                channel, "/test.Service/Do", b"", timeout=600, metadata=auth.metadata(TOKEN)
            )
    assert status is StatusCode.DEADLINE_EXCEEDED
