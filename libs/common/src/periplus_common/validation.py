"""The rules that the protos declare for their fields (buf.validate)."""

from collections.abc import Iterator

import protovalidate
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from periplus_common.errors import Invalid
from periplus_common.pauses import Pauses

_LARGE_BYTES = 64 << 10  # of a message whose lists are validated element by element


def validate(message: Message, prefix: str = "") -> None:
    """Raise `Invalid`, with the path of the first field that breaks a rule of its proto; the path begins with `prefix`."""
    violations = protovalidate.collect_violations(message, fail_fast=True)
    if violations:
        proto = violations[0].proto
        path = prefix
        for element in proto.field.elements if proto.field else ():
            path += f".{element.field_name}" if path else element.field_name
            if element.subscript is not None:
                path += f"[{element.subscript.value}]"
        raise Invalid(proto.message, field=path, reason="FIELD_INVALID")


async def validate_with_pauses(message: Message, pauses: Pauses, prefix: str = "") -> None:
    """The same for a large message, with pauses between the elements of its lists.

    The validator takes a microsecond for a message within the message, and nothing else goes on meanwhile: 5 s for 16 MiB.
    """
    await pauses.take()
    lists = [(field, value) for field, value in message.ListFields() if _is_list_of_messages(field)]
    if not lists or message.ByteSize() < _LARGE_BYTES:
        validate(message, prefix)
        return
    rest, left_out = type(message)(), {field.name for field, _ in lists}
    for field, value in message.ListFields():
        if field.name not in left_out:
            _set(rest, field, value)
    validate(rest, prefix)
    for field, elements in lists:
        path = f"{prefix}.{field.name}" if prefix else field.name
        _check_length(field, len(elements), path)
        for index, element in enumerate(elements):
            await validate_with_pauses(element, pauses, f"{path}[{index}]")


def _is_list_of_messages(field: FieldDescriptor) -> bool:
    kind = field.message_type
    return bool(field.is_repeated and kind is not None and not kind.GetOptions().map_entry)


def _set(message: Message, field: FieldDescriptor, value: object) -> None:
    target = getattr(message, field.name)
    if hasattr(target, "MergeFrom"):  # a list, a map or a message
        target.MergeFrom(value)
    else:
        setattr(message, field.name, value)


def _check_length(field: FieldDescriptor, length: int, path: str) -> None:
    """The one rule that our protos have for lists of messages; their elements have rules of their own."""
    most = max_items(field)
    if length > most:
        raise Invalid(f"must contain no more than {most} item(s)", field=path, reason="FIELD_INVALID")


def max_items(field: FieldDescriptor) -> int:
    """`repeated.max_items` of a field's rules, by its numbers: the rules' own Python classes are not generated."""
    (most,) = _numbers(field.GetOptions(), (1159, 18, 2))
    return most


def _numbers(message: Message, path: tuple[int, ...]) -> Iterator[int]:
    """The values of an unknown field below other unknown fields."""
    for found in UnknownFieldSet(message):  # type: ignore[attr-defined] # it is a sequence
        if found.field_number == path[0]:
            if len(path) == 1:
                yield int(found.data)
            else:
                yield from _numbers(Empty.FromString(found.data), path[1:])
