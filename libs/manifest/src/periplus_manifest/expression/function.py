"""How a function of the language is declared: its name, its arguments, and its body."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from periplus_manifest.errors import ExpressionError

from . import value
from .budget import Budget

Kind = tuple[str, Callable[[Any], bool]]

ANY: Kind = ("anything", lambda _: True)
TEXT: Kind = ("string", lambda it: isinstance(it, str))
WHOLE: Kind = ("int", lambda it: isinstance(it, int) and not isinstance(it, bool))
NUMBER: Kind = ("number", value.is_number)
BOOL: Kind = ("bool", lambda it: isinstance(it, bool))
LIST: Kind = ("array", lambda it: isinstance(it, (list, tuple)))
MAP: Kind = ("map", lambda it: isinstance(it, Mapping))


_ZERO_VALUES: Mapping[str, Any] = {"string": "", "int": 0, "number": 0, "bool": False, "map": {}}


@dataclass(frozen=True, slots=True)
class Function:
    """A function: the kinds of its arguments, how many of them are required, and the kind of any further ones."""

    name: str
    kinds: tuple[Kind, ...]
    required: int
    variadic: Kind | None
    body: Callable[..., Any]
    nil_is_zero: bool = False
    """Whether nil is passed as "", 0, false or an empty map, as Go does where it calls by reflection."""
    is_volatile: bool = False
    """Whether its value differs at each call: the time, or chance."""
    time_argument: int | None = None
    """The index of an argument that is a time, for which a text stands for the present."""

    def check_count(self, count: int) -> None:
        """Raise ExpressionError when so many arguments do not fit."""
        if count < self.required or (self.variadic is None and count > len(self.kinds)):
            wanted = (
                str(self.required)
                if self.required == len(self.kinds)
                else f"{self.required} to {len(self.kinds)}"
            )
            wanted = f"at least {self.required}" if self.variadic else wanted
            raise ExpressionError("", f"{self.name} takes {wanted} arguments, not {count}")

    def call(self, budget: Budget, arguments: list[Any]) -> Any:
        """Call it. Raises ExpressionError when an argument is of the wrong kind, and for what goes wrong."""
        self.check_count(len(arguments))
        for index, argument in enumerate(arguments):
            kind = self.kinds[index] if index < len(self.kinds) else self.variadic
            if argument is None and self.nil_is_zero and kind is not None and kind[0] in _ZERO_VALUES:
                argument = arguments[index] = _ZERO_VALUES[kind[0]]  # noqa: PLW2901
            if kind is not None and not kind[1](argument):
                raise ExpressionError(
                    "",
                    f"cannot use {value.kind(argument)} as argument {index + 1} (type {kind[0]}) to call {self.name}",
                )
            if isinstance(argument, str):
                budget.step(len(argument) >> 10)
        return self.body(budget, *arguments)


Table = dict[str, Function]


def declare(
    table: Table,
    name: str,
    *kinds: Kind,
    required: int | None = None,
    variadic: Kind | None = None,
    is_volatile: bool = False,
    time_argument: int | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the decorated body to a table; it is called with the budget, then the arguments."""

    def put(body: Callable[..., Any]) -> Callable[..., Any]:
        table[name] = Function(
            name,
            kinds,
            len(kinds) if required is None else required,
            variadic,
            body,
            is_volatile=is_volatile,
            time_argument=time_argument,
        )
        return body

    return put


def declare_both(
    table: Table, name: str, *kinds: Kind, required: int | None = None, variadic: Kind | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a body as `name` and as `mustName`: sprig's first keeps some errors to itself, ours raises in both."""

    def put(body: Callable[..., Any]) -> Callable[..., Any]:
        declare(table, name, *kinds, required=required, variadic=variadic)(body)
        return declare(
            table, f"must{name[0].upper()}{name[1:]}", *kinds, required=required, variadic=variadic
        )(body)

    return put
