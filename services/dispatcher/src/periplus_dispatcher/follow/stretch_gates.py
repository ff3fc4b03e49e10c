"""Gates of stretches: the queries for many members in one request, and one answer with a verdict for each.

A member is a hit, or runs, or asks again at a gate of its own: where what it reads is the output of a member that runs.
Its gate is one for the members behind it as well, as far as they have asked.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from periplus_dispatcher.domain import ContainerTemplate, GateAnswer, StretchMember
from periplus_dispatcher.follow.gates import argument_text, step_answer, without_cache
from periplus_dispatcher.follow.observe import Gate
from periplus_dispatcher.rewrite.answers import MAX_ANSWER_CHARACTERS
from periplus_dispatcher.rewrite.generated import ASK, REST, RESULT, RUN, SERVED, VERDICT, member_output
from periplus_manifest import condition
from periplus_manifest.errors import ManifestError
from periplus_model.queries import (
    ArtifactSource,
    LeaseMode,
    Literal,
    OutputRef,
    StepQuery,
    StepVerdict,
    Text,
    TextPart,
    Unknown,
    literal,
    literal_text,
)
from periplus_model.steps import Outputs, Verdict

_CHARACTERS_PER_PARAMETER = 6
"""Of JSON, beside the name and the value of each."""


def queries(gate: Gate, members: Mapping[str, StretchMember]) -> list[StepQuery]:
    """A query for each member of a stretch whose gate is open, after those that it refers to."""
    return _Question.of_stretch(gate, members).queries()


def answer(
    gate: Gate,
    members: Mapping[str, StretchMember],
    templates: Mapping[str, ContainerTemplate],
    verdicts: Mapping[str, StepVerdict],
) -> GateAnswer:
    """The answer from the verdicts of the queries. Members without a verdict run."""
    decided = _Answer(_Question.of_stretch(gate, members), templates, MAX_ANSWER_CHARACTERS)
    decided.add_all(verdicts)
    hits = sum(each.verdict.verdict is Verdict.HIT for each in decided.members.values())
    verdict = Verdict.HIT if hits == len(members) else Verdict.UNKNOWN if hits else Verdict.MISS
    summary = StepVerdict(gate.node, verdict, f"{hits} of {len(members)} steps are hits")
    return GateAnswer(decided.parameters, summary, members=decided.members)


def rest_queries(gate: Gate) -> list[StepQuery]:
    """At the gate of a member, a query for each of the members behind it that have asked."""
    return _Question.of_rest(gate).queries() if gate.rest else []


def with_rest(
    gate: Gate,
    templates: Mapping[str, ContainerTemplate],
    verdicts: Mapping[str, StepVerdict],
    own: GateAnswer,
) -> GateAnswer:
    """The answer to the gate of a member, with those for the members behind it. Those without a verdict ask."""
    if gate.rest is None or not verdicts:
        return own
    # Each member that it passes on its way holds it as an input and as an output.
    limit = MAX_ANSWER_CHARACTERS // (2 * len(gate.rest.waiting) + 2)
    decided = _Answer(_Question.of_rest(gate), templates, limit)
    decided.judge(gate.node, own, verdicts.get(gate.node))
    decided.add_all(verdicts)
    members = {task: each for task, each in decided.members.items() if not each.is_asked}
    if not members:
        return own
    names = {member_output(t, n) for t in members for n in gate.rest.waiting[t].supplied}
    rest = {name: value for name, value in decided.parameters.items() if name in names}
    text = json.dumps(rest, ensure_ascii=False, separators=(",", ":"))
    return replace(own, parameters={**own.parameters, REST: text}, members=members)


@dataclass(frozen=True)
class _Question:
    """The members that are asked for, and what is known besides: inputs of the stretch's gate, outputs of other members.

    `outer` is the path of the call that contains them. `ids` are the queries by member, unique in a request that has those of
    several gates.
    """

    outer: str
    members: Mapping[str, StretchMember]
    ids: Mapping[str, str]
    parameters: Mapping[str, str]
    artifacts: Mapping[str, ArtifactSource]
    outputs: Mapping[str, Outputs] = field(default_factory=dict)

    @classmethod
    def of_stretch(cls, gate: Gate, members: Mapping[str, StretchMember]) -> "_Question":
        ids = {task: f"{gate.node}.{task}" for task in members}
        return cls(_outer(gate), members, ids, gate.parameters, gate.artifacts)

    @classmethod
    def of_rest(cls, gate: Gate) -> "_Question":
        assert gate.rest is not None
        rest = gate.rest
        ids = {task: f"{gate.node}.{task}" for task in rest.waiting} | {rest.member: gate.node}
        return cls(_outer(gate), rest.waiting, ids, rest.parameters, rest.artifacts, rest.outputs)

    def queries(self) -> list[StepQuery]:
        return [self.query(task) for task in self.members]

    def query(self, task: str) -> StepQuery:
        member = self.members[task]
        parameters = {name: literal(value) for name, value in member.parameters.items()}
        for p in member.arguments["parameters"]:
            parameters[p["name"]] = self.text(p["value"])
        artifacts: dict[str, ArtifactSource] = dict(member.artifacts)
        for a in member.arguments["artifacts"]:
            artifacts[a["name"]] = self._source(a["from"])
        return StepQuery(
            id=self.ids[task],
            template=member.template,
            parameters=parameters,
            artifacts=artifacts,
            items=None if member.items is None else self.text(member.items),
            step=f"{self.outer}.{task}" if self.outer else task,
            lease=LeaseMode.RESERVE,
        )

    def text(self, text: str) -> Text:
        return argument_text(text, self.parameters, self._output)

    def _output(self, reference: str) -> TextPart:
        """The output of a member: `<task>.outputs.parameters.<name>`, or `<task>.outputs.result`."""
        task, _, output = reference.partition(".outputs.")
        name = output.removeprefix("parameters.")
        if task in self.ids:
            step = self.ids[task]
            return OutputRef(step, result=True) if output == "result" else OutputRef(step, name)
        ended = self.outputs.get(task, Outputs())
        value = ended.parameters.get(RESULT if output == "result" else name)
        return Unknown(f"{task} has to run first") if value is None else Literal(value)

    def _source(self, reference: str) -> ArtifactSource:
        name = reference.removeprefix("{{").removesuffix("}}")
        if name.startswith("inputs.artifacts."):
            return self.artifacts[name.removeprefix("inputs.artifacts.")]
        task, _, output = name.removeprefix("tasks.").partition(".outputs.artifacts.")
        if task in self.ids:
            return OutputRef(self.ids[task], output)
        found = self.outputs.get(task, Outputs()).artifact(output)
        return found.object if found else Unknown(f"{task} has to run first")


@dataclass
class _Answer:
    """The answer as far as its members were added.

    `served` are the outputs of the queries that others can read before they have run. `misjudged` are the queries of
    members that are hits for the cache and still run, or may be skipped: what it said of their readers does not hold.
    """

    question: _Question
    templates: Mapping[str, ContainerTemplate]
    limit: int
    parameters: dict[str, str] = field(default_factory=dict)
    members: dict[str, GateAnswer] = field(default_factory=dict)
    served: dict[str, Outputs] = field(default_factory=dict)
    misjudged: set[str] = field(default_factory=set)
    characters: int = 0

    def add_all(self, verdicts: Mapping[str, StepVerdict]) -> None:
        for task, member in self.question.members.items():
            query = self.question.query(task)
            self._add(task, member, query, verdicts.get(query.id) or without_cache(query.id))

    def judge(self, query: str, found: GateAnswer, verdict: StepVerdict | None) -> None:
        """Note whether others can read the outputs of a step that was decided about."""
        outputs = found.verdict.outputs if found.parameters and not found.remaining else None
        if outputs is not None:
            self.served[query] = outputs
        elif verdict is not None and verdict.verdict is Verdict.HIT:
            self.misjudged.add(query)

    def _add(self, task: str, member: StretchMember, query: StepQuery, verdict: StepVerdict) -> None:
        found = self._decided(query, member, verdict)
        given = self._given(task, member, found)
        characters = _characters(given)
        if found.parameters and self.characters + characters > self.limit:
            reason = "it asks at a gate of its own, as the answer is full"
            found = GateAnswer({}, StepVerdict(query.id, Verdict.UNKNOWN, reason))
            given = self._given(task, member, found)
            characters = _characters(given)
        self.characters += characters
        self.parameters |= given
        self.members[task] = replace(found, parameters={})
        if self._condition(member) is not True:
            found = replace(found, parameters={})
        self.judge(query.id, found, verdict)

    def _decided(self, query: StepQuery, member: StretchMember, verdict: StepVerdict) -> GateAnswer:
        """The answer for one member, given those before it."""
        if any(ref.step in self.misjudged for ref in _references(query)):
            return GateAnswer({}, StepVerdict(query.id, Verdict.UNKNOWN, "its inputs are not known yet"))
        if verdict.verdict is Verdict.PENDING or any(i.verdict is Verdict.UNKNOWN for i in verdict.items):
            return GateAnswer({}, StepVerdict(query.id, Verdict.UNKNOWN, verdict.reason))
        template = self.templates[member.template]
        return step_answer(template, verdict, member.supplied, is_fan_out=member.items is not None)

    @staticmethod
    def _given(task: str, member: StretchMember, found: GateAnswer) -> dict[str, str]:
        """The outputs of the gate for one member: all of them, as Argo sets no defaults in an answered gate."""
        verdict = SERVED if found.parameters else ASK if found.is_asked else RUN
        parameters = {**dict.fromkeys(member.supplied, ""), **found.parameters, VERDICT: verdict}
        return {member_output(task, name): value for name, value in parameters.items()}

    def _condition(self, member: StretchMember) -> bool | None:
        """Whether a member is reached; None if it is not known."""
        if not member.condition:
            return True
        text = literal_text(tuple(map(self._part, self.question.text(member.condition))))
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


def _outer(gate: Gate) -> str:
    return gate.path.rpartition(".")[0]


def _characters(parameters: Mapping[str, str]) -> int:
    return sum(len(name) + len(value) + _CHARACTERS_PER_PARAMETER for name, value in parameters.items())


def _references(query: StepQuery) -> list[OutputRef]:
    parts = [part for text in (*query.parameters.values(), query.items or ()) for part in text]
    return [each for each in (*parts, *query.artifacts.values()) if isinstance(each, OutputRef)]
