"""The inputs and outputs of a step, as its annotations declare them, and where its process finds them."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from periplus.sdk.errors import PipelineError
from periplus.sdk.values.annotations import hints, type_name
from periplus.sdk.values.formats import Format, format_of
from periplus.sdk.values.schema import element, fields, is_changed_as_item, is_list, is_named_tuple, unwrap

if TYPE_CHECKING:
    from collections.abc import Callable

REQUIRED = inspect.Parameter.empty

PROTOCOL = "1"
"""What a step's process makes of its inputs and result: how values are read, checked and written. It is part of the
key of every step, in place of the runner's digest, so that a release of Periplus keeps all hits. Raise it with a change
after which the same code and inputs could give other outputs: other bytes of a format, other values of an annotation.
A change of messages, speed, or of what is refused is none.
"""

# Paths as the template declares them. The runner reads only these environment variables, so that an executor may
# put the files elsewhere.
CODE_PATH = "/periplus/code"
INPUT_PATH = "/periplus/in/"
WORK_PATH = "/periplus/work"
"""Where steps write: outputs, and temporary files by TMPDIR. A volume of the pod, so that a step needs neither root nor
a root file system that it can write to.
"""
OUTPUT_PATH = f"{WORK_PATH}/out/"
PROTOCOL_VARIABLE = "PERIPLUS_PROTOCOL"
CODE_VARIABLE = "PERIPLUS_CODE"
REQUIREMENTS_VARIABLE = "PERIPLUS_REQUIREMENTS"
"""The digest of what the step installs: with the image's it is the environment in the step's key."""
DISCOVERED = "periplus-discovered"
"""The output parameter that says what the step used beyond its key (`discovery`). The dispatcher takes it out of the outputs."""
DISCOVERED_VARIABLE = "PERIPLUS_DISCOVERED"
PARAMETER_VARIABLE = "PERIPLUS_PARAMETER_"
GATHERED_VARIABLE = "PERIPLUS_GATHERED_"
INPUT_VARIABLE = "PERIPLUS_INPUT_"
OUTPUT_VARIABLE = "PERIPLUS_OUTPUT_"
ITEMS_VARIABLE = "PERIPLUS_ITEMS_"
FAN_OUT_VARIABLE = "PERIPLUS_FAN_OUT_"

_ARGO_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True)
class Port:
    """One input or output: a JSON parameter when `format` is None, else a file of that format."""

    name: str
    annotation: Any
    format: Format | None
    default: Any = REQUIRED

    @property
    def file(self) -> str:
        """The name of its file."""
        return self.name + (self.format.suffix if self.format else ".json")

    @property
    def items(self) -> str | None:
        """The name of the further output that holds a list's elements for a fan-out, where one is needed."""
        if self.format is None and is_list(self.annotation) and is_changed_as_item(element(self.annotation)):
            return f"{self.name}-items"
        return None


def inputs_of(function: Callable[..., Any]) -> tuple[Port, ...]:
    """The inputs that a function's arguments declare. Raises PipelineError with function and argument."""
    name, found = function.__name__, hints(function)
    ports = []
    for argument in inspect.signature(function).parameters.values():
        if not _ARGO_NAME.fullmatch(argument.name):
            raise PipelineError(
                "the name has letters that Argo does not take",
                function=name,
                argument=argument.name,
                fix="use ASCII letters, digits and _",
            )
        port = _port(argument.name, found[argument.name], name, argument.name, argument.default)
        if port.format and argument.default is not REQUIRED:
            raise PipelineError(
                "an argument that travels as a file has no default",
                function=name,
                argument=argument.name,
                fix="drop the default, or make a step that returns it",
            )
        ports.append(port)
    return tuple(ports)


def outputs_of(function: Callable[..., Any]) -> tuple[Port, ...]:
    """The outputs of a function: the fields of the NamedTuple that it returns, or the one `output`, or none."""
    name, returned = function.__name__, hints(function)["return"]
    if returned is None or returned is type(None):
        return ()
    if is_named_tuple(returned):
        return tuple(
            _port(field, annotation, name, f"return, field {field}")
            for field, annotation in fields(returned).items()
        )
    return (_port("output", returned, name, "return"),)


def check_signature(function: Callable[..., Any], what: str) -> None:
    """Raise PipelineError for a function whose inputs and outputs its signature does not declare."""
    name = getattr(function, "__name__", repr(function))
    if not inspect.isfunction(function):
        raise PipelineError(f"@{what} stands on {name}, which is no function")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise PipelineError(f"a {what} is a plain function, without async and yield", function=name)
    for argument in inspect.signature(function).parameters.values():
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            raise PipelineError(
                f"a {what} takes no * arguments",
                function=name,
                argument=argument.name,
                fix="name each argument, or take a list",
            )
        if argument.annotation is REQUIRED:
            raise PipelineError(
                "the annotation is missing",
                function=name,
                argument=argument.name,
                fix=f"write its type, as {argument.name}: float",
            )
    if what == "step" and "return" not in function.__annotations__:
        raise PipelineError(
            "the return annotation is missing",
            function=name,
            fix="write the type after ->, or -> None",
        )


def _port(name: str, annotation: Any, function: str, argument: str, default: Any = REQUIRED) -> Port:
    try:
        return Port(name, annotation, format_of(annotation), default)
    except PipelineError as refused:
        raise PipelineError(refused.what, function=function, argument=argument, fix=refused.fix) from refused


def describe(port: Port) -> str:
    """What a port takes or gives, for a message."""
    if port.format is None:
        return f"a JSON value ({type_name(port.annotation)})"
    if port.format.name == "json":
        return f"a JSON file ({type_name(unwrap(port.annotation))})"
    return f"a file ({port.format.name})"
