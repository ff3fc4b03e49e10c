"""The rules that the protos declare for their fields (buf.validate)."""

import protovalidate
from google.protobuf.message import Message

from periplus_common.errors import Invalid


def validate(message: Message) -> None:
    """Raise `Invalid`, with the path of the first field that breaks a rule of its proto."""
    violations = protovalidate.collect_violations(message, fail_fast=True)
    if violations:
        proto = violations[0].proto
        path = ""
        for element in proto.field.elements if proto.field else ():
            path += f".{element.field_name}" if path else element.field_name
            if element.subscript is not None:
                path += f"[{element.subscript.value}]"
        raise Invalid(proto.message, field=path, reason="FIELD_INVALID")
