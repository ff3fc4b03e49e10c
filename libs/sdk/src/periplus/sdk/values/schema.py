"""What an annotation declares: whether values are JSON, whether they are records, what a list holds."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, Union

from periplus.sdk.values.annotations import hints

SCALARS = (type(None), bool, int, float, str)

_BUILTIN = (int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset)


def unwrap(annotation: Any) -> Any:
    """The annotation without `Annotated`, `NewType`, `Required` and `NotRequired` around it."""
    wrappers = (typing.Annotated, typing.Required, typing.NotRequired)
    while True:
        if typing.get_origin(annotation) in wrappers:
            annotation = typing.get_args(annotation)[0]
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        else:
            return annotation


def is_json(annotation: Any, enclosing: tuple[Any, ...] = ()) -> bool:
    """Whether values of this annotation can be written as JSON and read back."""
    annotation = unwrap(annotation)
    if annotation is None or annotation in SCALARS or annotation in (list, dict):
        return True
    if annotation in (Any, object):
        # Inside a list or dict this is any JSON; alone it does not say whether it is JSON at all.
        return bool(enclosing)
    if annotation in enclosing:
        return True
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    inside = (*enclosing, annotation)
    if is_union(annotation):
        return all(is_json(member, inside) for member in args)
    if origin is Literal:
        return all(type(member) in SCALARS for member in args)
    if origin is dict:
        return args[0] is str and is_json(args[1], inside)
    if origin in (list, tuple):
        return all(is_json(member, inside) for member in args if member is not Ellipsis)
    return is_record(annotation) and all(is_json(field, inside) for field in fields(annotation).values())


def is_union(annotation: Any) -> bool:
    """Whether the annotation is `A | B`, `Union` or `Optional`."""
    return typing.get_origin(annotation) in (Union, types.UnionType)


def is_named_tuple(annotation: Any) -> bool:
    """Whether the annotation is a class made by NamedTuple."""
    return isinstance(annotation, type) and issubclass(annotation, tuple) and hasattr(annotation, "_fields")


def is_record(annotation: Any) -> bool:
    """Whether the annotation is a dataclass, a NamedTuple or a TypedDict.

    A dataclass that is also a list, a dict or a number is none: JSON has no form for both.
    """
    if not isinstance(annotation, type):
        return False
    if dataclasses.is_dataclass(annotation):
        return not issubclass(annotation, _BUILTIN)
    return is_named_tuple(annotation) or typing.is_typeddict(annotation)


@cache
def fields(record: Any) -> Mapping[str, Any]:
    """Names and annotations of a record's fields, in order."""
    found = hints(record)
    if dataclasses.is_dataclass(record):
        return {field.name: found[field.name] for field in dataclasses.fields(record) if field.init}
    if is_named_tuple(record):
        return {name: found.get(name, object) for name in record._fields}
    return found


@cache
def required_fields(record: Any) -> frozenset[str]:
    """The fields of a record that have no default."""
    if typing.is_typeddict(record):
        return frozenset(record.__required_keys__)
    if is_named_tuple(record):
        return frozenset(record._fields) - frozenset(record._field_defaults)
    missing = dataclasses.MISSING
    return frozenset(
        field.name
        for field in dataclasses.fields(record)
        if field.init and field.default is missing and field.default_factory is missing
    )


def element(annotation: Any) -> Any:
    """What a list annotation holds: `object` when it does not say."""
    args = typing.get_args(unwrap(annotation))
    return args[0] if args else object


def is_list(annotation: Any) -> bool:
    """Whether the annotation is a list, which a fan-out can be made from."""
    annotation = unwrap(annotation)
    return annotation is list or typing.get_origin(annotation) is list


def is_changed_as_item(annotation: Any) -> bool:
    """Whether Argo's `{{item}}` of such a value is not its JSON, or is it with other keys first.

    Argo prints strings without quotes, and writes objects anew with their keys sorted. To a record that means the
    same; to a dict, also one inside a record or list, it does not.
    """
    annotation = unwrap(annotation)
    is_structure = is_list(annotation) or typing.get_origin(annotation) is tuple or is_record(annotation)
    return not (annotation in (bool, int, float) or is_structure) or _may_hold_dict(annotation, ())


def _may_hold_dict(annotation: Any, enclosing: tuple[Any, ...]) -> bool:
    annotation = unwrap(annotation)
    if annotation in enclosing:
        return False
    if annotation in (Any, object, list, dict) or typing.is_typeddict(annotation):
        return True
    origin, inside = typing.get_origin(annotation), (*enclosing, annotation)
    if origin is dict:
        return True
    if is_record(annotation):
        return any(_may_hold_dict(field, inside) for field in fields(annotation).values())
    members = () if origin is Literal else typing.get_args(annotation)
    return any(_may_hold_dict(member, inside) for member in members)


def is_incompatible(source: Any, target: Any) -> bool:
    """Whether values of `source` can surely not be taken as `target`, or only as another type: a tuple as a list, a
    dict as a record. In doubt, they can.
    """
    source, target = unwrap(source), unwrap(target)
    if source == target:
        return False
    sources, targets = _types(source), _types(target)
    if sources is None or targets is None:
        return False
    lost = {kind for kind in sources if kind not in targets and not (kind is int and float in targets)}
    if lost == sources or any(_form(kind) in map(_form, targets) for kind in lost if kind not in SCALARS):
        return True
    return any(is_incompatible(*pair) for pair in _parts(source, target))


def _types(annotation: Any) -> set[Any] | None:
    """The types that values of an annotation can have; None where it does not say."""
    annotation = unwrap(annotation)
    if annotation in (Any, object):
        return None
    if is_union(annotation):
        members = [_types(member) for member in typing.get_args(annotation)]
        return None if None in members else set[Any]().union(*filter(None, members))
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return set(map(type, typing.get_args(annotation)))
    if typing.is_typeddict(annotation):
        return {dict}
    return {type(None) if annotation is None else origin or annotation}


def _form(kind: Any) -> str:
    """What JSON values of a type are written as."""
    return "array" if kind in (list, tuple) else "value" if kind in SCALARS else "object"


def _parts(source: Any, target: Any) -> list[tuple[Any, Any]]:
    """The annotations of what two lists, dicts or tuples hold, pair by pair."""
    ours, theirs = typing.get_args(source), typing.get_args(target)
    if typing.get_origin(source) is not typing.get_origin(target) or len(ours) != len(theirs):
        return []
    if typing.get_origin(source) not in (list, dict, tuple) or (Ellipsis in ours) != (Ellipsis in theirs):
        return []
    return [(one, other) for one, other in zip(ours, theirs, strict=True) if one is not Ellipsis]
