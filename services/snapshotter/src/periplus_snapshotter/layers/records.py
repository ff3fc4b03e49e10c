"""The files in which package managers record what is installed, and the packages that such a file names."""

import re
from collections.abc import Callable, Iterator

from packaging.utils import canonicalize_name

Package = tuple[str, str]
"""Name and version. Python packages by their normalized name, others with their kind before it (package URL): `deb/openssl`."""

MAX_RECORD_BYTES = 16 << 20
_MAX_NAME_CHARACTERS = 256
_HEADER_BYTES = 64 << 10
_CONDA = re.compile(r"(?:^|/)conda-meta/([^/]+)\.json$")
_METADATA = re.compile(r"(?:\.dist-info/METADATA|\.egg-info/PKG-INFO|\.egg-info)$")
_DPKG = re.compile(r"^var/lib/dpkg/(?:status|status\.d/[^/]+)$")
_APK = re.compile(r"^(?:usr/)?lib/apk/db/installed$")


def reader_of(path: str) -> Callable[[bytes], Iterator[Package]] | None:
    """What reads the packages of a file; None for a file that is no record."""
    if _METADATA.search(path):
        return _python
    if match := _CONDA.search(path):
        name = match[1]
        return lambda _: _conda(name)
    if _DPKG.match(path) and not path.endswith(".md5sums"):
        return _dpkg
    return _apk if _APK.match(path) else None


def _python(content: bytes) -> Iterator[Package]:
    """Core metadata (PEP 566): headers up to the first empty line."""
    fields: dict[str, str] = {}
    for line in content[:_HEADER_BYTES].decode(errors="replace").splitlines():
        if not line:
            break
        name, colon, value = line.partition(":")
        if colon and name in ("Name", "Version"):
            fields.setdefault(name, value.strip())
    yield from _package("", canonicalize_name(fields.get("Name", "")), fields.get("Version", ""))


def _conda(name: str) -> Iterator[Package]:
    """The name of a record: name, version and build, joined by hyphens."""
    parts = name.rsplit("-", 2)
    if len(parts) == 3:
        yield from _package("conda/", parts[0], parts[1])


def _dpkg(content: bytes) -> Iterator[Package]:
    for stanza in content.decode(errors="replace").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status", "install ok installed").endswith(" installed"):
            yield from _package("deb/", fields.get("Package", ""), fields.get("Version", ""))


def _apk(content: bytes) -> Iterator[Package]:
    name = ""
    for line in content.decode(errors="replace").splitlines():
        if line.startswith("P:"):
            name = line[2:]
        elif line.startswith("V:"):
            yield from _package("apk/", name, line[2:])


def _package(kind: str, name: str, version: str) -> Iterator[Package]:
    name, version = name.strip(), version.strip()
    is_text = (name + version).isprintable() and len(kind + name) <= _MAX_NAME_CHARACTERS
    if name and is_text and len(version) <= _MAX_NAME_CHARACTERS:
        yield kind + name, version
