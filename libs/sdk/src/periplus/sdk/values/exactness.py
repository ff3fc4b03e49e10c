"""Whether what was read back is what was written, in type and value: what JSON text cannot say is refused here."""

from __future__ import annotations

import dataclasses
import functools
import math
from array import array
from collections.abc import Collection, Iterable
from typing import Any

from periplus.sdk.errors import MismatchError
from periplus.sdk.values.annotations import type_name
from periplus.sdk.values.conversion import is_numpy_scalar, quoted
from periplus.sdk.values.schema import is_named_tuple

_FAST = frozenset({bool, int, str, type(None)})
"""Types whose `==` on two values of one type says that they are the same. Of float it does not: 0.0 == -0.0."""


def check_same(value: Any, back: Any, annotation: Any) -> None:
    """Raise MismatchError unless `back`, which was decoded, is `value`, which was encoded by conversion.to_json.

    Identity is no part of a value: one list that stands in two places is read as two.
    """
    _Comparison(annotation).compare(value, back)


@dataclasses.dataclass(frozen=True)
class _Comparison:
    annotation: Any

    def compare(self, value: Any, back: Any) -> None:
        kind = type(back)
        if type(value) is not kind:
            if not _is_widened(value, back):
                raise self._differs(value, back)
        elif kind is list or kind is tuple:
            if len(value) != len(back):
                raise self._differs(value, back)
            if not _are_same(value, back):
                self._each(enumerate(value), back, "[{}]")
        elif kind is dict:
            if list(value) != list(back):
                raise self._differs(value, back)
            if not _are_same(value.values(), back.values()):
                self._each(value.items(), back.values(), ".{}")
        elif _is_record(kind):
            self._record(value, back)
        elif _has_no_equality(kind) and value is not back:
            self._object(value, back)
        elif not _equal(value, back):
            raise self._differs(value, back)

    def _each(self, values: Iterable[tuple[Any, Any]], backs: Iterable[Any], key: str) -> None:
        for (name, one), other in zip(values, backs, strict=True):
            try:
                self.compare(one, other)
            except MismatchError as wrong:
                raise wrong.inside(key.format(name)) from None

    def _record(self, value: Any, back: Any) -> None:
        before, after = _state(value), _state(back)
        if before.keys() != after.keys():
            names = ", ".join(sorted(before.keys() ^ after.keys()))
            raise MismatchError(
                f"{type_name(type(value))} holds {names}, which is no declared field and would be lost",
                fix=f"declare {names} as a field",
            )
        self._each(before.items(), [after[name] for name in before], ".{}")

    def _object(self, value: Any, back: Any) -> None:
        """Compare what two objects hold whose type has no `==`. They are part of a record that made its own again."""
        before, after = _state(value), _state(back)
        if before.keys() != after.keys():
            raise self._differs(value, back)
        self._each(before.items(), [after[name] for name in before], ".{}")

    def _differs(self, value: Any, back: Any) -> MismatchError:
        if type(value) is type(back):
            fix = "let __init__ and __post_init__ take each field as it is, and compute other values in a method"
        elif _is_record(type(value)):
            fix = (
                "annotate one type, or give each type of the union a field that tells it from the others, "
                'as kind: Literal["tree"] = "tree"'
            )
        else:
            fix = "annotate one type: JSON has the same form for both"
        return MismatchError(
            f"is {quoted(value)} ({type(value).__qualname__}), and what takes {type_name(self.annotation)} "
            f"would get {quoted(back)} ({type(back).__qualname__})",
            fix=fix,
        )


def _is_record(kind: type) -> bool:
    return dataclasses.is_dataclass(kind) or is_named_tuple(kind)


def _has_no_equality(kind: Any) -> bool:
    return bool(kind.__eq__ is object.__eq__)


def _are_same(values: Collection[Any], backs: Collection[Any]) -> bool:
    """Whether all are scalars, the same ones, found at the speed of C. False does not say that they differ."""
    kinds = list(map(type, values))
    if kinds != list(map(type, backs)):
        return False
    present = set(kinds)
    if present <= _FAST:
        return list(values) == list(backs)
    return present == {float} and array("d", values).tobytes() == array("d", backs).tobytes()


def _is_widened(value: Any, back: Any) -> bool:
    """Whether to_json made the declared type of another one, and the number or text is the same."""
    number = value.item() if is_numpy_scalar(value) else value
    if type(number) is int and type(back) is float:
        return number == back
    return number is not value and type(number) is type(back) and _equal(number, back)


def _state(record: Any) -> dict[str, Any]:
    """Every attribute that an instance holds, declared as a field or not; what a cached_property keeps is left out."""
    kind: Any = type(record)
    state: dict[str, Any] = dict(zip(record._fields, record, strict=True)) if is_named_tuple(kind) else {}
    state |= {name: getattr(record, name) for name in _slots(kind) if hasattr(record, name)}
    return state | {
        name: value
        for name, value in getattr(record, "__dict__", {}).items()
        if not isinstance(getattr(kind, name, None), functools.cached_property)
    }


@functools.cache
def _slots(kind: Any) -> tuple[str, ...]:
    """The attributes that `__slots__` of a class and its bases declare, under the names that they are stored by."""
    names: list[str] = []
    for cls in kind.__mro__:
        slots = cls.__dict__.get("__slots__", ())
        prefix = "_" + cls.__name__.lstrip("_")
        names += [
            prefix + slot if slot.startswith("__") else slot
            for slot in ((slots,) if isinstance(slots, str) else slots)
            if slot not in ("__dict__", "__weakref__")
        ]
    return tuple(names)


def _equal(value: Any, back: Any) -> bool:
    """Whether two objects of one type are equal, as far as that type can tell."""
    if isinstance(value, float):
        return array("d", [value]).tobytes() == array("d", [back]).tobytes() or (
            math.isnan(value) and math.isnan(back)
        )
    try:
        result = value == back
        return bool(result.all() if hasattr(result, "all") else result)
    except Exception:  # noqa: BLE001 - the user's own __eq__, which says nothing then
        return False
