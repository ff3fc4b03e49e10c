"""@step: a typed function that a pipeline can run as a step of its own, and that stays callable as a function."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Generic, ParamSpec, TypeVar, overload

from periplus.sdk.errors import PipelineError
from periplus.sdk.pipelines.definition import CacheMode, StepDefinition, StepPolicy
from periplus.sdk.pipelines.graph import recording, skipping
from periplus.sdk.pipelines.handles import Each
from periplus.sdk.pipelines.ports import check_signature
from periplus.sdk.pipelines.skipped import Skipped, any_skipped

P = ParamSpec("P")
R = TypeVar("R")


class Gathered(list[R]):
    """The results of `step.map(…)` in plain Python: a list whose attributes are lists of the fields."""

    def __getattr__(self, name: str) -> list[Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return [getattr(one, name) for one in self]


class Step(Generic[P, R]):
    """A function of a pipeline. Outside a pipeline, calling it runs the function."""

    def __init__(self, function: Callable[P, R], definition: StepDefinition) -> None:
        self.function = function
        self.definition = definition
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        current = recording()
        if current is not None:
            return current.call(self.definition, args, kwargs, is_fan_out=False)  # type: ignore[no-any-return]
        if skipping() or any_skipped((*args, *kwargs.values())):
            return Skipped(len(self.definition.outputs))  # type: ignore[return-value]
        return self.function(*args, **kwargs)

    def map(self, *args: P.args, **kwargs: P.kwargs) -> Gathered[R]:
        """Call the step once for each value of the arguments marked `each(…)`, the others being the same for all.

        In a pipeline this is one fan-out, whose outputs a later step takes as a list.
        """
        current = recording()
        if current is not None:
            return current.call(self.definition, args, kwargs, is_fan_out=True)  # type: ignore[no-any-return]
        if skipping() or any_skipped(getattr(one, "values", one) for one in (*args, *kwargs.values())):
            return Skipped(len(self.definition.outputs))  # type: ignore[return-value]
        bound = self.definition.signature.bind(*args, **kwargs)
        marks = {name: one for name, one in bound.arguments.items() if isinstance(one, Each)}
        if not marks:
            raise PipelineError(
                "no argument of .map is marked with each(…)",
                function=self.definition.name,
                fix=f"mark the argument that varies: {self.definition.name}.map(each(…))",
            )
        results: Gathered[R] = Gathered()
        for row in zip(*(mark.as_list() for mark in marks.values()), strict=True):
            bound.arguments.update(zip(marks, row, strict=True))
            results.append(self(*bound.args, **bound.kwargs))
        return results

    def __repr__(self) -> str:
        return f"<step {self.definition.name}>"


@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    image: str | None = None,
    retries: int = 0,
    cache: CacheMode = "readwrite",
    ttl: str | None = None,
    ignore_inputs: Sequence[str] = (),
    side_effects: bool = False,
    requirements: str | None = None,
    files: Sequence[str] = (),
    stop_on_divergence: bool = False,
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    image: str | None = None,
    retries: int = 0,
    cache: CacheMode = "readwrite",
    ttl: str | None = None,
    ignore_inputs: Sequence[str] = (),
    side_effects: bool = False,
    requirements: str | None = None,
    files: Sequence[str] = (),
    stop_on_divergence: bool = False,
) -> Step[P, R] | Callable[[Callable[P, R]], Step[P, R]]:
    """Make a typed function a step.

    `image`: the container image, with Python 3.11 or later in it. `requirements`: a file of pip's with hashes, relative to
    the function's; what the image lacks of it is installed when the step starts. `retries`: how often a failed step is tried
    again. `cache`: the cache mode. `ttl`: how long a result stays usable, as `90s`, `1h30m`, `7d`.
    `ignore_inputs`: arguments that do not change the result. `side_effects`: never take the result from the cache.
    `files`: files and folders that the step opens, from the folder of its module; they are part of its key. `stop_on_divergence`:
    cache it only for as long as it gives the same result whenever it runs again.
    """

    def decorate(function: Callable[P, R]) -> Step[P, R]:
        check_signature(function, "step")
        called = name or function.__name__
        if isinstance(ignore_inputs, str):
            raise PipelineError(
                "ignore_inputs is a list of names",
                function=called,
                fix=f"write ignore_inputs=[{ignore_inputs!r}]",
            )
        if isinstance(files, str):
            raise PipelineError("files is a list of names", function=called, fix=f"write files=[{files!r}]")
        policy = StepPolicy(
            retries, cache, ttl, image, tuple(ignore_inputs), side_effects, requirements, stop_on_divergence
        )
        policy.check(called)
        return Step(function, StepDefinition(function, called, policy, tuple(files)))

    return decorate if function is None else decorate(function)
