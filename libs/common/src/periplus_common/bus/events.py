"""What an event is on the wire, and how FastStream reads and writes it: CloudEvents 1.0, binary mode, protobuf body."""

import typing
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from types import UnionType
from typing import Any, Generic, NamedTuple, TypeVar, overload

from google.protobuf.message import DecodeError, Message
from nats.aio.msg import Msg
from pydantic_core import core_schema

from periplus_common import telemetry
from periplus_common.errors import Invalid
from periplus_common.validation import validate

M = TypeVar("M", bound=Message)

CONTENT_TYPE = "application/protobuf"
_ID_NAMESPACE = uuid.UUID("6f1b1c5e-8a0e-4c5e-9d0a-2f6f7c9e5b11")


@dataclass(frozen=True)
class CloudEvent:
    """An event to publish, as it is stored in the outbox and sent to NATS."""

    subject: str
    headers: dict[str, str]
    body: bytes

    @property
    def stream(self) -> str:
        """The publisher's name in capitals: each publisher owns one stream, and its name is in its events' subjects."""
        return self.subject.split(".", 2)[1].upper()


def cloud_event(message: Message, *, project: str, run: str, key: str, at: datetime) -> CloudEvent:
    """An event with `message` as its body, which happened at `at`.

    Its id is computed from type, project, run and `key`: publishing it twice stores it once.
    """
    event_type = message.DESCRIPTOR.full_name
    event_id = str(uuid.uuid5(_ID_NAMESPACE, f"{event_type}/{project}/{run}/{key}"))
    headers = {
        "ce-specversion": "1.0",
        "ce-id": event_id,
        "ce-type": event_type,
        "ce-source": _source(event_type),
        "ce-subject": f"{project}/{run}",
        "ce-time": at.isoformat(),
        "content-type": CONTENT_TYPE,
        "Nats-Msg-Id": event_id,
        **telemetry.trace_headers(),
    }
    return CloudEvent(_subject(event_type, project, run), headers, message.SerializeToString())


@lru_cache(maxsize=64)
def _source(event_type: str) -> str:
    # Called for each event, of which there are few types: those that `Codec` reads, and those of the publisher.
    return "/" + event_type.rpartition(".v")[0].replace(".", "/")


def _subject(event_type: str, project: str, run: str) -> str:
    # A dot would split the subject's last token. `ce-subject` holds the run's unchanged id.
    return f"{event_type}.{project}.{run.replace('.', '_') or '-'}"


class Event(NamedTuple, Generic[M]):
    """A received event: its decoded body, its headers, and the NATS message that brought it."""

    data: M
    headers: Mapping[str, str]
    message: Msg
    position: int
    """Its index among the messages of its delivery, those that could not be decoded included."""


class Batch(Sequence[Event[M]], Generic[M]):
    """The events of one delivery. A refused event does not hold up the others."""

    def __init__(self, events: Sequence[Event[M]], refusals: dict[int, Exception] | None = None) -> None:
        self._events = events
        self.refusals = refusals if refusals is not None else {}
        """The error of each refused message, by its position."""

    @classmethod
    def of(cls, *data: M, headers: Mapping[str, str] | None = None) -> "Batch[M]":
        """A batch without a server, for a test that calls a handler directly."""
        return cls(
            [
                Event(item, headers or {}, Msg(_client=None), position)  # type: ignore[arg-type]
                for position, item in enumerate(data)
            ]
        )

    def refuse(self, event: Event[M], error: Exception) -> None:
        """Handle this event as if its handler had raised `error`; the rest of the batch is acknowledged."""
        self.refusals[event.position] = error

    def __iter__(self) -> Iterator[Event[M]]:
        return iter(self._events)

    def __len__(self) -> int:
        return len(self._events)

    @overload
    def __getitem__(self, index: int) -> Event[M]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Event[M]]: ...
    def __getitem__(self, index: int | slice) -> Event[M] | Sequence[Event[M]]:
        return self._events[index]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        """FastStream's AsyncAPI generator needs a schema; `asyncapi` replaces it by the proto's."""
        return core_schema.any_schema()


def event_types(handler: Any) -> tuple[type[Message], ...]:
    """The events that a handler of `Batch[A]` or `Batch[A | B]` takes."""
    (annotation,) = (hint for name, hint in typing.get_type_hints(handler).items() if name != "return")
    (argument,) = typing.get_args(annotation)
    return typing.get_args(argument) if isinstance(argument, UnionType) else (argument,)


def _check_origin(subject: str, headers: Mapping[str, str]) -> None:
    """Raise `Invalid` unless an event's headers are those of its subject, by which the server decides who may publish it."""
    event_type = headers.get("ce-type", "")
    project, _, run = headers.get("ce-subject", "").partition("/")
    if subject != _subject(event_type, project, run) or headers.get("ce-source") != _source(event_type):
        raise Invalid(
            f"the headers ce-type {event_type!r}, ce-subject {headers.get('ce-subject', '')!r} and "
            f"ce-source {headers.get('ce-source', '')!r} are not those of the subject {subject!r}"
        )


class Codec:
    """FastStream's codec: reads the event types that it was created with, and writes any protobuf message."""

    def __init__(self, *types: type[Message], check_rules: bool = True) -> None:
        self._check_rules = check_rules
        self._types = {kind.DESCRIPTOR.full_name: kind for kind in types}

    async def decode(self, msg: Any) -> Any:
        """The body of a single message, as in request and reply. Raises `Invalid`."""
        return self._read(msg.headers, msg.body)

    async def decode_batch(self, msg: Any) -> Any:
        """The events of a batch; those that are no valid event of these types are refused."""
        events: list[Event[Message]] = []
        refusals: dict[int, Exception] = {}
        for position, message in enumerate(msg.raw_message):
            headers = message.headers or {}
            try:
                data = self._read(headers, message.data)
                _check_origin(message.subject, headers)
                events.append(Event(data, headers, message, position))
            except Invalid as error:
                refusals[position] = error
        return Batch(events, refusals)

    async def encode(self, msg: Any, serializer: Any = None) -> tuple[bytes, str | None]:  # noqa: ARG002
        """A protobuf message's bytes, or bytes as they are."""
        if isinstance(msg, Message):
            return msg.SerializeToString(), CONTENT_TYPE
        return msg or b"", None

    async def encode_batch(
        self, msgs: Sequence[Any], serializer: Any = None
    ) -> list[tuple[bytes, str | None]]:
        """The same for many."""
        return [await self.encode(msg, serializer) for msg in msgs]

    def _read(self, headers: Mapping[str, str], body: bytes) -> Message:
        name = headers.get("ce-type", "")
        kind = self._types.get(name)
        if kind is None:
            raise Invalid(f"the header ce-type is {name!r}, which this consumer does not read")
        try:
            message = kind.FromString(body)
        except DecodeError as error:
            raise Invalid(f"the body is not a {name}") from error
        if self._check_rules:
            validate(message)
        return message
