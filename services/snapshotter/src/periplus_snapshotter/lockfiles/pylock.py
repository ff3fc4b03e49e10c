"""pylock.toml (PEP 751), parsed by `packaging`, the reference implementation."""

import json
from collections.abc import Iterator
from typing import Any

from packaging import pylock

from periplus_common.errors import Invalid
from periplus_snapshotter.lockfiles.pins import Pin, validated_pin
from periplus_snapshotter.lockfiles.toml_document import get_tables, parse_toml


def pins(content: bytes) -> Iterator[Pin]:
    """Every entry. Entries with the same name and version differ in marker or source."""
    document = parse_toml(content)
    try:
        lock = pylock.Pylock.from_dict(document)
    except pylock.PylockValidationError as error:
        raise Invalid(str(error)[:300]) from error
    raw = get_tables(document, "packages")
    for index, package in enumerate(lock.packages):
        version = None if package.version is None else str(package.version)
        identity = json.dumps(_identity(raw[index]), sort_keys=True, default=str)
        yield validated_pin(package.name, version, _hashes(package), identity, f"packages[{index}]")


def _identity(package: dict[str, Any]) -> dict[str, Any]:
    keys = ("marker", "requires-python", "vcs", "directory", "archive", "index")
    return {key: package[key] for key in keys if key in package}


def _hashes(package: pylock.Package) -> Iterator[str]:
    for file in (package.sdist, package.archive, *(package.wheels or ())):
        for algorithm, value in (file.hashes if file else {}).items():
            yield f"{algorithm.lower()}:{value.lower()}"
