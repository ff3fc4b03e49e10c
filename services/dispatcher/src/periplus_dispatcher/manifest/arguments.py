"""The arguments of a loop, split into what depends on the item and what is passed in from outside of the loop."""

import copy
import re

from periplus_dispatcher.domain import Json
from periplus_dispatcher.manifest.calls import text_of
from periplus_manifest import tags


def split_arguments(arguments: Json) -> tuple[Json, Json, Json]:
    """The inputs of the loop's wrapper, the arguments of the call of the wrapper, and the arguments of one item."""
    inputs: Json = {"parameters": [], "artifacts": []}
    outer: Json = {"parameters": [], "artifacts": []}
    inner: Json = {"parameters": [], "artifacts": []}

    def pass_in(name: str, value: str) -> str:
        inputs["parameters"].append({"name": name})
        outer["parameters"].append({"name": name, "value": value})
        return "{{inputs.parameters." + name + "}}"

    for p in arguments.get("parameters") or ():
        if "value" not in p:  # its value comes from `valueFrom`
            inputs["parameters"].append({"name": p["name"]})
            outer["parameters"].append(copy.deepcopy(p))
            inner["parameters"].append(
                {"name": p["name"], "value": "{{inputs.parameters." + p["name"] + "}}"}
            )
            continue
        text = text_of(p["value"])
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
    """Whether a simple reference is to the item of a loop."""
    return reference == "item" or reference.startswith(("item.", "item["))


def unsplittable_reason(arguments: Json) -> str:
    """Why `split_arguments` can not split a loop's arguments; empty if it can."""
    for p in arguments.get("parameters") or ():
        for tag in tags.find(text_of(p.get("value", ""))):
            if tag.is_expression and re.search(r"\bitem\b", tag.name):
                return "an expression in its arguments uses the item"
    for a in arguments.get("artifacts") or ():
        for tag in (tag for _, text in tags.texts(a) for tag in tags.find(text)):
            if re.search(r"\bitem\b", tag.name):
                return "its artifacts differ from item to item"
    return ""
