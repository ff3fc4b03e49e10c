"""Many workflows on one Argo, some at a time, each to its end or to a time limit."""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from periplus_local.argo.testing import Client, Refusal, has_ended, nodes_of

from .manifest_files import Manifest
from .outcome import Outcome, outcome_of_end, outcome_of_refusal
from .scenario import TEMPLATE_PATHS

MAX_RUNNING = 12
POLL_SECONDS = 0.2
# A step that waits for a person is answered after this time, and again if that was not enough.
ANSWER_AFTER_SECONDS = 3.0


@dataclass
class Running:
    """A running workflow; times are those of the monotonic clock."""

    manifest: Manifest
    name: str
    started_at: float
    answered_at: float


def run_manifests(client: Client, manifests: list[Manifest], max_seconds: float) -> Iterator[Outcome]:
    """Run what can be run, and yield each outcome as soon as it is known."""
    yield from _create_templates(client, [each for each in manifests if each.kind in TEMPLATE_PATHS])
    waiting = [each for each in reversed(manifests) if each.kind not in TEMPLATE_PATHS]
    running: list[Running] = []
    while waiting or running:
        while waiting and len(running) < MAX_RUNNING:
            started = _start(client, waiting.pop())
            if isinstance(started, Outcome):
                yield started
            else:
                running.append(started)
        for each in list(running):
            outcome = _check(client, each, max_seconds)
            if outcome is not None:
                running.remove(each)
                yield outcome
        time.sleep(POLL_SECONDS)


def _create_templates(client: Client, templates: list[Manifest]) -> Iterator[Outcome]:
    """Create the templates, each after those that it refers to; yields the outcomes of the refused ones."""
    remaining, errors = templates, dict[str, str]()
    while remaining:
        refused = []
        for template in remaining:
            path = TEMPLATE_PATHS[template.kind].format(client.namespace)
            try:
                client.call("POST", path, {"template": _without_namespace(template.body)})
            except Refusal as refusal:
                errors[template.path] = refusal.body
                refused.append(template)
        if len(refused) == len(remaining):
            yield from (outcome_of_refusal(each.path, errors[each.path]) for each in refused)
            return
        remaining = refused


def _without_namespace(body: dict[str, Any]) -> dict[str, Any]:
    metadata = body.get("metadata") or {}
    return {**body, "metadata": {key: value for key, value in metadata.items() if key != "namespace"}}


def _start(client: Client, manifest: Manifest) -> Outcome | Running:
    if manifest.parse_error:
        return Outcome(manifest.path, "refused", manifest.parse_error)
    if manifest.kind != "Workflow":
        return Outcome(manifest.path, "refused", f"kind: {manifest.kind} does not run here")
    now = time.monotonic()
    try:
        return Running(manifest, client.create(_with_unique_name(manifest.body)), now, now)
    except Refusal as refusal:
        return outcome_of_refusal(manifest.path, refusal.body)


def _with_unique_name(body: dict[str, Any]) -> dict[str, Any]:
    """The manifest with its name as generateName, since two manifests of a folder may have the same."""
    unique = _without_namespace(body)
    name = unique["metadata"].pop("name", None)
    if not name:
        return unique
    return unique | {"metadata": {"generateName": f"{name}-", **unique["metadata"]}}


def _check(client: Client, running: Running, max_seconds: float) -> Outcome | None:
    workflow = client.get(running.name)
    seconds = round(time.monotonic() - running.started_at, 2)
    path = running.manifest.path
    if has_ended(workflow):
        return outcome_of_end(client, path, running.manifest.labels, workflow, seconds)
    if seconds > max_seconds:
        with contextlib.suppress(Refusal):  # it may just have ended
            client.do(running.name, "terminate")
        phase = workflow["status"].get("phase", "Pending")
        return Outcome(path, "long", f"{phase} after {max_seconds:g} s, then stopped", phase, seconds)
    if time.monotonic() - running.answered_at > ANSWER_AFTER_SECONDS:
        running.answered_at = time.monotonic()
        _answer_suspend_nodes(client, workflow)
    return None


def _answer_suspend_nodes(client: Client, workflow: dict[str, Any]) -> None:
    """Set the outputs that suspend nodes wait for, to the first value of an enum if there is one, and resume them."""
    name = workflow["metadata"]["name"]
    for node in nodes_of(workflow).values():
        if node["type"] != "Suspend" or node["phase"] != "Running":
            continue
        inputs = {each["name"]: each for each in (node.get("inputs") or {}).get("parameters") or ()}
        outputs = (node.get("outputs") or {}).get("parameters") or ()
        values = {
            each["name"]: str(((inputs.get(each["name"]) or {}).get("enum") or ["answered"])[0])
            for each in outputs
            if "value" not in each and "default" not in (each.get("valueFrom") or {})
        }
        selector = f"id={node['id']}"
        with contextlib.suppress(Refusal):  # a person, or its duration, may have ended it
            if values:
                client.do(name, "set", nodeFieldSelector=selector, outputParameters=json.dumps(values))
            client.do(name, "resume", nodeFieldSelector=selector)
