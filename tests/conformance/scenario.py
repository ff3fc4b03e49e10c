"""Scenarios: what is done around and to a running workflow, as a file describes it, on whichever Argo.

    # recordings/scenarios/NAME.yaml, for recordings/manifests/NAME.yaml; every field is optional
    templates: [greeting]        # files of recordings/templates, created before the workflow
    copies: 2                    # how many workflows of the manifest run at once
    steps:                       # actions, one after another
    - when: {node: gate, phase: Running}    # a node by its display name; without `node`, the workflow itself
      do: set                               # set, resume, suspend, stop, terminate, retry, resubmit, delete
      with: {nodeFieldSelector: name=$.gate, phase: Succeeded, outputParameters: {p: "1"}}
      of: 0                                 # the index of the copy

`with` is the body of Argo's own request; `$` in it is the workflow's name, and a map is sent as JSON text.
"""

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from periplus_local.argo.testing import Client, Refusal, has_ended

Body = dict[str, Any]
TEMPLATE_PATHS = {
    "WorkflowTemplate": "workflow-templates/{}",
    "ClusterWorkflowTemplate": "cluster-workflow-templates",
}


@dataclass(frozen=True)
class Action:
    """One request on a workflow, and the state that it waits for."""

    do: str
    when: Body = field(default_factory=dict)
    arguments: Body = field(default_factory=dict)
    copy: int = 0

    def is_due(self, workflow: Body) -> bool:
        """Whether the workflow has reached the state; AssertionError when it has ended in another."""
        status = workflow.get("status") or {}
        if not self.when:
            return True
        if "node" in self.when:
            nodes = (status.get("nodes") or {}).values()
            display_name = self.when["node"].replace("$", workflow["metadata"]["name"])
            phases = {node["phase"] for node in nodes if node["displayName"] == display_name}
        else:
            phases = {status.get("phase", "")}
        due = self.when["phase"] in phases and (not has_ended(workflow) or self.when.get("node") is None)
        assert due or not has_ended(workflow), (
            f"{self.do}: the workflow has ended before {self.when}: {phases}"
        )
        return due

    def body(self, name: str) -> Body:
        """The body of the request, for the workflow of that name."""
        return {key: _with_name(value, name) for key, value in self.arguments.items()}


def _with_name(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, list):
        return [_with_name(item, name) for item in value]
    return value.replace("$", name) if isinstance(value, str) else value


@dataclass(frozen=True)
class Scenario:
    """All that is done around and to the workflows of one manifest."""

    templates: tuple[Body, ...] = ()
    copies: int = 1
    actions: tuple[Action, ...] = ()

    @classmethod
    def read(cls, path: Path, templates: Path) -> "Scenario":
        """The scenario of a file, an empty one when there is none; `templates` is the folder of the templates."""
        content = (yaml.safe_load(path.read_text()) if path.exists() else None) or {}
        files = [templates / f"{name}.yaml" for name in content.get("templates", ())]
        bodies = [body for file in files for body in yaml.safe_load_all(file.read_text())]
        actions = [
            Action(step["do"], step.get("when", {}), step.get("with", {}), step.get("of", 0))
            for step in content.get("steps", ())
        ]
        return cls(tuple(bodies), content.get("copies", 1), tuple(actions))

    def play(self, client: Client, manifest: Body, seconds: float) -> Body:
        """Run the manifest and the actions: how all workflows ended, and which actions were refused.

        Raises Refusal when a template or the workflow is refused.
        """
        with contextlib.ExitStack() as cleanup:
            for template in self.templates:
                cleanup.callback(_create_template(client, template))
            names = []
            for _ in range(self.copies):
                names.append(client.create(manifest))
                cleanup.callback(_delete_workflow, client, names[-1])
            workflows: list[Body | None] = []
            refusals: list[str | None] = []
            for action in self.actions:
                before = client.until(names[action.copy], action.is_due, seconds)
                refusal, name = _do(client, action, names[action.copy])
                refusals.append(refusal)
                if has_ended(before) and not refusal:
                    workflows.append(before)
                if name not in {"", *names}:
                    cleanup.callback(_delete_workflow, client, name)
                names[action.copy] = name
            ends = [client.ended(name, seconds) if name else None for name in names]
            return {"workflows": workflows + ends} | ({"actions": refusals} if refusals else {})


def _do(client: Client, action: Action, name: str) -> tuple[str | None, str]:
    """The refusal of the action if any, and the name of the workflow that exists after it, empty if none does."""
    try:
        if action.do == "delete":
            client.call("DELETE", f"workflows/{client.namespace}/{name}")
            return None, ""
        after = client.do(name, action.do, **action.body(name))
        return None, after["metadata"]["name"]
    except Refusal as refusal:
        return str(refusal), name


def _create_template(client: Client, template: Body) -> Callable[[], Any]:
    """Create a template; gives the function that deletes it."""
    path = TEMPLATE_PATHS[template["kind"]].format(client.namespace)
    client.call("POST", path, {"template": template})
    return partial(client.call, "DELETE", f"{path}/{template['metadata']['name']}")


def _delete_workflow(client: Client, name: str) -> None:
    with contextlib.suppress(Refusal):  # an action may have deleted it
        client.call("DELETE", f"workflows/{client.namespace}/{name}")
