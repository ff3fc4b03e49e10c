"""A template with its inputs set and its tags filled in, and the scope for what is within it."""

from collections.abc import Mapping
from typing import Any

from periplus_local.argo.controller.scope import ABSENT, Scope, parameters_json
from periplus_local.argo.errors import invalid_argument
from periplus_local.argo.templates import ARTIFACT_SOURCES, Template

# Fields of an input artifact that are the template's own, whatever the argument has.
OWN_ARTIFACT_FIELDS = ("path", "mode", "recurseMode")


def fill_template(template: Template, arguments: Mapping[str, Any], parent: Scope) -> tuple[Template, Scope]:
    """The template with inputs and tags filled in, and the scope for what is within it.

    The bodies of DAGs and steps keep their tags: each step is filled in when it is reached, since only then all that
    it refers to is known. Raises ArgoError when an argument is missing.
    """
    with_arguments = with_inputs(template, arguments, parent)
    scope = input_scope(with_arguments, parent)
    is_invocator = "dag" in template or "steps" in template
    unfilled = {"inputs", "name", "dag", "steps", "outputs" if is_invocator else ""}
    filled = {key: value if key in unfilled else scope.fill(value) for key, value in with_arguments.items()}
    if "dag" in filled and filled["dag"].get("target"):
        filled["dag"] = {**filled["dag"], "target": scope.fill(filled["dag"]["target"])}
    return filled, scope


def with_inputs(template: Template, arguments: Mapping[str, Any], scope: Scope) -> Template:
    """The template with its inputs set from the arguments, else from their defaults.

    Raises ArgoError when an input has neither.
    """
    given_parameters = {item["name"]: item for item in arguments.get("parameters") or ()}
    given_artifacts = {item["name"]: item for item in arguments.get("artifacts") or ()}
    declared = template.get("inputs") or {}
    parameters = [_parameter(item, given_parameters) for item in declared.get("parameters") or ()]
    artifacts = [_artifact(item, given_artifacts) for item in declared.get("artifacts") or ()]
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
            del artifact["s3"]["key"]  # as in Argo, an empty key (a gate's on a miss) is the same as none
    return {**template, "inputs": filled}


def _parameter(declared: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    parameter = dict(declared)
    if "value" not in parameter and "default" in parameter:
        parameter["value"] = parameter["default"]
    argument = arguments.get(parameter["name"])
    if argument is not None and argument.get("value") == ABSENT:
        if "value" not in parameter:
            raise invalid_argument(
                f"inputs.parameters.{parameter['name']}: argument references an absent optional "
                "(skipped/omitted node output with no default)"
            )
    elif argument is not None and "value" in argument:
        parameter["value"] = argument["value"]
        parameter.pop("valueFrom", None)
    if "value" not in parameter:
        raise invalid_argument(f"inputs.parameters.{parameter['name']} was not supplied")
    return parameter


def _artifact(declared: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    argument = arguments.get(declared["name"])
    if argument is None:
        if not declared.get("optional") and not any(source in declared for source in ARTIFACT_SOURCES):
            raise invalid_argument(f"inputs.artifacts.{declared['name']} was not supplied")
        return dict(declared)
    own = {key: declared[key] for key in OWN_ARTIFACT_FIELDS if key in declared}
    return {**{k: v for k, v in argument.items() if k not in OWN_ARTIFACT_FIELDS}, **own}


def input_scope(template: Template, parent: Scope) -> Scope:
    """The scope of a template whose inputs are set: `inputs.*` and the paths of its outputs."""
    scope = Scope(parent)
    inputs = template.get("inputs") or {}
    parameters = inputs.get("parameters") or []
    for parameter in parameters:
        scope.put(parameter.get("value", ""), "inputs", "parameters", parameter["name"])
    scope.flat["inputs.parameters"] = parameters_json(parameters)
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
