"""Template documents: JSON read strictly, so that one text has one meaning and that meaning has one digest."""

import json
from typing import Any

from periplus_common.errors import Invalid

DEPTH = 64
_LARGEST = 1 << 63


def parse(text: str) -> dict[str, Any]:
    """A template's document.

    Raises `Invalid` for what is no JSON object, names a member twice, holds NaN, an infinity or an integer
    beyond 64 bits, or is nested deeper than 64.
    """
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refused, parse_float=_finite, parse_int=_bounded
        )
    except RecursionError:
        raise Invalid(f"is nested deeper than {DEPTH}", reason="DOCUMENT_INVALID") from None
    except ValueError as error:
        raise Invalid(f"is not JSON: {error}", reason="DOCUMENT_INVALID") from error
    if not isinstance(value, dict):
        raise Invalid("is not a JSON object", reason="DOCUMENT_INVALID")
    _check_depth(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Invalid(f"names the member {twice!r} twice", reason="DOCUMENT_INVALID")
    return members


def _refused(constant: str) -> Any:
    raise Invalid(f"holds {constant}, which has no canonical form", reason="DOCUMENT_INVALID")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise Invalid(f"holds {text[:40]}, which is too large", reason="DOCUMENT_INVALID")
    return number


def _bounded(text: str) -> int:
    if len(text) > 20 or not -_LARGEST <= (number := int(text)) < _LARGEST:
        raise Invalid(f"holds an integer beyond 64 bits: {text[:40]}", reason="DOCUMENT_INVALID")
    return number


def _check_depth(document: dict[str, Any]) -> None:
    level: list[Any] = [document]
    for _ in range(DEPTH):
        level = [
            member
            for value in level
            for member in (value.values() if isinstance(value, dict) else value)
            if isinstance(member, dict | list)
        ]
        if not level:
            return
    raise Invalid(f"is nested deeper than {DEPTH}", reason="DOCUMENT_INVALID")
