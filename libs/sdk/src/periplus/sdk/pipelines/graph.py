"""The tasks that a pipeline's calls leave behind while it is recorded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from periplus.sdk.pipelines.binding import Binding, FanOut, bind
from periplus.sdk.pipelines.definition import StepDefinition
from periplus.sdk.pipelines.handles import Condition, Handle, Outputs, condition_of

_recording: ContextVar[Recording | None] = ContextVar("periplus_recording", default=None)
_skipping: ContextVar[bool] = ContextVar("periplus_skipping", default=False)


@dataclass(frozen=True)
class Task:
    """One call of a step: what each input is bound to, what it fans out over, and the conditions of its `when`."""

    name: str
    step: StepDefinition
    bindings: dict[str, Binding]
    fan_out: FanOut | None
    conditions: tuple[Condition, ...]

    def dependencies(self) -> list[Handle]:
        """The outputs of other tasks that this one waits for, in the order in which they were written."""
        handles = [bound for bound in self.bindings.values() if isinstance(bound, Handle)]
        if self.fan_out and self.fan_out.source is not None:
            handles.append(self.fan_out.source)
        handles += [handle for condition in self.conditions for handle in condition.handles]
        return [handle for handle in handles if handle.task]

    @property
    def conditional(self) -> bool:
        """Whether the task may be left out of a run."""
        return bool(self.conditions) or any(source.conditional for source in self.dependencies())


@dataclass
class Recording:
    """A pipeline while its function runs."""

    tasks: list[Task] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    conditions: tuple[Condition, ...] = ()

    def call(self, step: StepDefinition, args: Any, kwargs: Any, *, is_fan_out: bool) -> Any:
        """Record a call of a step, and return the handles of its outputs."""
        bindings, fan_out = bind(step, args, kwargs, is_fan_out=is_fan_out)
        task = Task(self._free_name(step.name), step, bindings, fan_out, self.conditions)
        self.tasks.append(task)
        conditional = task.conditional
        handles = {
            port.name: Handle(port, step.name, task.name, is_fan_out, conditional) for port in step.outputs
        }
        if step.returns_record:
            return Outputs(step.name, handles)
        return handles.get("output")

    def _free_name(self, name: str) -> str:
        wanted = argo_name(name)
        number = 2
        candidate = wanted
        while candidate in self.names:
            candidate = f"{wanted}-{number}"
            number += 1
        self.names.add(candidate)
        return candidate


def argo_name(name: str) -> str:
    """A name as Argo takes it for tasks and templates."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", name).strip("-") or "step"


def recording() -> Recording | None:
    """The recording that is open in this context, if any."""
    return _recording.get()


def skipping() -> bool:
    """Whether a `when(False)` is open while steps run as plain Python."""
    return _skipping.get()


@contextmanager
def record() -> Iterator[Recording]:
    """Record every call of a step in this block instead of running it."""
    current = Recording()
    token = _recording.set(current)
    try:
        yield current
    finally:
        _recording.reset(token)


@contextmanager
def when(condition: bool) -> Iterator[None]:
    """Open a block whose steps run only if the condition holds.

    In a run, Argo's `when` skips them. In plain Python they are skipped too, with the steps that take their outputs.
    """
    current = _recording.get()
    if current is None:
        token = _skipping.set(_skipping.get() or not condition)
        try:
            yield
        finally:
            _skipping.reset(token)
        return
    outside = current.conditions
    current.conditions = (*outside, condition_of(condition))
    try:
        yield
    finally:
        current.conditions = outside
