"""Pins, which every format consists of, their validation, and the refusal of credentials."""

import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from packaging.utils import InvalidName, canonicalize_name
from packaging.version import InvalidVersion, Version

from periplus_common.errors import Invalid

MAX_PACKAGES = 20_000

_HASH = re.compile(r"(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}|md5:[0-9a-f]{32})")
# A URL with a password or, over HTTP, with a user, as users are often tokens.
_CREDENTIALS = re.compile(
    rb"(?:https?://(?!\$\{|\$\w{1,100}(?:@|:\$))[^/\s\"'@<>]{1,512}@|[a-z][a-z0-9+.-]{0,20}://[^/\s\"'@:<>$]{0,256}:[^/\s\"'@<>]{1,256}@)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Pin:
    """An entry of a lockfile.

    `source` distinguishes two entries with the same name and version; `where` is its position, for errors.
    """

    name: str
    version: str
    hashes: tuple[str, ...] = ()
    source: Hashable = ""
    where: str = ""


def validated_pin(
    name: object, version: object, hashes: Iterable[object], source: Hashable, where: str
) -> Pin:
    """An entry with a normalized name. The version of a source tree is None. Raises `Invalid`."""
    if not isinstance(name, str) or not isinstance(version, str | None):
        raise Invalid(f"{where}: name and version are not strings")
    try:
        normalized = canonicalize_name(name, validate=True)
    except InvalidName as error:
        raise Invalid(f"{where}: {name[:100]!r} is not a package name") from error
    if version is not None:
        try:
            Version(version)
        except InvalidVersion as error:
            raise Invalid(f"{where}: {version[:100]!r} is not a version") from error
    return Pin(
        name=normalized,
        version=version or "",
        hashes=_validated_hashes(hashes, where),
        source=source,
        where=where,
    )


def _validated_hashes(hashes: Iterable[object], where: str) -> tuple[str, ...]:
    found = set()
    for value in hashes:
        if not isinstance(value, str) or not _HASH.fullmatch(value):
            raise Invalid(f"{where}: {str(value)[:100]!r} is not a hash of a file")
        found.add(value)
    return tuple(sorted(found))


def merge_pins(pins: Iterable[Pin]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Name, version and hashes of each package, sorted. Entries of one version from several sources are merged.

    Raises `Invalid` for duplicate entries, and for more than `MAX_PACKAGES` of them.
    """
    positions: dict[Hashable, str] = {}
    found: dict[tuple[str, str], set[str]] = {}
    for count, pin in enumerate(pins, 1):
        if count > MAX_PACKAGES:
            raise Invalid(f"has more than {MAX_PACKAGES} packages")
        identity = (pin.name, pin.version, pin.source)
        if identity in positions:
            raise Invalid(f"{pin.where}: {pin.name} {pin.version} is a duplicate of {positions[identity]}")
        positions[identity] = pin.where
        found.setdefault((pin.name, pin.version), set()).update(pin.hashes)
    return [(name, version, tuple(sorted(hashes))) for (name, version), hashes in sorted(found.items())]


def refuse_credentials(content: bytes) -> None:
    """Raise `Invalid` for a URL with credentials. The error does not contain the URL, as it is logged."""
    found = _CREDENTIALS.search(content)
    if found:
        line = content.count(b"\n", 0, found.start()) + 1
        raise Invalid(
            f"line {line}: a URL contains a user or a password",
            fix="lock again with the credentials in a keyring or the environment, and not in the URL",
        )
