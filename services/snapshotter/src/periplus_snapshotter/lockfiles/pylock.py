"""pylock.toml (PEP 751), by the reference library."""

import json
from collections.abc import Iterator
from typing import Any

from packaging import pylock

from periplus_common.errors import Invalid
from periplus_snapshotter.lockfiles.document import read, tables
from periplus_snapshotter.lockfiles.pins import Pin, pin


def pins(content: bytes) -> Iterator[Pin]:
    """Every entry. Two of the same name and version are told apart by marker and source."""
    document = read(content)
    try:
        lock = pylock.Pylock.from_dict(document)
    except pylock.PylockValidationError as error:
        raise Invalid(str(error)[:300]) from error
    raw = tables(document, "packages")
    for index, package in enumerate(lock.packages):
        version = None if package.version is None else str(package.version)
        identity = json.dumps(_identity(raw[index]), sort_keys=True, default=str)
        yield pin(package.name, version, _hashes(package), identity, f"packages[{index}]")


def _identity(package: dict[str, Any]) -> dict[str, Any]:
    told = ("marker", "requires-python", "vcs", "directory", "archive", "index")
    return {key: package[key] for key in told if key in package}


def _hashes(package: pylock.Package) -> Iterator[str]:
    for file in (package.sdist, package.archive, *(package.wheels or ())):
        for algorithm, value in (file.hashes if file else {}).items():
            yield f"{algorithm.lower()}:{value.lower()}"
