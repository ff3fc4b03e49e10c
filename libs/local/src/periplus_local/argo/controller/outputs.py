"""Outputs of DAG and steps templates, resolved from their steps; and the global outputs of a workflow."""

from collections.abc import Iterator
from typing import Any

from periplus_common.object_key import malformed_reason
from periplus_local.argo.controller import workflow_variables
from periplus_local.argo.controller.scope import Scope
from periplus_local.argo.controller.workflow_run import WorkflowRun
from periplus_local.argo.errors import ArgoError, invalid_argument
from periplus_local.argo.templates import Template
from periplus_manifest import gotext

Artifact = dict[str, Any]


def resolve_outputs(template: Template, scope: Scope) -> dict[str, Any] | None:
    """The outputs of a DAG or steps template; None when it declares none.

    Raises ArgoError when one cannot be resolved and has no default.
    """
    declared = template.get("outputs") or {}
    if not declared:
        return None
    outputs: dict[str, Any] = {}
    resolved = (_output_artifact(item, scope) for item in declared.get("artifacts") or ())
    artifacts = [artifact for artifact in resolved if artifact]
    if artifacts:
        outputs["artifacts"] = artifacts
    if declared.get("parameters"):
        outputs["parameters"] = [_parameter(item, scope) for item in declared["parameters"]]
    return outputs


def _parameter(item: dict[str, Any], scope: Scope) -> dict[str, Any]:
    source = item.get("valueFrom")
    if source is None:
        raise invalid_argument("output parameters must have a valueFrom specified")
    fields = {key: value for key, value in item.items() if key != "valueFrom"}
    try:
        value = _value(item["name"], source, scope)
    except ArgoError:
        if "default" not in source:
            raise
        value = source["default"]
    return {**fields, "value": value}


def _value(name: str, source: dict[str, Any], scope: Scope) -> str:
    if source.get("expression"):
        value = scope.evaluate_output(source["expression"])
        if value is None:
            raise invalid_argument(f'failed to evaluate expression "{source["expression"]}"')
        return value if isinstance(value, str) else gotext.display(value)
    _, value = scope.resolve(source.get("parameter", ""))
    if value is None:
        raise invalid_argument(
            f'output parameter "{name}": "{source.get("parameter")}" is an absent optional '
            "(skipped/omitted node output with no default)"
        )
    return value if isinstance(value, str) else gotext.display(value)


def _output_artifact(item: Artifact, scope: Scope) -> Artifact | None:
    try:
        artifact = resolve_artifact(item, scope)
        if artifact and item.get("subPath") and (reason := malformed_reason(artifact["s3"]["key"])):
            raise invalid_argument(f"subPath makes the key {artifact['s3']['key'][:200]!r}, which {reason}")
        return artifact
    except ArgoError as error:
        if item.get("optional") and "Unable to resolve" in error.message:
            return None
        raise invalid_argument(f"unable to resolve outputs from scope: {error.message}") from error


def resolve_artifact(item: Artifact, scope: Scope) -> Artifact | None:
    """The artifact that `from` or `fromExpression` refers to, under the item's own name.

    None when the item has neither; raises ArgoError when it refers to nothing or to no artifact.
    """
    if item.get("fromExpression"):
        found = scope.evaluate_output(item["fromExpression"])
    elif item.get("from"):
        _, found = scope.resolve(item["from"])
    else:
        return None
    # As in Argo: a reference chooses an artifact, and does not make one from a key of its own.
    if found not in list(_artifacts(scope.env())):
        reference = item.get("from") or item["fromExpression"]
        raise invalid_argument(f"Unable to resolve: {reference} is not an artifact")
    # As in Argo, a globalName of the item is ignored: only the step that made the artifact can set one.
    artifact = {**found, "name": item["name"]}
    if item.get("subPath"):
        key = f"{artifact['s3']['key'].rstrip('/')}/{scope.fill(item['subPath'])}"
        artifact["s3"] = {**artifact["s3"], "key": key}
    return artifact


def _artifacts(env: dict[str, Any]) -> Iterator[Artifact]:
    """The artifacts that can be referred to."""
    yield from (env.get("inputs", {}).get("artifacts") or {}).values()
    yield from (env.get("workflow", {}).get("outputs", {}).get("artifacts") or {}).values()
    nodes = [*env.get("tasks", {}).values(), *env.get("steps", {}).values()]
    for node in nodes:
        if isinstance(node, dict):  # others are names, as that of the step itself
            yield from ((node.get("outputs") or {}).get("artifacts") or {}).values()


def resolve_artifacts(arguments: dict[str, Any], scope: Scope) -> dict[str, Any]:
    """Arguments with each artifact that refers to another replaced by that one.

    An optional artifact that cannot be resolved is left out.
    """
    listed = arguments.get("artifacts")
    if not listed:
        return arguments
    resolved = []
    for item in listed:
        try:
            resolved.append(resolve_artifact(item, scope) or item)
        except ArgoError:
            if not item.get("optional"):
                raise
    return {**arguments, "artifacts": resolved}


def export_globals(run: WorkflowRun, node_outputs: dict[str, Any] | None) -> None:
    """Add the outputs of a node that have a `globalName` to those of the workflow."""
    for kind in ("parameters", "artifacts"):
        for item in (node_outputs or {}).get(kind) or ():
            name = item.get("globalName")
            if not name or (kind == "parameters" and "value" not in item):
                continue
            keys = ("value",) if kind == "parameters" else set(item) - {"name", "globalName", "path"}
            exported = {"name": name, **{key: item[key] for key in sorted(keys)}}
            listed = run.status.setdefault("outputs", {}).setdefault(kind, [])
            listed[:] = [other for other in listed if other["name"] != name] + [exported]
            workflow_variables.put_outputs(run.globals, run.status["outputs"])
            run.fields_changed()
