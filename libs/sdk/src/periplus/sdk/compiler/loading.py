"""Finding what a user's file runs, a pipeline or hera's workflows, and the import root of the project that the file belongs to."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from periplus.sdk.errors import PipelineError
from periplus.sdk.pipelines.pipeline import Pipeline

if TYPE_CHECKING:
    from types import ModuleType

_imported: set[str] = set()
"""The modules that the last `load` imported from its project: a later `load` imports them anew."""


@dataclass(frozen=True)
class ModulePath:
    """A module's name, and the directory that it is imported from."""

    root: Path
    module: str


def module_path(file: Path) -> ModulePath:
    """Where a file is imported from: its own directory, or, inside packages, the directory that holds them."""
    file = file.resolve()
    root, parts = file.parent, [file.stem]
    while (root / "__init__.py").is_file() and root != root.parent:
        parts.insert(0, root.name)
        root = root.parent
    return ModulePath(root, ".".join(parts))


def load(path: str | Path) -> Pipeline[..., Any]:
    """Import a Python file and return its one @pipeline; `file.py:name` says which one, if there are more.

    Raises PipelineError when there is no such file, none or several pipelines in it, or its name hides a module
    that is in use. What the file itself raises passes through.
    """
    text, name = _split(path)
    found = _pipelines(_module(text))
    if name:
        if name not in found:
            raise PipelineError(
                f"{text} has no pipeline {name}", fix="its pipelines are: " + (", ".join(found) or "none")
            )
        return found[name]
    if len(found) != 1:
        what = "no @pipeline" if not found else "several pipelines: " + ", ".join(found)
        fix = (
            "decorate a function with @pipeline, or keep a hera Workflow in a variable"
            if not found
            else f"name one: {text}:{next(iter(found))}"
        )
        raise PipelineError(f"{text} has {what}", fix=fix)
    return next(iter(found.values()))


def load_runnable(path: str | Path) -> Pipeline[..., Any] | list[Any]:
    """Import a Python file and return its pipeline; of a file without one, hera's workflows in its variables.

    These are the Workflow or CronWorkflow to run, if there is one, and all WorkflowTemplates; `file.py:name` says which one
    is run, of pipelines and workflows alike. Raises PipelineError as `load`, and for several without a name.
    """
    text, name = _split(path)
    module = _module(text)
    pipelines, workflows = _pipelines(module), _workflows(module)
    if name in pipelines or not workflows or (pipelines and not name):
        return load(path)
    if name and name not in workflows:
        names = ", ".join([*pipelines, *workflows])
        raise PipelineError(f"{text} has no pipeline or workflow {name}", fix=f"there are: {names}")
    runs = {variable: one for variable, one in workflows.items() if not _is_template(one)}
    templates = [one for one in workflows.values() if _is_template(one)]
    if name:
        chosen = workflows[name]
        if not _is_template(chosen):
            return [chosen, *templates]
        return [_of_template(chosen), *templates]
    if len(runs) > 1:
        raise PipelineError(
            f"{text} has several workflows: {', '.join(runs)}", fix=f"name one: {text}:{next(iter(runs))}"
        )
    return [*runs.values(), *templates]


def _split(path: str | Path) -> tuple[str, str]:
    """The path of the file, and the name after it."""
    text, _, name = str(path).rpartition(":") if ".py:" in str(path) else (str(path), "", "")
    return text, name


def _module(text: str) -> ModuleType:
    file = Path(text)
    if not file.is_file() or file.suffix != ".py":
        raise PipelineError(f"{text} is no Python file", fix="give the path of a .py file with a @pipeline")
    return _import(file)


def _pipelines(module: ModuleType) -> dict[str, Pipeline[..., Any]]:
    return {
        one.function.__name__: one
        for one in vars(module).values()
        if isinstance(one, Pipeline) and one.function.__module__ == module.__name__
    }


def _workflows(module: ModuleType) -> dict[str, Any]:
    """Hera's workflows and templates by the first variable that holds each; hera is not imported for it."""
    hera = sys.modules.get("hera.workflows")
    if hera is None:
        return {}
    found: dict[int, tuple[str, Any]] = {}
    for variable, one in vars(module).items():
        if isinstance(one, hera.Workflow):
            found.setdefault(id(one), (variable, one))
    return dict(found.values())


def _is_template(workflow: Any) -> bool:
    hera = sys.modules["hera.workflows"]
    return isinstance(workflow, (hera.WorkflowTemplate, hera.ClusterWorkflowTemplate))


def _of_template(template: Any) -> Any:
    """A workflow that runs a template, as `argo submit --from` makes it."""
    hera = sys.modules["hera.workflows"]
    cluster = isinstance(template, hera.ClusterWorkflowTemplate)
    reference = hera.models.WorkflowTemplateRef(name=template.name, cluster_scope=cluster or None)
    return hera.Workflow(generate_name=f"{template.name}-", workflow_template_ref=reference)


def _import(file: Path) -> ModuleType:
    path = module_path(file)
    for name in _imported:
        sys.modules.pop(name, None)
    _imported.clear()
    top = path.module.split(".")[0]
    loaded_from = getattr(sys.modules.get(path.module), "__file__", None)
    taken = top in sys.modules and loaded_from != str(file.resolve())
    if "." in file.stem or taken or top in sys.stdlib_module_names:
        raise PipelineError(f"the name {file.name} hides the module {top}", fix="give the file another name")
    if str(path.root) in sys.path:
        sys.path.remove(str(path.root))
    sys.path.insert(0, str(path.root))
    importlib.invalidate_caches()
    before = set(sys.modules)
    try:
        return importlib.import_module(path.module)
    finally:
        for name in set(sys.modules) - before:
            stem = path.root.joinpath(*name.split("."))
            source = getattr(sys.modules[name], "__file__", None)
            if source in (f"{stem}.py", str(stem / "__init__.py")):
                _imported.add(name)
