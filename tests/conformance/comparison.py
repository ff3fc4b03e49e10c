"""What of a workflow must be the same on every Argo, and how two of them differ."""

import re
from typing import Any

Plain = dict[str, Any]

HASH = re.compile(r"-\d{6,10}(?=/)")
# Messages that say the same in other words; the words that come from the manifest stay.
MEANINGS = (
    # What the executor says of a file that is not there depends on where it looked; that it is missing does not.
    (
        re.compile(r"^(?:wait: )?Error.*(?:no such file or directory|does not exist).*$", re.IGNORECASE),
        "a declared output is not there",
    ),
    (re.compile(r"unable to parse (.*) as a duration: .*"), r'"\1" is no duration'),
    (re.compile(r'("\w*") is not a length of time.*'), r"\1 is no duration"),
)


def essence(workflow: Plain) -> Plain:
    """The workflow without what depends on its name, on time and on the machine."""
    name, status = workflow["metadata"]["name"], workflow["status"]
    names = {node["id"]: node["name"] for node in (status.get("nodes") or {}).values()}
    made = {
        "phase": status["phase"],
        "message": _message(status.get("message", ""), names),
        "progress": status.get("progress"),
        "outputs": _puts(status.get("outputs")),
        "labels": {
            key: value
            for key, value in (workflow["metadata"].get("labels") or {}).items()
            if key in {"workflows.argoproj.io/phase", "workflows.argoproj.io/completed"}
        },
        "conditions": {item["type"]: item["status"] for item in status["conditions"]},
        "nodes": {node["name"]: _node(node, names) for node in (status.get("nodes") or {}).values()},
    }
    return _renamed(made, name)


def _node(node: Plain, names: dict[str, str]) -> Plain:
    kept = ("type", "phase", "displayName", "templateName", "templateScope", "nodeFlag", "progress")
    made = {key: node[key] for key in kept if key in node}
    made["boundary"] = names.get(node.get("boundaryID", ""), "")
    for key in ("children", "outboundNodes"):
        made[key] = sorted(names.get(item, f"missing {item}") for item in node.get(key) or ())
    made["message"] = _message(node.get("message", ""), names)
    made["inputs"] = _puts(node.get("inputs"))
    made["outputs"] = _puts(node.get("outputs"))
    return made


def _puts(puts: Plain | None) -> Plain:
    """Inputs or outputs, with lists by name and without empty parts."""
    made: Plain = {}
    for key, value in (puts or {}).items():
        plain = {item["name"]: item for item in value} if isinstance(value, list) else value
        if plain != {}:
            made[key] = plain
    return made


def _message(message: str, names: dict[str, str]) -> str:
    for pattern, meaning in MEANINGS:
        message = pattern.sub(meaning, message)
    for node, name in names.items():
        message = message.replace(f"'{node}'", f"'{name}'")
    return message.removesuffix("; ")  # a resume puts what it has to say after the message, also nothing


def _renamed(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return HASH.sub("-#", value.replace(name, "$")) if "/" in value else value.replace(name, "$")
    if isinstance(value, dict):
        return {_renamed(key, name): _renamed(item, name) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, name) for item in value]
    return value


def differences(recorded: Any, seen: Any, path: str = "") -> list[str]:
    """The places where two essences are not the same, each with both values."""
    if isinstance(recorded, dict) and isinstance(seen, dict):
        found = []
        for key in sorted({*recorded, *seen}):
            here = f"{path}.{key}" if path else str(key)
            found += differences(recorded.get(key), seen.get(key), here)
        return found
    return [] if recorded == seen else [f"{path}: recorded {recorded!r}, seen {seen!r}"]
