"""sprig's functions with regular expressions."""

from __future__ import annotations

import re

from periplus_manifest import regex
from periplus_manifest.errors import ExpressionError, ManifestError
from periplus_manifest.expression.budget import Budget
from periplus_manifest.expression.function import TEXT, WHOLE, Table, declare, declare_both
from periplus_manifest.gotext import NilList

TABLE: Table = {}

_REFERENCE = re.compile(r"\$(?:\$|\{(\w+)\}|(\w+))", re.ASCII)


def _spans(budget: Budget, pattern: str, text: str, limit: int = -1) -> tuple[regex.Regex, list[regex.Spans]]:
    try:
        compiled = regex.compile(pattern)
        found = []
        for spans in compiled.find_all(text, budget.step, limit):
            budget.step(1 + len(spans))
            found.append(spans)
        return compiled, found
    except ManifestError as error:
        raise ExpressionError("", error.message) from None


@declare(TABLE, "mustRegexMatch", TEXT, TEXT)
def _must_match(budget: Budget, pattern: str, text: str) -> bool:
    return _matches(budget, pattern, text)


def _matches(budget: Budget, pattern: str, text: str) -> bool:
    return bool(_spans(budget, pattern, text, 1)[1])


@declare(TABLE, "regexMatch", TEXT, TEXT)
def _match(budget: Budget, pattern: str, text: str) -> bool:
    try:
        regex.compile(pattern)
    except ManifestError:
        return False  # sprig hides the error of a bad pattern in this function only
    return _matches(budget, pattern, text)


@declare_both(TABLE, "regexFind", TEXT, TEXT)
def _find(budget: Budget, pattern: str, text: str) -> str:
    return "".join(text[spans[0] : spans[1]] for spans in _spans(budget, pattern, text, 1)[1])


@declare_both(TABLE, "regexFindAll", TEXT, TEXT, WHOLE)
def _find_all(budget: Budget, pattern: str, text: str, limit: int) -> list[str]:
    found = [text[spans[0] : spans[1]] for spans in _spans(budget, pattern, text, limit)[1]]
    return found or NilList()


def _replaced(budget: Budget, pattern: str, text: str, written: str, *, literal: bool) -> str:
    compiled, found = _spans(budget, pattern, text)
    out: list[str] = []
    position = 0
    for spans in found:
        out.append(text[position : spans[0]])
        out.append(written if literal else _expanded(compiled, spans, text, written))
        position = spans[1]
        budget.allocate(len(out[-1]))
    return budget.text("".join((*out, text[position:])))


def _expanded(compiled: regex.Regex, spans: regex.Spans, text: str, written: str) -> str:
    def part(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name is None:
            return "$"
        number = int(name) if name.isdigit() and len(name) < 4 else compiled.names.get(name, -1)
        if not 0 <= number <= compiled.groups or spans[2 * number] < 0:
            return ""
        return text[spans[2 * number] : spans[2 * number + 1]]

    return _REFERENCE.sub(part, written)


@declare_both(TABLE, "regexReplaceAll", TEXT, TEXT, TEXT)
def _replace_all(budget: Budget, pattern: str, text: str, written: str) -> str:
    return _replaced(budget, pattern, text, written, literal=False)


@declare_both(TABLE, "regexReplaceAllLiteral", TEXT, TEXT, TEXT)
def _replace_all_literal(budget: Budget, pattern: str, text: str, written: str) -> str:
    return _replaced(budget, pattern, text, written, literal=True)


@declare_both(TABLE, "regexSplit", TEXT, TEXT, WHOLE)
def _split(budget: Budget, pattern: str, text: str, limit: int) -> list[str]:
    if limit == 0:
        return NilList()
    out: list[str] = []
    position = 0
    for spans in _spans(budget, pattern, text)[1]:
        if 0 < limit <= len(out) + 1:
            break
        if spans[1] == 0 or (spans[0] == spans[1] == len(text)):
            continue
        out.append(text[position : spans[0]])
        position = spans[1]
    return [*out, text[position:]]


@declare(TABLE, "regexQuoteMeta", TEXT)
def _quote_meta(budget: Budget, text: str) -> str:
    return budget.text(re.sub(r"[\\.+*?()|\[\]{}^$]", r"\\\g<0>", text))
