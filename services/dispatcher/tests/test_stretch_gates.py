"""The question and the answer of a stretch's gate: a verdict for each member that holds whatever the others do."""

import json
from typing import Any

from manifests import hit

from periplus_dispatcher.domain import ContainerTemplate, GateAnswer, StretchMember, TemplateRole
from periplus_dispatcher.follow import stretch_gates
from periplus_dispatcher.follow.observe import Gate, Rest
from periplus_dispatcher.rewrite.answers import MAX_ANSWER_CHARACTERS
from periplus_model.queries import Item, Literal, OutputRef, StepVerdict, Unknown
from periplus_model.steps import Artifact, ObjectRef, Outputs, StepTemplate, Verdict

TEMPLATES = {"t": ContainerTemplate(StepTemplate("t", "{}"), parameters=("o",))}
MISS = StepVerdict("", Verdict.MISS, "no entry")
UNKNOWN = StepVerdict("", Verdict.UNKNOWN, "its input x is not known yet")
REF = "{{inputs.parameters.periplus-ref-1}}"


def member(value: str, *, result: bool = False, **more: Any) -> StretchMember:
    todo = ("periplus-todo",) if "items" in more else ()
    carriers = (
        "periplus-verdict",
        *todo,
        "periplus-p-o",
        *(("periplus-p-periplus-result",) if result else ()),
    )
    return StretchMember(
        "t", {"parameters": [{"name": "x", "value": value}], "artifacts": []}, carriers, **more
    )


def of(name: str) -> str:
    return "{{tasks." + name + ".outputs.parameters.o}}"


def gate(rest: Rest | None = None) -> Gate:
    role = TemplateRole.GATE if rest else TemplateRole.STRETCH_GATE
    return Gate("g", "periplus-gate", "periplus-gate", role, {"periplus-ref-1": "1"}, {}, (), rest)


def decided(members: dict[str, StretchMember], **verdicts: StepVerdict) -> dict[str, str]:
    """The verdicts of the answer, by member."""
    found = stretch_gates.answer(gate(), members, TEMPLATES, {f"g.{name}": v for name, v in verdicts.items()})
    assert set(found.members) == set(members)
    return {name: found.parameters[f"{name}_verdict"] for name in members}


CHAIN = {"a": member(REF), "b": member(of("a")), "c": member(of("b"))}


def test_the_question_has_the_inputs_of_the_gate_and_refers_to_members() -> None:
    fan = member("{{item.n}}" + of("b"), items=of("a"))
    first, second, last = stretch_gates.queries(
        gate(), {"a": member(REF), "b": member("<" + of("a")), "f": fan}
    )
    assert first.parameters["x"] == (Literal("1"),)
    assert second.parameters["x"] == (Literal("<"), OutputRef("g.a", "o"))
    assert last.items == (OutputRef("g.a", "o"),)
    assert last.parameters["x"] == (Item("n"), OutputRef("g.b", "o"))


def test_hits_are_served_misses_run_and_what_reads_them_asks() -> None:
    assert decided(CHAIN, a=hit(o="1"), b=hit(o="2"), c=MISS) == {"a": "hit", "b": "hit", "c": "run"}
    assert decided(CHAIN, a=hit(o="1"), b=MISS, c=UNKNOWN) == {"a": "hit", "b": "run", "c": "ask"}


def test_without_verdicts_every_member_runs() -> None:
    assert set(decided(CHAIN).values()) == {"run"}


def test_what_reads_a_hit_that_can_not_be_used_asks() -> None:
    elsewhere = Outputs({"o": "1"}, (Artifact("f", ObjectRef("k", "other")),))
    for unusable in (
        hit(),
        hit(o="v" * (MAX_ANSWER_CHARACTERS + 1)),
        StepVerdict("", Verdict.HIT, outputs=elsewhere),
    ):
        assert decided(CHAIN, a=unusable, b=hit(o="2"), c=hit(o="3")) == {"a": "run", "b": "ask", "c": "ask"}
    with_result = CHAIN | {"a": member(REF, result=True)}
    assert decided(with_result, a=hit(o="1"), b=MISS, c=UNKNOWN) == {"a": "run", "b": "ask", "c": "ask"}


def test_what_reads_a_member_that_may_be_skipped_asks() -> None:
    hits = {name: hit(o="1") for name in "abc"}
    for condition, verdict in (
        (of("a") + " == 1", "hit"), (REF + " == 1", "hit"), (of("a") + " == 2", "ask"), ("x ==", "ask"),
    ):  # fmt: skip
        members = CHAIN | {"b": member(of("a"), condition=condition)}
        assert decided(members, **hits) == {"a": "hit", "b": "hit", "c": verdict}
    side = {"a": member(REF), "b": member(REF, condition="1 == 2"), "c": member(of("a"))}
    assert decided(side, **hits) == dict.fromkeys("abc", "hit")


def test_a_fan_out_is_served_in_part_and_asks_if_its_items_are_not_known() -> None:
    members = {"f": member("{{item}}", items=REF), "c": member(of("f"))}
    part = StepVerdict("", Verdict.UNKNOWN, items=(hit(o="1"), MISS), items_json="[1,2]")
    found = stretch_gates.answer(gate(), members, TEMPLATES, {"g.f": part, "g.c": UNKNOWN})
    assert (found.parameters["f_verdict"], found.parameters["f_todo"]) == ("hit", "[2]")
    assert (found.members["f"].remaining, found.parameters["c_verdict"]) == ((1,), "ask")
    assert decided(members, f=UNKNOWN, c=UNKNOWN) == {"f": "ask", "c": "ask"}
    open_items = StepVerdict("", Verdict.UNKNOWN, items=(hit(o="1"), UNKNOWN), items_json="[1,2]")
    assert decided(members, f=open_items, c=UNKNOWN) == {"f": "ask", "c": "ask"}
    misses = StepVerdict("", Verdict.MISS, items=(MISS, MISS), items_json="[1,2]")
    assert decided(members, f=misses, c=UNKNOWN) == {"f": "run", "c": "ask"}
    unusable = hit(o='["1",null]', items=(hit(o="1"), hit()), items_json="[1,2]")
    assert decided(members, f=unusable, c=hit(o="2")) == {"f": "hit", "c": "ask"}


def test_an_answer_is_never_larger_than_the_status_allows() -> None:
    names = [f"s{n}" for n in range(50)]
    members = {name: member(REF) for name in names}
    verdicts = {f"g.{name}": hit(o="v" * 9_000) for name in names}
    found = stretch_gates.answer(gate(), members, TEMPLATES, verdicts)
    assert len(json.dumps(found.parameters)) < MAX_ANSWER_CHARACTERS + 5_000
    said = [found.parameters[f"{name}_verdict"] for name in names]
    assert said == ["hit"] * said.count("hit") + ["ask"] * said.count("ask")
    assert said.count("hit") > 5


def rest(**outputs: str) -> Rest:
    ended = {name: Outputs({"o": value}) for name, value in outputs.items()}
    return Rest("b", {"c": CHAIN["c"], "d": member(of("a") + of("c"))}, ended, {"periplus-ref-1": "1"}, {})


def test_the_gate_of_a_member_asks_for_those_behind_it_with_what_has_ended() -> None:
    first, second = stretch_gates.rest_queries(gate(rest(a="new")))
    assert first.parameters["x"] == (OutputRef("g", "o"),)
    assert second.parameters["x"] == (Literal("new"), OutputRef("g.c", "o"))
    _, unknown = stretch_gates.rest_queries(gate(rest()))
    assert isinstance(unknown.parameters["x"][0], Unknown)
    assert stretch_gates.rest_queries(gate()) == []


def test_the_gate_of_a_member_answers_for_those_behind_it() -> None:
    own = GateAnswer({"periplus-hit": "true", "periplus-p-o": "2"}, hit(o="2"))
    verdicts = {"g": hit(o="2"), "g.c": hit(o="3"), "g.d": MISS}
    found = stretch_gates.with_rest(gate(rest(a="1")), TEMPLATES, verdicts, own)
    assert json.loads(found.parameters["periplus-rest"]) == {
        "c_verdict": "hit", "c_p-o": "3", "d_verdict": "run", "d_p-o": "",
    }  # fmt: skip
    assert found.parameters["periplus-p-o"] == "2"
    assert list(found.members) == ["c", "d"]


def test_the_gate_of_a_member_leaves_out_those_that_ask_again() -> None:
    miss = GateAnswer({}, MISS)
    asks = {"g": MISS, "g.c": UNKNOWN, "g.d": UNKNOWN}
    assert stretch_gates.with_rest(gate(rest(a="1")), TEMPLATES, asks, miss) == miss
    assert stretch_gates.with_rest(gate(rest(a="1")), TEMPLATES, {}, miss) == miss
    unusable = {"g": hit(o="2"), "g.c": hit(o="3"), "g.d": hit(o="4")}
    assert stretch_gates.with_rest(gate(rest(a="1")), TEMPLATES, unusable, miss) == miss
