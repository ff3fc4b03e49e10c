"""What the templates of a workflow can refer to: variables by their dotted name, and as nested maps."""

import json
import re
from collections.abc import Mapping
from typing import Any

from periplus_local.argo.faults import Fault, invalid
from periplus_local.argo.nodes import Node
from periplus_manifest import expression, gotext, tags
from periplus_manifest.errors import ManifestError

ABSENT = "\x00absent-optional"
PURE = re.compile(r"^\{\{\s*([^{}=][^{}]*?)\s*\}\}$")
WHITE = re.compile(r'("(?:\\.|[^"\\])*")|\s+')
STEP_REFERENCE = re.compile(r"\{\{\s*((?:tasks|steps)\.[^{}]*?)\s*\}\}")


class Scope:
    """Variables in reach of one template; what is not here is looked for in the scope around it."""

    def __init__(self, around: "Scope | None" = None) -> None:
        """An empty scope within another one."""
        self.around = around
        self.flat: dict[str, Any] = {}
        self.nested: dict[str, Any] = {}
        self.absent: set[str] = set()

    def put(self, value: Any, *path: str) -> None:
        """Set the variable at the path ("tasks", "a", "outputs", "parameters", "x")."""
        self.flat[".".join(path)] = value
        level = self.nested
        for step in path[:-1]:
            inner = level.get(step)
            if not isinstance(inner, dict):
                inner = level[step] = {}
            level = inner
        level[path[-1]] = value

    def skip(self, *path: str) -> None:
        """Set the variable to nothing: the output of a step that did not run and that has no default."""
        self.put(None, *path)
        self.absent.add(".".join(path))

    def has(self, name: str) -> bool:
        """Whether there is such a variable."""
        return name in self.flat or (self.around is not None and self.around.has(name))

    def get(self, name: str) -> Any:
        """The value of the variable; None when there is none."""
        if name in self.flat:
            return self.flat[name]
        return self.around.get(name) if self.around is not None else None

    def env(self) -> dict[str, Any]:
        """All variables as nested maps, for expressions."""
        return {**(self.around.env() if self.around is not None else {}), **self.nested}

    def text(self, name: str) -> str | None:
        """The value of a variable for a simple tag; None when there is none.

        Raises Fault for an output of a step that was skipped: there is no text for it.
        """
        value = self.get(name)
        if value is None and self.has(name):
            raise invalid(
                f"unable to substitute {{{{{name}}}}}: output is an absent optional "
                "(skipped/omitted node with no default)"
            )
        return value if isinstance(value, str) else None

    def fill(self, value: Any, *, strict: bool = False) -> Any:
        """The value with its tags replaced.

        Unknown tags stay as they are; with `strict`, one that names an output of a task or a step is a
        Fault, because nothing that comes later would replace it, and ManifestError is raised for an
        expression that has no value though all that it names is known.
        """
        filled = tags.substitute_all(value, self.text, self.env(), strict=False, settle=strict)
        if strict:
            unresolved(filled)
        return filled

    def fill_all(self, value: Any) -> Any:
        """The value with its tags replaced; Fault for one that is unknown, whatever it names."""
        try:
            return tags.substitute_all(value, self.text, self.env(), strict=True)
        except ManifestError as error:
            raise invalid(error.message) from error

    def evaluate(self, text: str) -> Any:
        """The value of an expression over the variables; raises Fault when it cannot be had."""
        return self._evaluate(text, self.env())

    def evaluate_output(self, text: str) -> Any:
        """The value of an output's expression, which in Argo sees inputs, tasks and steps and no workflow.*."""
        env = self.env()
        return self._evaluate(text, {key: env[key] for key in ("inputs", "tasks", "steps") if key in env})

    def _evaluate(self, text: str, env: Mapping[str, Any]) -> Any:
        try:
            return expression.evaluate(text, env)
        except ManifestError as error:
            raise invalid(f'failed to evaluate expression "{text}": {error}') from error

    def resolve(self, reference: str) -> tuple[str, Any]:
        """The name and value that `{{name}}` or an expression tag stands for; Fault when unknown."""
        found = PURE.match(reference)
        if found is None:
            return reference, tags.substitute(reference, self.text, self.env(), strict=True)
        name = found[1]
        if not self.has(name):
            raise invalid(f'Unable to resolve: "{name}"')
        return name, self.get(name)


def unresolved(value: Any) -> None:
    """Raise Fault when some tag in the value still names an output of a task or a step."""
    if isinstance(value, str):
        for found in STEP_REFERENCE.finditer(value) if "{{" in value else ():
            if ".outputs.artifacts." not in found[1]:  # these stand for places, and are resolved as such
                raise invalid(f"failed to resolve {{{{{found[1]}}}}}")
    elif isinstance(value, Mapping):
        for item in value.values():
            unresolved(item)
    elif isinstance(value, list):
        for item in value:
            unresolved(item)


def mark_absent(arguments: dict[str, Any], scope: Scope) -> dict[str, Any]:
    """The arguments, with those that are nothing but the output of a skipped step marked as not given."""
    marked = []
    for parameter in arguments.get("parameters") or ():
        found = PURE.match(str(parameter.get("value", "")))
        given = {**parameter, "value": ABSENT} if found and found[1] in scope.absent else parameter
        marked.append(given)
    return {**arguments, "parameters": marked} if marked else arguments


PARAMETER = ("name", "default", "value", "valueFrom", "globalName", "enum", "description")


def parameters_text(parameters: list[dict[str, Any]]) -> str:
    """Parameters as JSON, their fields in the order in which Argo writes them."""
    written = (
        ",".join(f'"{key}":{gotext.json_text(item[key])}' for key in PARAMETER if key in item)
        for item in parameters
    )
    return f"[{','.join(f'{{{fields}}}' for fields in written)}]" if parameters else "null"


def put_node(scope: Scope, kind: str, name: str, node: Node, outputs: Mapping[str, Any] | None) -> None:
    """Put what is known of a finished node in reach of the steps after it."""
    scope.put(node["id"], kind, name, "id")
    scope.put(node["startedAt"], kind, name, "startedAt")
    if "finishedAt" in node:
        scope.put(node["finishedAt"], kind, name, "finishedAt")
    scope.put(node["phase"], kind, name, "status")
    if "hostNodeName" in node:
        scope.put(node["hostNodeName"], kind, name, "hostNodeName")
    if outputs is None:
        return
    if "result" in outputs:
        scope.put(outputs["result"], kind, name, "outputs", "result")
    if "exitCode" in outputs:
        scope.put(outputs["exitCode"], kind, name, "exitCode")
    put_outputs(scope, kind, name, outputs)


def put_outputs(scope: Scope, kind: str, name: str, outputs: Mapping[str, Any]) -> None:
    """Put the parameters and artifacts that a node gives out in reach."""
    for parameter in outputs.get("parameters") or ():
        if "value" in parameter:
            scope.put(parameter["value"], kind, name, "outputs", "parameters", parameter["name"])
    for artifact in outputs.get("artifacts") or ():
        scope.put(artifact, kind, name, "outputs", "artifacts", artifact["name"])


def put_skipped(scope: Scope, kind: str, name: str, declared: Mapping[str, Any]) -> None:
    """Put the declared outputs of a step that did not run in reach: their defaults, else nothing."""
    for parameter in declared.get("parameters") or ():
        origin = parameter.get("valueFrom") or {}
        path = (kind, name, "outputs", "parameters", parameter["name"])
        if "default" in origin:
            scope.put(origin["default"], *path)
        else:
            scope.skip(*path)
    if kind == "steps":
        for artifact in declared.get("artifacts") or ():
            scope.put({}, kind, name, "outputs", "artifacts", artifact["name"])


def put_aggregate(scope: Scope, kind: str, name: str, nodes: list[Node]) -> None:
    """Put the outputs of the items of a loop in reach, as JSON lists in item order."""
    lists: dict[str, list[str]] = {}
    maps: list[dict[str, str]] = []
    results: list[str] = []
    for node in nodes:
        outputs = node.get("outputs")
        if outputs is None or node["phase"] != "Succeeded":
            continue
        values = {p["name"]: p.get("value", "") for p in outputs.get("parameters") or ()}
        if values:
            maps.append(values)
        for key, value in values.items():
            lists.setdefault(key, []).append(value)
        if "result" in outputs:
            results.append(outputs["result"])
    scope.put(_results(results), kind, name, "outputs", "result")
    parameters = {key: _values(value) for key, value in lists.items()}
    scope.flat[f"{kind}.{name}.outputs.parameters"] = gotext.json_text(maps)
    for key, value in parameters.items():
        scope.put(value, kind, name, "outputs", "parameters", key)


def _results(results: list[str]) -> str:
    for result in results:
        _json(result)
    return "[" + ",".join(compact(result) for result in results) + "]"


def _values(values: list[str]) -> str:
    try:
        parsed = [_json(value) for value in values]
    except Fault:
        return gotext.json_text(values)
    nested = all(isinstance(value, dict | list) for value in parsed)
    return gotext.json_text(parsed if nested else values)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise invalid(f"an output of a loop is not JSON: {error}") from error


def compact(raw: str) -> str:
    """JSON text without white space between its tokens, its numbers left as they are written."""
    text = WHITE.sub(lambda found: found.group(1) or "", raw)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
