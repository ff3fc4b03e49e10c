"""The gate of a stretch: the queries for its members in one request, and one answer with a verdict for each.

A member is a hit, or runs, or asks again at a gate of its own: where what it reads is the output of a member that runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from periplus_dispatcher.domain import ContainerTemplate, GateAnswer, StretchMember
from periplus_dispatcher.follow.gates import argument_text, step_answer, without_cache
from periplus_dispatcher.follow.observe import Gate
from periplus_dispatcher.rewrite.answers import MAX_ANSWER_CHARACTERS
from periplus_dispatcher.rewrite.generated import ASK, RUN, SERVED, VERDICT, member_output
from periplus_manifest import condition
from periplus_manifest.errors import ManifestError
from periplus_model.queries import (
    ArtifactSource,
    Literal,
    OutputRef,
    StepQuery,
    StepVerdict,
    Text,
    TextPart,
    literal,
    literal_text,
)
from periplus_model.steps import Outputs, Verdict

_CHARACTERS_PER_PARAMETER = 6
"""Of JSON, beside the name and the value of each."""


def queries(gate: Gate, members: Mapping[str, StretchMember]) -> list[StepQuery]:
    """A query for each member, after those that it refers to."""
    return [_query(gate, task, member) for task, member in members.items()]


def answer(
    gate: Gate,
    members: Mapping[str, StretchMember],
    templates: Mapping[str, ContainerTemplate],
    verdicts: Mapping[str, StepVerdict],
) -> GateAnswer:
    """The answer from the verdicts of the queries. Members without a verdict run."""
    decided = _Answer(gate, templates)
    for task, member in members.items():
        query = _query_id(gate, task)
        decided.add(task, member, verdicts.get(query) or without_cache(query))
    hits = sum(each.verdict.verdict is Verdict.HIT for each in decided.members.values())
    verdict = Verdict.HIT if hits == len(members) else Verdict.UNKNOWN if hits else Verdict.MISS
    summary = StepVerdict(gate.node, verdict, f"{hits} of {len(members)} steps are hits")
    return GateAnswer(decided.parameters, summary, members=decided.members)


def _query_id(gate: Gate, task: str) -> str:
    """Unique in a request, which has the queries of several gates."""
    return f"{gate.node}.{task}"


def _query(gate: Gate, task: str, member: StretchMember) -> StepQuery:
    parameters = {name: literal(value) for name, value in member.parameters.items()}
    for p in member.arguments["parameters"]:
        parameters[p["name"]] = _text(gate, p["value"])
    artifacts: dict[str, ArtifactSource] = dict(member.artifacts)
    for a in member.arguments["artifacts"]:
        artifacts[a["name"]] = _source(gate, a["from"])
    return StepQuery(
        id=_query_id(gate, task),
        template=member.template,
        parameters=parameters,
        artifacts=artifacts,
        items=None if member.items is None else _text(gate, member.items),
    )


def _text(gate: Gate, text: str) -> Text:
    return argument_text(text, gate, lambda name: _output(gate, name))


def _output(gate: Gate, name: str) -> OutputRef:
    """The output of a member: `<task>.outputs.parameters.<name>`, or `<task>.outputs.result`."""
    task, _, output = name.partition(".outputs.")
    step = _query_id(gate, task)
    return (
        OutputRef(step, result=True)
        if output == "result"
        else OutputRef(step, output.removeprefix("parameters."))
    )


def _source(gate: Gate, reference: str) -> ArtifactSource:
    name = reference.removeprefix("{{").removesuffix("}}")
    if name.startswith("inputs.artifacts."):
        return gate.artifacts[name.removeprefix("inputs.artifacts.")]
    task, _, output = name.removeprefix("tasks.").partition(".outputs.artifacts.")
    return OutputRef(_query_id(gate, task), output)


@dataclass
class _Answer:
    """The answer as far as its members were added.

    `served` are the outputs of the members that others can read before they have run. `misjudged` are the queries of
    members that are hits for the cache and still run, or may be skipped: what it said of their readers does not hold.
    """

    gate: Gate
    templates: Mapping[str, ContainerTemplate]
    parameters: dict[str, str] = field(default_factory=dict)
    members: dict[str, GateAnswer] = field(default_factory=dict)
    served: dict[str, Outputs] = field(default_factory=dict)
    misjudged: set[str] = field(default_factory=set)
    characters: int = 0

    def add(self, task: str, member: StretchMember, verdict: StepVerdict) -> None:
        query = _query(self.gate, task, member)
        found = self._judged(query, member, verdict)
        decided, parameters = self._decided(found), {**dict.fromkeys(member.supplied, ""), **found.parameters}
        given = {member_output(task, n): v for n, v in (parameters | {VERDICT: decided}).items()}
        characters = sum(len(n) + len(v) + _CHARACTERS_PER_PARAMETER for n, v in given.items())
        if found.parameters and self.characters + characters > MAX_ANSWER_CHARACTERS:
            reason = "the answer is full: it asks at a gate of its own"
            found = GateAnswer({}, StepVerdict(query.id, Verdict.UNKNOWN, reason))
            given = dict.fromkeys(given, "") | {member_output(task, VERDICT): ASK}
            characters = sum(len(n) + _CHARACTERS_PER_PARAMETER for n in given)
        self.characters += characters
        self.parameters |= given
        self.members[task] = replace(found, parameters={})
        outputs = found.verdict.outputs if found.parameters and not found.remaining else None
        if outputs is not None and self._condition(member) is True:
            self.served[query.id] = outputs
        elif verdict.verdict is Verdict.HIT:
            self.misjudged.add(query.id)

    def _judged(self, query: StepQuery, member: StretchMember, verdict: StepVerdict) -> GateAnswer:
        """The answer for one member, given those before it."""
        if any(ref.step in self.misjudged for ref in _references(query)):
            return GateAnswer({}, StepVerdict(query.id, Verdict.UNKNOWN, "its inputs are not known yet"))
        if any(item.verdict is Verdict.UNKNOWN for item in verdict.items):
            return GateAnswer({}, StepVerdict(query.id, Verdict.UNKNOWN, verdict.reason))
        template = self.templates[member.template]
        return step_answer(template, verdict, member.supplied, is_fan_out=member.items is not None)

    @staticmethod
    def _decided(found: GateAnswer) -> str:
        if found.parameters:
            return SERVED
        return ASK if found.verdict.verdict is Verdict.UNKNOWN and not found.verdict.items else RUN

    def _condition(self, member: StretchMember) -> bool | None:
        """Whether a member is reached; None if it is not known."""
        if not member.condition:
            return True
        text = literal_text(tuple(map(self._part, _text(self.gate, member.condition))))
        try:
            return None if text is None else condition.evaluate(text)
        except ManifestError:
            return None

    def _part(self, part: TextPart) -> TextPart:
        outputs = self.served.get(part.step) if isinstance(part, OutputRef) else None
        if not isinstance(part, OutputRef) or outputs is None:
            return part
        value = outputs.result if part.result else outputs.parameters.get(part.name)
        return part if value is None else Literal(value)


def _references(query: StepQuery) -> list[OutputRef]:
    parts = [part for text in (*query.parameters.values(), query.items or ()) for part in text]
    return [each for each in (*parts, *query.artifacts.values()) if isinstance(each, OutputRef)]
