"""What went wrong, as a status of gRPC and back: the one table of the kinds, and their details (AIP-193)."""

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
    Unauthenticated,
    Unavailable,
)

DOMAIN = "periplus.dev"
# A status travels in headers, its message twice and what it says of a field once more. Clients drop an answer whose
# headers exceed some 8 KiB in all, and a byte that is no plain ASCII takes three there.
LONGEST = 1000  # bytes of a message
BRIEF = 300  # bytes of a field's path, and of a fix

STATUS: dict[type[PeriplusError], StatusCode] = {
    Invalid: StatusCode.INVALID_ARGUMENT,
    NotFound: StatusCode.NOT_FOUND,
    Conflict: StatusCode.ALREADY_EXISTS,
    Refused: StatusCode.FAILED_PRECONDITION,
    Unauthenticated: StatusCode.UNAUTHENTICATED,
    Unavailable: StatusCode.UNAVAILABLE,
}
KIND: dict[StatusCode, type[PeriplusError]] = {code: kind for kind, code in STATUS.items()} | {
    StatusCode.DEADLINE_EXCEEDED: Unavailable,
    StatusCode.CANCELLED: Unavailable,
}


def to_status(error: PeriplusError) -> status_pb2.Status:
    """The error as google.rpc.Status: the field, the reason and the fix are details of their own."""
    code = next(code for kind, code in STATUS.items() if isinstance(error, kind))
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason or code.name, domain=DOMAIN)]
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_within(BRIEF, error.field), description=_within(LONGEST, error.message)
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.fix:
        link = error_details_pb2.Help.Link(description=_within(BRIEF, error.fix))
        details.append(error_details_pb2.Help(links=[link]))
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=_within(LONGEST, str(error)))
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def from_status(error: grpc.RpcError) -> PeriplusError:
    """What a call's failure means, in our kinds. What has no kind is `Unavailable`: the caller may go on without."""
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
    kind = KIND.get(error.code(), Unavailable)
    message, field, reason, fix = error.details() or error.code().name, "", "", ""
    try:
        status = rpc_status.from_call(error)
    except (
        ValueError
    ):  # details of another status than the call's: something in between answered for the server
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


def _within(limit: int, text: str) -> str:
    content = text.encode("utf-8", "backslashreplace")
    return content.decode() if len(content) <= limit else content[:limit].decode("utf-8", "ignore") + "…"
