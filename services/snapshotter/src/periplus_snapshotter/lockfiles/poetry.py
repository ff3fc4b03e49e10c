"""poetry.lock, versions 1.1 and 2 of its format."""

import json
from collections.abc import Iterator

from periplus_common.errors import Invalid
from periplus_snapshotter.lockfiles.document import Table, read, table, tables
from periplus_snapshotter.lockfiles.pins import Pin, pin

VERSIONS = ("1.", "2.")


def pins(content: bytes) -> Iterator[Pin]:
    """Every entry. Version 1 lists the files of all packages in one table, version 2 with each package."""
    document = read(content)
    if "metadata" not in document:
        raise Invalid("has no [metadata], as Poetry writes it")
    metadata = table(document["metadata"], "metadata")
    version = metadata.get("lock-version")
    if not isinstance(version, str) or not version.startswith(VERSIONS):
        raise Invalid(f"has lock-version {str(version)[:20]!r}; this reads 1 and 2", fix="poetry lock")
    if "content-hash" not in metadata:
        raise Invalid("has no metadata.content-hash, as Poetry writes it")
    listed = table(metadata.get("files", {}), "metadata.files")
    for index, package in enumerate(tables(document, "package")):
        where = f"package[{index}]"
        if package.get("version") is None:
            raise Invalid(f"{where} has no version")
        source = json.dumps([package.get("source"), package.get("markers")], sort_keys=True, default=str)
        hashes = _hashes(package, listed, where)
        yield pin(package.get("name"), package["version"], hashes, source, where)


def _hashes(package: Table, listed: Table, where: str) -> Iterator[object]:
    name = package.get("name")
    files = tables(package, "files", where)
    if not files and isinstance(name, str):
        files = tables(listed, name, "metadata.files")
    for file in files:
        yield file.get("hash")
