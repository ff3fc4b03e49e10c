import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from periplus_common import rpc
from periplus_common.errors import Conflict, Invalid, NotFound, PeriplusError, Refused, Unavailable

ERRORS = [
    Invalid("is wrong", field="spec.manifest", reason="MANIFEST_INVALID", fix="periplus compile"),
    NotFound("is not there"),
    Conflict("differs"),
    Refused("not now", reason="RUN_ENDED"),
    Unavailable("is away"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_an_error_comes_back_from_a_call_as_it_was_raised(error: PeriplusError) -> None:
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
    told = rpc.from_status(caught.value)
    assert type(told) is type(error)
    assert (told.message, told.field, told.fix) == (error.message, error.field, error.fix)
    assert told.reason == (error.reason or rpc.STATUS[type(error)].name)
