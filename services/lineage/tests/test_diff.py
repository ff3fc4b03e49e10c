"""How two runs differ, decided from what is known of them."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from story import START

from periplus_lineage.domain.diff import Difference, Side, differences
from periplus_lineage.domain.run import (
    Artifact,
    Inputs,
    Outputs,
    Parameter,
    Recorded,
    Run,
    RunPhase,
    Snapshot,
    Step,
    StepPhase,
)


def step(path: str, **parts: object) -> Step:
    return replace(Step("r", path, template="t", phase=StepPhase.SUCCEEDED), **parts)


def side(*steps: Step, documents: dict[str, str] | None = None, snapshot=None, **parts: object) -> Side:
    run = replace(Run("p", "r", START, pipeline="p", phase=RunPhase.SUCCEEDED), **parts)
    return Side(Recorded(run, steps), documents or {}, snapshot)


def told(old: Side, new: Side) -> list[tuple[str, str, str | None, str | None]]:
    return [(d.step, d.field, d.old, d.new) for d in differences(old, new)]


def test_runs_that_do_not_differ_have_no_differences() -> None:
    both = side(step("a", inputs=Inputs((Parameter("c", "1"),))), snapshot=Snapshot("e", "c", False))
    assert told(both, both) == []


def test_causes_come_before_effects() -> None:
    def made(c: str, code: str, accuracy: str, phase: RunPhase) -> Side:
        return side(
            step("train", inputs=Inputs((Parameter("c", c),)), outputs=Outputs((Parameter("accuracy", accuracy),))),
            documents={"train": f'{{"code": {{"features.py": "{code}"}}, "inputs": {{"parameters": ["{c}"]}}}}'},
            parameters=(Parameter("c", c),),
            phase=phase,
        )  # fmt: skip

    assert [
        (s, f)
        for s, f, *_ in told(
            made("1", "x", "0.9", RunPhase.SUCCEEDED), made("2", "y", "0.8", RunPhase.FAILED)
        )
    ] == [
        ("", "parameters.c"),
        ("train", "code.features.py"),
        ("train", "template.inputs.parameters[0]"),
        ("train", "inputs.c"),
        ("train", "outputs.accuracy"),
        ("", "phase"),
    ]


def test_a_step_of_one_run_only_is_named_where_it_ran() -> None:
    found = told(side(step("a"), step("gone"), step("z")), side(step("a"), step("new"), step("z")))
    assert found == [("gone", "step", "t", None), ("new", "step", None, "t")]


def test_artifacts_are_compared_by_what_they_hold() -> None:
    def made(key: str, digest: str) -> Side:
        return side(step("a", outputs=Outputs((), (Artifact("model", "", "b", key, digest),))))

    assert told(made("r1/m", "sha256:1"), made("r2/m", "sha256:1")) == []
    assert told(made("r1/m", "sha256:1"), made("r2/m", "sha256:2")) == [
        ("a", "outputs.model", "sha256:1", "sha256:2")
    ]
    assert told(made("r1/m", "sha256:1"), made("r2/m", "")) == [
        ("a", "outputs.model", "sha256:1", "s3://b/r2/m, not read yet")
    ]


def test_long_values_are_shortened_and_still_told_apart() -> None:
    old, new = (side(parameters=(Parameter("p", "x" * 5000 + end),)) for end in "ab")
    ((_, _, before, after),) = told(old, new)
    assert len(before) < 1100
    assert before != after


def test_a_document_that_is_none_is_compared_as_text() -> None:
    deep = "[" * 100_000
    found = told(side(step("a"), documents={"a": deep}), side(step("a"), documents={"a": "{}"}))
    assert found[0][:2] == ("a", "template.document")


def test_so_many_differences_are_told_and_the_rest_is_counted() -> None:
    old, new = (side(parameters=tuple(Parameter(str(i), v) for i in range(10_005))) for v in "ab")
    found = differences(old, new)
    assert len(found) == 10_001
    assert found[-1] == Difference("", "…", None, "5 more differences")


names = st.sampled_from(["a", "b", "train(0)", "train(1)"])
steps = st.lists(names, unique=True).map(lambda paths: tuple(step(path) for path in paths))


@given(steps, steps)
def test_every_step_of_either_run_is_looked_at_once(old: tuple[Step, ...], new: tuple[Step, ...]) -> None:
    found = [d.step for d in differences(side(*old), side(*new))]
    assert sorted(found) == sorted({s.path for s in old} ^ {s.path for s in new})
