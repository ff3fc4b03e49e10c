"""The form in which inputs and outputs lie in a row: compact JSON, as bytes, so that every character may occur."""

import json
from typing import Any

from periplus_cache.domain import Artifact, Inputs, Outputs, Place


def inputs_to_bytes(inputs: Inputs) -> bytes:
    """Inputs as they are stored."""
    return _dump({"p": inputs.parameters, "a": _artifacts(inputs.artifacts)})


def inputs_from_bytes(stored: bytes) -> Inputs:
    """Inputs as they were stored."""
    members = json.loads(stored)
    return Inputs(_pairs(members["p"]), tuple(map(_artifact, members["a"])))


def outputs_to_bytes(outputs: Outputs) -> bytes:
    """Outputs as they are stored. What is absent is left out."""
    members: dict[str, Any] = {}
    if outputs.parameters:
        members["p"] = outputs.parameters
    if outputs.artifacts:
        members["a"] = _artifacts(outputs.artifacts)
    if outputs.result is not None:
        members["r"] = outputs.result
    if outputs.exit_code is not None:
        members["c"] = outputs.exit_code
    return _dump(members)


def outputs_from_bytes(stored: bytes) -> Outputs:
    """Outputs as they were stored."""
    members = json.loads(stored)
    return Outputs(
        _pairs(members.get("p", ())),
        tuple(map(_artifact, members.get("a", ()))),
        members.get("r"),
        members.get("c"),
    )


def _dump(members: dict[str, Any]) -> bytes:
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()


def _pairs(pairs: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple([(name, value) for name, value in pairs])


def _artifacts(artifacts: tuple[Artifact, ...]) -> list[list[str | int]]:
    return [
        [a.name, a.place.endpoint, a.place.bucket, a.place.key, a.digest, a.etag, a.size] for a in artifacts
    ]


def _artifact(stored: list[Any]) -> Artifact:
    name, endpoint, bucket, key, digest, etag, size = stored
    return Artifact(name, Place(key, bucket, endpoint), digest, etag, size)
