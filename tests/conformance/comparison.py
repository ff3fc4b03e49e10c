"""The parts of a workflow that must be the same on every Argo, and the differences of two workflows."""

import re
from typing import Any

Json = dict[str, Any]

LABELS = {"phase", "completed", "resubmitted-from-workflow"}
ID = re.compile(r"[a-z0-9][-a-z0-9]*-\d{6,10}\b")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
HASH = re.compile(r"-\d{6,10}(?=/)")
DEADLINE = "Pod was active on the node longer than the specified deadline"
# Messages with the same meaning are replaced by one; the words that come from the manifest stay.
MEANINGS = (
    # The executor's message for a missing file depends on the step of the search that failed.
    (
        re.compile(r"^(?:wait: )?Error.*(?:no such file or directory|does not exist).*$", re.IGNORECASE),
        "a declared output is not there",
    ),
    (re.compile(r"^[\w.\[\]]+: (?=failed to evaluate expression)"), ""),
    (re.compile(r'failed to evaluate expression ".*": (unknown name \w+)$', re.DOTALL), r"\1"),
    (re.compile(r"(unknown name \w+) \(\d.*", re.DOTALL), r"\1"),
    (
        re.compile(r'^failed to evaluate expression (".*"): .*$', re.DOTALL),
        r"failed to evaluate expression \1",
    ),
    (re.compile(r"^[Ii]nvalid 'when' expression ('.*'): .*$"), r"\1 is no condition"),
    (re.compile(r"unable to parse (.*) as a duration: .*"), r'"\1" is no duration'),
    (
        re.compile(
            r"withParam(?: value|:) could not be parsed as a JSON list: (.*?): (?:json|inv|it|Ex|unex).*"
        ),
        r"no list: \1",
    ),
    (
        re.compile(r"Failed to substitute the PodSpecPatch variables|inputs.artifacts.* has no location.*"),
        "an artifact has no location",
    ),
    (
        re.compile(r"[\w.]+: (value '.*') is not a whole number"),
        r"\1 cannot be resolved to an int",
    ),
    (
        re.compile(
            r"unable to cast expression result ('.*') to bool|retryStrategy.expression: gives ('.*'), nei.*"
        ),
        r"no boolean: \1\2",
    ),
    (re.compile(r"failed to resolve references: "), ""),
    (re.compile(r"[Ii]nvalid 'when' expression ('.*?'): .*"), r"no condition: \1"),
    (
        re.compile(r"Expected boolean evaluation for ('.*?')\. Got (.*)"),
        r"expected true or false from \1, got \2",
    ),
    (re.compile(r"^timeout$"), DEADLINE),
    (re.compile(r"(Maximum recursion depth exceeded).*"), r"\1"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000 UTC"), "then"),
)


def comparable(workflows: list[Json | None]) -> list[Json | None]:
    """The workflows of one recording, without what depends on names, on time and on the machine.

    Each refers to itself as "$", and to the one with index n as "$n"; one that was deleted is None.
    """
    references = {
        end["metadata"]["name"]: f"${index}" for index, end in reversed([*enumerate(workflows)]) if end
    }
    nodes = {
        node["id"]: node["name"]
        for end in workflows
        if end
        for node in (end["status"].get("nodes") or {}).values()
    }
    return [end and _comparable(end, nodes, references) for end in workflows]


def _comparable(workflow: Json, names: dict[str, str], references: dict[str, str]) -> Json:
    status = workflow["status"]
    parts = {
        "phase": status["phase"],
        "message": _message(status.get("message", "")),
        "progress": status.get("progress"),
        "outputs": _by_name(status.get("outputs")),
        "labels": {
            key: value
            for key, value in (workflow["metadata"].get("labels") or {}).items()
            if _is_compared(key)
        },
        "annotations": {
            key: value
            for key, value in (workflow["metadata"].get("annotations") or {}).items()
            if _is_compared(key)
        },
        "conditions": {
            item["type"]: item["status"] for item in status["conditions"] if item["type"] != "PodRunning"
        },
        "nodes": {node["name"]: _node(node, names) for node in (status.get("nodes") or {}).values()},
    }
    return dict(_renamed(parts, names, {**references, workflow["metadata"]["name"]: "$"}))


def _is_compared(key: str) -> bool:
    prefix, _, name = key.rpartition("/")
    return prefix != "workflows.argoproj.io" or name in LABELS


def _node(node: Json, names: dict[str, str]) -> Json:
    copied = ("type", "phase", "displayName", "templateName", "templateScope", "nodeFlag", "progress")
    parts = {key: node[key] for key in copied if key in node}
    parts["boundary"] = names.get(node.get("boundaryID", ""), "")
    for key in ("children", "outboundNodes"):
        # Argo writes children before it starts them, and may then not start them.
        parts[key] = sorted(names[item] for item in node.get(key) or () if item in names)
    parts["message"] = _message(node.get("message", ""))
    parts["inputs"] = _by_name(node.get("inputs"))
    outputs = _by_name(node.get("outputs"))
    if parts["message"] == DEADLINE or parts["message"].startswith("workflow shutdown"):
        outputs.pop(
            "exitCode", None
        )  # it depends on whether the process had started, and on what ended it first
    parts["outputs"] = outputs
    return parts


def _by_name(inputs_or_outputs: Json | None) -> Json:
    """Inputs or outputs with lists as objects by name, and without empty ones."""
    by_name: Json = {}
    for key, value in (inputs_or_outputs or {}).items():
        items = {item["name"]: item for item in value} if isinstance(value, list) else value
        if items != {}:
            by_name[key] = items
    return by_name


def _message(message: str) -> str:
    for pattern, meaning in MEANINGS:
        message = pattern.sub(meaning, message)
    return message.removesuffix("; ")  # a resume appends its own message, which may be empty


def _renamed(value: Any, names: dict[str, str], references: dict[str, str]) -> Any:
    if isinstance(value, str):
        value = TIME.sub("then", ID.sub(lambda found: names.get(found[0], found[0]), value))
        for name, reference in references.items():
            value = value.replace(name, reference)
        return HASH.sub("-#", value) if "/" in value else value
    if isinstance(value, dict):
        return {
            _renamed(key, names, references): _renamed(item, names, references) for key, item in value.items()
        }
    if isinstance(value, list):
        return [_renamed(item, names, references) for item in value]
    return value


def without_abandoned_nodes(recorded: Json, actual: Json) -> tuple[Json, Json]:
    """Both workflows without the ends of those nodes that had not ended when the recorded workflow did.

    Argo does not wait for steps beside one that could not start, nor for those that wait beside a failure in a
    template with `failFast`: their nodes stay as they were. Here a workflow ends when all its steps have ended.
    """
    nodes = recorded["nodes"]
    abandoned = {name for name, node in nodes.items() if node["phase"] in {"Pending", "Running"}}
    if not abandoned:
        return recorded, actual
    return _without_ends(recorded, abandoned), _without_ends(actual, abandoned)


def _without_ends(workflow: Json, abandoned: set[str]) -> Json:
    compared = ("type", "displayName", "templateName", "templateScope", "boundary", "children", "inputs")
    nodes = {
        name: {
            key: node[key] for key in node if (key in compared if name in abandoned else key != "progress")
        }
        for name, node in workflow["nodes"].items()
    }
    return {**workflow, "progress": None, "nodes": nodes}


def differences(recorded: Any, actual: Any, path: str = "") -> list[str]:
    """The paths at which two values differ, each with both values."""
    if isinstance(recorded, dict) and isinstance(actual, dict):
        found = []
        for key in sorted({*recorded, *actual}):
            key_path = f"{path}.{key}" if path else str(key)
            found += differences(recorded.get(key), actual.get(key), key_path)
        return found
    return [] if recorded == actual else [f"{path}: recorded {recorded!r}, actual {actual!r}"]
