"""How a function of the language is declared: its name, what it takes, and what it does."""

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


_EMPTY: Mapping[str, Any] = {"string": "", "int": 0, "number": 0, "bool": False, "map": {}}


@dataclass(frozen=True, slots=True)
class Function:
    """A function: the kinds of its arguments, how many of them must be there, and of those that may follow."""

    name: str
    kinds: tuple[Kind, ...]
    least: int
    more: Kind | None
    body: Callable[..., Any]
    empties: bool = False
    """Whether nil stands for an empty text, 0, false or an empty map, as where Go calls by reflection."""

    def counts(self, given: int) -> None:
        """Raise ExpressionError when so many arguments do not fit."""
        if given < self.least or (self.more is None and given > len(self.kinds)):
            wanted = (
                str(self.least) if self.least == len(self.kinds) else f"{self.least} to {len(self.kinds)}"
            )
            wanted = f"at least {self.least}" if self.more else wanted
            raise ExpressionError("", f"{self.name} takes {wanted} arguments, not {given}")

    def call(self, budget: Budget, arguments: list[Any]) -> Any:
        """Call it. Raises ExpressionError when an argument is of the wrong kind, and for what goes wrong."""
        self.counts(len(arguments))
        for place, argument in enumerate(arguments):
            kind = self.kinds[place] if place < len(self.kinds) else self.more
            given = argument
            if given is None and self.empties and kind is not None and kind[0] in _EMPTY:
                given = arguments[place] = _EMPTY[kind[0]]
            if kind is not None and not kind[1](given):
                raise ExpressionError(
                    "",
                    f"cannot use {value.kind(given)} as argument {place + 1} (type {kind[0]}) to call {self.name}",
                )
            if isinstance(given, str):
                budget.step(len(given) >> 10)
        return self.body(budget, *arguments)


Table = dict[str, Function]


def declare(
    table: Table, name: str, *kinds: Kind, least: int | None = None, more: Kind | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Put the decorated body into a table; it gets the budget, then the arguments."""

    def put(body: Callable[..., Any]) -> Callable[..., Any]:
        table[name] = Function(name, kinds, len(kinds) if least is None else least, more, body)
        return body

    return put


def declare_both(
    table: Table, name: str, *kinds: Kind, least: int | None = None, more: Kind | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a body under its own name and with must before it, as sprig has many: ours always must."""

    def put(body: Callable[..., Any]) -> Callable[..., Any]:
        declare(table, name, *kinds, least=least, more=more)(body)
        return declare(table, f"must{name[0].upper()}{name[1:]}", *kinds, least=least, more=more)(body)

    return put
