"""Digests as text ("sha256:…") here and as 32 bytes in rows."""

from datetime import timedelta

_PREFIX = "sha256:"


def to_bytes(digest: str) -> bytes:
    """The 32 bytes of a digest."""
    return bytes.fromhex(digest[len(_PREFIX) :])


def to_text(stored: bytes | None) -> str:
    """The digest of 32 bytes; empty for none."""
    return "" if stored is None else _PREFIX + stored.hex()


def or_none(digest: str) -> bytes | None:
    """The 32 bytes of a digest; none for the empty text."""
    return to_bytes(digest) if digest else None


def microseconds(span: timedelta) -> int:
    """A span as a whole number of microseconds."""
    return span // timedelta(microseconds=1)
