"""Short functions for manifests in tests: templates, steps, and workflows run to their end."""

from typing import Any

from periplus_local.argo.testing import Client, nodes_of

Body = dict[str, Any]
OUTPUT_FILE = "/tmp/o"  # noqa: S108 - every step has a private /tmp


def sh(name: str, command: str, **fields: Any) -> Body:
    """A container template that runs a line of shell."""
    return {
        "name": name,
        "container": {"image": "busybox", "command": ["sh", "-c"], "args": [command]},
        **fields,
    }


def container_template(name: str = "ok", command: str = "true", **fields: Any) -> Body:
    """The same, by default one that does nothing."""
    return sh(name, command, **fields)


def say(text: str, name: str = "say", **fields: Any) -> Body:
    """A template whose output parameter `o` is the text."""
    outputs = {"parameters": [{"name": "o", "valueFrom": {"path": OUTPUT_FILE}}]}
    return sh(name, f"printf '%s' '{text}' > {OUTPUT_FILE}", outputs=outputs, **fields)


def takes(name: str, *inputs: str, text: str) -> Body:
    """A template with input parameters whose output parameter `o` is the text."""
    return say(text, name, inputs={"parameters": [{"name": key} for key in inputs]})


def task(name: str, template: str = "ok", /, given: dict[str, Any] | None = None, **fields: Any) -> Body:
    """A task or step; `given` are the parameters of its arguments."""
    parameters = [{"name": key, "value": value} for key, value in (given or {}).items()]
    arguments = {"arguments": {"parameters": parameters}} if parameters else {}
    return {"name": name, "template": template, **arguments, **fields}


def dag(*tasks: Body, **fields: Any) -> Body:
    """A DAG template called main."""
    return {"name": "main", "dag": {"tasks": list(tasks)}, **fields}


def steps(*groups: list[Body], **fields: Any) -> Body:
    """A steps template called main."""
    return {"name": "main", "steps": list(groups), **fields}


OK, BAD = container_template(), sh("bad", "exit 1")


def workflow(*templates: Body, **spec: Any) -> Body:
    """A manifest with these templates, the first as entrypoint."""
    head = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": {"generateName": "w-"}}
    return {**head, "spec": _spec(templates, spec)}


def start(argo: Client, *templates: Body, **spec: Any) -> str:
    """Start a workflow with these templates, the first as entrypoint; its name."""
    labels = spec.pop("labels", {})
    metadata = {"generateName": "w-", "labels": labels}
    return argo.create({"metadata": metadata, "spec": _spec(templates, spec)})


def run(argo: Client, *templates: Body, **spec: Any) -> Body:
    """Start such a workflow and wait for its end; the ended workflow."""
    return argo.ended(start(argo, *templates, **spec))


def _spec(templates: tuple[Body, ...], fields: Body) -> Body:
    return {"entrypoint": templates[0]["name"], "templates": list(templates), **fields}


def node(ended: Body, suffix: str = "") -> Body:
    """The node whose name is the workflow's and the suffix."""
    return nodes_of(ended)[ended["metadata"]["name"] + suffix]


def output(ended: Body, suffix: str, name: str = "o") -> str:
    """The output parameter of the node with that suffix."""
    parameters = node(ended, suffix)["outputs"]["parameters"]
    return str(next(item["value"] for item in parameters if item["name"] == name))
