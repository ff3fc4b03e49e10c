"""Small values as JSON text and back, checked against the annotation that describes them."""

from __future__ import annotations

import json
from typing import Any, Literal, get_args, get_origin

from periplus.sdk.errors import MismatchError
from periplus.sdk.values.annotations import type_name
from periplus.sdk.values.conversion import from_json, to_json
from periplus.sdk.values.exactness import check_same
from periplus.sdk.values.schema import element, is_union, unwrap

# Linux refuses an environment variable of 128 KiB, and a parameter reaches its step as one.
MAX_PARAMETER_BYTES = 100_000

_FAN_OUT_PREFIX = "json:"


def dumps(value: Any, annotation: Any) -> str:
    """The JSON text of a value, in one canonical form that Argo and Kubernetes pass on unchanged.

    Raises MismatchError when the value does not have the annotated type.
    """
    text = _escaped(_json(value, annotation, for_parameter=True))
    if len(text.encode()) > MAX_PARAMETER_BYTES:
        raise MismatchError(
            f"is {len(text.encode())} bytes as JSON; a parameter holds at most {MAX_PARAMETER_BYTES}",
            fix=f"annotate it Artifact[{type_name(annotation)}], so that it travels as a file",
        )
    return text


def dumps_file(value: Any, annotation: Any) -> str:
    """The JSON text of a value for a file, of any length. Raises MismatchError as `dumps` does."""
    return _json(value, annotation, for_parameter=False)


def _json(value: Any, annotation: Any, *, for_parameter: bool) -> str:
    """The JSON text of a value, proven to be read back as the same value."""
    try:
        data = to_json(value, annotation)
        if for_parameter and isinstance(data, float):
            text = _decimal(data)
        else:
            # Keys stay in their order, which is part of a dict's value.
            separators = (",", ":") if for_parameter else None
            text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=separators)
        text.encode()
        check_same(value, loads(text, annotation), annotation)
    except ValueError as refused:
        raise MismatchError(f"cannot be written as JSON: {refused}", fix="return it as bytes") from refused
    except RecursionError as deep:
        raise MismatchError(
            "cannot be written as JSON: it is nested too deeply, or holds itself", fix="return it flat"
        ) from deep
    return text


def loads(text: str, annotation: Any) -> Any:
    """The value of the annotated type that a JSON text holds.

    Raises MismatchError when the text is not JSON or holds a value of another type.
    """
    try:
        data = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as broken:
        raise MismatchError(f"is not JSON ({broken}): {_short(text)}") from broken
    return from_json(data, annotation)


def dumps_fan_out_result(value: Any, annotation: Any) -> str:
    """The text of one result of a fan-out, with `json:` before a list or object.

    Where all results of a fan-out are JSON lists or objects, Argo parses them and writes them anew, which changes
    numbers and the order of keys. Text that is not JSON it passes on unchanged.
    """
    text = dumps(value, annotation)
    return _FAN_OUT_PREFIX + text if text[0] in "[{" else text


def loads_parameter(text: str, annotation: Any) -> Any:
    """The value of a parameter, written by `dumps` or by `dumps_fan_out_result`. Raises MismatchError as `loads` does."""
    return loads(text.removeprefix(_FAN_OUT_PREFIX), annotation)


def dumps_items(values: list[Any], annotation: Any) -> str:
    """A list as the JSON texts of its elements, so that Argo's `{{item}}` is the JSON of each."""
    member = element(annotation)
    return dumps([dumps(value, member) for value in values], list[str])


def loads_gathered(text: str, annotation: Any) -> list[Any]:
    """The results of a fan-out: Argo gathers them as a JSON list of strings, as `dumps_fan_out_result` wrote them."""
    member = element(annotation)
    return [loads_parameter(one, member) for one in loads(text, list[str])]


def parse(text: str, annotation: Any) -> Any:
    """The value of a parameter from a command line: JSON or, where a `str` is possible, the bare text.

    Raises MismatchError when it is neither.
    """
    try:
        return loads(text, annotation)
    except MismatchError:
        if not _may_be_text(annotation):
            raise
        return from_json(text, annotation)


def _may_be_text(annotation: Any) -> bool:
    annotation = unwrap(annotation)
    if is_union(annotation):
        return any(map(_may_be_text, get_args(annotation)))
    return annotation is str or get_origin(annotation) is Literal


def _escaped(text: str) -> str:
    """The same JSON in a form that nothing on its way replaces or cuts.

    Argo replaces `{{…}}` and Kubernetes `$(…)` and `$$` in what they pass on. Both can stand only inside the strings
    of a JSON text, where an escape means the same. Argo's `when` ends a text at a quote of either kind.
    """
    if text.startswith('"'):
        text = text.replace("'", "\\u0027")
    return text.replace("$", "\\u0024").replace("{{", "\\u007b\\u007b")


def _decimal(value: float) -> str:
    """A float without an exponent where that is short: Argo's `when` does not read `1e-05`."""
    text = repr(value)
    if "e" not in text or abs(int(text.partition("e")[2])) > 30:
        return text
    from decimal import Decimal

    text = format(Decimal(text), "f")
    return text if "." in text else text + ".0"


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
