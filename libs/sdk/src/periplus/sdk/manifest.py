"""A pipeline compiled to one Argo Workflow manifest, with the code archive that its steps run from."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from periplus.sdk.archive import archive
from periplus.sdk.binding import Binding, Item, Known
from periplus.sdk.closure import Project, closure
from periplus.sdk.errors import PipelineError
from periplus.sdk.graph import Task, argo_name
from periplus.sdk.handles import Handle
from periplus.sdk.loading import place_of
from periplus.sdk.templates import DOMAIN, Code, Shape, template

if TYPE_CHECKING:
    from hera.workflows import Workflow

    from periplus.sdk.pipelines import Pipeline
    from periplus.sdk.steps import Step

ENTRYPOINT = "main"


@dataclass(frozen=True)
class CompiledStep:
    """A step's template, what it runs as `module:function`, and the digests of the code it depends on."""

    template: str
    entry: str
    digests: dict[str, str]


@dataclass(frozen=True)
class Compiled:
    """What a pipeline compiles to.

    `manifest`: the Workflow, as the dict that its YAML would give. `archive`: the tar.gz of its code, which must
    lie under `archive_key` before the run; all three archive fields are empty when the steps need no file of the
    project. `files`: what is in it, relative to `root`.
    """

    manifest: dict[str, Any]
    archive: bytes
    archive_digest: str
    archive_key: str
    root: Path
    files: tuple[str, ...]
    steps: tuple[CompiledStep, ...]

    def workflow(self) -> Workflow:
        """The manifest as hera's Workflow. Raises PipelineError if hera would not say the same."""
        from hera.workflows import Workflow, models

        read = models.Workflow.model_validate(self.manifest)
        if read.model_dump(by_alias=True, exclude_none=True, mode="json") != self.manifest:
            raise PipelineError("hera reads the manifest and does not give the same back")
        made = Workflow.from_dict(self.manifest)
        assert isinstance(made, Workflow)
        return made


def compile(  # noqa: A001
    pipeline: Pipeline[..., Any], parameters: Mapping[str, Any] | None = None
) -> Compiled:
    """Compile a pipeline, with values for its parameters in place of the defaults.

    Raises PipelineError naming the function, the argument and the fix.
    """
    arguments = pipeline.arguments(parameters or {})
    recorded = pipeline.record()
    root = place_of(_file(pipeline.function)).root
    project = Project(root)
    shapes = _shapes(recorded.tasks)
    entries = {shape.step: _entry(project, shape.step) for shape in shapes}
    closures = {step: closure(project, *entries[step]) for step in entries}
    packed = archive({name: path for one in closures.values() for name, path in one.files.items()})
    key = packed.key if packed.files else None
    codes = {step: Code(":".join(entries[step]), closures[step], key) for step in entries}
    templates = [template(name, shape, codes[shape.step], pipeline.image) for shape, name in shapes.items()]
    main: dict[str, Any] = {
        "name": ENTRYPOINT,
        "dag": {"tasks": [_task(task, shapes[_shape(task)]) for task in recorded.tasks]},
    }
    if recorded.outputs:
        main["outputs"] = _outputs(recorded.outputs)
    steps = [
        CompiledStep(name, codes[shape.step].entry, codes[shape.step].closure.digests)
        for shape, name in shapes.items()
    ]
    return Compiled(
        manifest=_workflow(pipeline.name, arguments, [main, *templates]),
        archive=packed.data if key else b"",
        archive_digest=packed.digest if key else "",
        archive_key=key or "",
        root=root,
        files=packed.files,
        steps=tuple(steps),
    )


def _workflow(name: str, arguments: dict[str, str | None], templates: list[Any]) -> dict[str, Any]:
    parameters = [
        {"name": one} if text is None else {"name": one, "value": text} for one, text in arguments.items()
    ]
    spec: dict[str, Any] = {"entrypoint": ENTRYPOINT, "templates": templates}
    if parameters:
        spec["arguments"] = {"parameters": parameters}
    # Argo adds five letters, and Kubernetes takes 63 for a label's value.
    prefix = argo_name(name).lower()[:50]
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": f"{prefix}-", "annotations": {f"{DOMAIN}/pipeline": name}},
        "spec": spec,
    }


def _entry(project: Project, step: Step[Any, Any]) -> tuple[str, str]:
    """The module and name by which a step's process finds its function again."""
    function = step.function
    if "." in function.__qualname__:
        raise PipelineError(
            "a step is a function at the top level of a module",
            function=step.name,
            fix=f"move {function.__name__} out of {function.__qualname__.rpartition('.')[0]}",
        )
    file = _file(function)
    if file.is_relative_to(project.root):
        parts = list(file.relative_to(project.root).with_suffix("").parts)
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if project.file(module) == file:
            return module, function.__name__
    if function.__module__ == "__main__":
        raise PipelineError(
            f"a step's process cannot import {file}", function=step.name, fix="move it into a .py file"
        )
    return function.__module__, function.__name__


def _file(function: Callable[..., Any]) -> Path:
    """The file of the module that a function is a name of, whatever file a decorator of it lies in."""
    module = sys.modules.get(function.__module__)
    return Path(getattr(module, "__file__", None) or function.__code__.co_filename).resolve()


def _shape(task: Task) -> Shape:
    gathered = [name for name, bound in task.bindings.items() if isinstance(bound, Handle) and bound.gathered]
    return Shape(task.step, frozenset(gathered), task.items is not None)


def _shapes(tasks: tuple[Task, ...]) -> dict[Shape, str]:
    """Each form in which a step is called, with the name of its template."""
    names: dict[Shape, str] = {}
    for task in tasks:
        shape = _shape(task)
        if shape in names:
            continue
        wanted = candidate = argo_name(task.step.name)
        number = 2
        while candidate in (ENTRYPOINT, *names.values()):
            candidate = f"{wanted}-{number}"
            number += 1
        names[shape] = candidate
    return names


def _task(task: Task, template_name: str) -> dict[str, Any]:
    made: dict[str, Any] = {"name": task.name, "template": template_name}
    if sources := {source.task: source.conditional for source in task.sources()}:
        # A step that may be skipped has outputs only when it ran: without `.Succeeded` its consumer would run.
        depends = [f"{one}.Succeeded" if conditional else one for one, conditional in sources.items()]
        made["depends"] = " && ".join(depends)
    if task.conditions:
        texts = [condition.text for condition in task.conditions]
        made["when"] = texts[0] if len(texts) == 1 else " && ".join(f"({text})" for text in texts)
    if task.items:
        if task.items.known is not None:
            made["withItems"] = task.items.known
        else:
            made["withParam"] = "{{" + task.items.reference + "}}"
    if arguments := _arguments(task):
        made["arguments"] = arguments
    return made


def _arguments(task: Task) -> dict[str, Any]:
    parameters: list[dict[str, str]] = []
    artifacts: list[dict[str, str]] = []
    for name, bound in task.bindings.items():
        if isinstance(bound, Handle) and bound.port.format:
            artifacts.append({"name": name, "from": "{{" + bound.reference + "}}"})
        else:
            parameters.append({"name": name, "value": _value(bound)})
    made: dict[str, Any] = {"parameters": parameters, "artifacts": artifacts}
    return {kind: held for kind, held in made.items() if held}


def _value(bound: Binding) -> str:
    if isinstance(bound, Known):
        return bound.text
    if isinstance(bound, Item):
        return "{{item." + bound.key + "}}" if bound.key else "{{item}}"
    return "{{" + bound.reference + "}}"


def _outputs(handles: dict[str, Handle]) -> dict[str, Any]:
    parameters = [
        {"name": name, "valueFrom": {"parameter": "{{" + handle.reference + "}}"}}
        for name, handle in handles.items()
        if handle.port.format is None
    ]
    artifacts = [
        {"name": name, "from": "{{" + handle.reference + "}}"}
        for name, handle in handles.items()
        if handle.port.format is not None
    ]
    made: dict[str, Any] = {"parameters": parameters, "artifacts": artifacts}
    return {kind: held for kind, held in made.items() if held}
