"""Which template a step calls, and that template made ready: defaults, arguments and tags filled in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from periplus_local.argo.faults import invalid
from periplus_local.argo.scope import ABSENT, Scope, parameters_text

Template = dict[str, Any]

LEAVES = ("container", "script")
KINDS = ("container", "script", "dag", "steps", "suspend")
ARTIFACT_PLACE = ("s3", "raw", "from", "fromExpression")


class Library(Protocol):
    """Where the WorkflowTemplates are kept."""

    def spec_of(self, name: str, cluster: bool) -> dict[str, Any]:
        """The spec of the template of that name; raises Fault when there is none."""
        ...


@dataclass(frozen=True)
class Source:
    """A list of templates that can be called by name, and the scope that nodes name it by."""

    scope: str
    templates: Mapping[str, Template]

    def named(self, name: str) -> Template:
        """The template of that name; raises Fault when there is none."""
        if name not in self.templates:
            raise invalid(f"template {name} not found")
        return self.templates[name]


def source_of(scope: str, spec: Mapping[str, Any]) -> Source:
    """The templates of a spec."""
    return Source(scope, {item["name"]: item for item in spec.get("templates") or ()})


def kind_of(template: Mapping[str, Any]) -> str:
    """Which of the kinds a template is; raises Fault when it is none."""
    for kind in KINDS:
        if kind in template:
            return kind
    raise invalid(f"Template '{template.get('name', '')}' missing specification")


class Shelf:
    """The templates in reach of one workflow."""

    def __init__(self, local: Source, defaults: Template | None, library: Library) -> None:
        """`local` are the workflow's own, `defaults` its `templateDefaults`."""
        self.local = local
        self.defaults = defaults or {}
        self.library = library
        self._sources: dict[tuple[str, bool], Source] = {}

    def called(self, source: Source, holder: Mapping[str, Any]) -> tuple[Source, Template]:
        """The template that a step calls, and where the names within that template lead.

        Raises Fault when there is no such template.
        """
        if "inline" in holder:
            return source, self._defaulted(holder["inline"])
        reference = holder.get("templateRef")
        if reference:
            source = self._referred(reference["name"], bool(reference.get("clusterScope")))
            return source, self._defaulted(source.named(reference["template"]))
        return source, self._defaulted(source.named(holder.get("template", "")))

    def _referred(self, name: str, cluster: bool) -> Source:
        found = self._sources.get((name, cluster))
        if found is None:
            scope = f"{'cluster' if cluster else 'namespaced'}/{name}"
            found = source_of(scope, self.library.spec_of(name, cluster))
            self._sources[name, cluster] = found
        return found

    def _defaulted(self, template: Template) -> Template:
        if not self.defaults:
            return template
        kind = kind_of(template)
        usable = {k: v for k, v in self.defaults.items() if k == kind or k not in KINDS}
        return merged(usable, template)


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two maps as one, deeply; what is in `over` wins."""
    made = dict(under)
    for key, value in over.items():
        below = made.get(key)
        nested = isinstance(below, Mapping) and isinstance(value, Mapping)
        made[key] = merged(below, value) if nested and below is not None else value
    return made


def with_inputs(template: Template, arguments: Mapping[str, Any], scope: Scope) -> Template:
    """The template with its inputs set from the arguments, else from their defaults.

    Raises Fault when an input has neither.
    """
    given = {item["name"]: item for item in arguments.get("parameters") or ()}
    supplied = {item["name"]: item for item in arguments.get("artifacts") or ()}
    declared = template.get("inputs") or {}
    parameters = [_parameter(item, given) for item in declared.get("parameters") or ()]
    artifacts = [_artifact(item, supplied) for item in declared.get("artifacts") or ()]
    inputs: dict[str, Any] = {}
    if artifacts:
        inputs["artifacts"] = artifacts
    if parameters:
        inputs["parameters"] = parameters
    filled = scope.fill(inputs)
    if artifacts:
        own = Scope(scope)
        for parameter in filled.get("parameters") or ():
            own.put(parameter["value"], "inputs", "parameters", parameter["name"])
        filled["artifacts"] = own.fill(filled["artifacts"])
    for artifact in filled.get("artifacts", ()):
        if (artifact.get("s3") or {}).get("key") == "":
            del artifact["s3"]["key"]  # Argo leaves empty texts out; a gate that missed names no object
    return {**template, "inputs": filled}


def _parameter(declared: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    parameter = dict(declared)
    if "value" not in parameter and "default" in parameter:
        parameter["value"] = parameter["default"]
    argument = given.get(parameter["name"])
    if argument is not None and argument.get("value") == ABSENT:
        if "value" not in parameter:
            raise invalid(
                f"inputs.parameters.{parameter['name']}: argument references an absent optional "
                "(skipped/omitted node output with no default)"
            )
    elif argument is not None and "value" in argument:
        parameter["value"] = argument["value"]
        parameter.pop("valueFrom", None)
    if "value" not in parameter:
        raise invalid(f"inputs.parameters.{parameter['name']} was not supplied")
    return parameter


def _artifact(declared: Mapping[str, Any], supplied: Mapping[str, Any]) -> dict[str, Any]:
    argument = supplied.get(declared["name"])
    if argument is None:
        if not declared.get("optional") and not any(place in declared for place in ARTIFACT_PLACE):
            raise invalid(f"inputs.artifacts.{declared['name']} was not supplied")
        return dict(declared)
    kept = {key: declared[key] for key in ("path", "mode", "recurseMode") if key in declared}
    dropped = {"path", "mode", "recurseMode"}
    return {**{k: v for k, v in argument.items() if k not in dropped}, **kept}


def input_scope(template: Template, around: Scope) -> Scope:
    """The scope of a template whose inputs are set: `inputs.*` and the paths of its outputs."""
    scope = Scope(around)
    inputs = template.get("inputs") or {}
    parameters = inputs.get("parameters") or []
    for parameter in parameters:
        scope.put(parameter.get("value", ""), "inputs", "parameters", parameter["name"])
    scope.flat["inputs.parameters"] = parameters_text(parameters)
    for artifact in inputs.get("artifacts") or ():
        scope.put(artifact, "inputs", "artifacts", artifact["name"])
        if "path" in artifact:
            scope.flat[f"inputs.artifacts.{artifact['name']}.path"] = artifact["path"]
    outputs = template.get("outputs") or {}
    for artifact in outputs.get("artifacts") or ():
        if "path" in artifact:
            scope.put(scope.fill(artifact["path"]), "outputs", "artifacts", artifact["name"], "path")
    for parameter in outputs.get("parameters") or ():
        path = (parameter.get("valueFrom") or {}).get("path")
        if path:
            scope.put(scope.fill(path), "outputs", "parameters", parameter["name"], "path")
    return scope


def ready(template: Template, arguments: Mapping[str, Any], around: Scope) -> tuple[Template, Scope]:
    """The template with inputs and tags filled in, and the scope that it gives to what is within it.

    The bodies of DAGs and steps keep their tags: they are filled in when each of their steps is reached,
    as only then all that they name is known. Raises Fault when an argument is missing.
    """
    supplied = with_inputs(template, arguments, around)
    scope = input_scope(supplied, around)
    kept = {"inputs", "name", "dag", "steps", "outputs" if "dag" in template or "steps" in template else ""}
    filled = {key: value if key in kept else scope.fill(value) for key, value in supplied.items()}
    if "dag" in filled and filled["dag"].get("target"):
        filled["dag"] = {**filled["dag"], "target": scope.fill(filled["dag"]["target"])}
    return filled, scope
