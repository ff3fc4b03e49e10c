"""The grade of a reproduction: from the steps of two runs."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from periplus_common.errors import Refused
from periplus_lineage.runs.model import Run, RunWithSteps, Step
from periplus_lineage.runs.reproduction import Grade, grade
from periplus_model.steps import Artifact, ObjectRef, Outputs, RunPhase, StepPhase

AT = datetime(2026, 1, 1, tzinfo=UTC)


def run(*steps: Step, **fields: Any) -> RunWithSteps:
    return RunWithSteps(Run("p", "r", AT, **{"phase": RunPhase.SUCCEEDED, **fields}), steps)


def step(path: str = "s", phase: StepPhase = StepPhase.SUCCEEDED, **outputs: Any) -> Step:
    return Step("r", path, phase=phase, outputs=Outputs(**outputs))


def artifact(digest: str) -> tuple[Artifact, ...]:
    return (Artifact("a", ObjectRef(f"k{digest}"), digest and f"sha256:{digest * 64}"),)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (step(artifacts=artifact("1")), step(artifacts=artifact("1")), Grade.IDENTICAL),
        (step(artifacts=artifact("1")), step(artifacts=artifact("2")), Grade.DIFFERENT),
        (step(artifacts=artifact("")), step(artifacts=artifact("2")), Grade.NOT_COMPARABLE),
        (step(artifacts=artifact("1")), step(artifacts=artifact("")), Grade.NOT_COMPARABLE),
        (step(artifacts=artifact("1")), step(), Grade.DIFFERENT),
        (step(parameters={"o": "1"}), step(parameters={"o": "1"}), Grade.IDENTICAL),
        (step(parameters={"o": "1"}), step(parameters={"o": "1.0"}), Grade.DIFFERENT),
        (step(parameters={"o": "1"}), step(parameters={"o": "1"}, result="x"), Grade.DIFFERENT),
        (step(phase=StepPhase.CACHED, parameters={"o": "1"}), step(parameters={"o": "1"}, result="x", exit_code=0), Grade.IDENTICAL),
        (step(result="x"), step(result="y"), Grade.DIFFERENT),
        (step(exit_code=1, phase=StepPhase.FAILED), step(exit_code=1, phase=StepPhase.FAILED), Grade.IDENTICAL),
        (step(exit_code=1, phase=StepPhase.FAILED), step(exit_code=0), Grade.DIFFERENT),
        (step(phase=StepPhase.SKIPPED), step(phase=StepPhase.SKIPPED), Grade.NOT_COMPARABLE),
        (step(), step(), Grade.NOT_COMPARABLE),
        (step(), step("t"), Grade.DIFFERENT),
    ],
)  # fmt: skip
def test_two_steps_compare_by_all_that_they_gave(old: Step, new: Step, expected: Grade) -> None:
    assert grade(run(old), run(new)).grade is expected


def test_one_difference_outweighs_what_can_not_be_compared_and_comes_first() -> None:
    old = run(
        step("a", parameters={"o": "1"}), step("b", artifacts=artifact("")), step("c", parameters={"o": "1"})
    )
    new = run(
        step("a", parameters={"o": "1"}), step("b", artifacts=artifact("1")), step("c", parameters={"o": "2"})
    )
    found = grade(old, new)
    assert found.grade is Grade.DIFFERENT
    assert [(each.step, each.grade) for each in found.comparisons[:2]] == [
        ("b", Grade.NOT_COMPARABLE),
        ("c", Grade.DIFFERENT),
    ]
    assert not found.is_pending


def test_a_digest_that_is_not_known_yet_may_still_change_the_grade() -> None:
    found = grade(run(step(artifacts=artifact("1"))), run(step(artifacts=artifact(""))))
    assert found.is_pending


def test_a_step_that_ran_alone_compares_with_the_step_that_it_was() -> None:
    old = run(step("main.train(2)", parameters={"o": "1"}), step("other", parameters={"o": "1"}))
    new = run(step("step", parameters={"o": "1"}), reproduces="r", reproduced_step="main.train(2)")
    found = grade(old, new)
    assert found.grade is Grade.IDENTICAL
    assert {each.step for each in found.comparisons} == {"main.train(2)"}


def test_a_run_is_compared_once_it_has_finished() -> None:
    running = run(step())
    with pytest.raises(Refused):
        grade(run(step()), replace(running, run=replace(running.run, phase=RunPhase.RUNNING)))
