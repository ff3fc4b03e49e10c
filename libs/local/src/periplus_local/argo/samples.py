"""Manifests in few words, for tests: templates, steps, and workflows run to their end."""

from typing import Any

from periplus_local.argo.testing import Client, nodes_of

Body = dict[str, Any]
WRITTEN = "/tmp/o"  # noqa: S108 - every step has a /tmp of its own


def sh(name: str, command: str, **more: Any) -> Body:
    """A container template that runs a line of shell."""
    return {
        "name": name,
        "container": {"image": "busybox", "command": ["sh", "-c"], "args": [command]},
        **more,
    }


def say(text: str, name: str = "say", **more: Any) -> Body:
    """A template whose output parameter `o` is the text."""
    outputs = {"parameters": [{"name": "o", "valueFrom": {"path": WRITTEN}}]}
    return sh(name, f"printf '%s' '{text}' > {WRITTEN}", outputs=outputs, **more)


def takes(name: str, *inputs: str, text: str) -> Body:
    """A template with inputs whose output parameter `o` is the text."""
    return say(text, name, inputs={"parameters": [{"name": key} for key in inputs]})


def task(name: str, template: str = "ok", /, **more: Any) -> Body:
    """A task or step; `given` are its parameters."""
    given = more.pop("given", None)
    arguments = (
        {"arguments": {"parameters": [{"name": k, "value": v} for k, v in given.items()]}} if given else {}
    )
    return {"name": name, "template": template, **arguments, **more}


def dag(*tasks: Body, **more: Any) -> Body:
    """A DAG template called main."""
    return {"name": "main", "dag": {"tasks": list(tasks)}, **more}


def steps(*groups: list[Body], **more: Any) -> Body:
    """A steps template called main."""
    return {"name": "main", "steps": list(groups), **more}


OK, BAD = sh("ok", "true"), sh("bad", "exit 1")


def run(argo: Client, *templates: Body, **spec: Any) -> Body:
    """The workflow with these templates, ended."""
    return argo.ended(start(argo, *templates, **spec))


def start(argo: Client, *templates: Body, **spec: Any) -> str:
    """Start a workflow with these templates, the first as entrypoint; its name."""
    labels = spec.pop("labels", {})
    body = {"entrypoint": templates[0]["name"], "templates": list(templates), **spec}
    return argo.create({"metadata": {"generateName": "w-", "labels": labels}, "spec": body})


def node(workflow: Body, suffix: str = "") -> Body:
    """The node whose name is the workflow's and the suffix."""
    return nodes_of(workflow)[workflow["metadata"]["name"] + suffix]


def output(workflow: Body, suffix: str, name: str = "o") -> str:
    """The output parameter of a node."""
    parameters = node(workflow, suffix)["outputs"]["parameters"]
    return str(next(item["value"] for item in parameters if item["name"] == name))


def workflow(*templates: Body, **spec: Any) -> Body:
    """A whole manifest with these templates, the first as entrypoint."""
    body = {"entrypoint": templates[0]["name"], "templates": list(templates), **spec}
    head = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"generateName": "w-"}}
    return {**head, "spec": body}


def leaf(name: str = "ok", command: str = "true", **more: Any) -> Body:
    """A container template; by default one that does nothing."""
    return sh(name, command, **more)
