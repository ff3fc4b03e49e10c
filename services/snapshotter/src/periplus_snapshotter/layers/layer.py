"""What a layer of an image adds and removes (OCI image-spec, layers), and the packages of all layers together."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import IO

from periplus_common.errors import Invalid
from periplus_common.tar import TarLimits, TarReader
from periplus_snapshotter.layers.records import MAX_RECORD_BYTES, Package, reader_of

LIMITS = TarLimits(max_entries=1_200_000, max_names_bytes=256 << 20)
"""Of one layer: images of machine learning have hundreds of thousands of files."""
MAX_PACKAGES = 100_000
"""Of one layer and of one image."""
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"


@dataclass
class Layer:
    """The records of packages that a layer has, by path; paths that it removes, and folders whose content it replaces."""

    records: dict[str, list[Package]] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)


def read_layer(stream: IO[bytes]) -> Layer:
    """Read a layer, packed by gzip or not. Raises `Invalid`."""
    layer, count = Layer(), 0
    reader = TarReader(_Checked(stream), LIMITS, devices=True)  # type: ignore[arg-type]
    for member in reader:
        folder, _, name = member.path.rpartition("/")
        if name == _OPAQUE:
            layer.replaced.append(folder)
        elif name.startswith(_WHITEOUT):
            removed = name.removeprefix(_WHITEOUT)
            layer.removed.append(f"{folder}/{removed}" if folder else removed)
        read = reader_of(member.path) if member.kind == "file" else None
        if read is None:
            continue
        if member.size > MAX_RECORD_BYTES:
            raise Invalid(f"{member.path!r} has {member.size} bytes, at most {MAX_RECORD_BYTES} are read")
        layer.records[member.path] = list(read(b"".join(reader.content())))
        count += len(layer.records[member.path])
        if count > MAX_PACKAGES or len(layer.records) > MAX_PACKAGES:
            raise Invalid(f"the layer has more than {MAX_PACKAGES} packages")
    return layer


def packages_of(layers: Iterable[Layer]) -> list[Package]:
    """The packages of an image whose layers are given from the lowest up, sorted. Raises `Invalid`."""
    records: dict[str, list[Package]] = {}
    for layer in layers:
        hidden, replaced = set(layer.removed), set(layer.replaced)
        records = {
            path: found
            for path, found in records.items()
            if path not in hidden and not any(above in hidden or above in replaced for above in _above(path))
        } | layer.records
        if len(records) > MAX_PACKAGES:
            raise Invalid(f"the image has more than {MAX_PACKAGES} packages")
    return sorted({package for found in records.values() for package in found})


def _above(path: str) -> Iterable[str]:
    """The folders that a path is in."""
    while path:
        path = path.rpartition("/")[0]
        yield path


class _Checked:
    """A stream that is refused if it begins as zstd does, which the standard library can not read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._is_first = True

    def read(self, size: int = -1) -> bytes:
        chunk = self._stream.read(size)
        if self._is_first and chunk.startswith(_ZSTD_MAGIC):
            raise Invalid("the layer is packed by zstd, which is not read")
        self._is_first = False
        return chunk
