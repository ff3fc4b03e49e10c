"""What each input of a task is bound to: a literal, another task's output, or an item of a fan-out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from periplus.sdk.annotations import shown
from periplus.sdk.errors import PipelineError
from periplus.sdk.handles import Condition, Each, Handle, Outputs
from periplus.sdk.ports import Port, kind_of
from periplus.sdk.shapes import clash, element, is_list, loses_form
from periplus.sdk.values import dumps

if TYPE_CHECKING:
    from periplus.sdk.steps import Step


@dataclass(frozen=True)
class Known:
    """A value known while the pipeline is put together, as JSON text."""

    text: str


@dataclass(frozen=True)
class Item:
    """The item of a fan-out, or the named part of it."""

    key: str = ""


Binding = Known | Item | Handle


@dataclass(frozen=True)
class Items:
    """What a fan-out goes over: items known now (`known`), or the parameter that holds them (`reference`)."""

    known: list[Any] | None = None
    reference: str = ""
    source: Handle | None = None


def bind(
    step: Step[Any, Any], args: Any, kwargs: Any, *, fan_out: bool
) -> tuple[dict[str, Binding], Items | None]:
    """Match a call's arguments with a step's inputs. Raises PipelineError with function, argument and fix."""
    try:
        bound = step.signature.bind(*args, **kwargs)
    except TypeError as wrong:
        raise PipelineError(
            f"wrong arguments: {wrong}", function=step.name, fix=f"call {step.name}{step.signature}"
        ) from wrong
    bound.apply_defaults()
    given = bound.arguments
    varying = {name: value for name, value in given.items() if isinstance(value, Each)}
    if bool(varying) != fan_out:
        fix = (
            f"call {step.name}.map(…)"
            if varying
            else f"mark the argument that varies: {step.name}.map(each(…))"
        )
        what = "each(…) stands in a plain call" if varying else "no argument of .map is marked with each(…)"
        raise PipelineError(what, function=step.name, fix=fix)
    items, bindings = _items(step, varying) if varying else (None, {})
    for port in step.inputs:
        if port.name not in bindings:
            bindings[port.name] = _bind_one(step.name, port, given[port.name])
    return {port.name: bindings[port.name] for port in step.inputs}, items


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
            "a step's output stands inside a list, tuple or dict",
            **where,
            fix="pass each output as an argument of its own, or fan out with .map",
        )
    if port.format is not None:
        raise PipelineError(
            f"takes {kind_of(port)}, got {type(value).__qualname__}",
            **where,
            fix="pass the output of a step; a step can read or make the file",
        )
    return Known(_text(function, port, value, port.annotation))


def _check_handle(function: str, port: Port, value: Handle) -> None:
    where = {"function": function, "argument": port.name}
    if value.gathered and value.port.format:
        raise PipelineError(
            f"{value.function}.map(…) returns files, and Argo cannot gather the files of a fan-out",
            **where,
            fix=f"return small values (a score) from {value.function}, choose among them, and make the file "
            "in a step of its own",
        )
    given = f"{kind_of(value.port)} from {value.function}"
    if (value.port.format is None) != (port.format is None) or (
        port.format and value.port.format and port.format.name != value.port.format.name
    ):
        raise PipelineError(
            f"takes {kind_of(port)}, got {given}", **where, fix="give both the same annotation"
        )
    if value.gathered:
        if not is_list(port.annotation):
            raise PipelineError(
                f"{value.function}.map(…) gives a list, the argument is {shown(port.annotation)}",
                **where,
                fix=f"annotate it list[{shown(value.port.annotation)}]",
            )
        _check_annotation(value.port.annotation, element(port.annotation), given, where)
    elif port.format is None:
        _check_annotation(value.port.annotation, port.annotation, given, where)


def _check_annotation(source: Any, target: Any, given: str, where: dict[str, str]) -> None:
    if clash(source, target):
        raise PipelineError(
            f"takes {shown(target)}, got {given}", **where, fix="give both the same annotation"
        )


def _items(step: Step[Any, Any], varying: dict[str, Each]) -> tuple[Items, dict[str, Binding]]:
    """What the fan-out goes over, and the bindings of the inputs that vary."""
    ports = {port.name: port for port in step.inputs}
    handles = {name: mark.values for name, mark in varying.items() if isinstance(mark.values, Handle)}
    for name in varying:
        if ports[name].format is not None:
            raise PipelineError(
                f"takes {kind_of(ports[name])}: only JSON values can vary",
                function=step.name,
                argument=name,
                fix="fan out over a small value that says which, as an index or a name",
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
        return _items_of_handle(step.name, ports[name], handle), {name: Item()}
    return _items_known(step.name, ports, varying)


def _items_of_handle(function: str, port: Port, handle: Handle) -> Items:
    where = {"function": function, "argument": port.name}
    if handle.port.format or not (handle.gathered or is_list(handle.port.annotation)):
        raise PipelineError(
            f"each(…) takes a list of JSON values, got {kind_of(handle.port)}",
            **where,
            fix="let the step return list[…]",
        )
    member = handle.port.annotation if handle.gathered else element(handle.port.annotation)
    _check_annotation(member, port.annotation, f"elements {shown(member)}", where)
    reference = handle.reference
    if not handle.gathered and loses_form(member):
        if not handle.task:
            raise PipelineError(
                f"Argo cannot fan out over a pipeline parameter of {shown(member)}",
                **where,
                fix="pass the parameter through a step that returns the list",
            )
        reference = f"tasks.{handle.task}.outputs.parameters.{handle.port.items}"
    return Items(reference=reference, source=handle)


def _items_known(
    function: str, ports: dict[str, Port], varying: dict[str, Each]
) -> tuple[Items, dict[str, Binding]]:
    columns: dict[str, list[str]] = {}
    for name, mark in varying.items():
        try:
            values = mark.known()
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
        return Items(known=list(column)), {name: Item()}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return Items(known=list(rows)), {name: Item(name) for name in columns}


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
