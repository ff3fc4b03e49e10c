"""One step as one Argo container template."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from periplus.sdk.compiler.travelling_runner import FOLDER
from periplus.sdk.pipelines import ports
from periplus.sdk.pipelines.definition import StepDefinition
from periplus.sdk.pipelines.ports import Port

if TYPE_CHECKING:
    from periplus.sdk.compiler.closure import Closure
    from periplus.sdk.compiler.requirements import Requirements

CODE_ARTIFACT = "periplus-code"
WORK_VOLUME = "periplus-work"
DOMAIN = "periplus.dev"
_DISCOVERED_PATH = f"{ports.OUTPUT_PATH}{ports.DISCOVERED}.json"
DEFAULT_IMAGE = f"python:{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class TemplateVariant:
    """One of the templates of a step: its environment says which inputs are gathered from a fan-out (`gathered`) and
    whether the step is an item of one (`is_item`), so calls that differ in these need templates of their own.
    """

    step: StepDefinition
    gathered: frozenset[str]
    is_item: bool


@dataclass(frozen=True)
class StepCode:
    """What a step runs: `module:function`, its closure, the key of the archive that holds it, and what it installs."""

    entry: str
    closure: Closure
    archive_key: str
    requirements: Requirements | None


def container_template(
    name: str, variant: TemplateVariant, code: StepCode, image: str | None
) -> dict[str, Any]:
    """The container template of a step."""
    step = variant.step
    template: dict[str, Any] = {"name": name, "metadata": {"annotations": _annotations(step, code)}}
    template["inputs"] = _inputs(variant, code)
    template["outputs"] = _outputs(variant)
    template["container"] = {
        "image": step.policy.image or image or DEFAULT_IMAGE,
        # Debian's images have no `python`, and all have `python3`.
        "command": ["python3", f"{ports.CODE_PATH}/{FOLDER}"],
        "args": [code.entry],
        "env": _environment(variant, code),
        "volumeMounts": [{"name": WORK_VOLUME, "mountPath": ports.WORK_PATH}],
    }
    template["volumes"] = [{"name": WORK_VOLUME, "emptyDir": {}}]
    if step.policy.retries:
        template["retryStrategy"] = {"limit": str(step.policy.retries)}
    return template


def _annotations(step: StepDefinition, code: StepCode) -> dict[str, str]:
    policy = step.policy
    # The annotation `code` has the digests of what the step can reach, and PROTOCOL stands for the runner.
    ignored = [*policy.ignore_inputs, CODE_ARTIFACT]
    annotations = {
        "code": json.dumps(code.closure.digests, sort_keys=True, separators=(",", ":")),
        "cache": policy.cache,
        "ttl": policy.ttl,
        "ignore-inputs": ",".join(ignored),
        "side-effects": "true" if policy.side_effects else None,
        "stop-on-divergence": "true" if policy.stop_on_divergence else None,
    }
    return {f"{DOMAIN}/{name}": value for name, value in annotations.items() if value}


def _inputs(variant: TemplateVariant, code: StepCode) -> dict[str, Any]:
    step = variant.step
    parameters = [{"name": port.name} for port in step.inputs if port.format is None]
    for parameter in parameters:
        if parameter["name"] in variant.gathered:
            # Argo skips a fan-out over no items, which then has no results; the default is used in their place.
            parameter["default"] = "[]"
    artifacts: list[dict[str, Any]] = [
        {"name": port.name, "path": ports.INPUT_PATH + port.file}
        for port in step.inputs
        if port.format is not None
    ]
    artifacts.append({"name": CODE_ARTIFACT, "path": ports.CODE_PATH, "s3": {"key": code.archive_key}})
    return _without_empty(parameters=parameters, artifacts=artifacts)


def _outputs(variant: TemplateVariant) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = []
    artifacts: list[dict[str, Any]] = []
    for port in variant.step.outputs:
        path = ports.OUTPUT_PATH + port.file
        if port.format is not None:
            artifacts.append({"name": port.name, "path": path})
            continue
        parameters.append({"name": port.name, "valueFrom": {"path": path}})
        if port.items and not variant.is_item:
            parameters.append({"name": port.items, "valueFrom": {"path": _items_path(port)}})
    parameters.append({"name": ports.DISCOVERED, "valueFrom": {"path": _DISCOVERED_PATH, "default": ""}})
    return _without_empty(parameters=parameters, artifacts=artifacts)


def _items_path(port: Port) -> str:
    return f"{ports.OUTPUT_PATH}{port.items}.json"


def _environment(variant: TemplateVariant, code: StepCode) -> list[dict[str, str]]:
    """Parameters reach the step as environment variables and never as code: Argo quotes what it puts into `env`."""
    variables = [(ports.PROTOCOL_VARIABLE, ports.PROTOCOL), (ports.CODE_VARIABLE, ports.CODE_PATH)]
    variables.append(("TMPDIR", ports.WORK_PATH))
    if code.requirements:
        variables.append((ports.REQUIREMENTS_VARIABLE, code.requirements.digest))
    for port in variant.step.inputs:
        if port.format is not None:
            variables.append((ports.INPUT_VARIABLE + port.name, ports.INPUT_PATH + port.file))
        else:
            gathered = port.name in variant.gathered
            variable = ports.GATHERED_VARIABLE if gathered else ports.PARAMETER_VARIABLE
            variables.append((variable + port.name, f"{{{{inputs.parameters.{port.name}}}}}"))
    for port in variant.step.outputs:
        is_result = variant.is_item and port.format is None
        variable = ports.FAN_OUT_VARIABLE if is_result else ports.OUTPUT_VARIABLE
        variables.append((variable + port.name, ports.OUTPUT_PATH + port.file))
        if port.items and not variant.is_item:
            variables.append((ports.ITEMS_VARIABLE + port.name, _items_path(port)))
    variables.append((ports.DISCOVERED_VARIABLE, _DISCOVERED_PATH))
    return [{"name": name, "value": value} for name, value in variables]


def _without_empty(**lists: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: entries for name, entries in lists.items() if entries}
