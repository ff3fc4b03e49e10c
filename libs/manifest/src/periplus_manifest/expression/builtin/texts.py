"""The functions on texts that expr-lang itself has."""

from __future__ import annotations

from typing import Any

from periplus_manifest.errors import ExpressionError
from periplus_manifest.expression.budget import Budget
from periplus_manifest.expression.function import LIST, NUMBER, TEXT, WHOLE, Table, declare
from periplus_manifest.expression.value import kind, whole
from periplus_manifest.gotext import NilList

TABLE: Table = {}

# What Go's strings.TrimSpace takes away; Python's strip takes a few control characters more.
BLANKS = (
    "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
)


@declare(TABLE, "trim", TEXT, TEXT, required=1)
def _trim(_: Budget, text: str, cut: str = BLANKS) -> str:
    return text.strip(cut) if cut else text


@declare(TABLE, "trimPrefix", TEXT, TEXT, required=1)
def _trim_prefix(_: Budget, text: str, cut: str = " ") -> str:
    return text.removeprefix(cut)


@declare(TABLE, "trimSuffix", TEXT, TEXT, required=1)
def _trim_suffix(_: Budget, text: str, cut: str = " ") -> str:
    return text.removesuffix(cut)


@declare(TABLE, "upper", TEXT)
def _upper(budget: Budget, text: str) -> str:
    return budget.text(text.upper())


@declare(TABLE, "lower", TEXT)
def _lower(budget: Budget, text: str) -> str:
    return budget.text(text.lower())


def pieces(budget: Budget, text: str, separator: str, limit: int = -1) -> list[str]:
    """Split as Go's strings.SplitN: by characters without a separator, into at most `limit` pieces."""
    budget.allocate(text.count(separator) + 1 + len(text))
    if limit == 0:
        return NilList()
    if separator:
        return text.split(separator, limit - 1) if limit > 0 else text.split(separator)
    characters = list(text)
    return characters if limit < 0 or limit >= len(text) else [*characters[: limit - 1], text[limit - 1 :]]


@declare(TABLE, "split", TEXT, TEXT, NUMBER, required=2)
def _split(budget: Budget, text: str, separator: str, limit: float = -1) -> list[str]:
    return pieces(budget, text, separator, whole(limit))


@declare(TABLE, "splitAfter", TEXT, TEXT, NUMBER, required=2)
def _split_after(budget: Budget, text: str, separator: str, limit: float = -1) -> list[str]:
    found = pieces(budget, text, separator, whole(limit))
    return found and [*(piece + separator for piece in found[:-1]), found[-1]]


def replaced(budget: Budget, text: str, old: str, new: str, limit: int = -1) -> str:
    """Replace as Go's strings.Replace."""
    times = text.count(old) if limit < 0 else min(limit, text.count(old))
    budget.allocate(len(text) + max(times, 0) * len(new))
    return text.replace(old, new, limit)


@declare(TABLE, "replace", TEXT, TEXT, TEXT, WHOLE, required=3)
def _replace(budget: Budget, text: str, old: str, new: str, limit: int = -1) -> str:
    return replaced(budget, text, old, new, limit)


def repeated(budget: Budget, text: str, times: int) -> str:
    """Write a text so many times."""
    if times < 0:
        raise ExpressionError("", f"cannot repeat {times} times")
    budget.allocate(len(text) * times)
    return text * times


@declare(TABLE, "repeat", TEXT, WHOLE)
def _repeat(budget: Budget, text: str, times: int) -> str:
    return repeated(budget, text, times)


@declare(TABLE, "join", LIST, TEXT, required=1)
def _join(budget: Budget, items: list[Any], glue: str = "") -> str:
    budget.step(len(items) >> 4)
    size = len(glue) * len(items)
    for item in items:
        if not isinstance(item, str):
            raise ExpressionError("", f"join takes texts, not {kind(item)}")
        size += len(item)
    budget.allocate(size)
    return glue.join(items)


def _index_in_bytes(text: str, found: int) -> int:
    return found if found < 0 or text.isascii() else len(text[:found].encode())


@declare(TABLE, "indexOf", TEXT, TEXT)
def _index_of(_: Budget, text: str, part: str) -> int:
    return _index_in_bytes(text, text.find(part))


@declare(TABLE, "lastIndexOf", TEXT, TEXT)
def _last_index_of(_: Budget, text: str, part: str) -> int:
    return _index_in_bytes(text, text.rfind(part))


@declare(TABLE, "hasPrefix", TEXT, TEXT)
def _has_prefix(_: Budget, text: str, part: str) -> bool:
    return text.startswith(part)


@declare(TABLE, "hasSuffix", TEXT, TEXT)
def _has_suffix(_: Budget, text: str, part: str) -> bool:
    return text.endswith(part)
