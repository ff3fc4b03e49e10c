"""poetry.lock, versions 1 and 2 of its format."""

import json
from collections.abc import Iterator

from periplus_common.errors import Invalid
from periplus_snapshotter.lockfiles.pins import Pin, validated_pin
from periplus_snapshotter.lockfiles.toml_document import Table, as_table, get_tables, parse_toml

SUPPORTED_VERSIONS = ("1.", "2.")


def pins(content: bytes) -> Iterator[Pin]:
    """Every entry. Version 1 lists the files of all packages in one table, version 2 with each package."""
    document = parse_toml(content)
    if "metadata" not in document:
        raise Invalid("has no [metadata], which Poetry writes")
    metadata = as_table(document["metadata"], "metadata")
    version = metadata.get("lock-version")
    if not isinstance(version, str) or not version.startswith(SUPPORTED_VERSIONS):
        raise Invalid(
            f"has lock-version {str(version)[:20]!r}; versions 1 and 2 are supported", fix="poetry lock"
        )
    if "content-hash" not in metadata:
        raise Invalid("has no metadata.content-hash, which Poetry writes")
    all_files = as_table(metadata.get("files", {}), "metadata.files")
    for index, package in enumerate(get_tables(document, "package")):
        where = f"package[{index}]"
        if package.get("version") is None:
            raise Invalid(f"{where} has no version")
        source = json.dumps([package.get("source"), package.get("markers")], sort_keys=True, default=str)
        hashes = _hashes(package, all_files, where)
        yield validated_pin(package.get("name"), package["version"], hashes, source, where)


def _hashes(package: Table, all_files: Table, where: str) -> Iterator[object]:
    name = package.get("name")
    files = get_tables(package, "files", where)
    if not files and isinstance(name, str):
        files = get_tables(all_files, name, "metadata.files")
    for file in files:
        yield file.get("hash")
