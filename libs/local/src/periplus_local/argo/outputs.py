"""What DAGs and steps give out from what is within them, and what a workflow gives out as a whole."""

from typing import Any

from periplus_local.argo import variables
from periplus_local.argo.faults import Fault, invalid
from periplus_local.argo.run import Run
from periplus_local.argo.scope import Scope
from periplus_local.argo.templates import Template
from periplus_manifest import gotext

Artifact = dict[str, Any]


def gathered(template: Template, scope: Scope) -> dict[str, Any] | None:
    """The outputs of a DAG or steps template; None when it declares none.

    Raises Fault when one cannot be had and has no default.
    """
    declared = template.get("outputs") or {}
    if not declared:
        return None
    outputs: dict[str, Any] = {}
    artifacts = [made for item in declared.get("artifacts") or () if (made := _output(item, scope))]
    if artifacts:
        outputs["artifacts"] = artifacts
    if declared.get("parameters"):
        outputs["parameters"] = [_parameter(item, scope) for item in declared["parameters"]]
    return outputs


def _parameter(item: dict[str, Any], scope: Scope) -> dict[str, Any]:
    origin = item.get("valueFrom")
    if origin is None:
        raise invalid("output parameters must have a valueFrom specified")
    kept = {key: value for key, value in item.items() if key != "valueFrom"}
    try:
        value = _value(item["name"], origin, scope)
    except Fault:
        if "default" not in origin:
            raise
        value = origin["default"]
    return {**kept, "value": value}


def _value(name: str, origin: dict[str, Any], scope: Scope) -> str:
    if origin.get("expression"):
        value = scope.evaluate_output(origin["expression"])
        if value is None:
            raise invalid(f'failed to evaluate expression "{origin["expression"]}"')
        return value if isinstance(value, str) else gotext.display(value)
    _, value = scope.resolve(origin.get("parameter", ""))
    if value is None:
        raise invalid(
            f'output parameter "{name}": "{origin.get("parameter")}" is an absent optional '
            "(skipped/omitted node output with no default)"
        )
    return value if isinstance(value, str) else gotext.display(value)


def _output(item: Artifact, scope: Scope) -> Artifact | None:
    try:
        return artifact(item, scope)
    except Fault as fault:
        if item.get("optional") and "Unable to resolve" in fault.message:
            return None
        raise invalid(f"unable to resolve outputs from scope: {fault.message}") from fault


def artifact(item: Artifact, scope: Scope) -> Artifact | None:
    """The artifact that `from` or `fromExpression` names, under the item's own name.

    None when the item names no other; raises Fault when what it names is not there or no artifact.
    """
    if item.get("fromExpression"):
        found = scope.evaluate_output(item["fromExpression"])
    elif item.get("from"):
        _, found = scope.resolve(item["from"])
    else:
        return None
    if not isinstance(found, dict):
        raise invalid(f"Unable to resolve: {item.get('from') or item['fromExpression']} is not an artifact")
    # A globalName of its own has no effect on it: only the step that makes an artifact can say one.
    made = {**found, "name": item["name"]}
    if item.get("subPath"):
        made["s3"] = {**made["s3"], "key": f"{made['s3']['key'].rstrip('/')}/{scope.fill(item['subPath'])}"}
    return made


def arguments(given: dict[str, Any], scope: Scope) -> dict[str, Any]:
    """Arguments with each artifact that names another replaced by that one.

    An optional artifact that is not there is left out.
    """
    listed = given.get("artifacts")
    if not listed:
        return given
    found = []
    for item in listed:
        try:
            found.append(artifact(item, scope) or item)
        except Fault:
            if not item.get("optional"):
                raise
    return {**given, "artifacts": found}


def export(run: Run, given: dict[str, Any] | None) -> None:
    """Add the outputs that have a `globalName` to those of the workflow."""
    for kind in ("parameters", "artifacts"):
        for item in (given or {}).get(kind) or ():
            name = item.get("globalName")
            if not name or (kind == "parameters" and "value" not in item):
                continue
            kept = ("value",) if kind == "parameters" else set(item) - {"name", "globalName", "path"}
            made = {"name": name, **{key: item[key] for key in sorted(kept)}}
            listed = run.status.setdefault("outputs", {}).setdefault(kind, [])
            listed[:] = [other for other in listed if other["name"] != name] + [made]
            variables.put_outputs(run.globals, run.status["outputs"])
            run.note_head()
