"""An error of a handler is the same error at the client."""

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from periplus_common import rpc
from periplus_common.errors import Conflict, Invalid, NotFound, PeriplusError, Refused, TooLarge, Unavailable

ERRORS = [
    Invalid("is wrong", field="spec.manifest", reason="MANIFEST_INVALID", fix="periplus compile"),
    TooLarge("has 5 bytes"),
    NotFound("does not exist"),
    Conflict("differs"),
    Refused("not now", reason="RUN_ENDED"),
    Unavailable("is down"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_an_error_is_raised_at_the_client_as_in_the_handler(error: PeriplusError) -> None:
    async def fail(request: Empty, context: object) -> Empty:
        raise error

    handler = grpc.unary_unary_rpc_method_handler(fail, Empty.FromString, Empty.SerializeToString)
    service = grpc.method_handlers_generic_handler("test.Service", {"Fail": handler})
    async with (
        rpc.serving(
            "127.0.0.1:0", "token", lambda server: server.add_generic_rpc_handlers((service,)), names=[]
        ) as port,
        rpc.channel(f"127.0.0.1:{port}", "token") as channel,
    ):
        call = channel.unary_unary("/test.Service/Fail", Empty.SerializeToString, Empty.FromString)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(Empty())
    received = rpc.from_status(caught.value)
    assert type(received) is type(error)
    assert (received.message, received.field, received.fix) == (error.message, error.field, error.fix)
    assert received.reason == (error.reason or rpc.STATUS[type(error)].name)
