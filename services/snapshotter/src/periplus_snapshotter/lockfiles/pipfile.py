"""Pipfile.lock, version 6 of its format."""

import json
from collections.abc import Iterator

from periplus_common.errors import Invalid
from periplus_snapshotter.lockfiles.pins import Pin, validated_pin
from periplus_snapshotter.lockfiles.toml_document import as_table

SUPPORTED_VERSION = 6


def pins(content: bytes) -> Iterator[Pin]:
    """Every entry of every category, such as `default` and `develop`. One of a source tree or a commit has no version."""
    try:
        document = as_table(json.loads(content), "the file")
    except RecursionError as error:
        raise Invalid("is nested too deeply") from error
    except ValueError as error:  # UnicodeDecodeError is one
        raise Invalid(f"is not JSON: {str(error)[:200]}") from error
    version = as_table(document.get("_meta", {}), "_meta").get("pipfile-spec")
    if version != SUPPORTED_VERSION:
        raise Invalid(
            f"has _meta.pipfile-spec {str(version)[:20]!r}; version 6 is supported", fix="pipenv lock"
        )
    for category, packages in document.items():
        if category == "_meta":
            continue
        for name, value in as_table(packages, category).items():
            where = f"{category}.{name}"[:200]
            package = as_table(value, where)
            pinned = package.get("version")
            if isinstance(pinned, str):
                pinned = pinned.removeprefix("===").removeprefix("==") if pinned.startswith("==") else None
            hashes = package.get("hashes", [])
            if not isinstance(hashes, list):
                raise Invalid(f"{where}.hashes is not a list")
            yield validated_pin(name, pinned, hashes, category, where)
