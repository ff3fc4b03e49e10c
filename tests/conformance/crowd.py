"""Many workflows on one Argo, some at a time, each to its end or to the end of its time."""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from periplus_local.argo.testing import Client, Refusal, has_ended, nodes_of

from .corpus import Manifest
from .deeds import TEMPLATES
from .outcome import Outcome, ended, refused

AT_ONCE = 12
POLL_SECONDS = 0.2
# A step that waits for a person is answered after this long, and again if that was not enough.
PATIENCE = 3.0


@dataclass
class Running:
    """A workflow under way."""

    manifest: Manifest
    name: str
    started: float
    answered: float


def run(client: Client, manifests: list[Manifest], seconds: float) -> Iterator[Outcome]:
    """Run what can be run, and give what became of each as soon as that is known."""
    yield from _keep(client, [each for each in manifests if each.kind in TEMPLATES])
    waiting = [each for each in reversed(manifests) if each.kind not in TEMPLATES]
    under_way: list[Running] = []
    while waiting or under_way:
        while waiting and len(under_way) < AT_ONCE:
            begun = _begin(client, waiting.pop())
            if isinstance(begun, Outcome):
                yield begun
            else:
                under_way.append(begun)
        for running in list(under_way):
            outcome = _look(client, running, seconds)
            if outcome is not None:
                under_way.remove(running)
                yield outcome
        time.sleep(POLL_SECONDS)


def _keep(client: Client, templates: list[Manifest]) -> Iterator[Outcome]:
    """Create the templates, those that refer to others after these; tell of those that are refused."""
    left, said = templates, dict[str, str]()
    while left:
        again = []
        for template in left:
            path = TEMPLATES[template.kind].format(client.namespace)
            try:
                client.call("POST", path, {"template": _without_namespace(template.body)})
            except Refusal as refusal:
                said[template.path] = refusal.body
                again.append(template)
        if len(again) == len(left):
            yield from (refused(template.path, said[template.path]) for template in again)
            return
        left = again


def _without_namespace(body: dict[str, Any]) -> dict[str, Any]:
    metadata = body.get("metadata") or {}
    return {**body, "metadata": {key: value for key, value in metadata.items() if key != "namespace"}}


def _begin(client: Client, manifest: Manifest) -> Outcome | Running:
    if manifest.unreadable:
        return Outcome(manifest.path, "refused", manifest.unreadable)
    if manifest.kind != "Workflow":
        return Outcome(manifest.path, "refused", f"kind: {manifest.kind} does not run here")
    now = time.monotonic()
    try:
        return Running(manifest, client.create(_named(manifest.body)), now, now)
    except Refusal as refusal:
        return refused(manifest.path, refusal.body)


def _named(body: dict[str, Any]) -> dict[str, Any]:
    """The manifest under a name that no other one of the folder has."""
    made = _without_namespace(body)
    name = made["metadata"].pop("name", None)
    return made | {"metadata": {"generateName": f"{name}-", **made["metadata"]}} if name else made


def _look(client: Client, running: Running, seconds: float) -> Outcome | None:
    workflow = client.get(running.name)
    took = round(time.monotonic() - running.started, 2)
    path = running.manifest.path
    if has_ended(workflow):
        return ended(client, path, running.manifest.labels, workflow, took)
    if took > seconds:
        with contextlib.suppress(Refusal):  # it may just have ended
            client.do(running.name, "terminate")
        phase = workflow["status"].get("phase", "Pending")
        return Outcome(path, "long", f"{phase} after {seconds:g} s, then stopped", phase, took)
    if time.monotonic() - running.answered > PATIENCE:
        running.answered = time.monotonic()
        _answer(client, workflow)
    return None


def _answer(client: Client, workflow: dict[str, Any]) -> None:
    """Let the steps go on that wait for a person: with the values that they ask for, the first where there is a choice."""
    name = workflow["metadata"]["name"]
    for node in nodes_of(workflow).values():
        if node["type"] != "Suspend" or node["phase"] != "Running":
            continue
        choices = {each["name"]: each for each in (node.get("inputs") or {}).get("parameters") or ()}
        asked = (node.get("outputs") or {}).get("parameters") or ()
        values = {
            each["name"]: str(((choices.get(each["name"]) or {}).get("enum") or ["answered"])[0])
            for each in asked
            if "value" not in each and "default" not in (each.get("valueFrom") or {})
        }
        chosen = f"id={node['id']}"
        with contextlib.suppress(Refusal):  # somebody, or its duration, may have ended it
            if values:
                client.do(name, "set", nodeFieldSelector=chosen, outputParameters=json.dumps(values))
            client.do(name, "resume", nodeFieldSelector=chosen)
