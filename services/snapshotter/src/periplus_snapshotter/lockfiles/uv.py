"""uv.lock, version 1 of its format."""

import json
from collections.abc import Iterator

from periplus_common.errors import Invalid
from periplus_snapshotter.lockfiles.document import Table, read, table, tables
from periplus_snapshotter.lockfiles.pins import Pin, pin

VERSION = 1


def pins(content: bytes) -> Iterator[Pin]:
    """Every entry. Revisions of version 1 add keys and change none, so they are all read."""
    document = read(content)
    version = document.get("version")
    if type(version) is not int or "requires-python" not in document:
        raise Invalid("has no format version and no requires-python, as uv writes them at the top")
    if version != VERSION:
        raise Invalid(
            f"has format version {version}; this reads version {VERSION}",
            fix="uv export --format pylock.toml -o pylock.toml, and use that",
        )
    for index, package in enumerate(tables(document, "package")):
        where = f"package[{index}]"
        source = table(package.get("source", {}), f"{where}.source")
        identity = json.dumps(source, sort_keys=True, default=str)
        yield pin(package.get("name"), package.get("version"), _hashes(package, where), identity, where)


def _hashes(package: Table, where: str) -> Iterator[object]:
    files = tables(package, "wheels", where)
    if "sdist" in package:
        files.append(table(package["sdist"], f"{where}.sdist"))
    for file in files:
        if "hash" in file:
            yield file["hash"]
