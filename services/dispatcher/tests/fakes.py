"""A cache and a snapshotter in memory."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from periplus.dispatcher.v1 import events_pb2
from periplus_common.errors import Unavailable
from periplus_manifest import loops
from periplus_manifest.gotext import json_text
from periplus_model import codec
from periplus_model.queries import ArtifactSource, Item, Literal, OutputRef, Raw, StepQuery, StepVerdict, Text
from periplus_model.steps import CacheMode, ObjectRef, Outputs, StepTemplate, Verdict

Key = tuple[str, str, str]


@dataclass
class MemoryCache:
    """A cache in memory: entries by document and inputs. It reads no objects."""

    entries: dict[Key, Outputs] = field(default_factory=dict)
    is_unreachable: bool = False
    asked: list[list[StepQuery]] = field(default_factory=list)
    requests: list[tuple[CacheMode | None, dict[str, StepTemplate]]] = field(default_factory=list)
    """The run's cache mode and the templates of each call."""
    release: asyncio.Event | None = None

    async def resolve(
        self,
        project: str,
        run: str,
        cache_mode: CacheMode | None,
        templates: Mapping[str, StepTemplate],
        queries: Sequence[StepQuery],
        code_index: Mapping[str, str],
    ) -> dict[str, StepVerdict]:
        if self.is_unreachable:
            raise Unavailable("the cache can not be reached")
        if self.release is not None:
            await self.release.wait()
        self.asked.append(list(queries))
        self.requests.append((cache_mode, dict(templates)))
        found: dict[str, StepVerdict] = {}
        for query in queries:
            template = templates[query.template]
            template = replace(template, policy=template.policy.restricted_by(cache_mode))
            found[query.id] = self._one(query, template, found)
        return found

    def record(self, finished: events_pb2.StepFinished) -> None:
        parameters = {p.name: p.value for p in finished.inputs.parameters}
        artifacts = {a.name: a.digest or a.object.key for a in finished.inputs.artifacts}
        self.entries[_key(finished.template.document, parameters, artifacts)] = codec.decode_outputs(
            finished.outputs
        )

    def _one(self, query: StepQuery, template: StepTemplate, found: Mapping[str, StepVerdict]) -> StepVerdict:
        if template.uncacheable_reason or template.policy.mode in (
            CacheMode.OFF,
            CacheMode.WRITE,
            CacheMode.REFRESH,
        ):
            return StepVerdict("", Verdict.UNCACHEABLE, "not to be read")
        if query.items is None:
            return self._single(query, template, found, {})
        text = _text(query.items, found, {})
        if text is None:
            return StepVerdict("", Verdict.UNKNOWN, "its items are not known")
        items = loops.items({"withParam": text}) or []
        each = tuple(self._single(query, template, found, loops.item_scope(item)) for item in items)
        joined = json_text(items)
        if all(item.verdict is Verdict.HIT for item in each):
            return StepVerdict("", Verdict.HIT, outputs=_joined(each), items=each, items_json=joined)
        unknown = any(item.verdict is Verdict.UNKNOWN for item in each)
        return StepVerdict(
            "", Verdict.UNKNOWN if unknown else Verdict.MISS, "some", items=each, items_json=joined
        )

    def _single(
        self,
        query: StepQuery,
        template: StepTemplate,
        found: Mapping[str, StepVerdict],
        scope: Mapping[str, str],
    ) -> StepVerdict:
        parameters = {n: _text(t, found, scope) for n, t in query.parameters.items()}
        artifacts = {n: _artifact(s, found) for n, s in query.artifacts.items()}
        if None in parameters.values() or None in artifacts.values():
            return StepVerdict("", Verdict.UNKNOWN, "its inputs are not known")
        outputs = self.entries.get(_key(template.document, parameters, artifacts))
        if outputs is None:
            return StepVerdict("", Verdict.MISS, "no entry")
        return StepVerdict(
            "", Verdict.HIT, "hit", "sha256:0", outputs, "earlier", query.id, timedelta(seconds=1)
        )


@dataclass
class MemorySnapshotter:
    """Takes any claim."""

    is_unreachable: bool = False
    environment: str = "sha256:environment"
    templates: list[tuple[str, bytes]] = field(default_factory=list)
    """Those of the last call."""

    async def take(
        self, project: str, claim: bytes, templates: Sequence[tuple[str, bytes]]
    ) -> tuple[str, str, list[str]]:
        if self.is_unreachable:
            raise Unavailable("the snapshotter can not be reached")
        self.templates = list(templates)
        return "sha256:snapshot", self.environment, []


@dataclass
class MemoryTemplates:
    """WorkflowTemplates and, with True, ClusterWorkflowTemplates by name."""

    objects: dict[tuple[str, bool], dict[str, Any]] = field(default_factory=dict)
    read: list[tuple[str, bool]] = field(default_factory=list)
    is_unreachable: bool = False
    namespace: str = "argo"

    async def get_template(self, name: str, *, cluster_scope: bool) -> dict[str, Any] | None:
        if self.is_unreachable:
            raise Unavailable("Argo can not be reached")
        self.read.append((name, cluster_scope))
        return self.objects.get((name, cluster_scope))


def _key(document: str, parameters: Mapping[str, Any], artifacts: Mapping[str, Any]) -> Key:
    return document, json.dumps(parameters, sort_keys=True), json.dumps(artifacts, sort_keys=True)


def _text(text: Text, found: Mapping[str, StepVerdict], scope: Mapping[str, str]) -> str | None:
    pieces: list[str | None] = []
    for part in text:
        if isinstance(part, Literal):
            pieces.append(part.text)
        elif isinstance(part, Item):
            pieces.append(scope.get(f"item.{part.member}" if part.member else "item"))
        elif isinstance(part, OutputRef) and (of := found.get(part.step)) and of.outputs:
            pieces.append(of.outputs.result if part.result else of.outputs.parameters.get(part.name))
        else:
            pieces.append(None)
    return None if None in pieces else "".join(piece or "" for piece in pieces)


def _artifact(source: ArtifactSource, found: Mapping[str, StepVerdict]) -> str | None:
    if isinstance(source, ObjectRef):
        return source.key
    if isinstance(source, Raw):
        from periplus_common import digest

        return digest.of_bytes(source.text.encode())
    if isinstance(source, OutputRef) and (of := found.get(source.step)) and of.outputs:
        return next((a.digest or a.object.key for a in of.outputs.artifacts if a.name == source.name), None)
    return None


def _joined(each: Sequence[StepVerdict]) -> Outputs:
    parameters: dict[str, list[str]] = {}
    results = [e.outputs.result for e in each if e.outputs and e.outputs.result is not None]
    for item in each:
        for name, value in (item.outputs or Outputs()).parameters.items():
            parameters.setdefault(name, []).append(value)
    return Outputs(
        {name: _gathered(texts) for name, texts in parameters.items()},
        result="[" + ",".join(results) + "]" if results else None,
    )


def _gathered(texts: list[str]) -> str:
    try:
        values = [json.loads(text) for text in texts]
    except ValueError:
        return json_text(texts)
    return json_text(values if all(isinstance(v, dict | list) for v in values) else texts)
