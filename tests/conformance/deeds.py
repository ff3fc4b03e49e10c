"""What is done around and to a running workflow, as a file says it, on whichever Argo.

    # recordings/deeds/NAME.yaml, for recordings/manifests/NAME.yaml; every part may be left out
    templates: [greeting]        # files of recordings/templates, created before the workflow
    copies: 2                    # how many workflows of the manifest there are at once
    steps:                       # done one after another
    - when: {node: gate, phase: Running}    # a node by its display name; without `node`, the workflow itself
      do: set                               # set, resume, suspend, stop, terminate, retry, resubmit, delete
      with: {nodeFieldSelector: name=$.gate, phase: Succeeded, outputParameters: {p: "1"}}
      of: 0                                 # which of the copies

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
TEMPLATES = {
    "WorkflowTemplate": "workflow-templates/{}",
    "ClusterWorkflowTemplate": "cluster-workflow-templates",
}


@dataclass(frozen=True)
class Deed:
    """One thing that is done to a workflow, once it has come so far."""

    do: str
    when: Body = field(default_factory=dict)
    given: Body = field(default_factory=dict)
    of: int = 0

    def due(self, workflow: Body) -> bool:
        """Whether the workflow has come so far; AssertionError when it has ended otherwise."""
        status = workflow.get("status") or {}
        if not self.when:
            return True
        if "node" in self.when:
            nodes = (status.get("nodes") or {}).values()
            wanted = self.when["node"].replace("$", workflow["metadata"]["name"])
            seen = {node["phase"] for node in nodes if node["displayName"] == wanted}
        else:
            seen = {status.get("phase", "")}
        due = self.when["phase"] in seen and (not has_ended(workflow) or self.when.get("node") is None)
        assert due or not has_ended(workflow), f"{self.do}: the workflow has ended before {self.when}: {seen}"
        return due

    def body(self, name: str) -> Body:
        """The request, for the workflow of that name."""
        return {key: _sent(value, name) for key, value in self.given.items()}


def _sent(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, list):
        return [_sent(item, name) for item in value]
    return value.replace("$", name) if isinstance(value, str) else value


@dataclass(frozen=True)
class Script:
    """All that is done around and to the workflows of one manifest."""

    templates: tuple[Body, ...] = ()
    copies: int = 1
    deeds: tuple[Deed, ...] = ()

    @classmethod
    def read(cls, path: Path, templates: Path) -> "Script":
        """The script of a file, an empty one when there is none; `templates` is where those that it names are."""
        said = (yaml.safe_load(path.read_text()) if path.exists() else None) or {}
        files = [templates / f"{name}.yaml" for name in said.get("templates", ())]
        listed = [body for file in files for body in yaml.safe_load_all(file.read_text())]
        deeds = [
            Deed(step["do"], step.get("when", {}), step.get("with", {}), step.get("of", 0))
            for step in said.get("steps", ())
        ]
        return cls(tuple(listed), said.get("copies", 1), tuple(deeds))

    def play(self, client: Client, manifest: Body, seconds: float) -> Body:
        """Run the manifest and do the deeds: how all workflows ended, and which deeds were refused.

        Raises Refusal when a template or the workflow is not taken.
        """
        with contextlib.ExitStack() as made:
            for template in self.templates:
                made.callback(_keep(client, template))
            names = []
            for _ in range(self.copies):
                names.append(client.create(manifest))
                made.callback(_forget, client, names[-1])
            workflows: list[Body | None] = []
            told: list[str | None] = []
            for deed in self.deeds:
                before = client.until(names[deed.of], deed.due, seconds)
                refused, after = _done(client, deed, names[deed.of])
                told.append(refused)
                if has_ended(before) and not refused:
                    workflows.append(before)
                if after not in {"", *names}:
                    made.callback(_forget, client, after)
                names[deed.of] = after
            ends = [client.ended(name, seconds) if name else None for name in names]
            return {"workflows": workflows + ends} | ({"deeds": told} if told else {})


def _done(client: Client, deed: Deed, name: str) -> tuple[str | None, str]:
    """How the deed was refused, if it was, and which workflow there is after it, if any."""
    try:
        if deed.do == "delete":
            client.call("DELETE", f"workflows/{client.namespace}/{name}")
            return None, ""
        after = client.do(name, deed.do, **deed.body(name))
        return None, after["metadata"]["name"]
    except Refusal as refusal:
        return str(refusal), name


def _keep(client: Client, template: Body) -> Callable[[], Any]:
    """Create a template; how to take it away."""
    path = TEMPLATES[template["kind"]].format(client.namespace)
    client.call("POST", path, {"template": template})
    return partial(client.call, "DELETE", f"{path}/{template['metadata']['name']}")


def _forget(client: Client, name: str) -> None:
    with contextlib.suppress(Refusal):  # a deed may have deleted it
        client.call("DELETE", f"workflows/{client.namespace}/{name}")
