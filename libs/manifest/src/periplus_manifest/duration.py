"""Durations as texts: those of Go, of Argo (which may be bare seconds) and of Periplus (which may have days)."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal

from .errors import ManifestError

_GO_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5, the micro sign
    "μs": 1_000,  # U+03BC, the Greek letter
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DAY_NANOSECONDS = {"d": 86_400_000_000_000, "w": 7 * 86_400_000_000_000}
_MAX_NANOSECONDS = (1 << 63) - 1
_MAX_CHARACTERS = 200

_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|[smhdw])")
_WHOLE_SECONDS = re.compile(r"[-+]?[0-9]+")


def parse_duration(text: str, *, days: bool = False) -> timedelta:
    """Read a duration as Go's time.ParseDuration does: "1h30m", "-1.5s", "250ms", "0"; rounded to microseconds.

    With `days` the units d (24 hours) and w (7 days), which Go does not have, are read as well: the durations of
    Periplus' own annotations. Raises ManifestError, without a path, for any other text and for more than Go's
    64 bits of nanoseconds hold (292 years).
    """
    units = _GO_NANOSECONDS | _DAY_NANOSECONDS if days else _GO_NANOSECONDS
    body = text[1:] if text[:1] in ("+", "-") else text
    parts = _PART.findall(body) if len(text) <= _MAX_CHARACTERS else []
    if body != "0" and (
        not parts
        or "".join(number + unit for number, unit in parts) != body
        or any(unit not in units for _, unit in parts)
    ):
        example = "90s, 1h30m or 7d" if days else "250ms, 90s or 1h30m"
        raise ManifestError("", f"{text[:60]!r} is not a duration; write it like {example}")
    nanoseconds = sum(int(Decimal(number) * units[unit]) for number, unit in parts)
    if nanoseconds > _MAX_NANOSECONDS:
        raise ManifestError("", f"the duration {text[:60]!r} is longer than 292 years")
    span = timedelta(microseconds=(nanoseconds + 500) // 1000)
    return -span if text.startswith("-") else span


def parse_argo_duration(text: str) -> timedelta:
    """Read a duration as Argo does in timeouts, backoffs and suspends: a whole number is seconds, all else Go's.

    Raises ManifestError, without a path.
    """
    return parse_duration(f"{text}s" if _WHOLE_SECONDS.fullmatch(text) else text)
