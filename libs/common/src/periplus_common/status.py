"""Errors as gRPC statuses with details (AIP-193), and back."""

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc import StatusCode
from grpc_status import rpc_status

from periplus_common.errors import (
    Conflict,
    Invalid,
    NotFound,
    PeriplusError,
    Refused,
    TooLarge,
    Unauthenticated,
    Unavailable,
)

DOMAIN = "periplus.dev"
# A status is sent in headers, with its message twice and a field's description once more. Clients drop a response whose
# headers exceed some 8 KiB, where a byte that is not ASCII takes three.
MAX_MESSAGE_BYTES = 1000
MAX_DETAIL_BYTES = 300  # of a field's path, and of a fix

STATUS: dict[type[PeriplusError], StatusCode] = {
    TooLarge: StatusCode.RESOURCE_EXHAUSTED,
    Invalid: StatusCode.INVALID_ARGUMENT,
    NotFound: StatusCode.NOT_FOUND,
    Conflict: StatusCode.ALREADY_EXISTS,
    Refused: StatusCode.FAILED_PRECONDITION,
    Unauthenticated: StatusCode.UNAUTHENTICATED,
    Unavailable: StatusCode.UNAVAILABLE,
}
ERROR_TYPE: dict[StatusCode, type[PeriplusError]] = {code: kind for kind, code in STATUS.items()} | {
    StatusCode.DEADLINE_EXCEEDED: Unavailable,
    StatusCode.CANCELLED: Unavailable,
}


def to_status(error: PeriplusError) -> status_pb2.Status:
    """The error as google.rpc.Status, with a detail each for reason, field and fix."""
    code = next(code for kind, code in STATUS.items() if isinstance(error, kind))
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason or code.name, domain=DOMAIN)]
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_truncated(MAX_DETAIL_BYTES, error.field),
            description=_truncated(MAX_MESSAGE_BYTES, error.message),
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.fix:
        link = error_details_pb2.Help.Link(description=_truncated(MAX_DETAIL_BYTES, error.fix))
        details.append(error_details_pb2.Help(links=[link]))
    status = status_pb2.Status(
        code=code_pb2.Code.Value(code.name), message=_truncated(MAX_MESSAGE_BYTES, str(error))
    )
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def from_status(error: grpc.RpcError) -> PeriplusError:
    """The error that a failed call stands for. A status without a kind is `Unavailable`: the same call may succeed later."""
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
    kind = ERROR_TYPE.get(error.code(), Unavailable)
    message, field, reason, fix = error.details() or error.code().name, "", "", ""
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # the details are of another status: a proxy has answered for the server
        status = None
    for detail in status.details if status else ():
        info, bad, help_ = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.Help(),
        )
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad) and bad.field_violations:
            field, message = bad.field_violations[0].field, bad.field_violations[0].description
        elif detail.Unpack(help_) and help_.links:
            fix = help_.links[0].description
    return kind(message, field=field, reason=reason, fix=fix)


def _truncated(limit: int, text: str) -> str:
    content = text.encode("utf-8", "backslashreplace")
    return content.decode() if len(content) <= limit else content[:limit].decode("utf-8", "ignore") + "…"
