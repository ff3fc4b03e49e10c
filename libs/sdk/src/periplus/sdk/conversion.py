"""Values of annotated types to bare JSON data and back, naming the place of what does not fit."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin, is_typeddict

from periplus.sdk.annotations import shown
from periplus.sdk.errors import MismatchError
from periplus.sdk.shapes import element, fields, is_list, is_named_tuple, is_record, is_union, plain

Convert = Callable[[Any, Any, str], Any]


def to_json(value: Any, annotation: Any, at: str = "") -> Any:
    """A value of the annotated type as bare JSON data. Raises MismatchError with the place, as `[2].name`."""
    annotation = plain(annotation)
    if is_record(annotation) and not is_typeddict(annotation):
        if not isinstance(value, annotation):
            raise _mismatch(value, annotation, at)
        return {
            name: to_json(getattr(value, name), field, f"{at}.{name}")
            for name, field in fields(annotation).items()
        }
    if get_origin(annotation) is tuple:
        return list(_tuple(value, annotation, at, to_json, (tuple,)))
    return _common(value, annotation, at, to_json)


def from_json(data: Any, annotation: Any, at: str = "") -> Any:
    """JSON data as a value of the annotated type. Raises MismatchError with the place, as `[2].name`."""
    annotation = plain(annotation)
    if is_record(annotation) and not is_typeddict(annotation):
        return _record(data, annotation, at)
    if get_origin(annotation) is tuple:
        return tuple(_tuple(data, annotation, at, from_json, (list,)))
    return _common(data, annotation, at, from_json)


def _common(value: Any, annotation: Any, at: str, convert: Convert) -> Any:
    """What is the same in both directions: scalars, unions, literals, lists and dicts."""
    if annotation in (None, type(None), bool, int, float, str):
        return _scalar(value, annotation, at)
    if is_union(annotation):
        return _union(value, annotation, at, convert)
    if get_origin(annotation) is Literal:
        for member in get_args(annotation):
            if value == member and type(value) is type(member):
                return value
        raise _mismatch(value, annotation, at)
    if is_typeddict(annotation):
        return _typed_dict(value, annotation, at, convert)
    if is_list(annotation):
        if not isinstance(value, list):
            raise _mismatch(value, annotation, at)
        member = element(annotation)
        return [convert(one, member, f"{at}[{index}]") for index, one in enumerate(value)]
    if annotation is dict or get_origin(annotation) is dict:
        return _dict(value, annotation, at, convert)
    return _bare(value, at)


def _scalar(value: Any, annotation: Any, at: str) -> Any:
    kind: Any = type(None) if annotation is None else annotation
    if kind is bool and type(value).__module__ == "numpy" and type(value).__name__.startswith("bool"):
        return bool(value)
    if kind is bool or kind is type(None):
        if not isinstance(value, kind):
            raise _mismatch(value, kind, at)
        return value
    if isinstance(value, bool) or not isinstance(value, _ACCEPTED[kind]):
        raise _mismatch(value, kind, at)
    if kind is float and not math.isfinite(value):
        raise MismatchError(f"{_at(at)}is {value}, which JSON cannot say")
    return kind(value)


# numpy's numbers are registered with these, so that an `int` or a `float` of numpy passes for Python's.
_ACCEPTED: dict[Any, Any] = {int: numbers.Integral, float: numbers.Real, str: str}


def _union(value: Any, annotation: Any, at: str, convert: Convert) -> Any:
    members = get_args(annotation)
    exact = [member for member in members if type(value) is plain(member)]
    for member in (*exact, *members):
        try:
            return convert(value, member, at)
        except MismatchError:
            continue
    raise _mismatch(value, annotation, at)


def _dict(value: Any, annotation: Any, at: str, convert: Convert) -> Any:
    if not isinstance(value, dict):
        raise _mismatch(value, annotation, at)
    member = (get_args(annotation) or (str, object))[1]
    for key in value:
        if not isinstance(key, str):
            raise MismatchError(f"{_at(at)}has the key {key!r}; keys of a JSON object are str")
    return {str(key): convert(one, member, f"{at}.{key}") for key, one in value.items()}


def _typed_dict(value: Any, annotation: Any, at: str, convert: Convert) -> Any:
    if not isinstance(value, dict):
        raise _mismatch(value, annotation, at)
    known = fields(annotation)
    _names(value, known, annotation.__required_keys__, annotation, at)
    return {name: convert(one, known[name], f"{at}.{name}") for name, one in value.items()}


def _record(data: Any, annotation: Any, at: str) -> Any:
    if not isinstance(data, dict):
        raise _mismatch(data, annotation, at)
    known = fields(annotation)
    if is_named_tuple(annotation):
        optional = set(annotation._field_defaults)
    else:
        missing = dataclasses.MISSING
        optional = {
            field.name
            for field in dataclasses.fields(annotation)
            if field.default is not missing or field.default_factory is not missing
        }
    _names(data, known, set(known) - optional, annotation, at)
    return annotation(**{name: from_json(one, known[name], f"{at}.{name}") for name, one in data.items()})


def _names(value: Any, known: Any, required: Any, annotation: Any, at: str) -> None:
    unknown = sorted(set(map(str, value)) - set(known))
    missing = sorted(set(required) - set(value))
    if unknown or missing:
        said = "has no field " + ", ".join(unknown) if unknown else "lacks " + ", ".join(missing)
        raise MismatchError(f"{_at(at)}{said} (of {shown(annotation)})")


def _tuple(value: Any, annotation: Any, at: str, convert: Convert, accepted: Any) -> list[Any]:
    if not isinstance(value, accepted):
        raise _mismatch(value, annotation, at)
    members = get_args(annotation)
    if len(members) == 2 and members[1] is Ellipsis:
        members = (members[0],) * len(value)
    if len(members) != len(value):
        raise MismatchError(f"{_at(at)}has {len(value)} elements, {shown(annotation)} has {len(members)}")
    pairs = zip(value, members, strict=True)
    return [convert(one, member, f"{at}[{index}]") for index, (one, member) in enumerate(pairs)]


def _bare(value: Any, at: str) -> Any:
    """Data whose annotation says no more than that it is JSON."""
    if isinstance(value, dict):
        return _dict(value, dict, at, lambda one, _, place: _bare(one, place))
    if isinstance(value, list):
        return [_bare(one, f"{at}[{index}]") for index, one in enumerate(value)]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return _scalar(value, float, at)
    raise MismatchError(f"{_at(at)}is {_kind(value)}, which JSON cannot say")


def _mismatch(value: Any, annotation: Any, at: str) -> MismatchError:
    text = repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return MismatchError(f"{_at(at)}expected {shown(annotation)}, got {text} ({_kind(value)})")


def _at(at: str) -> str:
    return f"{at.lstrip('.')}: " if at else ""


def _kind(value: Any) -> str:
    return type(value).__qualname__
