"""Workflows that Kubeflow Pipelines (v2) compiled: their tasks, components, pipelines and runs by their own names.

There, a task is a driver pod `<task>-driver` and a DAG `<task>` with one pod `executor`; the driver's inputs hold the task
and its component as JSON.
"""

import json
from typing import Any

from periplus_dispatcher.domain import Json

COMPONENT = "component"
"""The key that `with_task_names` adds to a node: the name of its task's component."""

_V2_LABEL = "pipelines.kubeflow.org/v2_component"
_RUN_NAMES = ("pipelines.kubeflow.org/run_name", "pipelines.kubeflow.org/run_display_name")
_EXECUTOR, _DRIVER = "executor", "-driver"
_IMPLEMENTATION = "system-container-impl"
_MAX_CHARACTERS = 256


def is_compiled(spec: Json) -> bool:
    """Whether Kubeflow Pipelines compiled a Workflow."""
    return _V2_LABEL in _object(_object(spec.get("podMetadata")).get("labels"))


def pipeline(spec: Json) -> str:
    """The name of the pipeline, which the drivers are started with; empty if there is none."""
    return _driver_argument(spec, "--pipeline_name")


def run_name(metadata: Json, spec: Json) -> str:
    """The name that a person gave the run; empty if there is none."""
    annotations = metadata.get("annotations") or {}
    names = [annotations.get(name, "") for name in _RUN_NAMES]
    return next(filter(None, (*names, _driver_argument(spec, "--run_display_name"))), "")[:_MAX_CHARACTERS]


def with_task_names(nodes: dict[str, Json]) -> dict[str, Json]:
    """The nodes, where the pod of a task has the place and the name of its task, and its component's name."""
    by_place = {(node.get("boundaryID"), node["displayName"]): node for node in nodes.values()}
    found: dict[str, Json] = {}
    for node_id, node in nodes.items():
        task = nodes.get(node.get("boundaryID", ""))
        if task is None or node["displayName"] != _EXECUTOR or node.get("templateName") != _IMPLEMENTATION:
            found[node_id] = node
            continue
        driver = by_place.get((task.get("boundaryID"), task["displayName"] + _DRIVER))
        named = {"displayName": task["displayName"], "boundaryID": task.get("boundaryID", "")}
        found[node_id] = node | named | ({COMPONENT: component} if (component := _component(driver)) else {})
    return found


def _component(driver: Json | None) -> str:
    """The name of the component of a driver's task; empty if it can not be read."""
    inputs = _object(driver.get("inputs")) if driver else {}
    task = next((p.get("value") for p in inputs.get("parameters") or () if p["name"] == "task"), None)
    try:
        read = json.loads(task or "{}")
    except (ValueError, RecursionError):
        return ""
    name = _object(_object(read).get("componentRef")).get("name")
    return name[:_MAX_CHARACTERS] if isinstance(name, str) and "\0" not in name else ""


def _driver_argument(spec: Json, flag: str) -> str:
    """The argument after a flag of the first template that has it, unless it is a tag."""
    for template in spec.get("templates") or ():
        arguments = _object(_object(template).get("container")).get("args")
        if isinstance(arguments, list) and flag in arguments[:-1]:
            value = arguments[arguments.index(flag) + 1]
            is_name = isinstance(value, str) and "{{" not in value and "\0" not in value
            return value[:_MAX_CHARACTERS] if is_name else ""
    return ""


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}
