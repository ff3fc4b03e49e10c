"""The variables that the templates of a workflow can refer to, by dotted name and as nested maps."""

import json
import re
from collections.abc import Mapping
from typing import Any

from periplus_local.argo.controller.nodes import Node
from periplus_local.argo.errors import ArgoError, invalid_argument
from periplus_manifest import expression, gotext, tags
from periplus_manifest.errors import ManifestError

# The value of an argument that refers to the output of a step that did not run and has no default.
ABSENT = "\x00absent-optional"
SINGLE_TAG = re.compile(r"^\{\{\s*([^{}=][^{}]*?)\s*\}\}$")
STRING_OR_WHITE_SPACE = re.compile(r'("(?:\\.|[^"\\])*")|\s+')
STEP_REFERENCE = re.compile(r"\{\{\s*((?:tasks|steps)\.[^{}]*?)\s*\}\}")
# The fields of a parameter in the order in which Argo writes them.
PARAMETER_FIELDS = ("name", "default", "value", "valueFrom", "globalName", "enum", "description")


class Scope:
    """Variables of one template; what is not here is looked up in the parent.

    `flat` has the variables by dotted name, for simple tags; `nested` the same as nested maps, for expressions.
    `absent` are the names of outputs of steps that did not run and have no default.
    """

    def __init__(self, parent: "Scope | None" = None) -> None:
        self.parent = parent
        self.flat: dict[str, Any] = {}
        self.nested: dict[str, Any] = {}
        self.absent: set[str] = set()

    def put(self, value: Any, *path: str) -> None:
        """Set the variable at the path ("tasks", "a", "outputs", "parameters", "x")."""
        self.flat[".".join(path)] = value
        level = self.nested
        for name in path[:-1]:
            inner = level.get(name)
            if not isinstance(inner, dict):
                inner = level[name] = {}
            level = inner
        level[path[-1]] = value

    def put_absent(self, *path: str) -> None:
        """Set the variable to the output of a step that did not run and has no default."""
        self.put(None, *path)
        self.absent.add(".".join(path))

    def has(self, name: str) -> bool:
        """Whether there is such a variable."""
        return name in self.flat or (self.parent is not None and self.parent.has(name))

    def get(self, name: str) -> Any:
        """The value of the variable; None when there is none."""
        if name in self.flat:
            return self.flat[name]
        return self.parent.get(name) if self.parent is not None else None

    def env(self) -> dict[str, Any]:
        """All variables as nested maps, for expressions."""
        return {**(self.parent.env() if self.parent is not None else {}), **self.nested}

    def text(self, name: str) -> str | None:
        """The value of a variable for a simple tag; None when there is none.

        Raises ArgoError for an absent output, which has no text.
        """
        value = self.get(name)
        if value is None and self.has(name):
            raise invalid_argument(
                f"unable to substitute {{{{{name}}}}}: output is an absent optional "
                "(skipped/omitted node with no default)"
            )
        return value if isinstance(value, str) else None

    def fill(self, value: Any, *, strict: bool = False) -> Any:
        """The value with its tags replaced; unknown tags stay as they are.

        With `strict`, ArgoError is raised for a tag that refers to an unknown output of a task or a step, since it
        would not be replaced later either, and ManifestError for an expression that has no value although all its
        variables are known.
        """
        filled = tags.substitute_all(value, self.text, self.env(), strict=False, final=strict)
        if strict:
            check_step_references(filled)
        return filled

    def fill_strictly(self, value: Any) -> Any:
        """The value with its tags replaced; raises ArgoError for any unknown one."""
        try:
            return tags.substitute_all(value, self.text, self.env(), strict=True)
        except ManifestError as error:
            raise invalid_argument(error.message) from error

    def evaluate(self, text: str) -> Any:
        """The value of an expression over all variables; raises ArgoError when it has none."""
        return self._evaluate(text, self.env())

    def evaluate_output(self, text: str) -> Any:
        """The value of an output's expression, which in Argo sees inputs, tasks and steps but no workflow.*."""
        env = self.env()
        return self._evaluate(text, {key: env[key] for key in ("inputs", "tasks", "steps") if key in env})

    def _evaluate(self, text: str, env: Mapping[str, Any]) -> Any:
        try:
            return expression.evaluate(text, env)
        except ManifestError as error:
            raise invalid_argument(f'failed to evaluate expression "{text}": {error}') from error

    def resolve(self, reference: str) -> tuple[str, Any]:
        """The name and the value of `{{name}}` or of an expression tag; raises ArgoError when unknown."""
        found = SINGLE_TAG.match(reference)
        if found is None:
            return reference, tags.substitute(reference, self.text, self.env(), strict=True)
        name = found[1]
        if not self.has(name):
            raise invalid_argument(f'Unable to resolve: "{name}"')
        return name, self.get(name)


def check_step_references(value: Any) -> None:
    """Raise ArgoError when a tag in the value still refers to an output of a task or a step."""
    if isinstance(value, str):
        for found in STEP_REFERENCE.finditer(value) if "{{" in value else ():
            if ".outputs.artifacts." not in found[1]:  # resolved later, see outputs.resolve_artifact
                raise invalid_argument(f"failed to resolve {{{{{found[1]}}}}}")
    elif isinstance(value, Mapping):
        for item in value.values():
            check_step_references(item)
    elif isinstance(value, list):
        for item in value:
            check_step_references(item)


def mark_absent(arguments: dict[str, Any], scope: Scope) -> dict[str, Any]:
    """The arguments, with the value ABSENT for each that is nothing but a reference to an absent output."""
    marked = []
    for parameter in arguments.get("parameters") or ():
        found = SINGLE_TAG.match(str(parameter.get("value", "")))
        marked.append({**parameter, "value": ABSENT} if found and found[1] in scope.absent else parameter)
    return {**arguments, "parameters": marked} if marked else arguments


def parameters_json(parameters: list[dict[str, Any]]) -> str:
    """Parameters as JSON, their fields in Argo's order; "null" for none."""
    items = (
        ",".join(f'"{key}":{gotext.json_text(item[key])}' for key in PARAMETER_FIELDS if key in item)
        for item in parameters
    )
    return f"[{','.join(f'{{{fields}}}' for fields in items)}]" if parameters else "null"


def put_node(scope: Scope, kind: str, name: str, node: Node, outputs: Mapping[str, Any] | None) -> None:
    """Put the variables of an ended step into the scope: its id, times, phase and outputs."""
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
    """Put the output parameters and artifacts of a step into the scope."""
    for parameter in outputs.get("parameters") or ():
        if "value" in parameter:
            scope.put(parameter["value"], kind, name, "outputs", "parameters", parameter["name"])
    for artifact in outputs.get("artifacts") or ():
        scope.put(artifact, kind, name, "outputs", "artifacts", artifact["name"])


def put_skipped(scope: Scope, kind: str, name: str, declared: Mapping[str, Any]) -> None:
    """Put the declared outputs of a step that did not run into the scope: their defaults, else absent."""
    for parameter in declared.get("parameters") or ():
        source = parameter.get("valueFrom") or {}
        path = (kind, name, "outputs", "parameters", parameter["name"])
        if "default" in source:
            scope.put(source["default"], *path)
        else:
            scope.put_absent(*path)
    if kind == "steps":
        for artifact in declared.get("artifacts") or ():
            scope.put({}, kind, name, "outputs", "artifacts", artifact["name"])


def put_aggregate(scope: Scope, kind: str, name: str, nodes: list[Node]) -> None:
    """Put the outputs of the items of a loop into the scope, as JSON lists in item order."""
    values_of: dict[str, list[str]] = {}
    parameters_of_items: list[dict[str, str]] = []
    results: list[str] = []
    for node in nodes:
        outputs = node.get("outputs")
        if outputs is None or node["phase"] != "Succeeded":
            continue
        parameters = {p["name"]: p.get("value", "") for p in outputs.get("parameters") or ()}
        if parameters:
            parameters_of_items.append(parameters)
        for key, value in parameters.items():
            values_of.setdefault(key, []).append(value)
        if "result" in outputs:
            results.append(outputs["result"])
    scope.put(_list_of_results(results), kind, name, "outputs", "result")
    lists = {key: _list_of_values(values) for key, values in values_of.items()}
    scope.flat[f"{kind}.{name}.outputs.parameters"] = gotext.json_text(parameters_of_items)
    for key, value in lists.items():
        scope.put(value, kind, name, "outputs", "parameters", key)


def _list_of_results(results: list[str]) -> str:
    for result in results:
        _parse_json(result)
    return "[" + ",".join(compact(result) for result in results) + "]"


def _list_of_values(values: list[str]) -> str:
    try:
        parsed = [_parse_json(value) for value in values]
    except ArgoError:
        return gotext.json_text(values)
    are_nested = all(isinstance(value, dict | list) for value in parsed)
    return gotext.json_text(parsed if are_nested else values)


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid_argument(f"an output of a loop is not JSON: {error}") from error


def compact(raw: str) -> str:
    """JSON text without white space between its tokens; numbers stay as they are written."""
    text = STRING_OR_WHITE_SPACE.sub(lambda found: found.group(1) or "", raw)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
