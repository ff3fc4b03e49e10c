"""What people do to a workflow that is under way: answer, resume, suspend, stop, terminate."""

import json
from typing import Any

from periplus_local.argo import outputs, selector, suspend
from periplus_local.argo.faults import Fault, internal, invalid
from periplus_local.argo.nodes import Node
from periplus_local.argo.run import Run

PHASES = {"", "Succeeded", "Failed", "Error"}
NO_MATCH = "currently, set only targets suspend nodes: no suspend nodes matching nodeFieldSelector: "
COMPLETED = 'cannot shutdown a completed workflow: workflow: "{}", namespace: "{}"'


def set_node(run: Run, chosen: str, phase: str, message: str, values: Any) -> None:
    """Answer the open suspend nodes that a field selector picks; Fault when there are none."""
    if phase not in PHASES:
        raise invalid(f"{phase} is an invalid phase to set to")
    if not chosen:
        raise internal("'set' currently only targets suspend nodes, use a node field selector to target them")
    _answer(run, chosen, phase, message, _parsed(values))


def _parsed(values: Any) -> dict[str, str]:
    if not values:
        return {}
    try:
        parsed = json.loads(values) if isinstance(values, str) else values
    except ValueError as error:
        raise invalid(f"unable to parse output parameter set request: {error}") from error
    if not isinstance(parsed, dict) or not all(isinstance(value, str) for value in parsed.values()):
        raise invalid("unable to parse output parameter set request: it is not a map of texts")
    return parsed


def _open(run: Run) -> list[Node]:
    return [node for node in run.nodes if node["type"] == "Suspend" and node["phase"] == "Running"]


def _answer(run: Run, chosen: str, phase: str, message: str, values: dict[str, str]) -> None:
    matches = selector.nodes(chosen)
    answered = [node for node in _open(run) if matches(node)]
    if not answered or not (phase or message or values):
        raise internal(NO_MATCH + chosen)
    given = [(node, _outputs(node, values)) for node in answered]
    for node, parameters in given:
        if parameters is not None:
            node["outputs"] = {"parameters": parameters}
            outputs.export(run, node["outputs"])
        run.nodes.mark(node, phase or node["phase"], message or None)


def _outputs(node: Node, values: dict[str, str]) -> list[dict[str, Any]] | None:
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
        kept = {key: held for key, held in parameters[name].items() if key != "valueFrom"}
        parameters[name] = {**kept, "value": value}
    return list(parameters.values())


def resume(run: Run, chosen: str) -> None:
    """Let a suspended workflow go on, or only the open nodes that a field selector picks."""
    if chosen:
        _answer(run, chosen, "Succeeded", "", {})
        return
    waiting = _open(run)
    kept = [dict(node.get("outputs") or {}) for node in waiting]
    try:
        for node in waiting:
            suspend.use_defaults(node)
    except Fault:
        for node, given in zip(waiting, kept, strict=True):
            if given:
                node["outputs"] = given
        raise
    run.spec.pop("suspend", None)
    for node in waiting:
        run.nodes.mark(node, "Succeeded")
    run.note_head()
    run.stir()


def pause(run: Run | None) -> None:
    """Let a workflow start nothing more for now; Fault when it has ended."""
    if run is None or run.completed:
        raise invalid("cannot suspend completed workflows")
    run.spec["suspend"] = True
    run.note_head()


def shut(run: Run, strategy: str) -> None:
    """End a workflow: with "Stop" its exit handlers still run, with "Terminate" nothing does."""
    if run.completed:
        raise internal(COMPLETED.format(run.name, run.metadata["namespace"]))
    run.spec["shutdown"] = strategy
    run.note_head()
    run.stir()
    run.around.mutexes.abandon(f"{run.uid}/")
    reason = f"workflow shutdown with strategy:  {strategy}"
    run.background(run.end_jobs(reason, exit_parts=strategy == "Terminate"))


def stop_node(run: Run, chosen: str, message: str) -> None:
    """Fail the open suspend nodes that a field selector picks."""
    _answer(run, chosen, "Failed", message, {})
