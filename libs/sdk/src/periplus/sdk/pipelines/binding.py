"""What each input of a task is bound to: a literal, another task's output, or an item of a fan-out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from periplus.sdk.errors import PipelineError
from periplus.sdk.pipelines.definition import StepDefinition
from periplus.sdk.pipelines.handles import Condition, Each, Handle, Outputs
from periplus.sdk.pipelines.ports import Port, describe
from periplus.sdk.values.annotations import type_name
from periplus.sdk.values.parameters import dumps
from periplus.sdk.values.schema import element, is_changed_as_item, is_incompatible, is_list, unwrap


@dataclass(frozen=True)
class Constant:
    """A value that the pipeline's function passes itself, as JSON text."""

    text: str


@dataclass(frozen=True)
class ItemRef:
    """Argo's `{{item}}`, or with a key `{{item.key}}`."""

    key: str = ""


Binding = Constant | ItemRef | Handle


@dataclass(frozen=True)
class FanOut:
    """What a fan-out goes over: constant items (`withItems`), or a reference to the parameter that holds them
    (`withParam`) with the handle of it.
    """

    items: list[Any] | None = None
    reference: str = ""
    source: Handle | None = None


def bind(
    step: StepDefinition, args: Any, kwargs: Any, *, is_fan_out: bool
) -> tuple[dict[str, Binding], FanOut | None]:
    """Match a call's arguments with a step's inputs. Raises PipelineError with function, argument and fix."""
    try:
        bound = step.signature.bind(*args, **kwargs)
    except TypeError as wrong:
        raise PipelineError(
            f"wrong arguments: {wrong}", function=step.name, fix=f"call {step.name}{step.signature}"
        ) from wrong
    bound.apply_defaults()
    arguments = bound.arguments
    varying = {name: value for name, value in arguments.items() if isinstance(value, Each)}
    if bool(varying) != is_fan_out:
        fix = (
            f"call {step.name}.map(…)"
            if varying
            else f"mark the argument that varies: {step.name}.map(each(…))"
        )
        what = "each(…) stands in a plain call" if varying else "no argument of .map is marked with each(…)"
        raise PipelineError(what, function=step.name, fix=fix)
    fan_out, bindings = _fan_out(step, varying) if varying else (None, {})
    for port in step.inputs:
        if port.name not in bindings:
            bindings[port.name] = _bind_one(step.name, port, arguments[port.name])
    return {port.name: bindings[port.name] for port in step.inputs}, fan_out


def _bind_one(function: str, port: Port, value: Any) -> Binding:
    if isinstance(value, Handle):
        _check_handle(function, port, value)
        return value
    where = {"function": function, "argument": port.name}
    if isinstance(value, Outputs):
        raise PipelineError(f"{value!r} are several outputs", **where, fix="pass one of them by its name")
    if isinstance(value, Condition):
        raise PipelineError(f"{value.text} is a condition, no value", **where, fix="use it in when(…)")
    if _holds_handle(value):
        raise PipelineError(
            "a step's output is inside a list, tuple or dict",
            **where,
            fix="pass each output as an argument of its own, or fan out with .map",
        )
    if port.format is not None:
        raise PipelineError(
            f"takes {describe(port)}, got {type(value).__qualname__}",
            **where,
            fix="pass the output of a step that reads or writes the file",
        )
    return Constant(_text(function, port, value, port.annotation))


def _check_handle(function: str, port: Port, value: Handle) -> None:
    where = {"function": function, "argument": port.name}
    if value.gathered and value.port.format:
        raise PipelineError(
            f"{value.function}.map(…) returns files, and Argo cannot gather the files of a fan-out",
            **where,
            fix=f"return small values (a score) from {value.function}, choose among them, and make the file "
            "in a step of its own",
        )
    source = f"{describe(value.port)} from {value.function}"
    if (value.port.format is None) != (port.format is None) or (
        port.format and value.port.format and port.format.name != value.port.format.name
    ):
        raise PipelineError(
            f"takes {describe(port)}, got {source}", **where, fix="give both the same annotation"
        )
    if value.gathered:
        if not is_list(port.annotation):
            raise PipelineError(
                f"{value.function}.map(…) gives a list, the argument is {type_name(port.annotation)}",
                **where,
                fix=f"annotate it list[{type_name(value.port.annotation)}]",
            )
        _check_annotation(value.port.annotation, element(port.annotation), source, where)
    elif port.format is None or port.format.name == "json":
        _check_annotation(value.port.annotation, port.annotation, source, where)


def _check_annotation(annotation: Any, target: Any, source: str, where: dict[str, str]) -> None:
    """Raise PipelineError where values of `annotation` cannot be taken as `target`; `source` says what they are."""
    if is_incompatible(annotation, target):
        raise PipelineError(
            f"takes {type_name(unwrap(target))}, got {source}", **where, fix="give both the same annotation"
        )


def _fan_out(step: StepDefinition, varying: dict[str, Each]) -> tuple[FanOut, dict[str, Binding]]:
    """What the fan-out goes over, and the bindings of the inputs that vary."""
    ports = {port.name: port for port in step.inputs}
    handles = {name: mark.values for name, mark in varying.items() if isinstance(mark.values, Handle)}
    for name in varying:
        if ports[name].format is not None:
            raise PipelineError(
                f"takes {describe(ports[name])}: only JSON values can vary",
                function=step.name,
                argument=name,
                fix="fan out over a small value, as an index or a name, by which the step finds its file",
            )
    if handles and len(varying) > 1:
        raise PipelineError(
            "several arguments vary, and the values of one come from a step",
            function=step.name,
            argument=next(iter(handles)),
            fix="let one step return the combinations as a list, and vary that",
        )
    if handles:
        name, handle = next(iter(handles.items()))
        return _fan_out_of_handle(step.name, ports[name], handle), {name: ItemRef()}
    return _fan_out_of_constants(step.name, ports, varying)


def _fan_out_of_handle(function: str, port: Port, handle: Handle) -> FanOut:
    where = {"function": function, "argument": port.name}
    if handle.port.format or not (handle.gathered or is_list(handle.port.annotation)):
        raise PipelineError(
            f"each(…) takes a list of JSON values, got {describe(handle.port)}",
            **where,
            fix="let the step return list[…]",
        )
    member = handle.port.annotation if handle.gathered else element(handle.port.annotation)
    _check_annotation(member, port.annotation, f"elements {type_name(member)}", where)
    reference = handle.reference
    if not handle.gathered and is_changed_as_item(member):
        if not handle.task:
            raise PipelineError(
                f"Argo cannot fan out over a pipeline parameter of {type_name(member)}",
                **where,
                fix=f"write a step that takes and returns {type_name(handle.port.annotation)}, and vary what it returns",
            )
        reference = f"tasks.{handle.task}.outputs.parameters.{handle.port.items}"
    return FanOut(reference=reference, source=handle)


def _fan_out_of_constants(
    function: str, ports: dict[str, Port], varying: dict[str, Each]
) -> tuple[FanOut, dict[str, Binding]]:
    columns: dict[str, list[str]] = {}
    for name, mark in varying.items():
        try:
            values = mark.as_list()
        except TypeError as wrong:
            raise PipelineError(f"each(…) takes a list: {wrong}", function=function, argument=name) from wrong
        columns[name] = [_text(function, ports[name], value, ports[name].annotation) for value in values]
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1 or 0 in lengths:
        counts = ", ".join(f"{name} has {len(column)}" for name, column in columns.items())
        raise PipelineError(
            f"each(…) takes lists of one length, with at least one value: {counts}", function=function
        )
    if len(columns) == 1:
        name, column = next(iter(columns.items()))
        return FanOut(items=list(column)), {name: ItemRef()}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return FanOut(items=list(rows)), {name: ItemRef(name) for name in columns}


def _text(function: str, port: Port, value: Any, annotation: Any) -> str:
    try:
        return dumps(value, annotation)
    except PipelineError as wrong:
        raise PipelineError(wrong.what, function=function, argument=port.name, fix=wrong.fix) from wrong


def _holds_handle(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_handle(one) for one in value.values())
    if isinstance(value, list | tuple | set):
        return any(_holds_handle(one) for one in value)
    return isinstance(value, Handle | Outputs)
