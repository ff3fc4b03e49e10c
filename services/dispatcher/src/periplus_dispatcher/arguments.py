"""The arguments of calls that are rewritten: what stays with a loop, what is passed in, and who reads a result."""

import copy
import re
from typing import Any

from periplus_dispatcher import gates, tasks
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
        if "value" not in p:  # it comes from elsewhere, which the call says
            inputs["parameters"].append({"name": p["name"]})
            outer["parameters"].append(copy.deepcopy(p))
            inner["parameters"].append(
                {"name": p["name"], "value": "{{inputs.parameters." + p["name"] + "}}"}
            )
            continue
        text = tasks.text_of(p["value"])
        found = tags.find(text)
        if not any(names_item(tag.name) for tag in found):
            inner["parameters"].append({"name": p["name"], "value": pass_in(p["name"], text)})
            continue
        for number, tag in enumerate(reversed(found)):
            if not names_item(tag.name):
                passed = pass_in(f"periplus-ref-{p['name']}-{number}", text[tag.start : tag.end])
                text = text[: tag.start] + passed + text[tag.end :]
        inner["parameters"].append({"name": p["name"], "value": text})
    for a in arguments.get("artifacts") or ():
        inputs["artifacts"].append({"name": a["name"]})
        outer["artifacts"].append(copy.deepcopy(a))
        inner["artifacts"].append({"name": a["name"], "from": "{{inputs.artifacts." + a["name"] + "}}"})
    return inputs, outer, inner


def names_item(reference: str) -> bool:
    """Whether a simple reference is to the item of a loop."""
    return reference == "item" or reference.startswith(("item.", "item["))


def unsplittable(arguments: Json) -> str:
    """Why a loop's arguments can not be taken apart; empty where they can."""
    for p in arguments.get("parameters") or ():
        for tag in tags.find(tasks.text_of(p.get("value", ""))):
            if tag.is_expression and re.search(r"\bitem\b", tag.name):
                return "it computes with its items"
    for a in arguments.get("artifacts") or ():
        for tag in (tag for _, text in tags.texts(a) for tag in tags.find(text)):
            if re.search(r"\bitem\b", tag.name):
                return "its artifacts differ from item to item"
    return ""


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
