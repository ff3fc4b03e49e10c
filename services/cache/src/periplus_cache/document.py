"""Template documents: JSON without duplicate names, NaN or integers beyond 64 bits, so that a text has one meaning."""

import json
from typing import Any

from periplus_common.errors import Invalid

MAX_DEPTH = 64
_INT64_BOUND = 1 << 63


def parse(text: str) -> dict[str, Any]:
    """A template's document.

    Raises `Invalid` if it is not a JSON object, names a member twice, contains NaN, an infinity or an integer beyond
    64 bits, or is nested deeper than 64.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique_members,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            parse_int=_bounded_int,
        )
    except RecursionError:
        raise Invalid(f"is nested deeper than {MAX_DEPTH}", reason="DOCUMENT_INVALID") from None
    except ValueError as error:
        raise Invalid(f"is not JSON: {error}", reason="DOCUMENT_INVALID") from error
    if not isinstance(value, dict):
        raise Invalid("is not a JSON object", reason="DOCUMENT_INVALID")
    _check_depth(value)
    return value


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Invalid(f"names the member {twice!r} twice", reason="DOCUMENT_INVALID")
    return members


def _refuse_constant(constant: str) -> Any:
    raise Invalid(f"contains {constant}, which has no canonical form", reason="DOCUMENT_INVALID")


def _finite_float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise Invalid(f"contains {text[:40]}, which is too large", reason="DOCUMENT_INVALID")
    return number


def _bounded_int(text: str) -> int:
    if len(text) > 20 or not -_INT64_BOUND <= (number := int(text)) < _INT64_BOUND:
        raise Invalid(f"contains an integer beyond 64 bits: {text[:40]}", reason="DOCUMENT_INVALID")
    return number


def _check_depth(document: dict[str, Any]) -> None:
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        level = [
            member
            for value in level
            for member in (value.values() if isinstance(value, dict) else value)
            if isinstance(member, dict | list)
        ]
        if not level:
            return
    raise Invalid(f"is nested deeper than {MAX_DEPTH}", reason="DOCUMENT_INVALID")
