"""A manifest while it is checked: its spec, its templates by name, and the variables of every template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from periplus_manifest import tags
from periplus_manifest.errors import ManifestError
from periplus_manifest.gotext import parameter_text

from . import naming
from .reference import Scope

TYPES = (
    "container",
    "containerSet",
    "steps",
    "dag",
    "script",
    "resource",
    "data",
    "suspend",
    "http",
    "plugin",
)
POD_TYPES = frozenset(("container", "containerSet", "script", "resource", "data"))
EXECUTABLE_TYPES = POD_TYPES | {"http", "plugin"}

Fields = dict[str, Any]


def items(holder: Any, *keys: str) -> list[Any]:
    """Return the list under nested keys; an empty one where a key is missing."""
    for key in keys:
        holder = (holder or {}).get(key)
    return holder or []


def template_type(template: Fields) -> str | None:
    """Return the field that determines a template's type; None where it has none."""
    return next((each for each in TYPES if template.get(each) is not None), None)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The parts of a manifest that its checks need."""

    spec: Fields
    path: str
    metadata: Fields
    is_template: bool
    run_parameters: Mapping[str, str]
    templates: Mapping[str, Fields]

    @property
    def arguments(self) -> list[Fields]:
        """The parameters of the workflow, with the values of this run."""
        declared = items(self.spec, "arguments", "parameters")
        names = {parameter.get("name") for parameter in declared}
        filled = [
            {**parameter, "value": self.run_parameters[parameter["name"]], "valueFrom": None}
            if parameter.get("name") in self.run_parameters
            else parameter
            for parameter in declared
        ]
        return filled + [
            {"name": name, "value": text} for name, text in self.run_parameters.items() if name not in names
        ]

    def named(self, name: str, path: str) -> Fields:
        """Return a template by its name, in which tags of the workflow's parameters are replaced."""
        if naming.is_tagged(name):
            name = tags.substitute(name, self.parameter, strict=False)
        if name not in self.templates:
            raise ManifestError(path, f"template name '{name[:140]}' undefined")
        return self.templates[name]

    def parameter(self, reference: str) -> str | None:
        """Return the value of a parameter of the workflow by its reference; None where it is not known."""
        for parameter in self.arguments:
            if (
                reference == f"workflow.parameters.{parameter.get('name')}"
                and parameter.get("value") is not None
            ):
                return parameter_text(parameter["value"])
        return None

    def bodies(self) -> Iterator[tuple[Fields, str]]:
        """Yield all templates, inline ones too, with their paths."""
        for index, template in enumerate(items(self.spec, "templates")):
            yield from _bodies(template, f"{self.path}.templates[{index}]")

    def calls(self) -> Iterator[Fields]:
        """Yield all steps and tasks."""
        for template, _ in self.bodies():
            for call, _ in calls(template, ""):
                yield call

    def globals(self) -> Scope:
        """Return the variables that every template may refer to."""
        scope = Scope()
        scope.add("workflow.name", "workflow.namespace", "workflow.uid", "workflow.status")
        scope.add("workflow.mainEntrypoint", "workflow.serviceAccountName")
        for field, maps in (("labels", ("labels", "labelsFrom")), ("annotations", ("annotations",))):
            scope.add(f"workflow.{field}", f"workflow.{field}.json")
            sources = [
                self.metadata.get(field),
                *((self.spec.get("workflowMetadata") or {}).get(each) for each in maps),
            ]
            scope.add(*(f"workflow.{field}.{key}" for source in sources for key in source or ()))
        self._parameters(scope)
        if self.spec.get("priority") is not None:
            scope.add("workflow.priority")
        if self.spec.get("onExit") or self.spec.get("hooks"):
            scope.add("workflow.failures")
        self._outputs(scope)
        return scope

    def _parameters(self, scope: Scope) -> None:
        parameters = self.arguments
        if parameters:
            scope.add("workflow.parameters", "workflow.parameters.json")
        scope.add(*(f"workflow.parameters.{parameter.get('name')}" for parameter in parameters))
        if self.is_template or self.spec.get("workflowTemplateRef") is not None:
            scope.add("workflow.parameters")
            scope.add_prefix("workflow.parameters.")

    def _outputs(self, scope: Scope) -> None:
        """Add the outputs that a globalName makes outputs of the workflow."""
        for template, _ in self.bodies():
            for field in ("parameters", "artifacts"):
                for output in items(template, "outputs", field):
                    name = output.get("globalName")
                    if name and naming.is_tagged(name):
                        scope.add_prefix(f"workflow.outputs.{field}.")
                    elif name:
                        scope.add(f"workflow.outputs.{field}.{name}")
        if any(call.get("templateRef") for call in self.calls()):
            scope.add_prefix("workflow.outputs.")


def _bodies(template: Fields, path: str) -> Iterator[tuple[Fields, str]]:
    yield template, path
    for call, call_path in calls(template, path):
        if call.get("inline") is not None:
            yield from _bodies(call["inline"], f"{call_path}.inline")


def calls(template: Fields, path: str) -> Iterator[tuple[Fields, str]]:
    """Yield the steps or tasks of one template, with their paths."""
    for outer, group in enumerate(template.get("steps") or ()):
        for inner, step in enumerate(group):
            yield step, f"{path}.steps[{outer}][{inner}]"
    for index, task in enumerate(items(template, "dag", "tasks")):
        yield task, f"{path}.dag.tasks[{index}]"
