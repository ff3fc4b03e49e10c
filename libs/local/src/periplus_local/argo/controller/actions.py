"""The actions on a running workflow: set, resume, suspend, stop, terminate."""

import json
from typing import Any

from periplus_local.argo.controller import outputs
from periplus_local.argo.controller.nodes import Node
from periplus_local.argo.controller.suspend import use_defaults
from periplus_local.argo.controller.workflow_run import WorkflowRun
from periplus_local.argo.errors import ArgoError, internal, invalid_argument
from periplus_local.argo.selectors import node_field_selector

SETTABLE_PHASES = {"", "Succeeded", "Failed", "Error"}
NO_MATCH = "currently, set only targets suspend nodes: no suspend nodes matching nodeFieldSelector: "
COMPLETED = 'cannot shutdown a completed workflow: workflow: "{}", namespace: "{}"'


def set_nodes(run: WorkflowRun, selector: str, phase: str, message: str, values: Any) -> None:
    """Set phase, message and outputs of the running suspend nodes that a field selector selects.

    `values` are output parameters by name, as an object or its JSON text. Raises ArgoError when no node matches.
    """
    if phase not in SETTABLE_PHASES:
        raise invalid_argument(f"{phase} is an invalid phase to set to")
    if not selector:
        raise internal("'set' currently only targets suspend nodes, use a node field selector to target them")
    _set_nodes(run, selector, phase, message, _parameter_values(values))


def _parameter_values(values: Any) -> dict[str, str]:
    if not values:
        return {}
    try:
        parsed = json.loads(values) if isinstance(values, str) else values
    except (ValueError, RecursionError) as error:
        raise invalid_argument(f"unable to parse output parameter set request: {error}") from error
    if not isinstance(parsed, dict) or not all(isinstance(value, str) for value in parsed.values()):
        raise invalid_argument("unable to parse output parameter set request: it is not a map of strings")
    return parsed


def _running_suspend_nodes(run: WorkflowRun) -> list[Node]:
    return [node for node in run.nodes if node["type"] == "Suspend" and node["phase"] == "Running"]


def _set_nodes(run: WorkflowRun, selector: str, phase: str, message: str, values: dict[str, str]) -> None:
    matches = node_field_selector(selector)
    selected = [node for node in _running_suspend_nodes(run) if matches(node)]
    if not selected or not (phase or message or values):
        raise internal(NO_MATCH + selector)
    # All outputs first: an error in one leaves every node as it is.
    with_outputs = [(node, _with_values(node, values)) for node in selected]
    for node, parameters in with_outputs:
        if parameters is not None:
            node["outputs"] = {"parameters": parameters}
            outputs.export_globals(run, node["outputs"])
        run.nodes.set_phase(node, phase or node["phase"], message or None)


def _with_values(node: Node, values: dict[str, str]) -> list[dict[str, Any]] | None:
    if not values:
        return None
    if "outputs" not in node:
        raise internal("cannot set output parameters because node is not expecting any raw parameters")
    parameters = {item["name"]: item for item in node["outputs"]["parameters"]}
    for name, value in values.items():
        if name not in parameters:
            raise internal(f"node is not expecting output parameter '{name}'")
        if "supplied" not in (parameters[name].get("valueFrom") or {}):
            raise internal(
                f"cannot set output parameter '{name}' because it does not use valueFrom.raw or it was "
                "already set"
            )
        fields = {key: held for key, held in parameters[name].items() if key != "valueFrom"}
        parameters[name] = {**fields, "value": value}
    return list(parameters.values())


def resume(run: WorkflowRun, selector: str) -> None:
    """Let a suspended workflow go on, or with a selector only the running suspend nodes that it selects."""
    if selector:
        _set_nodes(run, selector, "Succeeded", "", {})
        return
    waiting = _running_suspend_nodes(run)
    saved = [dict(node.get("outputs") or {}) for node in waiting]
    try:
        for node in waiting:
            use_defaults(node)
    except ArgoError:
        for node, node_outputs in zip(waiting, saved, strict=True):
            if node_outputs:
                node["outputs"] = node_outputs
        raise
    run.spec.pop("suspend", None)
    for node in waiting:
        run.nodes.set_phase(node, "Succeeded")
    run.fields_changed()
    run.wake_waiters()


def suspend(run: WorkflowRun | None) -> None:
    """Start no further step of a workflow until it is resumed; raises ArgoError when it has ended."""
    if run is None or run.completed:
        raise invalid_argument("cannot suspend completed workflows")
    run.spec["suspend"] = True
    run.fields_changed()


def shut_down(run: WorkflowRun, strategy: str) -> None:
    """End a workflow: with "Stop" its exit handlers still run, with "Terminate" they do not."""
    if run.completed:
        raise internal(COMPLETED.format(run.name, run.metadata["namespace"]))
    run.spec["shutdown"] = strategy
    run.fields_changed()
    run.wake_waiters()
    run.context.mutexes.cancel_waits(f"{run.uid}/")
    reason = f"workflow shutdown with strategy:  {strategy}"
    run.run_in_background(run.stop_jobs(reason, include_exit_handlers=strategy == "Terminate"))


def fail_nodes(run: WorkflowRun, selector: str, message: str) -> None:
    """Fail the running suspend nodes that a field selector selects."""
    _set_nodes(run, selector, "Failed", message, {})
