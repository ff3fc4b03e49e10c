"""Questions to the cache and its verdicts: proto ↔ domain."""

import json

from periplus.cache.v1 import cache_pb2
from periplus.types.v1 import step_pb2
from periplus_dispatcher.domain import Item, Literal, Object, Output, Part, Query, Raw, Resolved, Source, Text
from periplus_dispatcher.wire.step import FROM_VERDICT, from_outputs, object_ref


def query(asked: Query) -> cache_pb2.StepQuery:
    """One step, as the cache is asked for it."""
    return cache_pb2.StepQuery(
        id=asked.id,
        template=asked.template,
        parameters=[cache_pb2.ParameterSource(name=n, value=text(t)) for n, t in asked.parameters.items()],
        artifacts=[_source(n, s) for n, s in asked.artifacts.items()],
        items=text(asked.items) if asked.items is not None else None,
    )


def text(parts: Text) -> cache_pb2.Text:
    """A value, known or to be known."""
    return cache_pb2.Text(parts=[_part(part) for part in parts])


def _part(part: Part) -> cache_pb2.TextPart:
    if isinstance(part, Literal):
        return cache_pb2.TextPart(literal=part.text)
    if isinstance(part, Output):
        return cache_pb2.TextPart(output=_output_ref(part))
    if isinstance(part, Item):
        return cache_pb2.TextPart(item=part.member)
    return cache_pb2.TextPart(unknown=part.what)


def _output_ref(output: Output) -> cache_pb2.OutputRef:
    return cache_pb2.OutputRef(step=output.step, name=output.name, result=output.result)


def _source(name: str, source: Source) -> cache_pb2.ArtifactSource:
    if isinstance(source, Output):
        return cache_pb2.ArtifactSource(name=name, output=_output_ref(source))
    if isinstance(source, Object):
        return cache_pb2.ArtifactSource(name=name, object=object_ref(source))
    if isinstance(source, Raw):
        return cache_pb2.ArtifactSource(name=name, raw=source.data)
    return cache_pb2.ArtifactSource(name=name, unknown=source.what)


def resolved(verdict: cache_pb2.StepVerdict) -> Resolved:
    """What the cache says of a step. Raises `ValueError` where that makes no sense."""
    items = tuple(resolved(item) for item in verdict.items)
    hit = verdict.verdict == step_pb2.VERDICT_HIT
    if hit and not verdict.HasField("outputs"):
        raise ValueError(f"{verdict.id!r} is a hit without outputs")
    if verdict.items_json or items:
        listed = json.loads(verdict.items_json)
        if not isinstance(listed, list) or len(listed) != len(items):
            raise ValueError(f"{verdict.id!r} has other items than verdicts")
    if verdict.verdict not in FROM_VERDICT:
        raise ValueError(f"{verdict.id!r} has the verdict {verdict.verdict}")
    return Resolved(
        verdict=FROM_VERDICT[verdict.verdict],
        reason=verdict.reason,
        fingerprint=verdict.fingerprint,
        outputs=from_outputs(verdict.outputs) if verdict.HasField("outputs") else None,
        run=verdict.producer_run,
        step=verdict.producer_step,
        saved=verdict.saved.ToTimedelta().total_seconds(),
        items=items,
        items_json=verdict.items_json,
    )
