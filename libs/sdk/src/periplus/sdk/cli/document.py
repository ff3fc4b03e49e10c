"""Messages as JSON for `-o json`: every field under its name in the API.

Enum values are without their prefix ("SUCCEEDED"), durations in seconds, times RFC 3339 in UTC, int64 numbers. A
field that is not set is null.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from periplus.sdk.cli.terminal import say_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.descriptor import EnumDescriptor
    from google.protobuf.message import Message


def document(message: Message) -> Any:
    """The message as a value for `json.dumps`."""
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Duration":
        return message.seconds + message.nanos / 1e9  # type: ignore[attr-defined]
    if name == "google.protobuf.Timestamp":
        return message.ToJsonString()  # type: ignore[attr-defined]
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields}


def _field(message: Message, field: Any) -> Any:
    if field.has_presence and not message.HasField(field.name):
        return None
    value = getattr(message, field.name)
    if not field.is_repeated:
        return _value(value, field)
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        return {key: _value(value[key], entry.fields_by_name["value"]) for key in sorted(value)}
    return [_value(one, field) for one in value]


def _value(value: Any, field: Any) -> Any:
    if field.message_type is not None:
        return document(value)
    if field.enum_type is not None:
        return name_of(field.enum_type, value)
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def name_of(enum: EnumDescriptor, number: int) -> str:
    """An enum value's name without its prefix: RUN_PHASE_FAILED is "FAILED"; a number that this version does not know as text."""
    found = enum.values_by_number.get(number)
    if found is None:
        return str(number)
    zero = enum.values_by_number[0].name
    return found.name.removeprefix(zero.removesuffix("UNSPECIFIED"))


def run_phase_name(number: int) -> str:
    """A RunPhase for people: "succeeded"."""
    from periplus.types.v1.step_pb2 import RunPhase

    return name_of(RunPhase.DESCRIPTOR, number).lower()


def step_phase_name(number: int) -> str:
    """A StepPhase for people: "cached"."""
    from periplus.types.v1.step_pb2 import StepPhase

    return name_of(StepPhase.DESCRIPTOR, number).lower()


def verdict_name(number: int) -> str:
    """A Verdict for people: "hit"."""
    from periplus.types.v1.step_pb2 import Verdict

    return name_of(Verdict.DESCRIPTOR, number).lower()


def print_json(content: Mapping[str, Any]) -> None:
    """Print the one JSON document of a command."""
    say_json(json.dumps(content, indent=2))
