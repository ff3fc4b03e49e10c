"""A server and its clients, in process: who may call, what is refused, and which errors a client gets."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import Int32Value
from google.rpc import error_details_pb2
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from periplus.cache.v1 import cache_pb2
from periplus_common import auth, rpc
from periplus_common.errors import Invalid, NotFound, PeriplusError, Refused, Unavailable
from periplus_common.rpc_limits import ServerLimits
from periplus_common.unix_socket import short_path

TOKEN = "token"


@asynccontextmanager
async def served(handler, kind=Empty, *, streams: bool = False) -> AsyncIterator[grpc.aio.Channel]:
    """A server with one RPC, /test.Service/Do, and a channel to it."""
    make = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
    rpcs = {"Do": make(handler, kind.FromString, lambda message: message.SerializeToString())}
    async with open_to(rpcs) as port, rpc.channel(f"127.0.0.1:{port}", TOKEN) as channel:
        yield channel


def open_to(rpcs: dict[str, grpc.RpcMethodHandler], **options: Any):
    service = grpc.method_handlers_generic_handler("test.Service", rpcs)
    return rpc.serving(
        "127.0.0.1:0",
        TOKEN,
        lambda s: s.add_generic_rpc_handlers((service,)),
        names=["test.Service"],
        grace=timedelta(0),
        **options,
    )


def do(channel: grpc.aio.Channel, kind=Empty) -> Callable:
    return channel.unary_unary("/test.Service/Do", kind.SerializeToString, Empty.FromString)


def stream(channel: grpc.aio.Channel) -> Callable:
    return channel.unary_stream("/test.Service/Do", Empty.SerializeToString, Int32Value.FromString)


async def caught(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


async def nothing(request: Empty, context: object) -> Empty:
    return Empty()


def failing(error: BaseException):
    async def fail(request: Empty, context: object) -> Empty:
        raise error

    return fail


async def test_the_field_the_reason_and_the_fix_are_details_of_the_status():
    error = Invalid("is wrong", field="a.b", reason="WRONG", fix="periplus fix")
    async with served(failing(error)) as channel:
        received = await caught(do(channel)(Empty()))
    status = rpc_status.from_call(received)
    kinds = (error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.Help())
    info, bad, help_ = kinds
    assert [detail.Unpack(kind) for detail, kind in zip(status.details, kinds, strict=True)] == [True] * 3
    assert (info.reason, info.domain) == ("WRONG", "periplus.dev")
    assert bad.field_violations[0].field == "a.b"
    assert help_.links[0].description == "periplus fix"
    assert received.details() == "a.b: is wrong"


async def test_an_unknown_error_is_logged_and_hidden_from_the_client(caplog):
    async with served(failing(ValueError("the password is 1234"))) as channel:
        received = await caught(do(channel)(Empty()))
    assert (received.code(), received.details()) == (StatusCode.INTERNAL, "internal error")
    assert "1234" not in str(received.trailing_metadata())
    assert "the password is 1234" in caplog.text
    assert type(rpc.from_status(received)) is Unavailable


@pytest.mark.parametrize("letter", ["x", "é", "\n", "\udcff"], ids=["ascii", "wide", "line", "surrogate"])
async def test_an_error_of_any_length_and_letter_reaches_its_caller(letter: str):
    error = Invalid(letter * 50_000, field=letter * 5000, reason="LONG", fix=letter * 5000)
    async with served(failing(error)) as channel:
        received = rpc.from_status(await caught(do(channel)(Empty())))
    assert (type(received), received.reason) == (Invalid, "LONG")
    assert received.message
    assert received.field
    assert received.fix


@pytest.mark.parametrize("code", [code for code in StatusCode if code is not StatusCode.OK])
async def test_every_status_becomes_one_of_our_errors(code: StatusCode):
    async def fail(request: Empty, context) -> Empty:
        await context.abort(code, "so it is")

    async with served(fail) as channel:
        received = rpc.from_status(await caught(do(channel)(Empty())))
    assert received.message == "so it is"
    kinds = {c: kind for kind, c in rpc.STATUS.items()}
    assert type(received) is kinds.get(code, Unavailable)


async def test_details_of_another_status_are_ignored():
    async def fail(request: Empty, context) -> Empty:
        _, _, trailing = rpc_status.to_status(rpc.to_status(NotFound("x", reason="R")))
        await context.abort(StatusCode.INVALID_ARGUMENT, "other", trailing)

    async with served(fail) as channel:
        received = rpc.from_status(await caught(do(channel)(Empty())))
    assert (type(received), received.message, received.reason) == (Invalid, "other", "")


@pytest.mark.parametrize(
    "sent",
    [(), (("authorization", "Bearer other"),), (("authorization", TOKEN),), (("authorization", ""),)],
    ids=["none", "another", "bare", "empty"],
)
@pytest.mark.parametrize("streams", [False, True], ids=["unary", "stream"])
async def test_a_call_without_the_token_is_refused_before_anything_is_done(sent, streams: bool):
    done = []

    async def handle(request: Empty, context: object) -> Empty:
        done.append(1)
        return Empty()

    async def handle_stream(request: Empty, context: object):
        done.append(1)
        yield Int32Value()

    make = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
    rpcs = {"Do": make(handle_stream if streams else handle, Empty.FromString, lambda m: b"")}
    async with open_to(rpcs) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        if streams:
            call = stream(channel)(Empty(), metadata=sent).read()
        else:
            call = do(channel)(Empty(), metadata=sent)
        received = await caught(call)
    assert received.code() is StatusCode.UNAUTHENTICATED
    assert "client.json" in rpc.from_status(received).fix
    assert done == []


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (cache_pb2.ResolveStepsRequest(project="UPPER"), "project"),
        (
            cache_pb2.ResolveStepsRequest(
                project="p", steps=[cache_pb2.StepQuery(id="a", template="t"), cache_pb2.StepQuery()]
            ),
            "steps[1].id",
        ),
        (
            cache_pb2.ResolveStepsRequest(project="p", templates={"some.key": {"name": ""}}),
            "templates[some.key].name",
        ),
    ],
    ids=["field", "list", "map"],
)
async def test_a_request_that_breaks_a_rule_is_invalid_at_the_path_of_its_field(message, field: str):
    async with served(nothing, type(message)) as channel:
        received = rpc.from_status(await caught(do(channel, type(message))(message)))
    assert (type(received), received.field, received.reason) == (Invalid, field, "FIELD_INVALID")


async def test_a_request_that_breaks_no_rule_is_handled():
    message = cache_pb2.GetSavingsRequest(project="p")
    async with served(nothing, type(message)) as channel:
        assert await do(channel, type(message))(message) == Empty()


async def test_a_handler_ends_at_the_clients_deadline():
    ended = asyncio.Event()

    async def hang(request: Empty, context: object) -> Empty:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with served(hang) as channel:
        received = await caught(do(channel)(Empty(), timeout=0.2))
        await asyncio.wait_for(ended.wait(), 10)
    assert received.code() is StatusCode.DEADLINE_EXCEEDED
    assert type(rpc.from_status(received)) is Unavailable


async def test_a_call_without_a_deadline_has_the_servers():

    async def hang(request: Empty, context: object) -> Empty:
        await asyncio.Event().wait()

    rpcs = {"Do": grpc.unary_unary_rpc_method_handler(hang, Empty.FromString, lambda m: b"")}
    async with (
        open_to(rpcs, limits=ServerLimits(call_timeout=timedelta(seconds=0.1))) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        received = await caught(do(channel)(Empty(), metadata=auth.metadata(TOKEN)))
    assert received.code() is StatusCode.DEADLINE_EXCEEDED


async def test_a_timeout_inside_the_handler_is_an_internal_error():
    async with served(failing(TimeoutError("of another"))) as channel:
        received = await caught(do(channel)(Empty()))
    assert (received.code(), received.details()) == (StatusCode.INTERNAL, "internal error")


@pytest.mark.parametrize("streams", [False, True], ids=["unary", "stream"])
async def test_a_client_that_cancels_ends_its_handler_and_nothing_is_logged(caplog, streams: bool):
    started, ended = asyncio.Event(), asyncio.Event()

    async def hang(request: Empty, context: object) -> Empty:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def hang_streaming(request: Empty, context: object):
        try:
            yield Int32Value(value=1)
            started.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    with caplog.at_level(logging.INFO):
        async with served(hang_streaming if streams else hang, streams=streams) as channel:
            call = (
                stream(channel)(Empty(), metadata=auth.metadata(TOKEN)) if streams else do(channel)(Empty())
            )
            pending = asyncio.ensure_future(call.read() if streams else call)
            await asyncio.wait_for(started.wait(), 10)
            call.cancel()
            await asyncio.wait_for(ended.wait(), 10)
            await asyncio.gather(pending, return_exceptions=True)
    assert caplog.records == []


async def test_a_stream_whose_client_leaves_between_two_responses_is_closed():
    ended = asyncio.Event()

    async def for_ever(request: Empty, context: object):
        try:
            while True:
                yield Int32Value(value=1)
                await asyncio.sleep(0)
        finally:
            ended.set()

    async with served(for_ever, streams=True) as channel:
        call = stream(channel)(Empty(), metadata=auth.metadata(TOKEN))
        await call.read()
        call.cancel()
        await asyncio.wait_for(ended.wait(), 10)


@pytest.mark.parametrize(
    "error", [Refused("enough", reason="ENOUGH"), KeyError("secret")], ids=["ours", "unknown"]
)
async def test_an_error_in_the_middle_of_a_stream_follows_the_responses_sent_before(error: Exception):
    async def handle(request: Empty, context: object):
        yield Int32Value(value=1)
        yield Int32Value(value=2)
        raise error

    async with served(handle, streams=True) as channel:
        answers = aiter(stream(channel)(Empty(), metadata=auth.metadata(TOKEN)))
        values = [(await anext(answers)).value for _ in range(2)]
        received = await caught(anext(answers))
    assert values == [1, 2]
    if isinstance(error, PeriplusError):
        ours = rpc.from_status(received)
        assert (type(ours), ours.reason) == (Refused, "ENOUGH")
    else:
        assert received.details() == "internal error"


async def test_an_rpc_that_streams_its_request_is_refused():
    async def handle(requests, context: object) -> Empty:
        return Empty()

    rpcs = {"Do": grpc.stream_unary_rpc_method_handler(handle, Empty.FromString, lambda m: b"")}
    async with open_to(rpcs) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_unary("/test.Service/Do", Empty.SerializeToString, Empty.FromString)
        received = await caught(call(iter([Empty()]), metadata=auth.metadata(TOKEN)))
    assert received.code() is StatusCode.UNIMPLEMENTED


async def test_leaving_lets_running_calls_finish():
    started, go = asyncio.Event(), asyncio.Event()

    async def handle(request: Empty, context: object) -> Empty:
        started.set()
        await go.wait()
        return Empty()

    rpcs = {"Do": grpc.unary_unary_rpc_method_handler(handle, Empty.FromString, lambda m: b"")}
    service = grpc.method_handlers_generic_handler("test.Service", rpcs)
    async with grpc.aio.insecure_channel("127.0.0.1:1") as _:
        async with rpc.serving(
            "127.0.0.1:0", TOKEN, lambda s: s.add_generic_rpc_handlers((service,)), names=[]
        ) as port:
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
            pending = asyncio.ensure_future(do(channel)(Empty(), metadata=auth.metadata(TOKEN)))
            await started.wait()
            asyncio.get_running_loop().call_later(0.1, go.set)
        assert await pending == Empty()
        await channel.close()


@pytest.mark.parametrize("folder", ["a b%20c#d?é", "x" * 150])
async def test_a_socket_is_served_whatever_its_path_and_in_place_of_one_that_was_left_behind(
    folder, tmp_path
):
    (tmp_path / folder).mkdir()
    address = f"unix:{tmp_path / folder}/service.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(short_path(address.removeprefix("unix:")))
    for _ in range(2):
        async with rpc.serving(address, TOKEN, names=[]), rpc.channel(address, TOKEN) as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), wait_for_ready=True
            )
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_port_in_use_is_an_error():
    async with open_to({}) as port:
        with pytest.raises(RuntimeError):
            async with rpc.serving(f"127.0.0.1:{port}", TOKEN, names=[]):
                pass


async def test_calls_to_a_name_with_several_replicas_take_turns():
    calls: list[str] = []

    def counting(replica: str):
        async def count(request: Empty, context: object) -> Empty:
            calls.append(replica)
            return Empty()

        handler = grpc.unary_unary_rpc_method_handler(
            count, Empty.FromString, lambda message: message.SerializeToString()
        )
        return open_to({"Do": handler})

    async with (
        counting("a") as first,
        counting("b") as second,
        rpc.channel(f"ipv4:127.0.0.1:{first},127.0.0.1:{second}", TOKEN) as channel,
    ):
        async with asyncio.timeout(60):
            while set(calls) != {"a", "b"}:
                await do(channel)(Empty(), wait_for_ready=True)
        calls.clear()
        for _ in range(10):
            await do(channel)(Empty())
    assert (calls.count("a"), calls.count("b")) == (5, 5)
