"""Plans and verdicts as messages: how a ResolveSteps request is read, and how it is answered."""

from collections.abc import Iterable

from periplus.cache.v1 import cache_pb2 as pb
from periplus_cache import wire
from periplus_cache.domain import Verdict
from periplus_cache.plan import (
    Item,
    Literal,
    Object,
    OutputRef,
    Part,
    Plan,
    Raw,
    Source,
    StepQuery,
    StepVerdict,
    Text,
    Unknown,
)


def plan(request: pb.ResolveStepsRequest) -> Plan:
    """The plan that is asked about. Raises `Invalid` for names that can not be kept."""
    return Plan(
        request.project,
        {name: wire.template(message) for name, message in request.templates.items()},
        tuple(map(_query, request.steps)),
    )


def _query(message: pb.StepQuery) -> StepQuery:
    return StepQuery(
        message.id,
        message.template,
        tuple((p.name, _text(p.value)) for p in message.parameters),
        tuple((a.name, _source(a)) for a in message.artifacts),
        _text(message.items) if message.HasField("items") else None,
    )


def _text(message: pb.Text) -> Text:
    return tuple(map(_part, message.parts))


def _part(message: pb.TextPart) -> Part:
    match message.WhichOneof("kind"):
        case "literal":
            return Literal(message.literal)
        case "output":
            return _ref(message.output)
        case "item":
            return Item(message.item)
        case _:
            return Unknown(message.unknown)


def _ref(message: pb.OutputRef) -> OutputRef:
    return OutputRef(message.step, message.name, message.result)


def _source(message: pb.ArtifactSource) -> Source:
    match getattr(message, "WhichOneof")("from"):  # noqa: B009  # `from` is a word of Python
        case "output":
            return _ref(message.output)
        case "object":
            return Object(wire.place(message.object))
        case "raw":
            return Raw(message.raw)
        case _:
            return Unknown(message.unknown)


def response(verdicts: Iterable[StepVerdict]) -> pb.ResolveStepsResponse:
    """The answer."""
    return pb.ResolveStepsResponse(verdicts=map(_verdict, verdicts))


def _verdict(found: StepVerdict) -> pb.StepVerdict:
    message = pb.StepVerdict(
        id=found.id,
        verdict=wire.VERDICT_NUMBERS[found.verdict],
        reason=found.reason,
        fingerprint=found.fingerprint,
        items=map(_verdict, found.items),
        items_json=found.items_json,
    )
    if found.verdict is Verdict.HIT and found.outputs is not None:
        message.outputs.CopyFrom(wire.outputs_message(found.outputs))
        message.producer_run, message.producer_step = found.run, found.step
        message.saved.seconds, rest = divmod(found.saved_us, 1_000_000)
        message.saved.nanos = rest * 1000
    return message
