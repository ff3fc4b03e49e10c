"""Single values as Argo reads them: which unquoted ones are null, booleans or numbers, and which texts are valid."""

from __future__ import annotations

import re

_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
# Argo's reader takes a bare y or n for a boolean too, and then refuses the many manifests that name a
# parameter n. A text is what their author means.
for _word in ("yes", "true", "on"):
    _WORDS.update(dict.fromkeys((_word, _word.capitalize(), _word.upper()), True))
for _word in ("no", "false", "off"):
    _WORDS.update(dict.fromkeys((_word, _word.capitalize(), _word.upper()), False))

_WORD_STARTS = frozenset("~nNtTfFyYoO")
_NUMBER_STARTS = frozenset("+-.0123456789")
_INTEGER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_MAX_NUMBER_CHARACTERS = 400


def resolve(text: str) -> str | int | float | bool | None:
    """Return the value of an unquoted scalar; dates, and whatever else is no number, are texts.

    Raises ValueError for .nan and .inf.
    """
    if not text:
        return None
    first = text[0]
    if first in _WORD_STARTS:
        return _WORDS.get(text, text)
    if first in _NUMBER_STARTS:
        return _number(text)
    return text


def _number(text: str) -> str | int | float:
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is not a number that JSON can hold")
    digits = text.replace("_", "")
    if len(digits) > _MAX_NUMBER_CHARACTERS:
        return text
    if _INTEGER.fullmatch(digits):
        number = _integer(digits)
        if -(1 << 63) <= number < 1 << 64:
            return number
    if not _FLOAT.fullmatch(digits):
        return text
    value = float(digits)
    return text if value in (float("inf"), float("-inf")) else value


def _integer(digits: str) -> int:
    body = digits.lstrip("+-").lower()
    base = {"0x": 16, "0b": 2, "0o": 8}.get(body[:2], 10)
    if base == 10 and len(body) > 1 and body[0] == "0":
        base = 8
    number = int(body[2:] if body[:2] in ("0x", "0b", "0o") else body, base)
    return -number if digits[0] == "-" else number


def invalid_text_reason(text: str) -> str | None:
    """Say why a text can be neither stored nor passed to a process; None where it can."""
    if "\0" in text:
        return "the text has a NUL character"
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return "the text has half of a surrogate pair"
    return None
