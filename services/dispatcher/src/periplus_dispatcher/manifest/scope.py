"""What references mean inside one call of a template: texts and artifact sources, resolved as far as they are known."""

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from periplus_dispatcher.domain import Json
from periplus_dispatcher.manifest.calls import is_loop, items_of, text_of
from periplus_manifest import loops, tags
from periplus_manifest.bounds import MAX_TEXT_CHARACTERS
from periplus_manifest.errors import BoundError, ManifestError
from periplus_model.queries import (
    ArtifactSource,
    Item,
    Literal,
    OutputRef,
    Raw,
    Text,
    TextPart,
    Unknown,
    literal,
    literal_text,
)
from periplus_model.steps import ObjectRef

MAX_RESOLVED_CHARACTERS = 32 << 20
"""Characters of all texts that are resolved for one plan, with `CHARACTERS_PER_TEXT` for the time that each takes."""
CHARACTERS_PER_TEXT = 64

ARTIFACT_LOCATIONS = frozenset(
    {"s3", "raw", "http", "git", "gcs", "oss", "azure", "hdfs", "artifactory", "plugin"}
)
"""Fields of an artifact that say where it is stored."""


@dataclass(frozen=True)
class OutputRefs:
    """The outputs of one call, for references to them."""

    parameter: Callable[[str], Text]
    artifact: Callable[[str], ArtifactSource]
    result: Text


@dataclass
class Scope:
    """What references mean inside one call: its inputs, and the outputs of the calls before it, by name.

    `in_loop` is whether the call is, or is inside, an item of a loop.
    """

    parameters: Mapping[str, Text]
    artifacts: Mapping[str, ArtifactSource]
    outputs: dict[str, OutputRefs] = field(default_factory=dict)
    in_loop: bool = False


class TooLargeToPlanError(Exception):
    """The expansion of a manifest is larger than a plan may be; the message says what there is too much of."""


VOLATILE = frozenset(
    {
        "workflow.name", "workflow.uid", "workflow.creationTimestamp", "workflow.creationTimestamp.s",
        "workflow.creationTimestamp.RFC3339", "workflow.scheduledTime",
    }
)  # fmt: skip
"""References that have another value in each run. A year or a day, as `workflow.creationTimestamp.Y`, has the same for some time."""


class Resolver:
    """Resolves the texts and artifacts of a manifest. `parameters` are the workflow's, with their values.

    All texts together may cost `MAX_RESOLVED_CHARACTERS`; then it raises `TooLargeToPlanError`.
    """

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self._parameters = parameters
        self._characters_left = MAX_RESOLVED_CHARACTERS
        self.constants = {f"workflow.parameters.{name}": value for name, value in parameters.items()}

    def template_outputs(self, template: Json, scope: Scope) -> OutputRefs:
        """The outputs of a template invocator, from the outputs of its calls."""
        parameters: dict[str, Text] = {}
        artifacts: dict[str, ArtifactSource] = {}
        for p in items_of(template, "outputs", "parameters"):
            reference = (p.get("valueFrom") or {}).get("parameter")
            description = f"outputs.parameters.{p['name']} of {template['name']}"
            parameters[p["name"]] = self.text(reference, scope) if reference else (Unknown(description),)
        for a in items_of(template, "outputs", "artifacts"):
            artifacts[a["name"]] = self.source(a, scope)
        return OutputRefs(
            lambda n: parameters.get(n, (Unknown(f"outputs.parameters.{n}"),)),
            lambda n: artifacts.get(n, Unknown(f"outputs.artifacts.{n}")),
            (Unknown(f"the result of {template['name']}"),),
        )

    def inner_scope(
        self,
        template: Json,
        parameters: Mapping[str, Text],
        artifacts: Mapping[str, ArtifactSource],
        *,
        in_loop: bool,
    ) -> Scope:
        """The scope inside a template: its inputs from the arguments, else from a ConfigMap or their defaults."""
        texts: dict[str, Text] = {}
        for p in items_of(template, "inputs", "parameters"):
            default = p.get("value", p.get("default"))
            if p["name"] in parameters:
                texts[p["name"]] = parameters[p["name"]]
            elif default is not None and not is_from_config_map(p):
                texts[p["name"]] = self.text(text_of(default), Scope({}, {}))
            else:
                texts[p["name"]] = (Unknown(f"inputs.parameters.{p['name']}"),)
        sources: dict[str, ArtifactSource] = {}
        for a in items_of(template, "inputs", "artifacts"):
            if a["name"] in artifacts:
                sources[a["name"]] = artifacts[a["name"]]
            elif ARTIFACT_LOCATIONS & set(a):
                sources[a["name"]] = self.source(a, Scope(texts, {}))
        return Scope(texts, sources, in_loop=in_loop)

    def arguments(self, task: Json, scope: Scope) -> tuple[dict[str, Text], dict[str, ArtifactSource]]:
        """The arguments of a call: parameters and artifacts, by name."""
        parameters = {
            p["name"]: self.text(text_of(p["value"]), scope, in_item=is_loop(task))
            if "value" in p
            else (Unknown(f"arguments.parameters.{p['name']}"),)
            for p in items_of(task, "arguments", "parameters")
        }
        artifacts = {a["name"]: self.source(a, scope) for a in items_of(task, "arguments", "artifacts")}
        return parameters, artifacts

    def items(self, task: Json, scope: Scope) -> Text:
        """The items of a fan-out, as a JSON array."""

        def lookup(name: str) -> str | None:
            return literal_text(self._reference(name, scope, in_item=False))

        if task.get("withItems"):
            try:
                items = tags.substitute_all(task["withItems"], lookup)
            except ManifestError:
                return (Unknown("withItems"),)
            return literal(json.dumps(items, separators=(",", ":"), ensure_ascii=False))
        if task.get("withParam"):
            return self.text(text_of(task["withParam"]), scope)
        try:
            items = loops.items(task, lookup)
        except BoundError:
            raise
        except ManifestError:
            return (Unknown("withSequence"),)
        return literal(json.dumps(items))

    def text(self, text: str, scope: Scope, *, in_item: bool = False) -> Text:
        """A text with its tags resolved. Raises `BoundError` for one that is too long. `in_item`: `item` is the item of the call's own loop."""
        parts: list[TextPart] = []
        at = 0
        for tag in tags.find(text):
            parts.append(Literal(text[at : tag.start]))
            parts += (
                self._expression(tag.name, scope)
                if tag.is_expression
                else self._reference(tag.name, scope, in_item=in_item)
            )
            at = tag.end
        parts.append(Literal(text[at:]))
        characters = sum(len(part.text) for part in parts if isinstance(part, Literal))
        if characters > MAX_TEXT_CHARACTERS:
            raise BoundError(
                "", f"the text has more than {MAX_TEXT_CHARACTERS} characters once its tags are replaced"
            )
        self._characters_left -= characters + CHARACTERS_PER_TEXT
        if self._characters_left < 0:
            raise TooLargeToPlanError("more texts than can be planned")
        return _merge_literals(parts)

    def _expression(self, source: str, scope: Scope) -> Text:
        """The value of an expression if every name in it is known; else it is Unknown, and Argo evaluates it.

        That holds for `?.` and `??` as well: the output that they ask for can exist later.
        """
        for name in tags.references("{{=" + source + "}}"):
            parameter = name.removeprefix("inputs.parameters.")
            is_known = (
                parameter != name
                and literal_text(scope.parameters.get(parameter, (Unknown(name),))) is not None
            )
            if not is_known and name not in self.constants:
                return (Unknown(source),)
        if tags.volatile_functions("{{=" + source + "}}"):
            return (Unknown(source),)  # Argo evaluates it again
        environment: Json = {"inputs": {"parameters": {}}, "workflow": {"parameters": dict(self._parameters)}}
        environment["inputs"]["parameters"] = {
            name: value
            for name, text in scope.parameters.items()
            if (value := literal_text(text)) is not None
        }
        try:
            return literal(tags.substitute("{{=" + source + "}}", lambda _: None, environment))
        except ManifestError:
            return (Unknown(source),)

    def _reference(self, name: str, scope: Scope, *, in_item: bool) -> Text:
        if name in self.constants:
            return literal(self.constants[name])
        kind, _, path = name.partition(".")
        if kind == "item" and in_item:
            return (Item(path),)
        if name.startswith("inputs.parameters."):
            return scope.parameters.get(name.removeprefix("inputs.parameters."), (Unknown(name),))
        if kind in ("tasks", "steps"):
            task, _, output = path.partition(".outputs.")
            outputs = scope.outputs.get(task)
            if outputs and output == "result":
                return outputs.result
            if outputs and output.startswith("parameters."):
                return outputs.parameter(output.removeprefix("parameters."))
        return (Unknown(name),)

    def source(self, artifact: Json, scope: Scope) -> ArtifactSource:
        """The source of an artifact argument, or of an output artifact of a template invocator."""
        if artifact.get("subPath"):
            return Unknown(f"a subPath of the artifact {artifact['name']}")
        if reference := artifact.get("from"):
            name = reference.strip().removeprefix("{{").removesuffix("}}").strip()
            if name.startswith("inputs.artifacts."):
                return scope.artifacts.get(name.removeprefix("inputs.artifacts."), Unknown(name))
            kind, _, path = name.partition(".")
            task, _, output = path.partition(".outputs.artifacts.")
            if kind in ("tasks", "steps") and task in scope.outputs:
                return scope.outputs[task].artifact(output)
            return Unknown(name)
        if "raw" in artifact:
            text = self.text(str(artifact["raw"].get("data", "")), scope)
            content = literal_text(text)
            if content is not None:
                return Raw(content)
            return Unknown(volatile_value(text) or f"the raw artifact {artifact['name']}")
        if "s3" in artifact:
            key, bucket, endpoint = (
                literal_text(self.text(str(artifact["s3"].get(field, "")), scope))
                for field in ("key", "bucket", "endpoint")
            )
            if key and bucket is not None and endpoint is not None:
                return ObjectRef(key, bucket, endpoint)
        return Unknown(f"the artifact {artifact['name']}")


def volatile_value(value: Text | ArtifactSource) -> str:
    """What makes a value another one in each run: a reference or an expression; empty if nothing does."""
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, Unknown) and (
            part.description in VOLATILE
            or ("(" in part.description and tags.volatile_functions("{{=" + part.description + "}}"))
        ):
            return part.description
    return ""


def is_from_config_map(parameter: Json) -> bool:
    """Whether Argo reads the value of an input from a ConfigMap, which it does also where the input has a default."""
    return bool((parameter.get("valueFrom") or {}).get("configMapKeyRef"))


def unknown_outputs(path: str) -> OutputRefs:
    """The outputs of a call about which nothing is known before the run."""
    return OutputRefs(
        lambda n: (Unknown(f"{path}.outputs.parameters.{n}"),),
        lambda n: Unknown(f"{path}.outputs.artifacts.{n}"),
        (Unknown(f"{path}.outputs.result"),),
    )


def step_outputs(path: str) -> OutputRefs:
    """The outputs of a step that the cache is asked for."""
    return OutputRefs(
        lambda n: (OutputRef(path, n),), lambda n: OutputRef(path, n), (OutputRef(path, result=True),)
    )


def _merge_literals(parts: list[TextPart]) -> Text:
    """Adjacent literals as one, without empty ones."""
    merged: list[TextPart] = []
    for is_literal, group in itertools.groupby(parts, lambda part: isinstance(part, Literal)):
        if not is_literal:
            merged += group
        elif text := _joined([part.text for part in group if isinstance(part, Literal) and part.text]):
            merged.append(Literal(text))
    return tuple(merged)


def _joined(texts: list[str]) -> str:
    """The texts as one; a single one is not copied, as the calls of a manifest share long ones."""
    return texts[0] if len(texts) == 1 else "".join(texts)


def without_items(text: Text) -> Text:
    """The text with references to items as Unknown: outside of the loop they mean nothing."""
    return tuple(Unknown(f"item.{p.member}".rstrip(".")) if isinstance(p, Item) else p for p in text)


def is_resolvable(text: Text) -> bool:
    """Whether the text is known once the outputs that it refers to are."""
    return not any(isinstance(part, Unknown | Item) for part in text)
