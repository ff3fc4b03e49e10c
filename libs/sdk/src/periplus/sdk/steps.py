"""@step: a typed function that a pipeline can run as a step of its own, and that stays callable as a function."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, ParamSpec, TypeVar, get_args, overload

from periplus.sdk.annotations import hints
from periplus.sdk.errors import PipelineError
from periplus.sdk.graph import recording, skipping
from periplus.sdk.handles import Each
from periplus.sdk.ports import Port, check_signature, inputs_of, outputs_of
from periplus.sdk.shapes import is_named_tuple
from periplus.sdk.skipped import Skipped, any_skipped

P = ParamSpec("P")
R = TypeVar("R")

CachePolicy = Literal["off", "read", "write", "readwrite", "refresh"]


@dataclass(frozen=True)
class Policy:
    """How a step is run and cached; nothing of it changes what the step computes."""

    retries: int = 0
    cache: CachePolicy = "readwrite"
    ttl: str | None = None
    image: str | None = None
    ignore_inputs: tuple[str, ...] = ()
    side_effects: bool = False


class Gathered(list[R]):
    """The results of `step.map(…)` in plain Python: a list whose attributes are lists of the fields."""

    def __getattr__(self, name: str) -> list[Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return [getattr(one, name) for one in self]


class Step(Generic[P, R]):
    """A function of a pipeline. Outside a pipeline, calling it runs the function."""

    def __init__(self, function: Callable[P, R], name: str, policy: Policy) -> None:
        self.function = function
        self.name = name
        self.policy = policy
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        current = recording()
        if current is not None:
            return current.call(self, args, kwargs, fan_out=False)  # type: ignore[no-any-return]
        if skipping() or any_skipped((*args, *kwargs.values())):
            return Skipped(len(self.outputs))  # type: ignore[return-value]
        return self.function(*args, **kwargs)

    def map(self, *args: P.args, **kwargs: P.kwargs) -> Gathered[R]:
        """Call the step once for each value of the arguments marked `each(…)`, the others being the same for all.

        In a pipeline this is one fan-out, whose outputs a later step takes as a list.
        """
        current = recording()
        if current is not None:
            return current.call(self, args, kwargs, fan_out=True)  # type: ignore[no-any-return]
        if skipping() or any_skipped(getattr(one, "values", one) for one in (*args, *kwargs.values())):
            return Skipped(len(self.outputs))  # type: ignore[return-value]
        bound = self.signature.bind(*args, **kwargs)
        marks = {name: one for name, one in bound.arguments.items() if isinstance(one, Each)}
        if not marks:
            raise PipelineError(
                "no argument of .map is marked with each(…)",
                function=self.name,
                fix=f"mark the argument that varies: {self.name}.map(each(…))",
            )
        results: Gathered[R] = Gathered()
        for row in zip(*(mark.known() for mark in marks.values()), strict=True):
            bound.arguments.update(zip(marks, row, strict=True))
            results.append(self(*bound.args, **bound.kwargs))
        return results

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        """The function's signature."""
        return inspect.signature(self.function)

    @functools.cached_property
    def inputs(self) -> tuple[Port, ...]:
        """The inputs, in the order of the arguments. Raises PipelineError for a type that cannot travel."""
        ports = inputs_of(self.function)
        unknown = set(self.policy.ignore_inputs) - {port.name for port in ports}
        if unknown:
            raise PipelineError(
                f"ignore_inputs names {', '.join(sorted(unknown))}, which is no argument", function=self.name
            )
        return ports

    @functools.cached_property
    def outputs(self) -> tuple[Port, ...]:
        """The outputs, in order. Raises PipelineError for a type that cannot travel."""
        return outputs_of(self.function)

    @functools.cached_property
    def returns_record(self) -> bool:
        """Whether the function returns a NamedTuple, whose fields are the outputs."""
        return is_named_tuple(hints(self.function)["return"])

    def __repr__(self) -> str:
        return f"<step {self.name}>"


@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    image: str | None = None,
    retries: int = 0,
    cache: CachePolicy = "readwrite",
    ttl: str | None = None,
    ignore_inputs: Sequence[str] = (),
    side_effects: bool = False,
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    image: str | None = None,
    retries: int = 0,
    cache: CachePolicy = "readwrite",
    ttl: str | None = None,
    ignore_inputs: Sequence[str] = (),
    side_effects: bool = False,
) -> Step[P, R] | Callable[[Callable[P, R]], Step[P, R]]:
    """Make a typed function a step.

    `image`: the container image, with Python and periplus-sdk in it. `retries`: how often a failed step is tried
    again. `cache`: what the cache may do for it. `ttl`: how long a result stays usable, as `90s`, `12h`, `7d`.
    `ignore_inputs`: arguments that do not change the result. `side_effects`: never take the result from the cache.
    """

    def decorate(function: Callable[P, R]) -> Step[P, R]:
        check_signature(function, "step")
        called = name or function.__name__
        if isinstance(ignore_inputs, str):
            raise PipelineError("ignore_inputs is a list of names", function=called)
        policy = Policy(retries, cache, ttl, image, tuple(ignore_inputs), side_effects)
        _check(policy, called)
        return Step(function, called, policy)

    return decorate if function is None else decorate(function)


def _check(policy: Policy, name: str) -> None:
    if policy.cache not in get_args(CachePolicy):
        raise PipelineError(
            f"cache={policy.cache!r} is no policy",
            function=name,
            fix="use " + ", ".join(get_args(CachePolicy)),
        )
    if policy.ttl is not None and not re.fullmatch(r"[1-9][0-9]*[smhdw]", policy.ttl):
        raise PipelineError(
            f"ttl={policy.ttl!r} is no duration", function=name, fix='write it as "12h" or "7d"'
        )
    if isinstance(policy.retries, bool) or not isinstance(policy.retries, int) or policy.retries < 0:
        raise PipelineError(f"retries={policy.retries!r} is no count", function=name)
    if "" in policy.ignore_inputs or any("," in one for one in policy.ignore_inputs):
        raise PipelineError("ignore_inputs holds names of arguments", function=name)
