"""Numbers and quoted texts of an expression, as their values."""

from __future__ import annotations

import re

from periplus_manifest.errors import ExpressionError

_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"} | {
    c: c for c in "\\'\"`?"
}
_ESCAPE = re.compile(
    r"\\(?:u\{(?P<braced>[0-9a-fA-F]{1,6})\}|[xX](?P<two>[0-9a-fA-F]{2})|u(?P<four>[0-9a-fA-F]{4})"
    r"|U(?P<eight>[0-9a-fA-F]{8})|(?P<octal>[0-3][0-7]{2})|(?P<simple>[abfnrtv\\'\"`?])|(?P<other>.?))",
    re.DOTALL,
)


def text(quoted: str) -> str:
    """Return the value of a text in single or double quotes. Raises ExpressionError for an unknown escape."""
    inner = quoted[1:-1].replace("\r\n", "\n").replace("\r", "\n")
    return _ESCAPE.sub(_escaped, inner) if "\\" in inner else inner


def _escaped(match: re.Match[str]) -> str:
    if match["simple"]:
        return _SIMPLE[match["simple"]]
    digits = match["braced"] or match["two"] or match["four"] or match["eight"]
    number = int(digits, 16) if digits else int(match["octal"], 8) if match["octal"] else None
    if number is None or number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        raise ExpressionError("", f"unknown escape {match[0]!r} in a text")
    return chr(number)


def number(written: str) -> int | float:
    """Return the value of a number. Raises ExpressionError when it does not fit 64 bits."""
    digits = written.replace("_", "").lower()
    try:
        if digits[:2] in ("0x", "0o", "0b"):
            value: int | float = int(digits, 0)
        elif "." in digits or "e" in digits:
            value = float(digits)
        else:
            # More digits than 64 bits need are too many, however many there are.
            value = int(digits.lstrip("0")[:32] or "0")
    except ValueError:
        raise ExpressionError("", f"bad number {written[:40]!r}") from None
    if isinstance(value, int) and value >= 1 << 63:
        raise ExpressionError("", f"the number {written[:40]} does not fit 64 bits")
    if value == float("inf"):
        raise ExpressionError("", f"the number {written[:40]} is too large")
    return value
