"""A service's AsyncAPI 3.0.0 document: FastStream finds channels and operations, the protos describe the events.

    python -m periplus_common.bus.asyncapi DIRECTORY SERVICE...

writes DIRECTORY/SERVICE.json from `periplus_SERVICE.asyncapi.application()`. No service imports this at run time.
"""

import importlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

from faststream import FastStream
from faststream.specification import AsyncAPI
from faststream.specification.base import Specification
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from periplus_common.bus.broker import Broker
from periplus_common.bus.events import CONTENT_TYPE

Json = dict[str, Any]

_EVENT_SUBJECTS = (".*.*", ".{project}.{run}")
"""How the subject of a consumer, and of a publisher, ends after the event's type."""

_PARAMETERS = {
    "project": {"description": "The project."},
    "run": {"description": "The run's id, with underscores for dots; - where the event is of no run."},
}

_HEADERS: Json = {
    "type": "object",
    "required": ["ce-specversion", "ce-id", "ce-type", "ce-source", "ce-time", "content-type"],
    "properties": {
        "ce-specversion": {"const": "1.0"},
        "ce-id": {
            "type": "string",
            "format": "uuid",
            "description": "Equal for the same event published twice.",
        },
        "ce-type": {"type": "string", "description": "The protobuf message's full name."},
        "ce-source": {"type": "string", "format": "uri-reference"},
        "ce-subject": {"type": "string", "description": "project/run"},
        "ce-time": {"type": "string", "format": "date-time"},
        "content-type": {"const": CONTENT_TYPE},
        "traceparent": {"type": "string", "description": "W3C Trace Context."},
    },
}

_WELL_KNOWN_TYPES: dict[str, Json] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d+(\.\d+)?s$"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
}
_SCALARS: dict[int, Json] = {
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer"},
    FieldDescriptor.CPPTYPE_UINT32: {"type": "integer"},
    FieldDescriptor.CPPTYPE_INT64: {"type": "string", "format": "int64"},
    FieldDescriptor.CPPTYPE_UINT64: {"type": "string", "format": "int64"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number"},
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
}


def application(broker: Broker, *, title: str, description: str, examples: Iterable[Message]) -> FastStream:
    """The service as a FastStream application, whose document has an example of each event."""
    specification = _EventSpecification(
        title=title, version="1.0.0", description=description, examples=examples
    )
    return FastStream(broker, specification=specification, logger=None)


def document(service: FastStream) -> str:
    """The AsyncAPI document as JSON. Raises `ValueError` for an event without an example."""
    return service.schema.to_specification().to_json() + "\n"


def assert_current(service: FastStream, path: Path) -> None:
    """For a service's test: `path` holds the document of its code."""
    assert path.exists(), f"{path} is missing: run `make asyncapi`"
    assert path.read_text() == document(service), f"{path} is not what the code says: run `make asyncapi`"


class _EventSpecification(AsyncAPI):
    """FastStream's specification, with CloudEvents headers, protobuf bodies and examples."""

    def __init__(self, *, title: str, version: str, description: str, examples: Iterable[Message]) -> None:
        super().__init__(title=title, version=version, description=description)
        self._examples = {example.DESCRIPTOR.full_name: example for example in examples}

    def to_specification(self) -> "_Document":
        return _Document(_with_events(super().to_specification().to_jsonable(), self._examples))


class _Document(Specification):
    """The document as data, in the form that FastStream's own commands use."""

    def __init__(self, content: Json) -> None:
        self._content = content

    @property
    def title(self) -> str:
        return str(self._content["info"]["title"])

    def to_jsonable(self) -> Any:
        return self._content

    def to_json(self) -> str:
        return json.dumps(self._content, indent=2, sort_keys=True)

    def to_yaml(self) -> str:
        import yaml  # a dependency of FastStream's command line only

        return yaml.safe_dump(self._content, sort_keys=True)


def _with_events(content: Json, examples: Mapping[str, Message]) -> Json:
    """FastStream's document, with one channel an event type in place of one a subscriber."""
    channels: Json = {}
    operations: Json = {}
    messages: Json = {}
    schemas: Json = {"CloudEvent": _HEADERS}
    for key, channel in content["channels"].items():
        event_type, is_event = _event_type(channel["address"])
        name = event_type.rpartition(".")[2]
        action = next(o["action"] for o in content["operations"].values() if _refers_to(o["channel"], key))
        channels[event_type] = {
            "address": event_type + ("".join(_EVENT_SUBJECTS[1:]) if is_event else ""),
            **({"parameters": _PARAMETERS} if is_event else {}),
            "messages": {name: {"$ref": f"#/components/messages/{name}"}} if is_event else {},
        }
        operation = operations.setdefault(
            f"{action} {name}", {"action": action, "channel": {"$ref": f"#/channels/{event_type}"}}
        )
        descriptions = filter(None, (operation.get("description"), channel.get("description")))
        operation["description"] = "\n".join(descriptions)
        if is_event:
            if event_type not in examples:
                raise ValueError(f"{event_type} has no example: give one to asyncapi.application")
            example = examples[event_type]
            schemas |= _schemas(cast("Descriptor", example.DESCRIPTOR))
            messages[name] = {
                "name": event_type,
                "title": name,
                "contentType": CONTENT_TYPE,
                "headers": {"$ref": "#/components/schemas/CloudEvent"},
                "payload": {"$ref": f"#/components/schemas/{event_type}"},
                "examples": [{"payload": MessageToDict(example)}],
            }
    return {
        **content,
        "defaultContentType": CONTENT_TYPE,
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }


def _event_type(address: str) -> tuple[str, bool]:
    for ending in _EVENT_SUBJECTS:
        if address.endswith(ending):
            return address.removesuffix(ending), True
    return address, False


def _refers_to(reference: dict[str, str], key: str) -> bool:
    return unquote(reference["$ref"]).replace("~1", "/") == f"#/channels/{key}"


def _schemas(message: Descriptor) -> Json:
    """JSON Schemas of ProtoJSON for a message and all that it holds, by full name."""
    found: Json = {}

    def of_message(kind: Descriptor) -> Json:
        if kind.full_name in _WELL_KNOWN_TYPES:
            return _WELL_KNOWN_TYPES[kind.full_name]
        if kind.full_name not in found:
            schema: Json = {"title": kind.name, "type": "object", "x-protobuf-file": kind.file.name}
            found[kind.full_name] = schema
            schema["properties"] = {field.json_name: of_field(field) for field in kind.fields}
        return {"$ref": f"#/components/schemas/{kind.full_name}"}

    def of_field(field: FieldDescriptor) -> Json:
        if field.message_type and field.message_type.GetOptions().map_entry:
            return {
                "type": "object",
                "additionalProperties": of_value(field.message_type.fields_by_name["value"]),
            }
        return {"type": "array", "items": of_value(field)} if field.is_repeated else of_value(field)

    def of_value(field: FieldDescriptor) -> Json:
        if field.message_type:
            return of_message(field.message_type)
        if field.enum_type:
            return {"enum": [value.name for value in field.enum_type.values]}
        if field.type == FieldDescriptor.TYPE_BYTES:
            return {"type": "string", "contentEncoding": "base64"}
        return _SCALARS[field.cpp_type]

    of_message(message)
    return found


def main(directory: Path, services: Iterable[str]) -> None:
    """Write the documents of these services."""
    directory.mkdir(parents=True, exist_ok=True)
    for service in services:
        module = importlib.import_module(f"periplus_{service}.asyncapi")
        (directory / f"{service}.json").write_text(document(module.application()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
