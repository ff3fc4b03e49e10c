"""One template: its type, its inputs, and fields that only some types may have."""

from __future__ import annotations

import re
from typing import Any

from periplus_manifest.errors import ManifestError

from . import argument, executable, fields, invocator, naming, output, reference
from .manifest import EXECUTABLE_TYPES, POD_TYPES, TYPES, Fields, Manifest, items
from .reference import Scope

_POLICIES = ("Always", "OnFailure", "OnError", "OnTransientError")
_RETRY_VARIABLES = (
    "retries",
    "lastRetry.exitCode",
    "lastRetry.status",
    "lastRetry.duration",
    "lastRetry.message",
)


def check(manifest: Manifest, template: Fields, path: str, outer: Scope) -> None:
    """Check a template on its own; the arguments of its callers are checked with the callers."""
    kind = check_type(template, path)
    fields.check_template_resources(template, kind, path)
    _check_retry(template.get("retryStrategy"), f"{path}.retryStrategy")
    scope = Scope(outer)
    _inputs(template, kind, path, scope)
    if kind in POD_TYPES:
        scope.add("pod.name")
    scope.add(*_RETRY_VARIABLES)
    _check_time_limits(template, kind, path)
    for index, container in enumerate(items(template, "initContainers")):
        if not container.get("name"):
            raise ManifestError(f"{path}.initContainers[{index}].name", "is required")
    if kind == "steps":
        invocator.check_steps(manifest, template, path, scope)
    elif kind == "dag":
        invocator.check_dag(manifest, template, path, scope)
    else:
        executable.check(manifest, template, kind, path, scope)
    output.check(template, kind, path, scope)
    fields.check_metrics(template, path)


def check_type(template: Fields, path: str) -> str:
    """Return the type of a template. Raises ManifestError for none or several."""
    present = [each for each in TYPES if template.get(each) is not None]
    if len(present) == 1:
        return present[0]
    what = (
        f"multiple template types specified ({', '.join(present)})"
        if present
        else "template type unspecified"
    )
    raise ManifestError(path, f"{what}; choose one of: {', '.join(TYPES)}")


def _inputs(template: Fields, kind: str, path: str, scope: Scope) -> None:
    parameters, artifacts = items(template, "inputs", "parameters"), items(template, "inputs", "artifacts")
    naming.check_parameters(parameters, f"{path}.inputs.parameters")
    naming.check_parameters(artifacts, f"{path}.inputs.artifacts")
    scope.add(
        *reference.names("inputs.parameters", parameters), *reference.names("inputs.artifacts", artifacts)
    )
    scope.add("inputs.parameters")
    for index, artifact in enumerate(artifacts):
        artifact_path = f"{path}.inputs.artifacts[{index}]"
        if kind in EXECUTABLE_TYPES:
            fields.check_artifact_path(artifact, artifact_path)
            scope.add(f"inputs.artifacts.{artifact['name']}.path")
        elif artifact.get("path"):
            raise ManifestError(f"{artifact_path}.path", "is only valid in container and script templates")
        if artifact.get("from"):
            raise ManifestError(f"{artifact_path}.from", "is not valid in inputs")
        if artifact.get("git") is not None and not artifact["git"].get("repo"):
            raise ManifestError(f"{artifact_path}.git.repo", "is required")
    for index, parameter in enumerate(parameters):
        if parameter.get("enum") == []:
            raise ManifestError(
                f"{path}.inputs.parameters[{index}].enum", "should contain at least one value"
            )


def _check_time_limits(template: Fields, kind: str, path: str) -> None:
    if template.get("timeout"):
        if kind not in EXECUTABLE_TYPES:
            raise ManifestError(f"{path}.timeout", f"is not supported by {kind} templates")
        if re.fullmatch(r"[-+]?\d+", template["timeout"]):
            raise ManifestError(
                f"{path}.timeout", f"{template['timeout']!r} has no unit; write {template['timeout']}s"
            )
    deadline = template.get("activeDeadlineSeconds")
    if deadline is not None:
        if kind in ("steps", "dag"):
            raise ManifestError(f"{path}.activeDeadlineSeconds", "is only valid for leaf templates")
        if not _is_positive(deadline):
            raise ManifestError(f"{path}.activeDeadlineSeconds", "must be a positive whole number or a tag")
    if template.get("parallelism") is not None and kind not in ("steps", "dag"):
        raise ManifestError(f"{path}.parallelism", "is only valid for steps and dag templates")


def _is_positive(deadline: Any) -> bool:
    if isinstance(deadline, str):
        return "{{" in deadline or re.fullmatch(r"\+?0*[1-9]\d*", deadline) is not None
    return bool(deadline > 0)


def _check_retry(strategy: Any, path: str) -> None:
    if not strategy:
        return
    policy = strategy.get("retryPolicy")
    if policy and policy not in _POLICIES:
        raise ManifestError(
            f"{path}.retryPolicy", f"{policy} is not a valid RetryPolicy; there are {', '.join(_POLICIES)}"
        )
    if strategy.get("expression"):
        reference.check_expression(strategy["expression"], f"{path}.expression", Scope())


def check_entrypoint(manifest: Manifest, name: str, path: str) -> None:
    """Check the template of an entrypoint or exit handler: it exists and gets its inputs."""
    template = manifest.named(name, path)
    if not manifest.is_template:
        artifacts = items(manifest.spec, "arguments", "artifacts")
        argument.check_inputs(template, manifest.arguments, artifacts, f"{manifest.path}.arguments")
