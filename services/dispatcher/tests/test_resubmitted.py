"""Workflows that `argo resubmit` made of runs: their gates are answered, and they are runs of their own."""

import asyncio
import json
from typing import Any

from dispatcher_harness import RUN_SUBMITTED, WAIT_SECONDS, Harness
from manifests import dag, say, shows, task, workflow

from periplus.dispatcher.v1.events_pb2 import RunSubmitted
from periplus_dispatcher.follow.resubmitted import OTHER_PARAMETERS
from periplus_model.steps import CacheMode, RunPhase

Json = dict[str, Any]


def two(up: str = "true") -> Json:
    """Two steps, the second behind the first and with the workflow's parameter."""
    first = say("up", "1")
    first["container"]["args"][0] += f"; {up}"
    given = {"x": "{{tasks.up.outputs.parameters.o}}{{workflow.parameters.p}}"}
    tasks = task("up", "up"), task("end", "end", depends="up", given=given)
    return workflow(
        dag(*tasks, outputs=shows("tasks.end.outputs.parameters.o")),
        first, say("end", "<$x>", "x"), parameters={"p": "a"},
    )  # fmt: skip


async def gated(harness: Harness) -> str:
    """The name of a finished run whose second step was skipped at its gate."""
    await harness.run(two())
    ended = await harness.run(two("sleep 0"))
    assert (ended.ran, ended.cached) == ({"up"}, {"end"})
    return ended.run.id


def resubmit(harness: Harness, run: str, *parameters: str) -> str:
    return str(harness.client.do(run, "resubmit", parameters=list(parameters))["metadata"]["name"])


async def stored(harness: Harness, name: str) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while await harness.runs.get(name) is None:  # noqa: ASYNC110 - the follower has no event for it
            await asyncio.sleep(0.02)


async def test_the_gates_of_a_resubmitted_workflow_are_answered_and_its_run_is_published(
    harness: Harness,
) -> None:
    original = await gated(harness)
    again = resubmit(harness, original)
    await stored(harness, again)
    ended = await harness.ended(again)
    assert (ended.run.phase, ended.ran, ended.cached, ended.output) == (
        RunPhase.SUCCEEDED,
        {"up"},
        {"end"},
        "<1a>",
    )
    (body,) = await harness.published(RUN_SUBMITTED, again)
    submitted = RunSubmitted.FromString(body)
    assert (submitted.run, [(p.name, p.value) for p in submitted.parameters]) == (again, [("p", "a")])


async def test_a_dispatcher_that_was_away_answers_the_gates_of_a_resubmitted_workflow(
    harness: Harness,
) -> None:
    original = await gated(harness)
    await harness.crash()
    again = resubmit(harness, original)
    async with asyncio.timeout(WAIT_SECONDS):
        while "Suspend" not in json.dumps((await harness.argo.get(again) or {}).get("status")):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    harness.follow()
    harness.follow()  # a second replica
    await stored(harness, again)
    assert (await harness.ended(again)).cached == {"end"}


async def test_one_with_other_parameters_ends_with_the_reason_instead_of_with_results_of_the_original(
    harness: Harness,
) -> None:
    original = await gated(harness)
    again = resubmit(harness, original, "p=b")
    await stored(harness, again)
    ended = await harness.ended(again)
    assert (ended.run.phase, ended.run.message, ended.cached) == (RunPhase.ERROR, OTHER_PARAMETERS, set())
    workflow = await harness.argo.get(again)
    assert workflow is not None
    assert workflow["spec"]["shutdown"] == "Terminate"


async def test_one_that_nothing_was_rewritten_in_takes_other_parameters(harness: Harness) -> None:
    first = await harness.run(two("sleep 0.01"), mode=CacheMode.OFF)
    assert first.ran == {"up", "end"}
    again = resubmit(harness, first.run.id, "p=b")
    await stored(harness, again)
    ended = await harness.ended(again)
    assert (ended.run.phase, ended.output, ended.run.parameters) == (RunPhase.SUCCEEDED, "<1b>", {})


async def test_a_workflow_that_only_claims_to_be_resubmitted_is_no_run(harness: Harness) -> None:
    original = await gated(harness)
    found = await harness.argo.get(original)
    assert found is not None
    forged = two("echo forged")
    forged["metadata"] = {"name": "forged", "labels": dict(found["metadata"]["labels"])}
    forged["metadata"]["labels"] |= {"workflows.argoproj.io/resubmitted-from-workflow": original}
    for label in ("phase", "completed"):
        forged["metadata"]["labels"].pop(f"workflows.argoproj.io/{label}", None)
    await harness.argo.create(forged)
    other = {**json.loads(json.dumps(found)), "metadata": {**forged["metadata"], "name": "of-another"}}
    other = {k: v for k, v in other.items() if k != "status"}
    other["metadata"]["labels"] = {**forged["metadata"]["labels"], "periplus.dev/project": "other"}
    await harness.argo.create(other)
    # The follower has seen both once a run that was submitted after them has ended.
    await harness.run(two("sleep 0.02"))
    assert await harness.runs.get("forged") is None
    assert await harness.runs.get("of-another") is None
