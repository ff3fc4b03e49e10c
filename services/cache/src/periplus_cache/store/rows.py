"""How digests, inputs and outputs are stored: digests as 32 bytes, the others as compact JSON in bytes.

JSON is stored as `bytea` because values may contain U+0000, which `jsonb` refuses.
"""

import json
from typing import Any

from periplus_model.steps import Artifact, Inputs, ObjectRef, OmittedValue, Outputs

_PREFIX = "sha256:"


def encode_digest(digest: str) -> bytes:
    """The 32 bytes of a digest."""
    return bytes.fromhex(digest[len(_PREFIX) :])


def encode_optional_digest(digest: str) -> bytes | None:
    """The 32 bytes of a digest; None for an empty text."""
    return encode_digest(digest) if digest else None


def decode_digest(stored: bytes | None) -> str:
    """The digest, "sha256:…"; empty for None."""
    return "" if stored is None else _PREFIX + stored.hex()


def encode_inputs(inputs: Inputs) -> bytes:
    members: dict[str, Any] = {
        "parameters": inputs.parameters,
        "artifacts": _encode_artifacts(inputs.artifacts),
    }
    if inputs.discovered:
        members["discovered"] = inputs.discovered
    if inputs.omitted:
        members["omitted"] = {name: [each.digest, each.size_bytes] for name, each in inputs.omitted.items()}
    return _dump(members)


def decode_inputs(stored: bytes) -> Inputs:
    members = json.loads(stored)
    return Inputs(
        parameters=members.get("parameters", {}),
        artifacts=_decode_artifacts(members.get("artifacts", ())),
        discovered=members.get("discovered", {}),
        omitted={name: OmittedValue(*each) for name, each in members.get("omitted", {}).items()},
    )


def encode_outputs(outputs: Outputs) -> bytes:
    """Outputs without the members that are empty or None."""
    members: dict[str, Any] = {}
    if outputs.parameters:
        members["parameters"] = outputs.parameters
    if outputs.artifacts:
        members["artifacts"] = _encode_artifacts(outputs.artifacts)
    if outputs.result is not None:
        members["result"] = outputs.result
    if outputs.exit_code is not None:
        members["exit_code"] = outputs.exit_code
    return _dump(members)


def decode_outputs(stored: bytes) -> Outputs:
    members = json.loads(stored)
    return Outputs(
        parameters=members.get("parameters", {}),
        artifacts=_decode_artifacts(members.get("artifacts", ())),
        result=members.get("result"),
        exit_code=members.get("exit_code"),
    )


def _dump(members: dict[str, Any]) -> bytes:
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()


def _encode_artifacts(artifacts: tuple[Artifact, ...]) -> list[list[str | int]]:
    """Artifacts as arrays, in the order of `_decode_artifacts`."""
    return [
        [a.name, a.object.endpoint, a.object.bucket, a.object.key, a.digest, a.etag, a.size_bytes]
        for a in artifacts
    ]


def _decode_artifacts(stored: list[list[Any]]) -> tuple[Artifact, ...]:
    return tuple(
        Artifact(
            name=name,
            object=ObjectRef(key=key, bucket=bucket, endpoint=endpoint),
            digest=digest,
            etag=etag,
            size_bytes=size_bytes,
        )
        for name, endpoint, bucket, key, digest, etag, size_bytes in stored
    )
