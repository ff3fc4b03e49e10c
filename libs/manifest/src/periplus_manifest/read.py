"""Reads YAML or JSON strictly; an error names the field."""

from __future__ import annotations

import json
from typing import Any

from .bounds import MAX_MANIFEST_BYTES, MAX_NESTING
from .errors import BoundError, ManifestError, join
from .gotext import kind
from .scalar import invalid_text_reason

_UNSET: Any = object()


def read(text: str | bytes) -> dict[str, Any]:
    """Read one Workflow, WorkflowTemplate, CronWorkflow… from YAML or JSON.

    Values are those that Argo reads: unquoted dates are texts, 0755 is 493, yes is true. Raises
    ManifestError for more than 1 MiB, more than one document, aliases, anchors, tags, duplicate or
    non-string keys, NaN and infinities, NUL characters, and nesting deeper than 64.
    """
    source = _text(text)
    value = _json(source) if source.lstrip()[:1] == "{" else _UNSET
    if value is _UNSET:
        # JSON needs no YAML parser, nor the time to import it.
        from .document import load

        value = load(source)
    return _map(value)


def read_all(text: str | bytes) -> list[dict[str, Any]]:
    """Read every document of a file, as `read` reads one; empty documents are left out. Raises ManifestError."""
    source = _text(text)
    value = _json(source) if source.lstrip()[:1] == "{" else _UNSET
    if value is not _UNSET:
        return [_map(value)]
    from .document import load_all

    found = [_map(each) for each in load_all(source)]
    if not found:
        raise ManifestError("", "the document is empty")
    return found


def _map(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ManifestError("", f"the document is {kind(value)}, but a manifest is a map")
    return value


def _text(text: str | bytes) -> str:
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(raw) > MAX_MANIFEST_BYTES:
        raise BoundError("", f"the manifest has {len(raw)} bytes; at most {MAX_MANIFEST_BYTES} are read")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError("", f"byte {error.start} is not UTF-8") from None


def _json(source: str) -> Any:
    """Read JSON; _UNSET for what is not plain JSON, which the YAML reader then reads or refuses with the field's path."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("duplicate key")
        return found

    try:
        value = json.loads(source, object_pairs_hook=unique, parse_constant=_Constant, parse_int=_integer)
    except (ValueError, RecursionError):
        return _UNSET
    _check_values(value, "", 0)
    return value


def _integer(text: str) -> int | float:
    # Beyond 64 bits a whole number is a float, as in Go.
    if len(text) <= 18:
        return int(text)
    number = int(text) if len(text) <= 20 else 1 << 64
    return number if -(1 << 63) <= number < 1 << 64 else float(text)


class _Constant:
    """NaN, Infinity or -Infinity: refused in _check_values, which knows the path of its field."""

    def __init__(self, text: str) -> None:
        self.text = text


def _check_values(value: Any, path: str, depth: int) -> None:
    if isinstance(value, str):
        if (found := invalid_text_reason(value)) is not None:
            raise ManifestError(path, found)
    elif isinstance(value, (dict, list)):
        if depth >= MAX_NESTING:
            raise BoundError(path, f"nested deeper than {MAX_NESTING}")
        if isinstance(value, dict):
            for key, item in value.items():
                _check_values(item, join(path, key) if key else path, depth + 1)
        else:
            for index, item in enumerate(value):
                _check_values(item, f"{path}[{index}]", depth + 1)
    elif isinstance(value, _Constant):
        raise ManifestError(path, f"{value.text} is not a number that JSON can hold")
    elif isinstance(value, float) and value - value != 0:
        raise ManifestError(path, "the number is too large")
