"""Selectors, by which clients pick workflows by their labels and nodes by their fields."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from periplus_local.argo.faults import internal, invalid
from periplus_local.argo.nodes import Node

Labels = Mapping[str, str]
Test = Callable[[Labels], bool]
SET = re.compile(r"^(\S+)\s+(in|notin)\s*\(([^()]*)\)$")
EQUAL = re.compile(r"^([^!=\s]+)\s*(==|=|!=)\s*([^!=]*)$")
COMMA = re.compile(r",(?![^()]*\))")


def labels(text: str) -> Test:
    """A test of labels, from "a=b,c!=d,e in (f,g),h,!i"; raises Fault when it is no selector."""
    tests = [_label(part.strip()) for part in COMMA.split(text) if part.strip()]
    return lambda given: all(test(given) for test in tests)


def _label(part: str) -> Test:
    found = SET.match(part)
    if found:
        key, negative = found[1], found[2] == "notin"
        values = {value.strip() for value in found[3].split(",")}
        if negative:
            return lambda given: given.get(key) not in values
        return lambda given: given.get(key) in values
    found = EQUAL.match(part)
    if found:
        key, value, unequal = found[1], found[3].strip(), found[2] == "!="
        return lambda given: (given.get(key) == value) is not unequal
    if re.fullmatch(r"!?[\w./-]+", part):
        name, absent = part.lstrip("!"), part.startswith("!")
        return lambda given: (name in given) is not absent
    raise invalid(f"unable to parse requirement: {part!r} is not a label selector")


def nodes(text: str) -> Callable[[Node], bool]:
    """A test of nodes, from "id=x,displayName!=y,inputs.parameters.p.value=z"; Fault when it is none."""
    wanted = []
    for part in text.split(","):
        found = EQUAL.match(part.strip())
        if found is None:
            raise internal(f"invalid selector: {text!r}; can't understand {part!r}")
        wanted.append((found[1], found[3].strip(), found[2] == "!="))
    return lambda node: all((_field(node, key) == value) is not unequal for key, value, unequal in wanted)


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
