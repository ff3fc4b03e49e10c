"""One step as one Argo container template."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from periplus.sdk import ports
from periplus.sdk.ports import Port

if TYPE_CHECKING:
    from periplus.sdk.closure import Closure
    from periplus.sdk.steps import Step

CODE_ARTIFACT = "periplus-code"
DOMAIN = "periplus.dev"
DEFAULT_IMAGE = f"python:{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Shape:
    """A step as it is called: `gathered` inputs take the loose results of a fan-out, and `mapped` gives some.

    Both are said in the template's environment, so each form of a step is a template of its own.
    """

    step: Step[Any, Any]
    gathered: frozenset[str]
    mapped: bool


@dataclass(frozen=True)
class Code:
    """What a step runs: `module:function`, its closure, and the key of the archive that holds it."""

    entry: str
    closure: Closure
    archive_key: str | None


def template(name: str, shape: Shape, code: Code, image: str | None) -> dict[str, Any]:
    """The container template of a step."""
    step = shape.step
    made: dict[str, Any] = {"name": name, "metadata": {"annotations": _annotations(step, code)}}
    if inputs := _inputs(shape, code):
        made["inputs"] = inputs
    if outputs := _outputs(shape):
        made["outputs"] = outputs
    made["container"] = {
        "image": step.policy.image or image or DEFAULT_IMAGE,
        "command": ["python", "-m", "periplus.sdk.runner"],
        "args": [code.entry],
        "env": _environment(shape, code),
    }
    if step.policy.retries:
        made["retryStrategy"] = {"limit": str(step.policy.retries)}
    return made


def _annotations(step: Step[Any, Any], code: Code) -> dict[str, str]:
    policy = step.policy
    ignored = [*policy.ignore_inputs, *([CODE_ARTIFACT] if code.archive_key else [])]
    said = {
        "code": json.dumps(code.closure.digests, sort_keys=True, separators=(",", ":")),
        "cache": policy.cache,
        "ttl": policy.ttl,
        "ignore-inputs": ",".join(ignored),
        "side-effects": "true" if policy.side_effects else None,
    }
    return {f"{DOMAIN}/{name}": value for name, value in said.items() if value}


def _inputs(shape: Shape, code: Code) -> dict[str, Any]:
    step = shape.step
    parameters = [{"name": port.name} for port in step.inputs if port.format is None]
    for parameter in parameters:
        if parameter["name"] in shape.gathered:
            # A fan-out over no items is skipped and has no results; this is what Argo puts in their place.
            parameter["default"] = "[]"
    artifacts: list[dict[str, Any]] = [
        {"name": port.name, "path": ports.INPUT_PATH + port.file}
        for port in step.inputs
        if port.format is not None
    ]
    if code.archive_key:
        artifacts.append({"name": CODE_ARTIFACT, "path": ports.CODE_PATH, "s3": {"key": code.archive_key}})
    return _filled(parameters=parameters, artifacts=artifacts)


def _outputs(shape: Shape) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = []
    artifacts: list[dict[str, Any]] = []
    for port in shape.step.outputs:
        path = ports.OUTPUT_PATH + port.file
        if port.format is not None:
            artifacts.append({"name": port.name, "path": path})
            continue
        parameters.append({"name": port.name, "valueFrom": {"path": path}})
        if port.items and not shape.mapped:
            parameters.append({"name": port.items, "valueFrom": {"path": _items_path(port)}})
    return _filled(parameters=parameters, artifacts=artifacts)


def _items_path(port: Port) -> str:
    return f"{ports.OUTPUT_PATH}{port.items}.json"


def _environment(shape: Shape, code: Code) -> list[dict[str, str]]:
    """Values reach the step here and are never pasted into code: Argo quotes what it puts into `env`."""
    found: list[tuple[str, str]] = []
    if code.archive_key:
        found.append((ports.CODE_VARIABLE, ports.CODE_PATH))
    for port in shape.step.inputs:
        if port.format is not None:
            found.append((ports.INPUT_VARIABLE + port.name, ports.INPUT_PATH + port.file))
        else:
            gathered = port.name in shape.gathered
            variable = ports.GATHERED_VARIABLE if gathered else ports.PARAMETER_VARIABLE
            found.append((variable + port.name, f"{{{{inputs.parameters.{port.name}}}}}"))
    for port in shape.step.outputs:
        apart = shape.mapped and port.format is None
        variable = ports.APART_VARIABLE if apart else ports.OUTPUT_VARIABLE
        found.append((variable + port.name, ports.OUTPUT_PATH + port.file))
        if port.items and not shape.mapped:
            found.append((ports.ITEMS_VARIABLE + port.name, _items_path(port)))
    return [{"name": name, "value": value} for name, value in found]


def _filled(**lists: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: held for name, held in lists.items() if held}
