"""What names mean inside one call of a template: texts and artifacts, resolved as far as they are known."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from periplus_dispatcher import tasks
from periplus_dispatcher.domain import (
    Item,
    Literal,
    Object,
    Part,
    Raw,
    Source,
    Text,
    Unknown,
    known,
    literal,
)
from periplus_dispatcher.gates import PLACES
from periplus_manifest import loops, tags
from periplus_manifest.errors import ManifestError

Json = dict[str, Any]


@dataclass
class Given:
    """What the outputs of one call are, for those who refer to them."""

    parameter: Callable[[str], Text]
    artifact: Callable[[str], Source]
    result: Text


@dataclass
class Scope:
    """What names mean inside one call of a template."""

    parameters: Mapping[str, Text]
    artifacts: Mapping[str, Source]
    given: dict[str, Given] = field(default_factory=dict)
    looped: bool = False


class Reader:
    """Reads the texts of a manifest. `parameters` are the workflow's, with their values."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self._parameters = parameters
        self.constants = {f"workflow.parameters.{name}": value for name, value in parameters.items()}

    def outputs(self, template: Json, scope: Scope) -> Given:
        """What a DAG or steps template gives, from what its tasks give."""
        parameters: dict[str, Text] = {}
        artifacts: dict[str, Source] = {}
        for p in tasks.listed(template, "outputs", "parameters"):
            reference = (p.get("valueFrom") or {}).get("parameter")
            what = f"outputs.parameters.{p['name']} of {template['name']}"
            parameters[p["name"]] = self.text(reference, scope) if reference else (Unknown(what),)
        for a in tasks.listed(template, "outputs", "artifacts"):
            artifacts[a["name"]] = self.source(a, scope)
        return Given(
            lambda n: parameters.get(n, (Unknown(f"outputs.parameters.{n}"),)),
            lambda n: artifacts.get(n, Unknown(f"outputs.artifacts.{n}")),
            (Unknown(f"the result of {template['name']}"),),
        )

    def inside(
        self, template: Json, parameters: Mapping[str, Text], artifacts: Mapping[str, Source], *, looped: bool
    ) -> Scope:
        """What a template's inputs are: as given, else their defaults."""
        texts: dict[str, Text] = {}
        for p in tasks.listed(template, "inputs", "parameters"):
            default = p.get("value", p.get("default"))
            if p["name"] in parameters:
                texts[p["name"]] = parameters[p["name"]]
            elif default is not None:
                texts[p["name"]] = self.text(tasks.text_of(default), Scope({}, {}))
            else:
                texts[p["name"]] = (Unknown(f"inputs.parameters.{p['name']}"),)
        sources: dict[str, Source] = {}
        for a in tasks.listed(template, "inputs", "artifacts"):
            if a["name"] in artifacts:
                sources[a["name"]] = artifacts[a["name"]]
            elif PLACES & set(a):
                sources[a["name"]] = self.source(a, Scope(texts, {}))
        return Scope(texts, sources, looped=looped)

    def arguments(self, task: Json, scope: Scope) -> tuple[dict[str, Text], dict[str, Source]]:
        parameters = {
            p["name"]: self.text(tasks.text_of(p["value"]), scope, item=tasks.loop(task))
            if "value" in p
            else (Unknown(f"arguments.parameters.{p['name']}"),)
            for p in tasks.listed(task, "arguments", "parameters")
        }
        artifacts = {a["name"]: self.source(a, scope) for a in tasks.listed(task, "arguments", "artifacts")}
        return parameters, artifacts

    def items(self, task: Json, scope: Scope) -> Text:
        """A loop's items as one JSON text, known or not."""
        if task.get("withItems"):
            try:
                items = tags.substitute_all(
                    task["withItems"], lambda n: known(self._reference(n, scope, item=False))
                )
            except ManifestError:
                return (Unknown("withItems"),)
            return literal(json.dumps(items, separators=(",", ":"), ensure_ascii=False))
        if task.get("withParam"):
            return self.text(tasks.text_of(task["withParam"]), scope)

        def lookup(name: str) -> str | None:
            return known(self._reference(name, scope, item=False))

        try:
            items = loops.items(task, lookup)
        except ManifestError:
            return (Unknown("withSequence"),)
        return literal(json.dumps(items))

    def text(self, text: str, scope: Scope, *, item: bool = False) -> Text:
        """A text with its tags resolved as far as they are known."""
        parts: list[Part] = []
        at = 0
        for tag in tags.find(text):
            parts.append(Literal(text[at : tag.start]))
            parts += (
                self._expression(tag.name, scope)
                if tag.is_expression
                else self._reference(tag.name, scope, item)
            )
            at = tag.end
        parts.append(Literal(text[at:]))
        return _merged(parts)

    def _expression(self, source: str, scope: Scope) -> Text:
        """An expression over what is known is known; any other is left to Argo.

        One that would do with less (`?.`, `??`) is not known either: what it asks for may come.
        """
        for name in tags.references("{{=" + source + "}}"):
            parameter = name.removeprefix("inputs.parameters.")
            given = parameter != name and known(scope.parameters.get(parameter, (Unknown(name),))) is not None
            if not given and name not in self.constants:
                return (Unknown(source),)
        env: Json = {"inputs": {"parameters": {}}, "workflow": {"parameters": dict(self._parameters)}}
        env["inputs"]["parameters"] = {
            n: v for n, t in scope.parameters.items() if (v := known(t)) is not None
        }
        try:
            return literal(tags.substitute("{{=" + source + "}}", lambda _: None, env))
        except ManifestError:
            return (Unknown(source),)

    def _reference(self, name: str, scope: Scope, item: bool) -> Text:
        if name in self.constants:
            return literal(self.constants[name])
        kind, _, rest = name.partition(".")
        if kind == "item" and item:
            return (Item(rest),)
        if name.startswith("inputs.parameters."):
            return scope.parameters.get(name.removeprefix("inputs.parameters."), (Unknown(name),))
        if kind in ("tasks", "steps"):
            task, _, output = rest.partition(".outputs.")
            given = scope.given.get(task)
            if given and output == "result":
                return given.result
            if given and output.startswith("parameters."):
                return given.parameter(output.removeprefix("parameters."))
        return (Unknown(name),)

    def source(self, artifact: Json, scope: Scope) -> Source:
        """Where an argument or an output of a template takes its artifact from."""
        if artifact.get("subPath"):
            return Unknown(f"a part of the artifact {artifact['name']}")
        if reference := artifact.get("from"):
            name = reference.strip().removeprefix("{{").removesuffix("}}").strip()
            if name.startswith("inputs.artifacts."):
                return scope.artifacts.get(name.removeprefix("inputs.artifacts."), Unknown(name))
            kind, _, rest = name.partition(".")
            task, _, output = rest.partition(".outputs.artifacts.")
            if kind in ("tasks", "steps") and task in scope.given:
                return scope.given[task].artifact(output)
            return Unknown(name)
        if "raw" in artifact:
            data = known(self.text(str(artifact["raw"].get("data", "")), scope))
            return Raw(data) if data is not None else Unknown(f"the raw artifact {artifact['name']}")
        if "s3" in artifact:
            place = {
                k: known(self.text(str(artifact["s3"].get(k, "")), scope))
                for k in ("key", "bucket", "endpoint")
            }
            if place["key"] and None not in place.values():
                return Object(place["key"], place["bucket"] or "", place["endpoint"] or "")
        return Unknown(f"the artifact {artifact['name']}")


def unknown(path: str) -> Given:
    return Given(
        lambda n: (Unknown(f"{path}.outputs.parameters.{n}"),),
        lambda n: Unknown(f"{path}.outputs.artifacts.{n}"),
        (Unknown(f"{path}.outputs.result"),),
    )


def _merged(parts: list[Part]) -> Text:
    """Neighbouring literals made one, empty ones left out."""
    merged: list[Part] = []
    for part in parts:
        if isinstance(part, Literal) and merged and isinstance(merged[-1], Literal):
            merged[-1] = Literal(merged[-1].text + part.text)
        elif part != Literal(""):
            merged.append(part)
    return tuple(merged)


def without_items(text: Text) -> Text:
    return tuple(Unknown(f"item.{p.member}".rstrip(".")) if isinstance(p, Item) else p for p in text)


def settled(text: Text) -> bool:
    return not any(isinstance(part, Unknown | Item) for part in text)
