"""The question of a call behind the gate of a stretch: its arguments, in which the gate's inputs stand for all else.

The gate is reached before the calls of its stretch, so it has as inputs what their arguments take from elsewhere; what
they take from each other stays a reference, `{{tasks.<member>.outputs.…}}`, which the cache resolves.
"""

import copy
import json
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from periplus_dispatcher.domain import Json, StretchMember
from periplus_dispatcher.manifest.calls import Call, is_loop, text_of
from periplus_dispatcher.rewrite.generated import reference_of
from periplus_manifest import tags
from periplus_model.queries import Raw, literal_text
from periplus_model.steps import ObjectRef

_CONSTANTS = (
    "inputs.",
    "workflow.parameters",
    "workflow.name",
    "workflow.namespace",
    "workflow.uid",
    "workflow.creationTimestamp",
    "workflow.labels.",
    "workflow.annotations.",
    "workflow.serviceAccountName",
    "workflow.priority",
)
"""What references begin with that give the same at the gate and at the calls behind it."""


class NotAskableError(Exception):
    """The arguments of a call can not be known at the gate of a stretch, so that the call has a gate of its own."""


@dataclass
class GateInputs:
    """The inputs of a stretch's gate: texts and artifacts that the arguments of its members take from elsewhere."""

    names: dict[str, str] = field(default_factory=dict)
    arguments: Json = field(default_factory=lambda: {"parameters": [], "artifacts": []})

    def reference(self, text: str) -> str:
        """A reference to the input with the value of a text."""
        if text not in self.names:
            self.names[text] = reference_of(len(self.names) + 1)
            self.arguments["parameters"].append({"name": self.names[text], "value": text})
        return "{{inputs.parameters." + self.names[text] + "}}"

    def artifact_reference(self, argument: Json) -> str:
        """A reference to the input with the object of an artifact argument."""
        source = {k: v for k, v in argument.items() if k != "name"}
        text = json.dumps(source, sort_keys=True)
        if text not in self.names:
            self.names[text] = reference_of(len(self.names) + 1)
            self.arguments["artifacts"].append({"name": self.names[text], **copy.deepcopy(source)})
        return "{{inputs.artifacts." + self.names[text] + "}}"


def member_of(
    task: Json,
    call: Call,
    supplied: Iterable[str],
    inputs: GateInputs,
    members: AbstractSet[str],
    known: AbstractSet[str],
) -> StretchMember:
    """The question of a task in the terms of a gate.

    `members` are the tasks of the stretch before it, `known` those that have succeeded when the gate is reached. Raises
    `NotAskableError`.
    """
    query = call.query
    assert query is not None  # only steps that the cache was asked for are gated
    splitter = _Splitter(inputs, members, known, is_item_known=is_loop(task))
    given = task.get("arguments") or {}
    parameters = [splitter.parameter(p) for p in given.get("parameters") or ()]
    artifacts = [splitter.artifact(a) for a in given.get("artifacts") or ()]
    set_parameters, set_artifacts = ({each["name"] for each in found} for found in (parameters, artifacts))
    defaults: dict[str, str] = {}
    for name, text in query.parameters.items():
        if name not in set_parameters:
            value = literal_text(text)
            if value is None:
                raise NotAskableError
            defaults[name] = value
    objects: dict[str, ObjectRef | Raw] = {}
    for name, source in query.artifacts.items():
        if name not in set_artifacts:
            if not isinstance(source, ObjectRef | Raw):
                raise NotAskableError
            objects[name] = source
    items = None
    if is_loop(task):
        items = literal_text(query.items or ())
        if not items:
            items = _Splitter(inputs, members, known).text(
                text_of(task.get("withParam") or task["withItems"])
            )
    return StretchMember(
        template=call.template,
        arguments={"parameters": parameters, "artifacts": artifacts},
        parameters=defaults,
        artifacts=objects,
        supplied=tuple(supplied),
        items=items,
        condition=_Splitter(inputs, members, known).text(task["when"]) if task.get("when") else "",
    )


@dataclass(frozen=True)
class _Splitter:
    """Splits texts into references to members and what the gate gets as inputs."""

    inputs: GateInputs
    members: AbstractSet[str]
    known: AbstractSet[str]
    is_item_known: bool = False

    def parameter(self, argument: Json) -> Json:
        if "value" not in argument:
            raise NotAskableError
        return {"name": argument["name"], "value": self.text(text_of(argument["value"]))}

    def text(self, text: str) -> str:
        parts, at = [], 0
        for tag in tags.find(text):
            reference = text[tag.start : tag.end]
            parts += [text[at : tag.start], self._tag(tag, reference)]
            at = tag.end
        return "".join((*parts, text[at:]))

    def artifact(self, argument: Json) -> Json:
        source = str(argument.get("from") or "").strip()
        if "fromExpression" in argument or argument.get("optional") or (source and "{{" not in source):
            raise NotAskableError
        name = source.removeprefix("{{").removesuffix("}}").strip()
        task, _, output = name.removeprefix("tasks.").partition(".outputs.artifacts.")
        if task in self.members and output and not argument.get("subPath"):
            return {"name": argument["name"], "from": "{{" + name + "}}"}
        for _, text in tags.texts(argument):
            for tag in tags.find(text):
                self._check_known(tag, text[tag.start : tag.end])
        return {"name": argument["name"], "from": self.inputs.artifact_reference(argument)}

    def _tag(self, tag: tags.Tag, text: str) -> str:
        if not tag.is_expression:
            if tag.name == "item" or tag.name.startswith("item."):
                if self.is_item_known:
                    return text
                raise NotAskableError
            task, _, output = tag.name.removeprefix("tasks.").partition(".outputs.")
            if task in self.members and (output == "result" or output.startswith("parameters.")):
                return "{{" + tag.name + "}}"
        self._check_known(tag, text)
        return self.inputs.reference(text)

    def _check_known(self, tag: tags.Tag, text: str) -> None:
        """Raise `NotAskableError` if a tag may have no value at the gate, or another one than at the call."""
        if "{{" in tag.body or (tag.is_expression and tags.volatile_functions(text)):
            raise NotAskableError
        for name in tags.references(text):
            task = name.removeprefix("tasks.").partition(".")[0]
            is_known = name.startswith("tasks.") and task in self.known and task not in self.members
            if not is_known and not name.startswith(_CONSTANTS):
                raise NotAskableError
