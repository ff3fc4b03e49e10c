"""A pipeline compiled to one Argo Workflow manifest, with the code archive that its steps run from."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from periplus.sdk import step_packages
from periplus.sdk.compiler.archive import archive
from periplus.sdk.compiler.closure import Closure, Project, closure
from periplus.sdk.compiler.closure.index import CodeIndex, code_index
from periplus.sdk.compiler.files import Declared, files_of_project, with_files
from periplus.sdk.compiler.loading import module_path
from periplus.sdk.compiler.requirements import Requirements, read_requirements
from periplus.sdk.compiler.templates import DOMAIN, StepCode, TemplateVariant, container_template
from periplus.sdk.compiler.travelling_runner import FOLDER, runner_files
from periplus.sdk.errors import PipelineError
from periplus.sdk.pipelines.binding import Binding, Constant, ItemRef
from periplus.sdk.pipelines.graph import Task, argo_name
from periplus.sdk.pipelines.handles import Handle

if TYPE_CHECKING:
    from hera.workflows import Workflow

    from periplus.sdk.pipelines.definition import StepDefinition
    from periplus.sdk.pipelines.pipeline import Pipeline

ENTRYPOINT = "main"
MAX_OTHER_BYTES = 2 << 20
"""Of modules that travel although no step's code names them."""


@dataclass(frozen=True)
class CompiledStep:
    """A step's template, what it runs as `module:function`, and the digests of the code it depends on."""

    template: str
    entry: str
    digests: dict[str, str]


@dataclass(frozen=True)
class Compiled:
    """What a pipeline compiles to.

    `manifest`: the Workflow, as the dict that its YAML would give. `archive`: the tar.gz of its code and of the
    runner, which must lie under `archive_key` before the run. `files`: the project's files in it, relative to `root`.
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
        workflow = Workflow.from_dict(self.manifest)
        assert isinstance(workflow, Workflow)
        return workflow


def compile(  # noqa: A001
    pipeline: Pipeline[..., Any],
    parameters: Mapping[str, Any] | None = None,
    project: str = "default",
    image: str | None = None,
) -> Compiled:
    """Compile a pipeline, with values for its parameters in place of the defaults, for runs of a project.

    `image` is the one for steps that name none of their own, in place of the pipeline's. Raises PipelineError naming the function, the argument and the fix.
    """
    arguments = pipeline.arguments(parameters or {})
    recorded = pipeline.record()
    root = module_path(_file(pipeline.function)).root
    code = Project(root)
    variants = _variants(recorded.tasks)
    entries = {variant.step: _entry(code, variant.step) for variant in variants}
    of_project = files_of_project(root)
    closures = {step: _closure(code, of_project, step, *entries[step]) for step in entries}
    requirements = {step: _requirements(step, pipeline) for step in entries}
    files = {name: path for one in closures.values() for name, path in one.files.items()}
    installed = {
        f"{FOLDER}/{step_packages.FOLDER}/{one.digest}.txt": one.text.encode()
        for one in requirements.values()
        if one
    }
    files = _others(code, files)
    index = code_index(files, code.read_modules())
    travelling = index.travelling({":".join(entries[step]): one.statements for step, one in closures.items()})
    packed = archive({**files, **runner_files(), **installed, **travelling})
    key = packed.key(project)
    codes = {
        step: StepCode(":".join(entries[step]), closures[step], key, requirements[step]) for step in entries
    }
    templates = [
        container_template(name, variant, codes[variant.step], image or pipeline.image)
        for variant, name in variants.items()
    ]
    main: dict[str, Any] = {
        "name": ENTRYPOINT,
        "dag": {"tasks": [_task(task, variants[_variant(task)]) for task in recorded.tasks]},
    }
    if recorded.outputs:
        main["outputs"] = _outputs(recorded.outputs)
    steps = [
        CompiledStep(name, codes[variant.step].entry, codes[variant.step].closure.digests)
        for variant, name in variants.items()
    ]
    return Compiled(
        manifest=_workflow(pipeline.name, arguments, [main, *templates], index),
        archive=packed.data,
        archive_digest=packed.digest,
        archive_key=key,
        root=root,
        files=tuple(sorted(files)),
        steps=tuple(steps),
    )


def _closure(code: Project, of_project: Declared, step: StepDefinition, module: str, name: str) -> Closure:
    own = Declared(step.files, _file(step.function).parent, step.name)
    return with_files(closure(code, module, name), [of_project, own], code.root)


def _others(code: Project, files: dict[str, Path]) -> dict[str, Path]:
    """The files of closures, and those of further modules that could be imported by a name at run time."""
    others = dict(files)
    size = 0
    for name in code.modules_that_names_can_mean():
        path = code.file(name)
        if path is None or path.suffix != ".py":
            continue
        with contextlib.suppress(OSError, PipelineError):  # one that no step imports may be broken
            size += path.stat().st_size
            others[code.module(name).file] = path
    return others if size <= MAX_OTHER_BYTES else files


def _workflow(
    name: str, arguments: dict[str, str | None], templates: list[Any], index: CodeIndex
) -> dict[str, Any]:
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
        "metadata": {
            "generateName": f"{prefix}-",
            "annotations": {
                f"{DOMAIN}/pipeline": name,
                f"{DOMAIN}/code-index": json.dumps(index.digests, separators=(",", ":")),
            },
        },
        "spec": spec,
    }


def _entry(project: Project, step: StepDefinition) -> tuple[str, str]:
    """The module and the name from which a step's process imports its function."""
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


def _requirements(step: StepDefinition, pipeline: Pipeline[..., Any]) -> Requirements | None:
    """What the step's process installs: the file that the step names, or the pipeline, beside the module of each."""
    if step.policy.requirements:
        return read_requirements(_file(step.function).parent / step.policy.requirements, step.name)
    if pipeline.requirements:
        return read_requirements(_file(pipeline.function).parent / pipeline.requirements, pipeline.name)
    return None


def _file(function: Callable[..., Any]) -> Path:
    """The file of the module that a function is a name of, whatever file a decorator of it lies in."""
    module = sys.modules.get(function.__module__)
    return Path(getattr(module, "__file__", None) or function.__code__.co_filename).resolve()


def _variant(task: Task) -> TemplateVariant:
    gathered = [name for name, bound in task.bindings.items() if isinstance(bound, Handle) and bound.gathered]
    return TemplateVariant(task.step, frozenset(gathered), task.fan_out is not None)


def _variants(tasks: tuple[Task, ...]) -> dict[TemplateVariant, str]:
    """The templates that the tasks need, each with its name."""
    names: dict[TemplateVariant, str] = {}
    for task in tasks:
        variant = _variant(task)
        if variant in names:
            continue
        wanted = candidate = argo_name(task.step.name)
        number = 2
        while candidate in (ENTRYPOINT, *names.values()):
            candidate = f"{wanted}-{number}"
            number += 1
        names[variant] = candidate
    return names


def _task(task: Task, template_name: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": task.name, "template": template_name}
    if dependencies := {one.task: one.conditional for one in task.dependencies()}:
        # A step that may be skipped has outputs only when it ran: without `.Succeeded`, Argo would run what takes them.
        depends = [f"{one}.Succeeded" if conditional else one for one, conditional in dependencies.items()]
        entry["depends"] = " && ".join(depends)
    if task.conditions:
        texts = [condition.text for condition in task.conditions]
        entry["when"] = texts[0] if len(texts) == 1 else " && ".join(f"({text})" for text in texts)
    if task.fan_out:
        if task.fan_out.items is not None:
            entry["withItems"] = task.fan_out.items
        else:
            entry["withParam"] = "{{" + task.fan_out.reference + "}}"
    if arguments := _arguments(task):
        entry["arguments"] = arguments
    return entry


def _arguments(task: Task) -> dict[str, Any]:
    parameters: list[dict[str, str]] = []
    artifacts: list[dict[str, str]] = []
    for name, bound in task.bindings.items():
        if isinstance(bound, Handle) and bound.port.format:
            artifacts.append({"name": name, "from": "{{" + bound.reference + "}}"})
        else:
            parameters.append({"name": name, "value": _value(bound)})
    lists: dict[str, Any] = {"parameters": parameters, "artifacts": artifacts}
    return {kind: entries for kind, entries in lists.items() if entries}


def _value(bound: Binding) -> str:
    if isinstance(bound, Constant):
        return bound.text
    if isinstance(bound, ItemRef):
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
    lists: dict[str, Any] = {"parameters": parameters, "artifacts": artifacts}
    return {kind: entries for kind, entries in lists.items() if entries}
