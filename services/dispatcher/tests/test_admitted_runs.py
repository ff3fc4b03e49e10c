"""Workflows that were rewritten at their admission and created by others, on the local Argo: hits have no pods, results stay the same."""

import asyncio
import copy
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from admitted import admission, admitted, observation
from dispatcher_harness import FINISHED, RUN_SUBMITTED, FinishedRun, Harness
from manifests import dag, say, shows, task, workflow
from test_observing import ended, id_of, observing, submitted
from test_stretch_runs import gates_of

from periplus.dispatcher.v1 import events_pb2
from periplus.types.v1 import step_pb2
from periplus_dispatcher.follow.resubmitted import OTHER_PARAMETERS
from periplus_dispatcher.manifest.rewritten import ANNOTATION
from periplus_model.steps import RunPhase

Json = dict[str, Any]
RECORDED = observation("argo=default", recorded=["default"])


@pytest.fixture
async def started(harness: Harness) -> AsyncIterator[Harness]:
    """The harness with a follower that observes the namespace, and records its results."""
    found = await observing(harness, RECORDED)
    yield found
    await found.crash()


def pipeline(mark: str, command: str = "true") -> Json:
    """`up`, which another command makes run again, and `a` and `b` behind it."""
    up = say("up", f"{mark}$p", "p")
    up["container"]["args"][0] += f"; {command}"
    made = workflow(
        dag(
            task("up", "up", given={"p": "{{workflow.parameters.p}}"}),
            task("a", "t", given={"x": "{{tasks.up.outputs.parameters.o}}", "n": "a"}, depends="up"),
            task("b", "t", given={"x": "{{tasks.a.outputs.parameters.o}}", "n": "b"}, depends="a"),
            outputs=shows("tasks.b.outputs.parameters.o"),
        ),
        up, say("t", "$x$n", "x", "n"), parameters={"p": "1"},
    )  # fmt: skip
    made["metadata"] = {"generateName": "others-"}
    return made


async def created(harness: Harness, manifest: Json) -> Json:
    """A Workflow that others create and the webhook rewrites."""
    asked = admission(harness.cache, harness.argo, RECORDED)
    return submitted(harness, (await admitted(asked, manifest))[0])


async def run(harness: Harness, manifest: Json) -> tuple[FinishedRun, Json]:
    """Run it to its end and record what ran, as the cache does. Gives the run and its Workflow."""
    found = await created(harness, manifest)
    done = await ended(harness, id_of(found))
    for event in done.finished:
        if event.phase == step_pb2.STEP_PHASE_SUCCEEDED and event.cache_mode != step_pb2.CACHE_MODE_OFF:
            harness.cache.record(event)
    at_end = await harness.argo.get(found["metadata"]["name"])
    assert at_end is not None
    return done, at_end


def pods(found: Json) -> list[str]:
    return [node["displayName"] for node in found["status"]["nodes"].values() if node["type"] == "Pod"]


async def test_a_workflow_of_others_is_served_from_the_cache_the_second_time(started: Harness) -> None:
    manifest = pipeline(str(uuid.uuid4()))
    cold, _ = await run(started, manifest)
    assert (cold.run.phase, cold.ran, cold.cached) == (RunPhase.SUCCEEDED, {"up", "a", "b"}, set())
    assert {event.observed for event in cold.finished} == {False}
    warm, found = await run(started, manifest)
    assert (warm.run.phase, warm.ran, warm.cached) == (RunPhase.SUCCEEDED, set(), {"up", "a", "b"})
    assert warm.output == cold.output
    assert pods(found) == []
    assert warm.run.observed is not None
    assert ANNOTATION not in warm.run.manifest
    assert {event.observed for event in warm.finished} == {False}
    (body,) = await started.published(RUN_SUBMITTED, warm.run.id)
    event = events_pb2.RunSubmitted.FromString(body)
    assert [(node.path, node.verdict) for node in event.steps] == [
        (path, step_pb2.VERDICT_HIT) for path in ("up", "a", "b")
    ]
    assert event.observed.name == found["metadata"]["name"]


async def test_behind_a_step_that_runs_its_gate_is_answered(started: Harness) -> None:
    mark = str(uuid.uuid4())
    cold, _ = await run(started, pipeline(mark))
    warm, found = await run(started, pipeline(mark, command=": again"))
    assert (warm.ran, warm.cached, warm.output) == ({"up"}, {"a", "b"}, cold.output)
    assert pods(found) == ["up"]
    (gate,) = await gates_of(started, found["metadata"]["name"])
    assert gate["message"] == "2 of 2 steps are hits"


async def test_a_run_is_followed_by_a_process_that_did_not_see_it_begin(started: Harness) -> None:
    mark = str(uuid.uuid4())
    cold, _ = await run(started, pipeline(mark))
    await started.crash()
    found = await created(started, pipeline(mark, command=": later"))
    async with asyncio.timeout(60):
        while not await gates_of(started, found["metadata"]["name"]):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    started.follow()
    warm = await ended(started, id_of(found))
    assert (warm.ran, warm.cached, warm.output) == ({"up"}, {"a", "b"}, cold.output)


async def test_what_was_changed_after_the_rewrite_runs_and_is_not_recorded(started: Harness) -> None:
    mark = str(uuid.uuid4())
    await run(started, pipeline(mark))
    asked = admission(started.cache, started.argo, RECORDED)
    made, _ = await admitted(asked, pipeline(mark, command=": changed"))
    made["spec"]["templates"][2]["container"]["args"][0] += "; printf other > /tmp/o"
    done = await ended(started, id_of(submitted(started, made)))
    assert (done.ran, done.cached, done.output) == ({"up", "a", "b"}, set(), "other")
    assert {event.cache_mode for event in done.finished} == {step_pb2.CACHE_MODE_OFF}


async def test_a_workflow_that_carries_something_else_is_observed_as_it_is(started: Harness) -> None:
    made = pipeline(str(uuid.uuid4()))
    made["metadata"]["annotations"] = {ANNOTATION: "something else"}
    done = await ended(started, id_of(submitted(started, made)))
    assert (done.run.phase, done.ran) == (RunPhase.SUCCEEDED, {"up", "a", "b"})
    assert {event.observed for event in done.finished} == {True}


async def resubmitted(harness: Harness, found: Json, **parameters: str) -> Json:
    """What `argo resubmit` makes of a Workflow."""
    body = {"parameters": [f"{name}={value}" for name, value in parameters.items()]}
    answer: Json = harness.client.call("PUT", f"workflows/argo/{found['metadata']['name']}/resubmit", body)
    return answer


async def test_a_resubmitted_workflow_is_a_run_with_the_same_hits(started: Harness) -> None:
    manifest = pipeline(str(uuid.uuid4()))
    cold, _ = await run(started, manifest)
    _, found = await run(started, manifest)
    again = await resubmitted(started, found)
    asked = admission(started.cache, started.argo, RECORDED)
    assert (await asked.admit(copy.deepcopy(again), "argo")).patch == ()
    done = await ended(started, id_of(again))
    assert (done.ran, done.cached, done.output) == (set(), {"up", "a", "b"}, cold.output)


async def test_a_workflow_resubmitted_with_other_parameters_does_not_give_the_results_of_the_first(
    started: Harness,
) -> None:
    manifest = pipeline(str(uuid.uuid4()))
    await run(started, manifest)
    _, found = await run(started, manifest)
    done = await ended(started, id_of(await resubmitted(started, found, p="2")))
    assert (done.run.phase, done.run.message) == (RunPhase.ERROR, OTHER_PARAMETERS)
    assert await started.published(FINISHED, done.run.id) == []


async def test_a_cold_workflow_resubmitted_with_other_parameters_has_keys_of_its_own(
    started: Harness,
) -> None:
    manifest = pipeline(str(uuid.uuid4()))
    manifest["spec"]["templates"][0] = dag(
        task("up", "up", given={"p": "{{workflow.parameters.p}}"}),
        outputs=shows("tasks.up.outputs.parameters.o"),
    )
    cold, found = await run(started, manifest)
    assert {event.verdict for event in cold.finished} == {step_pb2.VERDICT_MISS}
    done = await ended(started, id_of(await resubmitted(started, found, p="2")))
    assert (done.run.phase, done.output != cold.output) == (RunPhase.SUCCEEDED, True)
    assert {event.observed for event in done.finished} == {True}


async def test_nothing_is_stored_before_the_workflow_is_seen(started: Harness) -> None:
    async def rows() -> list[int]:
        async with started.database.connection() as connection:
            return [
                await connection.fetchval(f"SELECT count(*) FROM {table}")
                for table in ("run", "outbox", "published", "gate_answer")
            ]

    await run(started, pipeline(str(uuid.uuid4())))
    await started.crash()
    before = await rows()
    await admitted(admission(started.cache, started.argo, RECORDED), pipeline(str(uuid.uuid4())))
    assert await rows() == before
