"""Values of annotated types to bare JSON data and back.

Strict: a value is encoded only where its type is the one that the annotation declares, since JSON has no word for a
subclass. The exceptions are numbers and texts of numpy, and an int where a float is declared: they become the
declared type, where that holds exactly the same number.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Any, Literal, get_args, get_origin, is_typeddict

from periplus.sdk.errors import MismatchError
from periplus.sdk.values.annotations import type_name
from periplus.sdk.values.schema import element, fields, is_list, is_record, is_union, required_fields, unwrap

Convert = Callable[[Any, Any], Any]

_SCALARS = (bool, int, float, str)
_JSON_SCALARS = frozenset({*_SCALARS, type(None)})

_NUMPY_KINDS = frozenset("biufU")
"""`dtype.kind` of numpy's scalars that stand for Python's: bool, int, unsigned, float, str. No timedelta64."""


def to_json(value: Any, annotation: Any) -> Any:
    """A value of the annotated type as bare JSON data. Raises MismatchError with the path to what does not fit."""
    annotation = unwrap(annotation)
    if is_record(annotation) and not is_typeddict(annotation):
        declared = fields(annotation)
        if type(value) is not annotation:
            raise mismatch(value, annotation)
        # By name, so that a class whose fields are moved gives the same text.
        return _fields(((name, getattr(value, name), declared[name]) for name in sorted(declared)), to_json)
    if get_origin(annotation) is tuple:
        return _tuple(value, annotation, to_json, tuple)
    if annotation in (Any, object):
        return _any_json(value)
    return _common(value, annotation, to_json)


def from_json(data: Any, annotation: Any) -> Any:
    """JSON data as a value of the annotated type. Raises MismatchError with the path to what does not fit."""
    annotation = unwrap(annotation)
    if is_record(annotation) and not is_typeddict(annotation):
        return _record(data, annotation)
    if get_origin(annotation) is tuple:
        return tuple(_tuple(data, annotation, from_json, list))
    if annotation in (Any, object):
        return data
    return _common(data, annotation, from_json)


def _common(value: Any, annotation: Any, convert: Convert) -> Any:
    """What is the same in both directions: scalars, unions, literals, lists and dicts."""
    if annotation in (None, type(None), *_SCALARS):
        return _scalar(value, annotation)
    if is_union(annotation):
        return _union(value, annotation, convert)
    if get_origin(annotation) is Literal:
        for member in get_args(annotation):
            if value == member and type(value) is type(member):
                return value
        raise mismatch(value, annotation)
    if is_typeddict(annotation):
        return _typed_dict(value, annotation, convert)
    if is_list(annotation):
        return _list(value, annotation, convert)
    return _dict(value, annotation, convert)


def _scalar(value: Any, annotation: Any) -> Any:
    kind: Any = type(None) if annotation is None else annotation
    if type(value) is not kind:
        value = _widened(value, kind)
    if kind is float and not math.isfinite(value):
        raise MismatchError(
            f"is {value}, which JSON cannot say",
            fix="return None for it and annotate float | None, or return a numpy array",
        )
    return value


def _widened(value: Any, kind: Any) -> Any:
    """A number or text of another type as `kind`, where it is exactly the same. Raises MismatchError."""
    number = value.item() if is_numpy_scalar(value) else value
    if type(number) is kind:
        return number
    if kind is not float or type(number) is not int:
        raise mismatch(value, kind)
    with suppress(OverflowError):
        if float(number) == number:
            return float(number)
    raise MismatchError(
        f"is the int {quoted(number)}, which no float equals", fix="annotate int, or int | float"
    )


def is_numpy_scalar(value: Any) -> bool:
    """Whether it is a bool, number or text of numpy itself, and neither an array nor a time span."""
    if type(value).__module__ != "numpy":
        return False
    numpy = sys.modules["numpy"]
    return isinstance(value, numpy.generic) and value.dtype.kind in _NUMPY_KINDS


def _union(value: Any, annotation: Any, convert: Convert) -> Any:
    members = get_args(annotation)
    kind = type(value.item() if is_numpy_scalar(value) else value)
    exact = [member for member in members if kind is unwrap(member)]
    for member in (*exact, *members):
        try:
            return convert(value, member)
        except MismatchError:
            continue
    raise mismatch(value, annotation)


def _list(value: Any, annotation: Any, convert: Convert) -> list[Any]:
    if type(value) is not list:
        raise mismatch(value, annotation)
    member = unwrap(element(annotation))
    if _are_all(value, member):
        return value
    return _elements(((one, member) for one in value), convert)


def _dict(value: Any, annotation: Any, convert: Convert) -> dict[str, Any]:
    if type(value) is not dict:
        raise mismatch(value, annotation)
    member = unwrap((get_args(annotation) or (str, object))[1])
    if set(map(type, value)) <= {str}:
        if _are_all(value.values(), member):
            return value
        return _fields(((key, one, member) for key, one in value.items()), convert)
    return _fields(((_key(key), one, member) for key, one in value.items()), convert)


def _typed_dict(value: Any, annotation: Any, convert: Convert) -> dict[str, Any]:
    if type(value) is not dict:
        raise mismatch(value, annotation)
    declared = fields(annotation)
    _check_names(value, declared, annotation)
    return _fields(((_key(name), one, declared[name]) for name, one in value.items()), convert)


def _key(key: Any) -> str:
    try:
        return str(_scalar(key, str))
    except MismatchError as wrong:
        raise MismatchError(
            f"has the key {quoted(key)} ({_kind(key)}); keys of a JSON object are str",
            fix="make the keys str, or return a list of pairs",
        ) from wrong


def _tuple(value: Any, annotation: Any, convert: Convert, accepted: Any) -> list[Any]:
    if type(value) is not accepted:
        raise mismatch(value, annotation)
    members = get_args(annotation)
    if len(members) == 2 and members[1] is Ellipsis:
        members = (members[0],) * len(value)
    if len(members) != len(value):
        raise MismatchError(f"has {len(value)} elements, {type_name(annotation)} has {len(members)}")
    return _elements(zip(value, members, strict=True), convert)


def _record(data: Any, annotation: Any) -> Any:
    if not isinstance(data, dict):
        raise mismatch(data, annotation)
    declared = fields(annotation)
    _check_names(data, declared, annotation)
    values = _fields(((name, one, declared[name]) for name, one in data.items()), from_json)
    try:
        return annotation(**values)
    except Exception as error:  # whatever the class's own __init__ or __post_init__ raises
        raise MismatchError(
            f"{type_name(annotation)} cannot be made of its fields: {type(error).__name__}: {error}"
        ) from error


def _check_names(value: Any, declared: Any, annotation: Any) -> None:
    required = required_fields(annotation)
    if value.keys() <= declared.keys() and required <= value.keys():
        return
    unknown = sorted(set(map(str, value)) - set(declared))
    what = "has no field " + ", ".join(unknown)
    if not unknown:
        what = "lacks " + ", ".join(sorted(required - value.keys()))
    raise MismatchError(f"{what} (of {type_name(annotation)})")


def _any_json(value: Any) -> Any:
    """A value of which nothing is declared: exactly JSON's own types, and no other that could be taken for one."""
    kind = type(value)
    if kind is dict:
        return (
            value
            if _are_all(value.values(), object) and set(map(type, value)) <= {str}
            else _dict(value, dict, to_json)
        )
    if kind is list:
        return value if _are_all(value, object) else _list(value, list, to_json)
    if kind in _JSON_SCALARS:
        return _scalar(value, kind)
    raise MismatchError(
        f"is {_kind(value)}, which JSON cannot say",
        fix="convert it to bool, int, float, str, None, list or dict, or declare its type in the annotation",
    )


def _are_all(values: Collection[Any], member: Any) -> bool:
    """Whether all are scalars of exactly the type `member` (of any, if it is `object`), found at the speed of C."""
    kinds = set(map(type, values))
    if not kinds <= (_JSON_SCALARS if member in (object, Any) else {member} & _JSON_SCALARS):
        return False
    return float not in kinds or all(math.isfinite(one) for one in values if type(one) is float)


def _elements(pairs: Iterable[tuple[Any, Any]], convert: Convert) -> list[Any]:
    """Each value converted by its annotation. Raises MismatchError with the index, which is how many came before."""
    converted: list[Any] = []
    try:
        for one, member in pairs:
            converted.append(convert(one, member))
    except MismatchError as wrong:
        raise wrong.inside(f"[{len(converted)}]") from wrong.__cause__
    return converted


def _fields(triples: Iterable[tuple[str, Any, Any]], convert: Convert) -> dict[str, Any]:
    """Each value converted by its annotation, by name. Raises MismatchError with the name."""
    converted: dict[str, Any] = {}
    for name, one, member in triples:
        try:
            converted[name] = convert(one, member)
        except MismatchError as wrong:
            raise wrong.inside(f".{name}") from wrong.__cause__
    return converted


def mismatch(value: Any, annotation: Any) -> MismatchError:
    """The error for a value of another type than the annotation's."""
    what = f"expected {type_name(annotation)}, got {quoted(value)} ({_kind(value)})"
    declared = dict if is_typeddict(annotation) else get_origin(annotation) or annotation
    if declared not in type(value).__mro__[1:] or isinstance(
        value, bool
    ):  # a bool is an int to Python; to JSON and people it is none
        return MismatchError(what)
    fix = f"convert it to {type_name(declared)} before it is returned"
    if is_record(declared):
        fix = f"annotate {_kind(value)}, so that all its fields travel"
    return MismatchError(f"{what}: a subclass would arrive as {type_name(declared)}", fix=fix)


def quoted(value: Any) -> str:
    """A value in a message: its repr, cut to 60 characters."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - the user's own __repr__, in an error about something else
        text = f"<{_kind(value)}>"
    return text if len(text) <= 60 else text[:57] + "..."


def _kind(value: Any) -> str:
    return type(value).__qualname__
