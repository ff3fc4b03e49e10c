"""uv.lock, version 1 of its format."""

import json
from collections.abc import Iterator

from periplus_common.errors import Invalid
from periplus_snapshotter.lockfiles.pins import Pin, validated_pin
from periplus_snapshotter.lockfiles.toml_document import Table, as_table, get_tables, parse_toml

SUPPORTED_VERSION = 1


def pins(content: bytes) -> Iterator[Pin]:
    """Every entry. Revisions of version 1 add keys and change none, so all of them are supported."""
    document = parse_toml(content)
    version = document.get("version")
    if type(version) is not int or "requires-python" not in document:
        raise Invalid("has no version or no requires-python, which uv writes at the top")
    if version != SUPPORTED_VERSION:
        raise Invalid(
            f"has format version {version}; version {SUPPORTED_VERSION} is supported",
            fix="uv export --format pylock.toml -o pylock.toml, and send that file",
        )
    for index, package in enumerate(get_tables(document, "package")):
        where = f"package[{index}]"
        source = as_table(package.get("source", {}), f"{where}.source")
        identity = json.dumps(source, sort_keys=True, default=str)
        yield validated_pin(
            package.get("name"), package.get("version"), _hashes(package, where), identity, where
        )


def _hashes(package: Table, where: str) -> Iterator[object]:
    files = get_tables(package, "wheels", where)
    if "sdist" in package:
        files.append(as_table(package["sdist"], f"{where}.sdist"))
    for file in files:
        if "hash" in file:
            yield file["hash"]
