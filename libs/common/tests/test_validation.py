"""The rules of the protos: a large message is validated piece by piece, with the same outcome and the event loop free."""

import asyncio
import time
from collections.abc import Callable

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from periplus.cache.v1 import cache_pb2 as pb
from periplus.dispatcher.v1 import dispatcher_pb2
from periplus.lineage.v1 import lineage_pb2
from periplus.snapshotter.v1 import snapshotter_pb2
from periplus_common.errors import Invalid
from periplus_common.pauses import Pauses
from periplus_common.validation import max_items, validate, validate_with_pauses


def large(steps: int = 300, parts: int = 100) -> pb.ResolveStepsRequest:
    text = pb.Text(parts=[pb.TextPart(literal="")] * parts)
    parameters = [pb.ParameterSource(name=name, value=text) for name in ("a", "b")]
    found = [pb.StepQuery(id=f"s{n}", template="t", parameters=parameters) for n in range(steps)]
    request = pb.ResolveStepsRequest(project="p", steps=found)
    request.templates["t"].name, request.templates["t"].document = "t", "{}"
    return request


def too_many_steps(request: pb.ResolveStepsRequest) -> None:
    request.steps.extend(request.steps[0] for _ in range(10_000))


def too_many_parts_of_a_large_step(request: pb.ResolveStepsRequest) -> None:
    request.steps[7].parameters[1].value.parts.extend(pb.TextPart(literal="x" * 99) for _ in range(1_000))


BREACHES: dict[str, Callable[[pb.ResolveStepsRequest], object]] = {
    "none": lambda r: r,
    "project": lambda r: r.ClearField("project"),
    "a map": lambda r: r.templates["t"].ClearField("document"),
    "a key": lambda r: r.templates["k" * 300].CopyFrom(r.templates["t"]),
    "an element": lambda r: r.steps[299].ClearField("id"),
    "an inner element": lambda r: r.steps[7].parameters[1].ClearField("name"),
    "an innermost element": lambda r: r.steps[7].parameters[1].value.parts[99].ClearField("kind"),
    "steps": too_many_steps,
    "parts": too_many_parts_of_a_large_step,
}


@pytest.mark.parametrize("breach", BREACHES.values(), ids=BREACHES)
async def test_a_large_message_is_valid_if_it_is_valid_as_a_whole(
    breach: Callable[[pb.ResolveStepsRequest], object],
):
    request = large()
    breach(request)
    outcomes = []
    for check in (lambda: validate(request), lambda: validate_with_pauses(request, Pauses())):
        try:
            if pending := check():
                await pending
            outcomes.append(None)
        except Invalid as error:
            outcomes.append((error.field, error.message, error.reason))
    assert outcomes[0] == outcomes[1]
    assert (outcomes[0] is None) == (breach is BREACHES["none"])


async def test_other_tasks_go_on_while_a_large_message_is_validated():
    request, turns = large(steps=3000), 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    started = time.perf_counter()
    await validate_with_pauses(request, Pauses())
    counting.cancel()
    assert turns > (time.perf_counter() - started) / 0.2


def test_lists_of_messages_have_no_rule_but_their_length():
    """And their elements' own: `validate_with_pauses` knows no other."""
    for module in (pb, dispatcher_pb2, lineage_pb2, snapshotter_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                for field in lists_of_messages(method.input_type, set()):
                    assert max_items(field) > 0
                    (rules,) = inner(field.GetOptions(), 1159)
                    (of_list,) = inner(rules, 18)
                    assert {each.field_number for each in UnknownFieldSet(of_list)} == {2}, field.full_name


def inner(message: Message, number: int) -> list[Empty]:
    """The messages that an unknown field holds."""
    return [Empty.FromString(each.data) for each in UnknownFieldSet(message) if each.field_number == number]


def lists_of_messages(message: Descriptor, seen: set[str]) -> list[FieldDescriptor]:
    if message.full_name in seen:
        return []
    seen.add(message.full_name)
    found = []
    for field in message.fields:
        if field.message_type:
            if field.is_repeated and not field.message_type.GetOptions().map_entry:
                found.append(field)
            found += lists_of_messages(field.message_type, seen)
    return found
