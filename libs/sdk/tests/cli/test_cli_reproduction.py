"""`periplus reproduce` and `rollback`: what they print, what they send, and their exit codes."""

import json

import pytest

from periplus.dispatcher.v1 import dispatcher_pb2 as dispatcher
from periplus.lineage.v1 import lineage_pb2 as lineage
from periplus_common.errors import Unavailable

CHANGED = dispatcher.Requirement(
    kind="REQUIREMENT_KIND_INPUT", state="REQUIREMENT_STATE_CHANGED", name="data/x.csv", steps=["load"],
    reason="the object was overwritten\x1b[31m", fix="periplus lineage up artifact:sha256:1",
)  # fmt: skip
MET = dispatcher.Requirement(kind="REQUIREMENT_KIND_IMAGE", state="REQUIREMENT_STATE_MET", name="a@sha256:1")


def graded(grade: str, **fields: object) -> lineage.GradeReproductionResponse:
    return lineage.GradeReproductionResponse(original="r-1", grade=f"GRADE_{grade}", **fields)


def finished(phase: str = "SUCCEEDED") -> list[lineage.WatchRunResponse]:
    return [lineage.WatchRunResponse(run=lineage.Run(id="r-2", phase=f"RUN_PHASE_{phase}"))]


@pytest.fixture
def met(script):
    script.answers["ReproduceRun"] = dispatcher.ReproduceRunResponse(
        run="r-2", requirements=[MET], manifest="{}"
    )
    script.answers["WatchRun"] = finished()


def test_what_is_not_as_it_was_is_listed_with_what_mends_it_and_nothing_runs(script, periplus):
    script.answers["ReproduceRun"] = dispatcher.ReproduceRunResponse(requirements=[CHANGED, MET])
    done = periplus("reproduce", "r-1")
    assert done.code == 6
    assert done.out.splitlines() == [
        "r-1: 2 requirements: 1 changed, 1 met",
        "",
        "NEEDS  NAME        STATE    STEPS  WHY",
        "input  data/x.csv  changed  load   the object was overwritten",
        "fix:   periplus lineage up artifact:sha256:1",
        "",
    ]
    assert "--anyway" in done.err
    assert [each.validate_only for each in script.requests("ReproduceRun")] == [True]
    assert periplus("reproduce", "r-1", "-o", "json").document["grade"] is None


def test_anyway_runs_it_and_a_dry_run_never_does(script, periplus, met):
    script.answers["ReproduceRun"].requirements.append(CHANGED)
    script.answers["GradeReproduction"] = graded("IDENTICAL", identical=3)
    assert periplus("reproduce", "r-1", "--dry-run").code == 6
    assert periplus("reproduce", "r-1", "--anyway").code == 0
    assert [(each.validate_only, each.accept_unmet) for each in script.requests("ReproduceRun")] == [
        (True, False),
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize(
    ("grade", "phase", "code"),
    [
        ("IDENTICAL", "SUCCEEDED", 0),
        ("IDENTICAL", "FAILED", 0),  # as the run that it reproduces
        ("DIFFERENT", "SUCCEEDED", 1),
        ("NOT_COMPARABLE", "SUCCEEDED", 1),
        ("DIFFERENT", "CANCELLED", 4),
    ],
)
def test_only_a_reproduction_that_is_identical_exits_with_0(script, periplus, met, grade, phase, code):
    script.answers["WatchRun"] = finished(phase)
    script.answers["GradeReproduction"] = graded(grade)
    assert periplus("reproduce", "r-1").code == code


def test_the_grade_names_each_output_that_differs_and_waits_for_digests(script, periplus, met):
    differs = lineage.OutputComparison(
        step="train(2)",
        output="outputs.model",
        grade="GRADE_DIFFERENT",
        original="sha256:" + "ab" * 32,
        reproduced="x",
    )
    answers = iter(
        [
            graded("NOT_COMPARABLE", is_pending=True),
            graded("DIFFERENT", identical=7, different=1, outputs=[differs]),
        ]
    )
    script.answers["GradeReproduction"] = lambda _: next(answers)
    done = periplus("reproduce", "r-1")
    assert done.out.splitlines()[-4:] == [
        "different: run r-2 compared with r-1: 8 outputs: 7 identical, 1 different",
        "",
        "STEP      OUTPUT         GRADE      WAS                  IS  WHY",
        "train(2)  outputs.model  different  sha256:abababababab  x",
    ]


ROLLBACK = dispatcher.RollBackPipelineResponse(
    run="p-3",
    template={
        "name": "p",
        "current": json.dumps({"spec": {"x": 2}}),
        "earlier": json.dumps({"spec": {"x": 1}}),
    },
)


def test_a_rollback_shows_the_difference_and_asks_before_anything_changes(script, periplus):
    script.answers["RollBackPipeline"] = ROLLBACK
    done = periplus("rollback", "p", "--to", "p-1")
    assert done.code == 2
    assert {"-  x: 2", "+  x: 1"} <= set(done.out.splitlines())
    assert "--yes" in done.err
    assert [each.validate_only for each in script.requests("RollBackPipeline")] == [True]
    done = periplus("rollback", "p", "--to", "p-1", "--yes", "-o", "json")
    assert (done.code, done.document["run"], done.document["rolled_back_to"]) == (0, "p-3", "p-1")


def test_a_rollback_without_proven_bytes_exits_with_6_and_sends_nothing(script, periplus):
    script.answers["RollBackPipeline"] = dispatcher.RollBackPipelineResponse(requirements=[CHANGED])
    assert periplus("rollback", "p", "--to", "p-1", "--yes").code == 6
    assert [each.validate_only for each in script.requests("RollBackPipeline")] == [True]


def test_a_check_is_repeated_while_the_cache_reads_large_objects(script, periplus):
    reading = Unavailable("it reads", reason="OBJECTS_BEING_READ")
    answers = iter([reading, reading, reading, dispatcher.ReproduceRunResponse(requirements=[MET])])
    script.answers["ReproduceRun"] = lambda _: next(answers)
    done = periplus("reproduce", "r-1", "--dry-run")
    assert (done.code, done.err.count("the cache reads")) == (0, 1)
