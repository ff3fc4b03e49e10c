"""A step's definition: its function, how it is run and cached, and the inputs and outputs that it declares."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from periplus.sdk.errors import PipelineError
from periplus.sdk.pipelines.ports import Port, inputs_of, outputs_of
from periplus.sdk.values.annotations import hints
from periplus.sdk.values.schema import is_named_tuple

CacheMode = Literal["off", "read", "write", "readwrite", "refresh"]


@dataclass(frozen=True)
class StepPolicy:
    """How a step is run and cached, and in what.

    `ttl` is a duration such as "1h30m" or "7d", `requirements` the name of a file of pip's with hashes.
    """

    retries: int = 0
    cache: CacheMode = "readwrite"
    ttl: str | None = None
    image: str | None = None
    ignore_inputs: tuple[str, ...] = ()
    side_effects: bool = False
    requirements: str | None = None
    stop_on_divergence: bool = False

    def check(self, function: str) -> None:
        """Raise PipelineError for a value that no step can have; `function` is the step's name, for the message."""
        if self.cache not in get_args(CacheMode):
            modes = ", ".join(get_args(CacheMode))
            raise PipelineError(
                f"cache={self.cache!r} is no cache mode", function=function, fix=f"use one of {modes}"
            )
        if self.ttl is not None:
            _check_ttl(self.ttl, function)
        if isinstance(self.retries, bool) or not isinstance(self.retries, int) or self.retries < 0:
            raise PipelineError(
                f"retries={self.retries!r} is not a number of retries",
                function=function,
                fix="write retries=2",
            )
        if "" in self.ignore_inputs or any("," in one for one in self.ignore_inputs):
            raise PipelineError(
                "ignore_inputs holds names of arguments",
                function=function,
                fix='write ignore_inputs=["verbose"]',
            )


def _check_ttl(ttl: Any, function: str) -> None:
    # The dispatcher reads the annotation with the same function. Imported here: most steps have no ttl.
    try:
        from periplus_manifest.duration import parse_duration
        from periplus_manifest.errors import ManifestError
    except ModuleNotFoundError:
        return  # a step's process, which has the runner only: the compiler has checked it

    fix = 'write it as "90s", "1h30m" or "7d"'
    try:
        span = parse_duration(ttl, days=True) if isinstance(ttl, str) else None
    except ManifestError:
        span = None
    if span is None:
        raise PipelineError(f"ttl={ttl!r} is no duration", function=function, fix=fix)
    if span.total_seconds() < 0:
        raise PipelineError(f"ttl={ttl!r} is negative", function=function, fix=fix)


@dataclass(frozen=True, eq=False)
class StepDefinition:
    """What is declared of a step. Two definitions are the same only if they are one object."""

    function: Callable[..., Any]
    name: str
    policy: StepPolicy
    files: tuple[str, ...] = ()

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        """The function's signature."""
        return inspect.signature(self.function)

    @functools.cached_property
    def inputs(self) -> tuple[Port, ...]:
        """The inputs, in the order of the arguments. Raises PipelineError for a type that cannot be passed on."""
        ports = inputs_of(self.function)
        names = {port.name for port in ports}
        if unknown := set(self.policy.ignore_inputs) - names:
            raise PipelineError(
                f"ignore_inputs names {', '.join(sorted(unknown))}, which is no argument",
                function=self.name,
                fix="its arguments are: " + (", ".join(sorted(names)) or "none"),
            )
        return ports

    @functools.cached_property
    def outputs(self) -> tuple[Port, ...]:
        """The outputs, in order. Raises PipelineError for a type that cannot be passed on."""
        return outputs_of(self.function)

    @functools.cached_property
    def returns_record(self) -> bool:
        """Whether the function returns a NamedTuple, whose fields are the outputs."""
        return is_named_tuple(hints(self.function)["return"])
