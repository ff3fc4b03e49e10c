"""Manifests of images (OCI image-spec, Docker's distribution v2.2), from their bytes."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from periplus_common.errors import Invalid
from periplus_snapshotter.images.reference import is_digest

MAX_MANIFEST_BYTES = 4 << 20
MAX_LISTED = 1000
"""Manifests of an index, and layers of an image."""

INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
ACCEPTED_TYPES = (*INDEX_TYPES, *MANIFEST_TYPES)


@dataclass(frozen=True)
class Layer:
    """A layer as the registry stores it."""

    digest: str
    size_bytes: int
    media_type: str


@dataclass(frozen=True)
class Manifest:
    """The manifest of an image, or an index of the manifests of several platforms.

    `platforms` are, of an index, the digests by platform ("linux/amd64"); `listed` are all that it lists. `config` is
    empty for an index.
    """

    digest: str
    platforms: tuple[tuple[str, str], ...] = ()
    listed: tuple[str, ...] = ()
    config: str = ""
    layers: tuple[Layer, ...] = ()

    @property
    def is_index(self) -> bool:
        return not self.config

    def of_platform(self, platform: str) -> str:
        """The digest of a platform's manifest; empty if the index has none. A variant ("linux/arm64/v8") may be left out."""
        for name, digest in self.platforms:
            if name == platform or name.startswith(f"{platform}/"):
                return digest
        return ""


def read(body: bytes, digest: str) -> Manifest:
    """A manifest whose bytes must have the digest. Raises `Invalid`."""
    if (found := digest_of(body)) != digest:
        raise Invalid(f"the registry gave {found} for {digest}")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"the manifest {digest} is no JSON") from error
    if not isinstance(document, dict):
        raise Invalid(f"the manifest {digest} is no JSON object")
    # A document that is both would mean something else to another reader (CVE-2021-41190).
    if ("manifests" in document) == ("config" in document):
        raise Invalid(f"the manifest {digest} is neither an index nor an image")
    if "manifests" in document:
        return _index(document, digest)
    config = _digest(document["config"])
    layers = tuple(
        Layer(_digest(layer), _size(layer), str(layer.get("mediaType", "")))
        for layer in _list(document, "layers", digest)
    )
    return Manifest(digest, config=config, layers=layers)


def digest_of(body: bytes) -> str:
    """The digest of bytes (OCI)."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _index(document: dict[str, Any], digest: str) -> Manifest:
    platforms, listed = [], []
    for entry in _list(document, "manifests", digest):
        found = _digest(entry)
        listed.append(found)
        platform = entry.get("platform")
        if isinstance(platform, dict):
            parts = [platform.get("os"), platform.get("architecture"), platform.get("variant")]
            platforms.append(("/".join(str(part) for part in parts if part), found))
    return Manifest(digest, tuple(platforms), tuple(listed))


def _list(document: dict[str, Any], field: str, digest: str) -> list[dict[str, Any]]:
    found = document.get(field)
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise Invalid(f"the manifest {digest} has no list of {field}")
    if len(found) > MAX_LISTED:
        raise Invalid(f"the manifest {digest} has {len(found)} {field}, at most {MAX_LISTED} are read")
    return found


def _digest(descriptor: object) -> str:
    found = descriptor.get("digest") if isinstance(descriptor, dict) else None
    if not isinstance(found, str) or not is_digest(found):
        raise Invalid("the manifest has a descriptor without a sha256 digest")
    return found


def _size(descriptor: dict[str, Any]) -> int:
    size = descriptor.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise Invalid("the manifest has a descriptor without a size")
    return size
