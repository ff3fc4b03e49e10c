"""What a step's call returns while a pipeline is compiled: a reference to a value that does not exist yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from periplus.sdk.errors import PipelineError
from periplus.sdk.pipelines.ports import Port
from periplus.sdk.values.annotations import type_name
from periplus.sdk.values.parameters import dumps
from periplus.sdk.values.schema import unwrap

T = TypeVar("T")

_NO_VALUE = "and a step has none while the pipeline is compiled"


@dataclass(frozen=True, eq=False, repr=False)
class Handle:
    """One output of a task, or one parameter of the pipeline when `task` is empty.

    `gathered`: the outputs of a fan-out as a list. `conditional`: the task may be skipped.
    """

    port: Port
    function: str
    task: str = ""
    gathered: bool = False
    conditional: bool = False

    @property
    def reference(self) -> str:
        """Argo's tag of the value, without braces: `tasks.train.outputs.parameters.output`."""
        if not self.task:
            return f"workflow.parameters.{self.port.name}"
        kind = "artifacts" if self.port.format else "parameters"
        return f"tasks.{self.task}.outputs.{kind}.{self.port.name}"

    def __repr__(self) -> str:
        return f"<{self.reference} of {self.function}()>"

    def _compare(self, sign: str, other: object) -> Condition:
        if self.gathered or self.port.format or unwrap(self.port.annotation) not in _SCALARS:
            kind = type_name(self.port.annotation)
            if self.gathered:
                kind = f"a list of {kind}"
            raise PipelineError(
                f"{self!r} is {kind}; a condition compares bool, int, float or str",
                function=self.function,
                fix="compare in a step, and return a bool",
            )
        if isinstance(other, Handle):
            return Condition(f"{_tag(self)} {sign} {_tag(other)}", (self, other))
        if not isinstance(other, _SCALARS):
            raise PipelineError(
                f"{self!r} is compared with {other!r}",
                function=self.function,
                fix="compare with a bool, int, float or str",
            )
        return Condition(f"{_tag(self)} {sign} {_constant(other)}", (self,))

    def __gt__(self, other: object) -> Condition:
        return self._compare(">", other)

    def __ge__(self, other: object) -> Condition:
        return self._compare(">=", other)

    def __lt__(self, other: object) -> Condition:
        return self._compare("<", other)

    def __le__(self, other: object) -> Condition:
        return self._compare("<=", other)

    def __eq__(self, other: object) -> Condition:  # type: ignore[override]
        return self._compare("==", other)

    def __ne__(self, other: object) -> Condition:  # type: ignore[override]
        return self._compare("!=", other)

    def __and__(self, other: object) -> Condition:
        return condition_of(self) & other

    def __or__(self, other: object) -> Condition:
        return condition_of(self) | other

    def __invert__(self) -> Condition:
        return ~condition_of(self)

    __hash__ = object.__hash__

    def __bool__(self) -> NoReturn:  # noqa: PLE0304 - it never returns
        self._refuse("`if`, `and`, `or` or `not`", "write: with when(best.accuracy > 0.9): …")

    def __iter__(self) -> NoReturn:
        self._refuse("a loop", "fan out over it: train.map(each(values))")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse(
            f".{name}",
            f"let {self.function} return a NamedTuple: its fields are outputs of their own",
        )

    def _refuse(self, what: str, fix: str) -> NoReturn:
        raise PipelineError(
            f"a value is needed by {what}, {_NO_VALUE}: {self!r}", function=self.function, fix=fix
        )


_SCALARS = (bool, int, float, str)


_REFUSED_USES = {
    "+": ("add", "radd"),
    "-": ("sub", "rsub", "neg"),
    "*": ("mul", "rmul"),
    "/": ("truediv", "rtruediv", "floordiv"),
    "%": ("mod",),
    "**": ("pow",),
    "[…]": ("getitem",),
    "in": ("contains",),
    "a call": ("call",),
    "an f-string or format()": ("format",),
    "abs()": ("abs",),
    "float()": ("float",),
    "int()": ("int",),
    "len()": ("len",),
    "range() or an index": ("index",),
    "round()": ("round",),
    "str()": ("str",),
}


def _refuse_use(use: str) -> Any:
    def refuse(self: Handle, *_: object) -> NoReturn:
        self._refuse(use, "do it inside a step")

    return refuse


for _use, _names in _REFUSED_USES.items():
    for _name in _names:
        setattr(Handle, f"__{_name}__", _refuse_use(_use))


class Outputs:
    """The outputs of a step that returns a NamedTuple: one handle for each field, by name, by index, in order."""

    def __init__(self, function: str, handles: dict[str, Handle]) -> None:
        self._function = function
        self._handles = handles

    def __getattr__(self, name: str) -> Handle:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in self._handles:
            raise PipelineError(
                f"there is no output {name}",
                function=self._function,
                fix="its outputs are " + ", ".join(self._handles),
            )
        return self._handles[name]

    def __iter__(self) -> Iterator[Handle]:
        return iter(self._handles.values())

    def by_name(self) -> Iterator[tuple[str, Handle]]:
        """Each output's name and handle."""
        return iter(self._handles.items())

    def __len__(self) -> int:
        return len(self._handles)

    def __getitem__(self, index: int) -> Handle:
        return tuple(self._handles.values())[index]

    def __repr__(self) -> str:
        return f"<{', '.join(self._handles)} of {self._function}()>"


@dataclass(frozen=True, eq=False)
class Condition:
    """A comparison of handles, as the text of an Argo `when`."""

    text: str
    handles: tuple[Handle, ...] = field(repr=False)

    def __and__(self, other: object) -> Condition:
        return self._with("&&", other)

    def __or__(self, other: object) -> Condition:
        return self._with("||", other)

    def __invert__(self) -> Condition:
        return Condition(f"!({self.text})", self.handles)

    def __bool__(self) -> NoReturn:
        raise PipelineError(
            f"a value is needed by `if`, `and`, `or` or `not`, {_NO_VALUE}: {self.text}",
            function=self.handles[0].function if self.handles else "",
            fix="write: with when(…): and join conditions by & and |, each in parentheses",
        )

    def _with(self, sign: str, other: object) -> Condition:
        right = condition_of(other)
        return Condition(f"({self.text}) {sign} ({right.text})", (*self.handles, *right.handles))


def condition_of(value: object) -> Condition:
    """The condition that `when(…)` takes: a comparison, a bool output, or a plain bool. Raises PipelineError."""
    if isinstance(value, Condition):
        return value
    if isinstance(value, bool):
        return Condition("true" if value else "false", ())
    if isinstance(value, Handle) and unwrap(value.port.annotation) is bool and not value.gathered:
        return Condition(f"{_tag(value)} == true", (value,))
    raise PipelineError(
        f"{value!r} is no condition", fix="compare an output, as best.accuracy > 0.9, or give a bool output"
    )


@dataclass(frozen=True, repr=False)
class Each:
    """An argument of `.map` that varies: a list, or the handle of one."""

    values: Any

    def as_list(self) -> list[Any]:
        """The values, where they are not a handle. Raises TypeError for what is no iterable."""
        return list(self.values)


def each(values: Iterable[T]) -> T:
    """Mark an argument of `step.map(…)` as the one to fan out over: one task for each of the values.

    `values` is a list, or the output of a step or a pipeline parameter that is a list. Several arguments may be
    marked when all are lists: the first values of each go together, then the second ones.
    """
    return Each(values)  # type: ignore[return-value]


def _constant(value: Any) -> str:
    """The JSON text of a constant in a condition; one of a subclass, as of an Enum, is compared as its plain value."""
    for kind, plain_value in _PLAIN_VALUES.items():
        if isinstance(value, kind):
            return dumps(plain_value(value), kind)
    raise AssertionError(value)


_PLAIN_VALUES: dict[type, Callable[[Any], Any]] = {
    bool: bool,
    int: int.__index__,
    float: float.__float__,
    str: str.__str__,
}


def _tag(handle: Handle) -> str:
    return "{{" + handle.reference + "}}"
