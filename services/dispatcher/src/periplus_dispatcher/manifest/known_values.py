"""What the tags of a text can become, where everything that they can become is known before the run."""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from periplus_common.object_key import MAX_KEY_BYTES
from periplus_dispatcher.domain import Json
from periplus_dispatcher.manifest.calls import is_loop, items_of, text_of
from periplus_manifest import loops, measure, tags
from periplus_manifest.bounds import MAX_DEPTH
from periplus_manifest.errors import ManifestError

MAX_VALUES = 20_000
"""Values that are tried for all texts of a manifest; those of further texts count as unknown."""
MAX_CHARACTERS = 4 * MAX_KEY_BYTES
"""Of one value: longer ones are no part of a key."""
DATA = frozenset({"withItems", "value", "default", "enum", "plugin", "templateRef"})
"""Fields whose content is data: what looks like a location or a call there is none."""
_INPUT = "inputs.parameters."

Texts = tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Where a text stands: in a template, in a call (a task, a step or a hook) of another one, or outside."""

    template: Json | None = None
    call: Json | None = None

    def inside(self, name: str, value: Json) -> "Place":
        """The place of the field `name` of a value that stands here."""
        if name == "inline":
            return Place(value["inline"])
        return Place(self.template, value) if "arguments" in value else self


class KnownValues:
    """Follows workflow parameters, items of loops and arguments of calls through a workflow's spec.

    More values than a run can have may be found, and never fewer: the values of all calls of a template are one set.
    """

    def __init__(self, spec: Json, constants: Mapping[str, str]) -> None:
        self._spec = spec
        self._constants = constants
        self._calls: dict[Any, list[Place]] = defaultdict(list)
        self._inputs: dict[tuple[int, str], set[str] | None] = {}
        self._left, self._depth = MAX_VALUES, 0
        names = {p["name"] for p in items_of(spec, "arguments", "parameters")}
        given = {n: constants.get(f"workflow.parameters.{n}") for n in names}
        start = [{"name": n} if value is None else {"name": n, "value": value} for n, value in given.items()]
        for name in (spec.get("entrypoint"), spec.get("onExit")):
            self._calls[name].append(Place(call={"arguments": {"parameters": start}}))
        self._collect({**spec, "onExit": None}, None)

    def of(self, texts: Texts, place: Place) -> set[Texts] | None:
        """Every combination that the texts can become together; None if one is known only during the run."""
        try:
            texts = self._filled(texts, self._constants)
            if "{{" not in "".join(texts):
                return {texts}
            loop = place.call if place.call and is_loop(place.call) else {}
            items = loops.items(loop, self._constants.get)
            self._left -= measure.text_size(items) >> 10
            found: set[Texts] = set()
            for item in [{}] if items is None else map(loops.item_scope, items):
                with_item = self._filled(texts, item)
                names = list({tag.name for text in with_item for tag in tags.spans(text)})
                choices = [self._input(name, place.template) for name in names]
                known = [values for values in choices if values is not None]
                self._left -= math.prod(map(len, known))
                if len(known) < len(names) or self._left < 0:
                    return None
                for chosen in itertools.product(*known):
                    found.add(filled := self._filled(with_item, dict(zip(names, chosen, strict=True))))
                    if "{{" in "".join(filled):
                        return None
        except ManifestError:
            return None
        return found

    def _filled(self, texts: Texts, values: Mapping[str, str]) -> Texts:
        filled = tuple(tags.substitute(text, values.get, strict=False) for text in texts)
        if any(len(text) > MAX_CHARACTERS for text in filled):
            raise ManifestError("", "longer than a key can be")
        return filled

    def _input(self, name: str, template: Json | None) -> set[str] | None:
        """Every value of an input parameter of a template, from all calls of it."""
        declared = [p for p in items_of(template or {}, "inputs", "parameters") if _INPUT + p["name"] == name]
        others = "workflowTemplateRef" in self._spec or "inputs" in (self._spec.get("templateDefaults") or {})
        if template is None or not declared or others or self._depth >= MAX_DEPTH:
            return None
        key = (id(template), name)
        if key not in self._inputs:
            self._inputs[key] = None  # for a template that calls itself
            self._depth += 1
            self._inputs[key] = self._from_calls(declared[0], template)
            self._depth -= 1
        return self._inputs[key]

    def _from_calls(self, declared: Json, template: Json) -> set[str] | None:
        values: set[str] = set()
        if any("{{" in str(called) for called in self._calls):
            return None
        for place in self._calls[id(template)] + self._calls[template.get("name")]:
            passed = [
                p
                for p in items_of(place.call or {}, "arguments", "parameters")
                if p["name"] == declared["name"]
            ]
            source, origin = (passed[0], place) if passed else (declared, Place())
            value = source.get("value", source.get("default"))
            found = None if value is None or "valueFrom" in source else self.of((text_of(value),), origin)
            if found is None:
                return None
            values |= {text for (text,) in found}
        return values or None

    def _collect(self, value: Any, template: Json | None) -> None:
        """Collect the calls of each template, by its name, or by the id of an inline one."""
        if isinstance(value, list):
            for each in value:
                self._collect(each, template)
        elif isinstance(value, dict):
            if isinstance(value.get("template"), str):
                self._calls[value["template"]].append(Place(template, value))
            if isinstance(value.get("inline"), dict):
                self._calls[id(value["inline"])].append(Place(template, value))
            if isinstance(value.get("onExit"), str):
                self._calls[value["onExit"]].append(Place(template, {}))
            for name, each in value.items():
                if name == "templates" and isinstance(each, list):
                    for one in each:
                        self._collect(one, one)
                elif name not in DATA:
                    self._collect(each, each if name == "inline" else template)
