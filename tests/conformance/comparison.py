"""What of a workflow must be the same on every Argo, and how two of them differ."""

import re
from typing import Any

Plain = dict[str, Any]

LABELS = {"phase", "completed", "resubmitted-from-workflow"}
ID = re.compile(r"[a-z0-9][-a-z0-9]*-\d{6,10}\b")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
HASH = re.compile(r"-\d{6,10}(?=/)")
DEADLINE = "Pod was active on the node longer than the specified deadline"
# Messages that say the same in other words; the words that come from the manifest stay.
MEANINGS = (
    # What the executor says of a file that is not there depends on where it looked; that it is missing does not.
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


def essences(workflows: list[Plain | None]) -> list[Plain | None]:
    """The workflows of one recording, without what depends on names, on time and on the machine.

    Each speaks of itself as "$", and of the one at place n as "$n"; one that was deleted is None.
    """
    places = {end["metadata"]["name"]: f"${place}" for place, end in reversed([*enumerate(workflows)]) if end}
    nodes = {
        node["id"]: node["name"]
        for end in workflows
        if end
        for node in (end["status"].get("nodes") or {}).values()
    }
    return [end and _essence(end, nodes, places) for end in workflows]


def _essence(workflow: Plain, names: dict[str, str], places: dict[str, str]) -> Plain:
    status = workflow["status"]
    made = {
        "phase": status["phase"],
        "message": _message(status.get("message", "")),
        "progress": status.get("progress"),
        "outputs": _puts(status.get("outputs")),
        "labels": {
            key: value for key, value in (workflow["metadata"].get("labels") or {}).items() if _is_kept(key)
        },
        "annotations": {
            key: value
            for key, value in (workflow["metadata"].get("annotations") or {}).items()
            if _is_kept(key)
        },
        "conditions": {
            item["type"]: item["status"] for item in status["conditions"] if item["type"] != "PodRunning"
        },
        "nodes": {node["name"]: _node(node, names) for node in (status.get("nodes") or {}).values()},
    }
    plain = _renamed(made, names, {**places, workflow["metadata"]["name"]: "$"})
    return dict(plain)


def _is_kept(key: str) -> bool:
    prefix, _, name = key.rpartition("/")
    return prefix != "workflows.argoproj.io" or name in LABELS


def _node(node: Plain, names: dict[str, str]) -> Plain:
    kept = ("type", "phase", "displayName", "templateName", "templateScope", "nodeFlag", "progress")
    made = {key: node[key] for key in kept if key in node}
    made["boundary"] = names.get(node.get("boundaryID", ""), "")
    for key in ("children", "outboundNodes"):
        # Argo writes down children before it makes them, and may then not come to it.
        made[key] = sorted(names[item] for item in node.get(key) or () if item in names)
    made["message"] = _message(node.get("message", ""))
    made["inputs"] = _puts(node.get("inputs"))
    outputs = _puts(node.get("outputs"))
    if made["message"] == DEADLINE or made["message"].startswith("workflow shutdown"):
        outputs.pop("exitCode", None)  # whether the process had begun, and what ended it first, is chance
    made["outputs"] = outputs
    return made


def _puts(puts: Plain | None) -> Plain:
    """Inputs or outputs, with lists by name and without empty parts."""
    made: Plain = {}
    for key, value in (puts or {}).items():
        plain = {item["name"]: item for item in value} if isinstance(value, list) else value
        if plain != {}:
            made[key] = plain
    return made


def _message(message: str) -> str:
    for pattern, meaning in MEANINGS:
        message = pattern.sub(meaning, message)
    return message.removesuffix("; ")  # a resume puts what it has to say after the message, also nothing


def _renamed(value: Any, names: dict[str, str], places: dict[str, str]) -> Any:
    if isinstance(value, str):
        value = TIME.sub("then", ID.sub(lambda found: names.get(found[0], found[0]), value))
        for name, place in places.items():
            value = value.replace(name, place)
        return HASH.sub("-#", value) if "/" in value else value
    if isinstance(value, dict):
        return {_renamed(key, names, places): _renamed(item, names, places) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, names, places) for item in value]
    return value


def settled(recorded: Plain, seen: Plain) -> tuple[Plain, Plain]:
    """Both essences without how those nodes ended that the recorded workflow left behind when it ended itself.

    Argo does not wait for what runs beside a step that could not start, nor for what waits beside a failure in
    a template with `failFast`: these nodes stay as they were. Here a workflow ends when all of it has ended.
    """
    nodes = recorded["nodes"]
    left = {name for name, node in nodes.items() if node["phase"] in {"Pending", "Running"}}
    return (_without(recorded, left), _without(seen, left)) if left else (recorded, seen)


def _without(essence: Plain, left: set[str]) -> Plain:
    kept = ("type", "displayName", "templateName", "templateScope", "boundary", "children", "inputs")
    nodes = {
        name: {key: node[key] for key in node if (key in kept if name in left else key != "progress")}
        for name, node in essence["nodes"].items()
    }
    return {**essence, "progress": None, "nodes": nodes}


def differences(recorded: Any, seen: Any, path: str = "") -> list[str]:
    """The places where two essences are not the same, each with both values."""
    if isinstance(recorded, dict) and isinstance(seen, dict):
        found = []
        for key in sorted({*recorded, *seen}):
            here = f"{path}.{key}" if path else str(key)
            found += differences(recorded.get(key), seen.get(key), here)
        return found
    return [] if recorded == seen else [f"{path}: recorded {recorded!r}, seen {seen!r}"]
