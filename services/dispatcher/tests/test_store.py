"""Runs, published steps and answers to gates, on a real Postgres."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from periplus.dispatcher.v1 import events_pb2
from periplus.types.v1 import step_pb2
from periplus_common.errors import Conflict
from periplus_common.postgres import Database, database
from periplus_common.retention import delete_expired
from periplus_dispatcher.domain import (
    ContainerTemplate,
    Delay,
    FanOut,
    GateAnswer,
    GeneratedTemplate,
    Reproduced,
    Run,
    RunState,
    StepNode,
    StepStatus,
    TemplateRole,
)
from periplus_dispatcher.follow.delays import MAX_REASON_CHARACTERS, ORDINARY_FOR
from periplus_dispatcher.store import MAX_DELAY_CHANGES, PostgresRuns, retentions
from periplus_model.queries import Raw, StepVerdict
from periplus_model.steps import (
    Artifact,
    CachePolicy,
    Inputs,
    ObjectRef,
    Outputs,
    RunPhase,
    StepPhase,
    StepTemplate,
    Verdict,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HIT = StepVerdict(
    "",
    Verdict.HIT,
    "hit",
    "sha256:1",
    Outputs({"o": "1"}, (Artifact("m", ObjectRef("k")),)),
    "earlier",
    "a",
    timedelta(seconds=2.5),
)
STATE = RunState(
    templates={
        "t": ContainerTemplate(
            StepTemplate(
                "t", '{"é":1}', CachePolicy(ttl=timedelta(seconds=1.5), ignore_inputs=frozenset({"x"}))
            ),
            ("o",),
            ("m",),
        )
    },
    generated={"t--gate": GeneratedTemplate(TemplateRole.GATE, "t", ("periplus-hit",))},
    fan_outs={
        "f": FanOut({"parameters": []}, (1, 2), {"d": "1"}, {"a": ObjectRef("k"), "r": Raw("x")}),
        "g": FanOut({}),
    },
    resolved={"a": HIT, "f": replace(HIT, items=(HIT, StepVerdict("", Verdict.MISS)), items_json="[1,2]")},
    verdicts={"a": Verdict.HIT},
)


def run(request: str = "r1", phase: RunPhase = RunPhase.PENDING, **more: object) -> Run:
    made = Run(
        project="p", id=f"run-{request}", request_id=request, request_digest="sha256:d", pipeline="pipe", phase=phase,
        manifest="{}", state=STATE, snapshot="sha256:s", cache_mode=None, submitted_at=NOON, parameters={"x": "1"},
        source="kind: Workflow",
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


def status(
    path: str = "a", phase: StepPhase = StepPhase.RUNNING, verdict: StepVerdict | None = None
) -> StepStatus:
    return StepStatus(
        path,
        phase,
        "t",
        "node-1",
        started_at=NOON,
        finished_at=NOON if phase.is_final else None,
        verdict=verdict,
    )


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    async with database(dsn, size=20) as opened:
        yield opened


@pytest.fixture
def runs(db: Database) -> PostgresRuns:
    return PostgresRuns(db)


async def published(db: Database) -> list[str]:
    async with db.connection() as connection:
        rows = await connection.fetch("SELECT subject FROM outbox ORDER BY id")
    return [row["subject"].split(".")[3] for row in rows]


async def body(db: Database, kind: str) -> bytes:
    async with db.connection() as connection:
        return bytes(
            await connection.fetchval("SELECT body FROM outbox WHERE subject LIKE $1", f"%.{kind}.%")
        )


async def test_a_stored_run_is_read_as_it_was(runs: PostgresRuns) -> None:
    stored = await runs.add(run(), [], [])
    again = await runs.get("run-r1")
    assert again == replace(stored, source="", parameters={}), (
        "the manifest and its parameters are published, and not stored twice"
    )
    assert await runs.find("p", "r1") == again
    assert await runs.find("other", "r1") is None
    assert await runs.get("nobody") is None


LONG = {f"p{i}": "x" * 200_000 for i in range(4)}


async def test_an_event_that_is_too_large_is_published_without_its_values(
    runs: PostgresRuns, db: Database
) -> None:
    stored = await runs.add(run(), [], [])
    ended = replace(
        status(phase=StepPhase.SUCCEEDED), inputs=Inputs(dict(LONG)), outputs=Outputs({**LONG, "result": "y"})
    )
    await runs.finish(stored, [ended], RunPhase.SUCCEEDED, "", Outputs({**LONG, "more": "x" * 300_000}), NOON)
    step = events_pb2.StepFinished.FromString(await body(db, "StepFinished"))
    assert (step.step, step.phase) == ("a", step_pb2.STEP_PHASE_SUCCEEDED)
    assert (len(step.inputs.parameters), len(step.outputs.parameters)) == (0, 5)
    assert {value.name for value in step.inputs.omitted} == set(LONG)
    assert step.template.uncacheable_reason == ""  # the digests of its inputs are enough for its key
    over = events_pb2.RunFinished.FromString(await body(db, "RunFinished"))
    assert over.phase == step_pb2.RUN_PHASE_SUCCEEDED
    assert over.ByteSize() < 1_000_000
    kept = {value.name for value in over.outputs.parameters}
    omitted = {value.name for value in over.outputs.omitted}
    assert (kept | omitted, kept & omitted, "more" in omitted) == ({*LONG, "more"}, set(), True)


async def test_a_plan_that_is_too_large_for_an_event_is_published_without_reasons_or_steps(
    runs: PostgresRuns, db: Database
) -> None:
    def planned(reason: str, count: int) -> list[StepNode]:
        return [StepNode(f"step-{i}", "t", (), Verdict.MISS, reason) for i in range(count)]

    for number, (nodes, count) in enumerate(
        [(planned("x" * 500, 100), 100), (planned("x" * 500, 3000), 3000), (planned("", 100_000), 0)]
    ):
        await runs.add(run(f"r{number}"), [], nodes)
        async with db.connection() as connection:
            event = await connection.fetchval(
                "SELECT body FROM outbox WHERE subject LIKE $1", f"%.run-r{number}"
            )
        steps = events_pb2.RunSubmitted.FromString(event).steps
        assert (len(steps), {step.reason for step in steps}) == (count, [{"x" * 500}, {""}, set()][number])
        assert len(event) <= 1_000_000


async def test_fifty_submissions_of_one_request_are_one_run_that_is_published_once(
    runs: PostgresRuns, db: Database
) -> None:
    submissions = [run(submitted_at=NOON.replace(microsecond=n)) for n in range(50)]
    stored = await asyncio.gather(*(runs.add(each, [], []) for each in submissions))
    assert len({each.submitted_at for each in stored}) == 1
    assert await published(db) == ["RunSubmitted"]


async def test_a_run_that_is_complete_at_submission_is_published_as_a_whole(
    runs: PostgresRuns, db: Database
) -> None:
    over = run(
        phase=RunPhase.SUCCEEDED,
        finished_at=NOON,
        state=replace(STATE, cached_steps=1, saved=timedelta(seconds=2.5)),
    )
    await runs.add(over, [status(phase=StepPhase.CACHED, verdict=HIT)], [])
    assert await published(db) == ["RunSubmitted", "StepFinished", "RunFinished"]
    step = events_pb2.StepFinished.FromString(await body(db, "StepFinished"))
    assert (step.verdict, step.producer_run, step.fingerprint) == (
        step_pb2.VERDICT_HIT,
        "earlier",
        "sha256:1",
    )
    finished = events_pb2.RunFinished.FromString(await body(db, "RunFinished"))
    assert (finished.cached_steps, finished.saved.ToTimedelta().total_seconds()) == (1, 2.5)
    assert finished.finished_steps == 1
    assert await runs.list_open() == []


async def test_the_id_of_another_requests_run_is_a_conflict(runs: PostgresRuns) -> None:
    await runs.add(run(), [], [])
    with pytest.raises(Conflict):
        await runs.add(run("r2", id="run-r1"), [], [])


async def test_each_phase_of_a_step_is_published_once_by_whichever_replica(
    runs: PostgresRuns, db: Database
) -> None:
    stored = await runs.add(run(), [], [])
    running, ended = status(), status(phase=StepPhase.SUCCEEDED)
    await asyncio.gather(*(runs.publish(stored, [running]) for _ in range(10)))
    await asyncio.gather(*(runs.publish(stored, [running, ended]) for _ in range(10)))
    assert await published(db) == ["RunSubmitted", "StepStarted", "StepFinished"]


async def test_a_change_of_what_delays_a_step_is_published_once_and_in_order(
    runs: PostgresRuns, db: Database
) -> None:
    stored = await runs.add(run(), [], [])

    def delay(reason: str) -> Delay:
        return Delay("a", "t", "node", reason)

    for reason in ("ErrImagePull", "ErrImagePull", "ImagePullBackOff", "ErrImagePull", "", ""):
        await asyncio.gather(*(runs.publish_delays(stored, [delay(reason)], NOON) for _ in range(5)))
    async with db.connection() as connection:
        rows = await connection.fetch(
            "SELECT body FROM outbox WHERE subject LIKE '%StepDelayed%' ORDER BY id"
        )
    assert [events_pb2.StepDelayed.FromString(row["body"]).reason for row in rows] == [
        "ErrImagePull", "ImagePullBackOff", "ErrImagePull", "",
    ]  # fmt: skip
    assert await runs.get_delays("run-r1") == {"a": ""}
    for number in range(2 * MAX_DELAY_CHANGES):
        await runs.publish_delays(stored, [delay(str(number))], NOON)
    assert (await published(db)).count("StepDelayed") == MAX_DELAY_CHANGES


def test_the_bounds_of_delays_are_published() -> None:
    published = (Path(__file__).parents[3] / "docs" / "limits.md").read_text()
    for bound in (
        f"| characters of a reason | {MAX_REASON_CHARACTERS:,} |",
        f"| changes of one step | {MAX_DELAY_CHANGES} |",
        f"`ContainerCreating` are usual | {ORDINARY_FOR.total_seconds():.0f} s |",
    ):
        assert bound in published


async def test_a_run_that_has_finished_has_no_delays(runs: PostgresRuns, db: Database) -> None:
    stored = await runs.add(run(), [], [])
    await runs.publish_delays(stored, [Delay("a", "t", "node", "Unschedulable")], NOON)
    await runs.finish(stored, [], RunPhase.FAILED, "", Outputs(), NOON)
    await runs.publish_delays(stored, [Delay("a", "t", "node", "too late")], NOON)
    assert await runs.get_delays("run-r1") == {}
    assert (await published(db)).count("StepDelayed") == 1


async def test_a_run_finishes_once_with_the_sum_of_its_hits(runs: PostgresRuns, db: Database) -> None:
    stored = await runs.add(run(), [], [])
    await runs.publish(stored, [status("a", StepPhase.CACHED, HIT)])
    last = [status("b", StepPhase.CACHED, HIT), status("c", StepPhase.SUCCEEDED)]
    ends = (
        runs.finish(stored, last, phase, "why", Outputs({"o": "1"}), NOON)
        for phase in (RunPhase.SUCCEEDED, RunPhase.FAILED)
    )
    await asyncio.gather(*ends)
    assert sorted(await published(db)) == [
        "RunFinished",
        "RunSubmitted",
        "StepFinished",
        "StepFinished",
        "StepFinished",
    ]
    finished = events_pb2.RunFinished.FromString(await body(db, "RunFinished"))
    assert (finished.cached_steps, finished.saved.ToTimedelta().total_seconds()) == (2, 5.0)
    assert finished.finished_steps == 3
    over = await runs.get(stored.id)
    assert over
    assert over.phase.is_final
    assert over.outputs.parameters == {"o": "1"}
    await runs.set_running(stored.id)
    still = await runs.get(stored.id)
    assert still
    assert still.phase is over.phase, "a finished run does not become running again"


async def test_open_runs_are_those_that_have_not_finished_oldest_first(runs: PostgresRuns) -> None:
    for n, request in enumerate(("r2", "r1", "r3")):
        await runs.add(run(request, submitted_at=NOON.replace(minute=n)), [], [])
    await runs.set_running("run-r1")
    await runs.finish(run("r2"), [], RunPhase.ERROR, "", Outputs(), NOON)
    assert await runs.list_open() == ["run-r1", "run-r3"]


async def test_the_first_answer_to_a_gate_stays(runs: PostgresRuns) -> None:
    stored = await runs.add(run(), [], [])
    first = GateAnswer({"periplus-hit": "true"}, HIT, (1,))
    await runs.add_answers(stored.id, {"n1": first})
    await runs.add_answers(
        stored.id,
        {
            "n1": GateAnswer({}, StepVerdict("", Verdict.MISS)),
            "n2": GateAnswer({}, StepVerdict("", Verdict.MISS)),
        },
    )
    answers = await runs.get_answers(stored.id)
    assert answers["n1"] == first
    assert set(answers) == {"n1", "n2"}


async def test_text_with_a_nul_character_is_stored(runs: PostgresRuns) -> None:
    stored = await runs.add(run(), [], [])
    odd = Outputs({"o": "a\0b"})
    await runs.add_answers(stored.id, {"n": GateAnswer({"periplus-p-o": "a\0b"}, replace(HIT, outputs=odd))})
    await runs.finish(stored, [], RunPhase.SUCCEEDED, "a\0b", odd, NOON)
    over = await runs.get(stored.id)
    assert over
    assert over.outputs == odd
    assert (await runs.get_answers(stored.id))["n"].parameters == {"periplus-p-o": "a\0b"}


LONG_AGO = timedelta(days=3)  # NOON is longer ago


async def rows(db: Database) -> dict[str, list[str]]:
    """The runs that have rows, by table."""
    async with db.connection() as connection:
        return {
            table: [
                row["run"]
                for row in await connection.fetch(
                    f"SELECT DISTINCT {column} AS run FROM {table} ORDER BY run"
                )
            ]
            for table, column in (("run", "id"), ("published", "run"), ("gate_answer", "run"))
        }


@pytest.fixture
async def aged(runs: PostgresRuns) -> None:
    """A run that finished long ago, one that finished now, and one that is open, each with a step and an answer."""
    for request in ("old", "young", "open"):
        stored = await runs.add(run(request), [], [])
        await runs.publish(stored, [status(phase=StepPhase.SUCCEEDED)])
        await runs.add_answers(stored.id, {"n": GateAnswer({}, HIT)})
        if request != "open":
            at = NOON if request == "old" else datetime.now(UTC)
            await runs.finish(stored, [], RunPhase.SUCCEEDED, "", Outputs(), at)


async def test_rows_of_runs_that_finished_long_ago_are_deleted_and_open_runs_keep_theirs(
    aged: None, db: Database, dsn: str
) -> None:
    deleted = await delete_expired(dsn, retentions(LONG_AGO, LONG_AGO, LONG_AGO))
    assert deleted == {"published": 1, "gate_answer": 1, "run": 1}
    stay = ["run-open", "run-young"]
    assert await rows(db) == {"run": stay, "published": stay, "gate_answer": stay}


async def test_a_run_stays_as_long_as_rows_that_belong_to_it(aged: None, db: Database, dsn: str) -> None:
    assert await delete_expired(dsn, retentions(LONG_AGO, LONG_AGO, None)) == {"published": 1, "run": 0}
    assert "run-old" in (await rows(db))["run"]


async def test_rows_with_unlimited_retention_stay(aged: None, db: Database, dsn: str) -> None:
    before = await rows(db)
    assert await delete_expired(dsn, retentions(None, None, None)) == {}
    assert await rows(db) == before


async def test_the_resolved_manifest_of_a_run_is_kept_as_long_as_the_run(
    runs: PostgresRuns, db: Database, dsn: str
) -> None:
    stored = await runs.add(replace(run("r"), resolved='{"kind": "Workflow"}'), [], [])
    assert await runs.get_resolved(stored.id) == '{"kind": "Workflow"}'
    assert await runs.get_resolved("another") == ""
    await runs.finish(stored, [], RunPhase.SUCCEEDED, "", Outputs(), NOON)
    assert await delete_expired(dsn, retentions(LONG_AGO, LONG_AGO, LONG_AGO)) == {
        "run": 1,
        "published": 0,
        "gate_answer": 0,
    }
    assert await runs.get_resolved(stored.id) == ""


async def test_a_reproduction_stays_one_when_its_run_is_read_again(runs: PostgresRuns) -> None:
    stored = await runs.add(replace(run("r"), reproduces=Reproduced("first", "train(2)", "sha256:s")), [], [])
    found = await runs.get(stored.id)
    assert found
    assert found.reproduces == Reproduced("first", "train(2)")
