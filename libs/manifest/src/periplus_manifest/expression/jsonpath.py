"""The JSONPath of Argo's jsonpath(): names, indexes, slices, unions, *, .. and simple filters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from periplus_manifest.errors import ExpressionError

from . import value
from .budget import Budget

_STEP = re.compile(
    r"""(?P<deep>\.\.)?(?:\.?(?P<name>\*|[^\W\d][\w-]*)|\[(?P<inside>(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\]'"])*)\])""",
    re.VERBOSE,
)
_QUOTED = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""")
_PART = re.compile(r"""\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^,'"]+)\s*(?:,|$)""")
_FILTER = re.compile(r"\?\((?P<test>.*)\)", re.DOTALL)
_TEST = re.compile(
    r"""\s*@((?:\.[^\W\d][\w-]*)+)\s*(?:(==|!=|<=|>=|<|>)\s*('[^']*'|"[^"]*"|-?[\d.]+|true|false|null)\s*)?"""
)
_MAX_PATH_CHARACTERS = 1_000

Step = tuple[str, Any]
Test = tuple[list[str], str | None, Any]


def query(budget: Budget, found: Any, path: str) -> Any:
    """Return what a path selects: one value for a path of names and indexes alone, else a list.

    Raises ExpressionError for a bad path, and where such a value does not exist.
    """
    steps = _steps(path)
    if all(kind in ("name", "index") for kind, _ in steps):
        for kind, key in steps:
            found = _child(found, kind, key, path)
        return found
    values = [found]
    for step in steps:
        selected: list[Any] = []
        for each in values:
            for item in _select(each, step):
                budget.step()
                selected.append(item)
        values = selected
    return values


@lru_cache(maxsize=256)
def _steps(path: str) -> tuple[Step, ...]:
    if not path.startswith("$") or len(path) > _MAX_PATH_CHARACTERS:
        raise ExpressionError("", f"a JSONPath starts with $: {path[:60]!r}")
    steps: list[Step] = []
    position = 1
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None:
            raise ExpressionError("", f"JSONPath {path[:60]!r} is not understood at character {position + 1}")
        if match["deep"]:
            steps.append(("deep", None))
        steps.append(("any", None) if match["name"] == "*" else _step(match["name"], match["inside"], path))
        position = match.end()
    return tuple(steps)


def _step(name: str | None, inside: str | None, path: str) -> Step:
    if name is not None:
        return "name", name
    text = (inside or "").strip()
    if text == "*":
        return "any", None
    if match := _FILTER.fullmatch(text):
        return "filter", _tests(match["test"], path)
    parts = [_part(part.strip(), path) for part in _PART.findall(text)]
    if not parts or _PART.sub("", text).strip():
        raise ExpressionError("", f"JSONPath {path[:60]!r}: [{text[:40]}] is not understood")
    return parts[0] if len(parts) == 1 else ("union", tuple(parts))


def _tests(text: str, path: str) -> list[list[Test]]:
    """Parse a filter into alternatives, each a list of tests that must all hold."""
    alternatives: list[list[Test]] = [[]]
    position = 0
    while test := _TEST.match(text, position):
        alternatives[-1].append((test[1][1:].split("."), test[2], _literal(test[3])))
        operator = text[test.end() : test.end() + 2]
        if not operator:
            return alternatives
        if operator not in ("&&", "||"):
            break
        if operator == "||":
            alternatives.append([])
        position = test.end() + 2
    raise ExpressionError("", f"JSONPath {path[:60]!r}: the filter {text[:40]!r} is not understood")


def _part(text: str, path: str) -> Step:
    if match := _QUOTED.fullmatch(text):
        return "name", re.sub(r"\\(.)", r"\1", match[1] if match[1] is not None else match[2])
    if re.fullmatch(r"-?\d{1,9}", text):
        return "index", int(text)
    if re.fullmatch(r"(?:-?\d{1,9})?:(?:-?\d{1,9})?(?::(?:-?\d{1,9})?)?", text):
        ends = [int(each) if each else None for each in text.split(":")]
        if len(ends) < 3 or ends[2] != 0:
            return "slice", slice(*ends)
    raise ExpressionError("", f"JSONPath {path[:60]!r}: [{text[:40]}] is not understood")


def _literal(text: str | None) -> Any:
    if text is None:
        return None
    if text in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[text]
    if text[0] in "'\"":
        return text[1:-1]
    try:
        return float(text)
    except ValueError:
        raise ExpressionError("", f"{text[:40]!r} is no number") from None


def _child(found: Any, kind: str, key: Any, path: str) -> Any:
    if kind == "name" and isinstance(found, Mapping) and key in found:
        return found[key]
    if kind == "index" and isinstance(found, list) and -len(found) <= key < len(found):
        return found[key]
    raise ExpressionError("", f"JSONPath {path[:60]!r}: there is no {key!r} in {value.kind(found)}")


def _select(found: Any, step: Step) -> Iterator[Any]:
    kind, key = step
    if kind == "deep":
        yield from _descendants(found)
    elif kind == "name":
        if isinstance(found, Mapping) and key in found:
            yield found[key]
    elif kind == "index":
        if isinstance(found, list) and -len(found) <= key < len(found):
            yield found[key]
    elif kind == "slice":
        if isinstance(found, list):
            yield from found[key]
    elif kind == "union":
        for part in key:
            yield from _select(found, part)
    else:
        items = found.values() if isinstance(found, Mapping) else found if isinstance(found, list) else ()
        for item in items:
            if kind == "any" or any(all(_holds(item, *test) for test in tests) for tests in key):
                yield item


def _descendants(found: Any) -> Iterator[Any]:
    pending = [found]
    while pending:
        each = pending.pop()
        yield each
        inner = list(each.values()) if isinstance(each, Mapping) else each if isinstance(each, list) else []
        pending += inner[::-1]


def _holds(item: Any, names: list[str], operator: str | None, literal: Any) -> bool:
    for name in names:
        if not isinstance(item, Mapping) or name not in item:
            return False
        item = item[name]
    if operator is None:
        return True
    if operator in ("==", "!="):
        return value.equal(item, literal) is (operator == "==")
    try:
        below, above = value.less(item, literal), value.less(literal, item)
    except ExpressionError:
        return False
    return {"<": below, ">": above, "<=": not above, ">=": not below}[operator]
