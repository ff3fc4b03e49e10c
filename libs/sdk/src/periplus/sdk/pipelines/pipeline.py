"""@pipeline: a function whose calls of steps become one Argo Workflow."""

from __future__ import annotations

import atexit
import functools
import inspect
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, overload

from periplus.sdk.errors import MismatchError, PipelineError
from periplus.sdk.pipelines.graph import Task, record, recording
from periplus.sdk.pipelines.handles import Handle, Outputs
from periplus.sdk.pipelines.ports import REQUIRED, Port, check_signature, inputs_of
from periplus.sdk.values.annotations import type_name
from periplus.sdk.values.parameters import dumps, parse
from periplus.sdk.values.schema import is_named_tuple

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Recorded:
    """What a pipeline's function left behind: its tasks, and the handles it returns by name."""

    tasks: tuple[Task, ...]
    outputs: dict[str, Handle]


class Pipeline(Generic[P, R]):
    """A function that puts steps together. Calling it runs them in this process, as plain Python."""

    def __init__(
        self, function: Callable[P, R], name: str, image: str | None, requirements: str | None = None
    ) -> None:
        self.function = function
        self.name = name
        self.image = image
        self.requirements = requirements
        self._is_used = False
        functools.update_wrapper(self, function)
        if _is_script(function):
            atexit.register(self._hint_if_unused)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        self._is_used = True
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<pipeline {self.name}; {self._how_to_run()}>"

    def _how_to_run(self) -> str:
        """As in: run it with `periplus run flow.py -p url=…`, or in this process with flow(url=…)."""
        module = sys.modules.get(self.function.__module__)
        file = getattr(module, "__file__", None) or self.function.__code__.co_filename
        path = Path(file)
        if path.is_relative_to(Path.cwd()):
            path = path.relative_to(Path.cwd())
        others = [
            one
            for one in (vars(module) if module else {}).values()
            if isinstance(one, Pipeline) and one is not self
        ]
        name = self.function.__name__
        target = shlex.quote(f"{path}:{name}" if others else str(path))
        required = [
            argument.name
            for argument in inspect.signature(self.function).parameters.values()
            if argument.default is argument.empty
        ]
        options = "".join(f" -p {argument}=…" for argument in required)
        arguments = ", ".join(f"{argument}=…" for argument in required)
        return f"run it with `periplus run {target}{options}`, or in this process with {name}({arguments})"

    def _hint_if_unused(self) -> None:
        """Tell who ran the file with `python file.py`, which defines the pipeline and does nothing with it."""
        if not self._is_used and not hasattr(sys, "last_type"):  # an exception has said enough
            sys.stderr.write(f"periplus: {self.name} was defined and not run; {self._how_to_run()}\n")

    @functools.cached_property
    def parameters(self) -> tuple[Port, ...]:
        """The pipeline's parameters. Raises PipelineError for one that is no small JSON value."""
        ports = inputs_of(self.function)
        for port in ports:
            if port.format is not None:
                raise PipelineError(
                    f"a pipeline's parameter is a JSON value, not {type_name(port.annotation)}",
                    function=self.name,
                    argument=port.name,
                    fix="let a step read or compute it",
                )
        return ports

    def parse(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """Values of parameters from the texts of a command line: JSON, or bare text for a `str`.

        Raises PipelineError for an unknown name and for text that is not of the parameter's type.
        """
        values = {}
        for name, text in texts.items():
            port = self._port(name)
            try:
                values[name] = parse(text, port.annotation)
            except MismatchError as wrong:
                raise PipelineError(
                    wrong.what,
                    function=self.name,
                    argument=name,
                    fix=f"give {type_name(port.annotation)} as JSON",
                ) from wrong
        return values

    def arguments(self, values: Mapping[str, Any]) -> dict[str, str | None]:
        """The JSON text of every parameter, from `values` or the default; None where there is neither.

        Raises PipelineError for an unknown name and a value of the wrong type.
        """
        for name in values:
            self._port(name)
        texts: dict[str, str | None] = {}
        for port in self.parameters:
            value = values.get(port.name, port.default)
            try:
                texts[port.name] = None if value is REQUIRED else dumps(value, port.annotation)
            except MismatchError as wrong:
                raise PipelineError(
                    wrong.what, function=self.name, argument=port.name, fix=wrong.fix
                ) from wrong
        return texts

    def record(self) -> Recorded:
        """Run the function with handles in place of values, and return the tasks that its calls make."""
        self._is_used = True
        if recording() is not None:
            raise PipelineError("a pipeline is compiled while another one is recorded", function=self.name)
        handles: dict[str, Any] = {port.name: Handle(port, self.name) for port in self.parameters}
        with record() as current:
            returned = self.function(**handles)  # type: ignore[call-arg]
        if not current.tasks:
            raise PipelineError("calls no step", function=self.name, fix="call a @step function in it")
        return Recorded(tuple(current.tasks), self._outputs(returned))

    def _port(self, name: str) -> Port:
        for port in self.parameters:
            if port.name == name:
                return port
        names = ", ".join(port.name for port in self.parameters) or "none"
        raise PipelineError(
            f"has no parameter {name}", function=self.name, fix=f"its parameters are: {names}"
        )

    def _outputs(self, returned: Any) -> dict[str, Handle]:
        if returned is None:
            return {}
        if isinstance(returned, Outputs):
            named = dict(returned.by_name())
        elif isinstance(returned, dict):
            named = returned
        elif is_named_tuple(type(returned)):
            named = returned._asdict()
        else:
            named = {"output": returned}
        for name, handle in named.items():
            self._check_output(str(name), handle)
        return {str(name): handle for name, handle in named.items()}

    def _check_output(self, name: str, handle: Any) -> None:
        where = {"function": self.name, "argument": f"return, {name}"}
        if not isinstance(handle, Handle) or not handle.task:
            raise PipelineError(
                f"returns {handle!r}, which is no output of a step",
                **where,
                fix="return a step's output, or a NamedTuple or dict of outputs",
            )
        if handle.gathered:
            raise PipelineError(
                f"returns the loose results of {handle.function}.map(…)",
                **where,
                fix="let a step take the list, and return what it makes of it",
            )
        if handle.conditional:
            raise PipelineError(
                f"returns an output of {handle.function}, which may be skipped",
                **where,
                fix="return an output of a step outside `with when(…)`",
            )


def _is_script(function: Callable[..., Any]) -> bool:
    """Whether the function is defined in the file that Python was started with; no notebook or prompt."""
    return (
        function.__module__ == "__main__"
        and hasattr(sys.modules["__main__"], "__file__")
        and not sys.flags.interactive
    )


@overload
def pipeline(function: Callable[P, R], /) -> Pipeline[P, R]: ...
@overload
def pipeline(
    *, name: str | None = None, image: str | None = None, requirements: str | None = None
) -> Callable[[Callable[P, R]], Pipeline[P, R]]: ...
def pipeline(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    image: str | None = None,
    requirements: str | None = None,
) -> Pipeline[P, R] | Callable[[Callable[P, R]], Pipeline[P, R]]:
    """Make a function that calls steps a pipeline. `image` and `requirements` are those of steps that name none of their own."""

    def decorate(function: Callable[P, R]) -> Pipeline[P, R]:
        check_signature(function, "pipeline")
        return Pipeline(function, name or function.__name__, image, requirements)

    return decorate if function is None else decorate(function)
