"""The error of a failed call: the status code, the field, the reason and the fix, from google.rpc.Status."""

from __future__ import annotations

from typing import Any


class CallError(Exception):
    """A service refused a call, or did not answer.

    `code` is the name of the gRPC status ("INVALID_ARGUMENT"); `field` the path of the offending field, `reason` a
    constant for programs, `fix` the command or the change that helps: each may be empty. `service` and `address` are
    those of the called service.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        service: str,
        address: str = "",
        field: str = "",
        reason: str = "",
        fix: str = "",
    ) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.message = message
        self.code = code
        self.service = service
        self.address = address
        self.field = field
        self.reason = reason
        self.fix = fix


def call_error(error: Any, service: str, address: str) -> CallError:
    """The CallError for a grpc.RpcError of a call of `service`."""
    # Imported here: a program whose calls succeed does not need it.
    from google.rpc import error_details_pb2 as details
    from grpc_status import rpc_status

    message, field, reason, fix = error.details() or error.code().name, "", "", ""
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info, bad, link = details.ErrorInfo(), details.BadRequest(), details.Help()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad) and bad.field_violations:
            field, message = bad.field_violations[0].field, bad.field_violations[0].description
        elif detail.Unpack(link) and link.links:
            fix = link.links[0].description
    if error.code().name == "UNAVAILABLE" and not reason:
        # gRPC's own text is about sockets, which does not help.
        message = "does not answer"
        fix = "periplus doctor"
    return CallError(
        message,
        code=error.code().name,
        service=service,
        address=address,
        field=field,
        reason=reason,
        fix=fix,
    )
