"""The differences of two runs."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from run_events import START

from periplus_lineage.runs.diff import ComparedRun, Difference, differences
from periplus_lineage.runs.model import Run, RunWithSteps, SnapshotSummary, Step
from periplus_model.steps import Artifact, Inputs, ObjectRef, Outputs, RunPhase, StepPhase


def step(path: str, **fields: object) -> Step:
    return replace(Step("r", path, template="t", phase=StepPhase.SUCCEEDED), **fields)


def run(
    *steps: Step, documents: dict[str, str] | None = None, snapshot=None, **fields: object
) -> ComparedRun:
    recorded = replace(Run("p", "r", START, pipeline="p", phase=RunPhase.SUCCEEDED), **fields)
    return ComparedRun(RunWithSteps(recorded, steps), documents or {}, snapshot)


def diff(old: ComparedRun, new: ComparedRun) -> list[tuple[str, str, str | None, str | None]]:
    return [(d.step, d.field, d.old, d.new) for d in differences(old, new)]


def test_equal_runs_have_no_differences() -> None:
    both = run(step("a", inputs=Inputs({"c": "1"})), snapshot=SnapshotSummary("e", "c", False))
    assert diff(both, both) == []


def test_causes_come_before_effects() -> None:
    def compared(c: str, code: str, accuracy: str, phase: RunPhase) -> ComparedRun:
        return run(
            step("train", inputs=Inputs({"c": c}), outputs=Outputs({"accuracy": accuracy})),
            documents={"train": f'{{"code": {{"features.py": "{code}"}}, "inputs": {{"parameters": ["{c}"]}}}}'},
            parameters={"c": c},
            phase=phase,
        )  # fmt: skip

    assert [
        (s, f)
        for s, f, *_ in diff(
            compared("1", "x", "0.9", RunPhase.SUCCEEDED), compared("2", "y", "0.8", RunPhase.FAILED)
        )
    ] == [
        ("", "parameters.c"),
        ("train", "code.features.py"),
        ("train", "template.inputs.parameters[0]"),
        ("train", "inputs.c"),
        ("train", "outputs.accuracy"),
        ("", "phase"),
    ]


def test_a_step_of_only_one_run_is_listed_at_its_position() -> None:
    found = diff(run(step("a"), step("gone"), step("z")), run(step("a"), step("new"), step("z")))
    assert found == [("gone", "step", "t", None), ("new", "step", None, "t")]


def test_artifacts_are_compared_by_content_and_unread_ones_differ() -> None:
    def compared(key: str, digest: str) -> ComparedRun:
        return run(step("a", outputs=Outputs({}, (Artifact("model", ObjectRef(key, "b"), digest),))))

    assert diff(compared("r1/m", "sha256:1"), compared("r2/m", "sha256:1")) == []
    assert diff(compared("r1/m", "sha256:1"), compared("r2/m", "sha256:2")) == [
        ("a", "outputs.model", "sha256:1", "sha256:2")
    ]
    assert diff(compared("r1/m", "sha256:1"), compared("r2/m", "")) == [
        ("a", "outputs.model", "sha256:1", "s3://b/r2/m, not read yet")
    ]


def test_long_values_are_shortened_and_still_differ() -> None:
    old, new = (run(parameters={"p": "x" * 5000 + end}) for end in "ab")
    ((_, _, before, after),) = diff(old, new)
    assert len(before) < 1100
    assert before != after


def test_a_document_that_is_not_json_is_compared_as_text() -> None:
    deep = "[" * 100_000
    found = diff(run(step("a"), documents={"a": deep}), run(step("a"), documents={"a": "{}"}))
    assert found[0][:2] == ("a", "template.document")


def test_at_most_ten_thousand_differences_are_listed_and_the_others_counted() -> None:
    old, new = (run(parameters={str(i): v for i in range(10_005)}) for v in "ab")
    found = differences(old, new)
    assert len(found) == 10_001
    assert found[-1] == Difference("", "…", None, "5 more differences")


names = st.sampled_from(["a", "b", "train(0)", "train(1)"])
steps = st.lists(names, unique=True).map(lambda paths: tuple(step(path) for path in paths))


@given(steps, steps)
def test_every_step_of_either_run_is_compared_once(old: tuple[Step, ...], new: tuple[Step, ...]) -> None:
    found = [d.step for d in differences(run(*old), run(*new))]
    assert sorted(found) == sorted({s.path for s in old} ^ {s.path for s in new})
