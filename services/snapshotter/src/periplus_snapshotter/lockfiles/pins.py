"""What every lockfile format has in common: pins, their checks, and what a file may not hold."""

import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from packaging.utils import InvalidName, canonicalize_name
from packaging.version import InvalidVersion, Version

from periplus_common.errors import Invalid

MAX_PACKAGES = 20_000

_HASH = re.compile(r"(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}|md5:[0-9a-f]{32})")
# An address with a password, or with anything before the host over HTTP: tokens are sent as users.
_CREDENTIALS = re.compile(
    rb"(?:https?://(?!\$\{)[^/\s\"'@<>]{1,512}@|[a-z][a-z0-9+.-]{0,20}://[^/\s\"'@:<>$]{0,256}:[^/\s\"'@<>]{1,256}@)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Pin:
    """One entry of a lockfile. `source` is what tells apart two entries of the same name and version."""

    name: str
    version: str
    hashes: tuple[str, ...] = ()
    source: Hashable = ""
    where: str = ""


def pin(name: object, version: object, hashes: Iterable[object], source: Hashable, where: str) -> Pin:
    """A checked entry; an absent version (None) is that of a source tree. Raises `Invalid` with `where`."""
    if not isinstance(name, str) or not isinstance(version, str | None):
        raise Invalid(f"{where}: name and version are not text")
    try:
        normal = canonicalize_name(name, validate=True)
    except InvalidName as error:
        raise Invalid(f"{where}: {name[:100]!r} is no name of a package") from error
    if version is not None:
        try:
            Version(version)
        except InvalidVersion as error:
            raise Invalid(f"{where}: {version[:100]!r} is no version") from error
    return Pin(normal, version or "", _hashes(hashes, where), source, where)


def _hashes(hashes: Iterable[object], where: str) -> tuple[str, ...]:
    found = set()
    for value in hashes:
        if not isinstance(value, str) or not _HASH.fullmatch(value):
            raise Invalid(f"{where}: {str(value)[:100]!r} is no hash of a file")
        found.add(value)
    return tuple(sorted(found))


def merged(pins: Iterable[Pin]) -> list[tuple[str, str, tuple[str, ...]]]:
    """The packages, sorted; the hashes of equal versions from several sources together.

    Raises `Invalid` for an entry that comes twice, and for more entries than a project can have.
    """
    seen: dict[Hashable, str] = {}
    found: dict[tuple[str, str], set[str]] = {}
    for count, one in enumerate(pins, 1):
        if count > MAX_PACKAGES:
            raise Invalid(f"has more than {MAX_PACKAGES} packages")
        identity = (one.name, one.version, one.source)
        if identity in seen:
            raise Invalid(f"{one.where}: {one.name} {one.version} is there already, at {seen[identity]}")
        seen[identity] = one.where
        found.setdefault((one.name, one.version), set()).update(one.hashes)
    return [(name, version, tuple(sorted(hashes))) for (name, version), hashes in sorted(found.items())]


def refuse_credentials(content: bytes) -> None:
    """Raise `Invalid` for an address with credentials. It is not repeated: the message goes to logs."""
    found = _CREDENTIALS.search(content)
    if found:
        line = content.count(b"\n", 0, found.start()) + 1
        raise Invalid(
            f"line {line}: an address holds a user or a password",
            fix="lock again with the credentials in a keyring or the environment, not in the address",
        )
