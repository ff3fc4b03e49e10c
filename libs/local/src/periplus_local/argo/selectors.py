"""Label selectors, which pick workflows by their labels, and field selectors, which pick nodes by their fields."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from periplus_local.argo.errors import internal, invalid_argument

Labels = Mapping[str, str]
LabelTest = Callable[[Labels], bool]
Node = Mapping[str, Any]
SET_REQUIREMENT = re.compile(r"^(\S+)\s+(in|notin)\s*\(([^()]*)\)$")
EQUALITY = re.compile(r"^([^!=\s]+)\s*(==|=|!=)\s*([^!=]*)$")
EXISTENCE = re.compile(r"!?[\w./-]+")
COMMA_OUTSIDE_PARENTHESES = re.compile(r",(?![^()]*\))")


def label_selector(text: str) -> LabelTest:
    """A test of labels, from "a=b,c!=d,e in (f,g),h,!i"; raises ArgoError when it is no selector."""
    tests = [_requirement(part.strip()) for part in COMMA_OUTSIDE_PARENTHESES.split(text) if part.strip()]
    return lambda labels: all(test(labels) for test in tests)


def _requirement(part: str) -> LabelTest:
    found = SET_REQUIREMENT.match(part)
    if found:
        key, negative = found[1], found[2] == "notin"
        values = {value.strip() for value in found[3].split(",")}
        if negative:
            return lambda labels: labels.get(key) not in values
        return lambda labels: labels.get(key) in values
    found = EQUALITY.match(part)
    if found:
        key, value, unequal = found[1], found[3].strip(), found[2] == "!="
        return lambda labels: (labels.get(key) == value) is not unequal
    if EXISTENCE.fullmatch(part):
        name, absent = part.lstrip("!"), part.startswith("!")
        return lambda labels: (name in labels) is not absent
    raise invalid_argument(f"unable to parse requirement: {part!r} is not a label selector")


def node_field_selector(text: str) -> Callable[[Node], bool]:
    """A test of nodes, from "id=x,displayName!=y,inputs.parameters.p.value=z"; raises ArgoError when it is none."""
    requirements = []
    for part in text.split(","):
        found = EQUALITY.match(part.strip())
        if found is None:
            raise internal(f"invalid selector: {text!r}; can't understand {part!r}")
        requirements.append((found[1], found[3].strip(), found[2] == "!="))
    return lambda node: all(
        (_field(node, key) == value) is not unequal for key, value, unequal in requirements
    )


def _field(node: Node, key: str) -> str:
    if key in {"id", "name", "displayName", "phase", "type"}:
        return str(node.get(key, ""))
    reference: dict[str, Any] = node.get("templateRef") or {}
    if key == "templateName":
        return str(reference.get("template") or node.get("templateName", ""))
    if key in {"templateRef.name", "templateRef.template"}:
        return str(reference.get(key.partition(".")[2], ""))
    for parameter in (node.get("inputs") or {}).get("parameters") or ():
        if key == f"inputs.parameters.{parameter['name']}.value":
            return str(parameter.get("value", ""))
    return ""
