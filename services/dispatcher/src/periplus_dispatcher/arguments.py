"""The arguments of calls that are rewritten: what stays with a loop, what is passed in, and who reads a result."""

import copy
import json
import re
from typing import Any

from periplus_dispatcher import gates
from periplus_manifest import tags

Json = dict[str, Any]


def split(arguments: Json) -> tuple[Json, Json, Json]:
    """A loop's arguments in three: the wrapper's inputs, the call's arguments for them, and one item's arguments."""
    inputs: Json = {"parameters": [], "artifacts": []}
    outer: Json = {"parameters": [], "artifacts": []}
    inner: Json = {"parameters": [], "artifacts": []}

    def pass_in(name: str, value: str) -> str:
        inputs["parameters"].append({"name": name})
        outer["parameters"].append({"name": name, "value": value})
        return "{{inputs.parameters." + name + "}}"

    for p in arguments.get("parameters") or ():
        text = text_of(p.get("value", ""))
        found = tags.find(text)
        if not any(_names_item(tag.name) for tag in found):
            inner["parameters"].append({"name": p["name"], "value": pass_in(p["name"], text)})
            continue
        for number, tag in enumerate(reversed(found)):
            if not _names_item(tag.name):
                passed = pass_in(f"periplus-ref-{p['name']}-{number}", text[tag.start : tag.end])
                text = text[: tag.start] + passed + text[tag.end :]
        inner["parameters"].append({"name": p["name"], "value": text})
    for a in arguments.get("artifacts") or ():
        inputs["artifacts"].append({"name": a["name"]})
        outer["artifacts"].append(copy.deepcopy(a))
        inner["artifacts"].append({"name": a["name"], "from": "{{inputs.artifacts." + a["name"] + "}}"})
    return inputs, outer, inner


def _names_item(reference: str) -> bool:
    return re.search(r"\bitem\b", reference) is not None


def with_result_as_parameter(value: Any, task: str) -> Any:
    """A wrapper has no result of its own: who reads `tasks.X.outputs.result` reads a parameter of it."""
    if isinstance(value, dict):
        return {key: with_result_as_parameter(item, task) for key, item in value.items()}
    if isinstance(value, list):
        return [with_result_as_parameter(item, task) for item in value]
    if not isinstance(value, str) or task not in value:
        return value
    name = re.escape(task)
    value = re.sub(
        r"\{\{\s*(tasks|steps)\." + name + r"\.outputs\.result\s*\}\}",
        lambda m: "{{" + f"{m[1]}.{task}.outputs.parameters.{gates.RESULT}" + "}}",
        value,
    )
    return re.sub(
        r"\b(tasks|steps)(\." + name + r"|\[\s*['\"]" + name + r"['\"]\s*\])\.outputs\.result\b",
        lambda m: f"{m[1]}{m[2]}.outputs.parameters['{gates.RESULT}']",
        value,
    )


def text_of(value: Any) -> str:
    """A value of a manifest as the text that Argo makes of it."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
