"""pdm.lock. Before version 4 of its format, hashes are elsewhere and are not read."""

import json
from collections.abc import Iterator

from periplus_common.errors import Invalid
from periplus_snapshotter.lockfiles.pins import Pin, validated_pin
from periplus_snapshotter.lockfiles.toml_document import as_table, get_tables, parse_toml


def pins(content: bytes) -> Iterator[Pin]:
    """Every entry. PDM writes one for each set of extras of a package, with the same files."""
    document = parse_toml(content)
    if "lock_version" not in as_table(document.get("metadata", {}), "metadata"):
        raise Invalid("has no metadata.lock_version, which PDM writes")
    for index, package in enumerate(get_tables(document, "package")):
        where = f"package[{index}]"
        hashes = [file["hash"] for file in get_tables(package, "files", where) if "hash" in file]
        # A source tree, or a commit, has other keys than files.
        source = {
            key: value for key, value in package.items() if key not in ("files", "dependencies", "summary")
        }
        identity = json.dumps(source, sort_keys=True, default=str)
        yield validated_pin(package.get("name"), package.get("version"), hashes, identity, where)
