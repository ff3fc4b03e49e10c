"""Workflows that others submitted become runs, whenever the observer was there: local Argo, recorded watches, a real database."""

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from dispatcher_harness import FINISHED, RUN_FINISHED, RUN_SUBMITTED, WAIT_SECONDS, FinishedRun, Harness
from manifests import PROCESSES, dag, say, shows, task, workflow
from replayed_argo import ReplayedArgo, states

from periplus.dispatcher.v1 import events_pb2
from periplus.types.v1 import step_pb2
from periplus_common.errors import Invalid, Refused
from periplus_dispatcher.adoption import Adoption
from periplus_dispatcher.domain import Run
from periplus_dispatcher.follow.follower import Follower, FollowerTimings
from periplus_dispatcher.manifest.uncacheable import StepEnvironment
from periplus_dispatcher.observed.namespaces import Observation, parse_namespaces
from periplus_dispatcher.observed.observer import Observer
from periplus_dispatcher.observed.workflow import run_id
from periplus_dispatcher.ports import ObservedArgo
from periplus_model.steps import RunPhase

Json = dict[str, Any]


def observation(text: str, label: str = "", *recorded: str) -> Observation:
    return Observation({n.name: n for n in parse_namespaces(text)}, label, frozenset(recorded))


async def observing(
    harness: Harness,
    found: Observation,
    argo: ObservedArgo | None = None,
    environment: StepEnvironment = PROCESSES,
) -> Harness:
    """The harness with a new follower that observes, of the local Argo or of another."""
    await harness.crash()  # a follower with other settings would end the runs
    argos = {name: argo or harness.argo.in_namespace(name) for name in found.namespaces}
    observer = Observer(argos, found, harness.runs, environment)
    started = replace(harness, observer=observer, following=None)
    if argo is not None:
        started.argo = argo  # type: ignore[assignment]  # no run of Periplus is in it
    started.follow()
    return started


def pipeline(**more: Any) -> Json:
    made = workflow(
        dag(
            task("a", "a", given={"x": "{{workflow.parameters.p}}"}),
            task("b", "b", given={"x": "{{tasks.a.outputs.parameters.o}}"}, depends="a"),
            outputs=shows("tasks.b.outputs.parameters.o"),
        ),
        say("a", "a$x", "x"),
        say("b", "b$x", "x"),
        parameters={"p": str(uuid.uuid4())},
    )
    made["metadata"] = {"generateName": "others-", **more}
    return made


def submitted(harness: Harness, manifest: Json) -> Json:
    """A Workflow that was submitted to Argo as `argo submit` does."""
    found: Json = harness.client.call("POST", "workflows/argo", {"workflow": manifest})
    return found


def id_of(found: Json) -> str:
    return run_id(found["metadata"]["name"], found["metadata"]["uid"])


async def run_submitted(harness: Harness, run: str) -> events_pb2.RunSubmitted:
    (body,) = await harness.published(RUN_SUBMITTED, run)
    return events_pb2.RunSubmitted.FromString(body)


async def appeared(harness: Harness, run: str) -> Run:
    async with asyncio.timeout(WAIT_SECONDS):
        while (found := await harness.runs.get(run)) is None:  # noqa: ASYNC110  # the database has no event
            await asyncio.sleep(0.02)
    return found


async def ended(harness: Harness, run: str) -> FinishedRun:
    await appeared(harness, run)
    return await harness.ended(run)


async def test_a_workflow_that_others_submitted_is_a_run_with_its_steps(harness: Harness) -> None:
    started = await observing(harness, observation("argo=default"))
    try:
        manifest = pipeline()
        found = submitted(harness, manifest)
        done = await ended(started, id_of(found))
        event = await run_submitted(harness, id_of(found))
        in_argo = await harness.argo.get(found["metadata"]["name"])
    finally:
        await started.crash()
    assert done.run.phase is RunPhase.SUCCEEDED
    assert done.run.pipeline == "others"
    assert done.output == "ba" + manifest["spec"]["arguments"]["parameters"][0]["value"]
    assert done.phases == {"a": "succeeded", "b": "succeeded"}
    assert [(node.path, list(node.depends_on)) for node in event.steps] == [("a", []), ("b", ["a"])]
    assert (event.observed.namespace, event.observed.name) == ("argo", found["metadata"]["name"])
    assert [p.value for p in event.parameters] == [manifest["spec"]["arguments"]["parameters"][0]["value"]]
    assert in_argo is not None
    assert in_argo["spec"] == found["spec"]
    b = next(step for step in done.finished if step.step == "b")
    assert b.observed
    assert (b.pipeline, b.verdict) == ("others", step_pb2.VERDICT_UNSPECIFIED)
    assert b.cache_mode == step_pb2.CACHE_MODE_OFF
    assert b.template.document != "{}"


async def test_the_key_of_an_observed_step_is_that_of_a_run_of_periplus(harness: Harness) -> None:
    started = await observing(harness, observation("argo=default", "", "default"))
    manifest = pipeline()
    try:
        observed = await ended(started, id_of(submitted(harness, manifest)))
        for event in observed.finished:
            assert event.cache_mode == step_pb2.CACHE_MODE_WRITE
            harness.cache.record(event)
        again = await started.run(manifest)
    finally:
        await started.crash()
    assert again.cached == {"a", "b"}
    assert again.run.observed is None


@pytest.mark.parametrize(
    ("text", "label", "metadata", "is_observed"),
    [
        ("argo=default", "periplus.dev/observe=true", {"labels": {"periplus.dev/observe": "true"}}, True),
        ("argo=default", "periplus.dev/observe=true", {}, False),
        ("argo=other|default", "", {"labels": {"periplus.dev/project": "default"}}, True),
        ("argo=other", "", {"labels": {"periplus.dev/project": "default"}}, False),
        ("ml=default", "", {}, False),
        ("argo=default", "", {"labels": {"periplus.dev/managed": "true"}}, False),
    ],
)
async def test_only_what_the_settings_name_is_observed(
    harness: Harness, text: str, label: str, metadata: Json, is_observed: bool
) -> None:
    started = await observing(harness, observation(text, label))
    try:
        found = submitted(harness, pipeline(**metadata))
        await finished_in_argo(harness, found)
        if is_observed:
            assert (await ended(started, id_of(found))).run.project == "default"
        else:
            await asyncio.sleep(0.3)
            assert await harness.runs.get(id_of(found)) is None
    finally:
        await started.crash()


async def finished_in_argo(harness: Harness, found: Json) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            status = ((await harness.argo.get(found["metadata"]["name"])) or {}).get("status") or {}
            if status.get("finishedAt"):
                return
            await asyncio.sleep(0.05)


async def test_what_happened_while_no_observer_ran_is_recorded_when_one_starts(harness: Harness) -> None:
    found = submitted(harness, pipeline())
    await finished_in_argo(harness, found)
    started = await observing(harness, observation("argo=default"))
    try:
        done = await ended(started, id_of(found))
    finally:
        await started.crash()
    assert done.phases == {"a": "succeeded", "b": "succeeded"}


async def test_an_observed_run_can_not_be_cancelled_and_its_logs_can_be_read(harness: Harness) -> None:
    started = await observing(harness, observation("argo=default"))
    try:
        manifest = pipeline()
        manifest["spec"]["templates"][0]["dag"]["tasks"][1]["template"] = "wait"
        manifest["spec"]["templates"][1]["container"]["args"][0] += "; echo said"
        manifest["spec"]["templates"].append(
            {
                "name": "wait",
                "suspend": {},
                "outputs": {"parameters": [{"name": "o", "valueFrom": {"supplied": {}, "default": "x"}}]},
            }
        )
        found = submitted(harness, manifest)
        run = id_of(found)
        await appeared(started, run)
        with pytest.raises(Refused, match="only observes"):
            await harness.dispatcher.cancel("default", run, terminate=True, reason="")
        async with asyncio.timeout(WAIT_SECONDS):
            while not await harness.published(FINISHED, run):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        lines = [line async for line in harness.dispatcher.logs("default", run, "", follow=False)]
        assert ("a", "said") in lines
    finally:
        await started.crash()
        await harness.argo.stop(found["metadata"]["name"], terminate=True, message="")


async def test_a_request_can_not_take_the_request_id_of_an_observed_run(harness: Harness) -> None:
    with pytest.raises(Invalid, match="observed Workflows") as caught:
        await harness.submit(pipeline(), "observed:1")
    assert caught.value.field == "request_id"


async def test_a_workflow_that_is_gone_is_read_from_the_archive_and_else_unobserved(harness: Harness) -> None:
    for archived in (True, False):
        argo = ReplayedArgo(states("dag-diamond-parameters", str(uuid.uuid4()))[:-2])
        started = await observing(harness, observation("ml=default"), argo)
        try:
            run = await appeared(started, id_of(argo.state))
            argo.archived = (
                states("dag-diamond-parameters", argo.state["metadata"]["uid"])[-1] if archived else None
            )
            argo.is_deleted = True
            done = await started.ended(run.id)
        finally:
            await started.crash()
        if archived:
            assert done.run.phase is RunPhase.SUCCEEDED
            assert {"a", "b", "c", "d"} <= set(done.phases) or len(done.phases) >= 4
        else:
            assert done.run.phase is RunPhase.UNOBSERVED
            assert "deleted before its end was observed" in done.run.message


async def test_of_two_workflows_of_one_name_each_has_its_run(harness: Harness) -> None:
    argo = ReplayedArgo(states("one-container", str(uuid.uuid4())))
    started = await observing(harness, observation("ml=default"), argo)
    try:
        first = await ended(started, id_of(argo.state))
        await started.crash()
        again = ReplayedArgo(states("one-container", str(uuid.uuid4())))
        started = await observing(harness, observation("ml=default"), again)
        second = await ended(started, id_of(again.state))
    finally:
        await started.crash()
    assert first.run.id != second.run.id
    assert first.phases == second.phases


async def test_history_that_is_adopted_is_as_if_it_had_been_observed(harness: Harness) -> None:
    observed = ReplayedArgo(states("nested-dags-and-steps", str(uuid.uuid4())))
    started = await observing(harness, observation("ml=default"), observed)
    expected = await ended(started, id_of(observed.state))
    await started.crash()

    history = ReplayedArgo([])
    history.is_deleted = True
    history.archived = states("nested-dags-and-steps", str(uuid.uuid4()))[-1]
    found = observation("ml=default")
    observer = Observer({"ml": history}, found, harness.runs, PROCESSES)
    follower = Follower(
        harness.dispatcher.launch, harness.runs, harness.argo, harness.cache, harness.repository, observer,
        FollowerTimings(),
    )  # fmt: skip
    adoption = Adoption(observer, follower)
    (planned,) = [each async for each in adoption.adopt("default", "", validate_only=True)]
    assert await harness.runs.get(planned.run) is None
    (adopted,) = [each async for each in adoption.adopt("default", "ml", validate_only=False)]
    assert adopted == planned
    assert [each async for each in adoption.adopt("default", "", validate_only=False)] == []
    done = await harness.ended(adopted.run)
    assert done.phases == expected.phases
    assert await rows(harness, adopted.run) == await rows(harness, expected.run.id)
    with pytest.raises(Refused, match="observed for project other"):
        [each async for each in adoption.adopt("other", "", validate_only=False)]


async def rows(harness: Harness, run: str) -> list[Any]:
    """What was recorded of an observed run, without the ids that differ from one Workflow to the next."""
    stored = await harness.runs.get(run)
    assert stored is not None
    found: list[Any] = [stored.phase, stored.outputs, stored.finished_at, stored.message, stored.pipeline]
    for kind, message in (
        (RUN_SUBMITTED, events_pb2.RunSubmitted), (FINISHED, events_pb2.StepFinished), (RUN_FINISHED, events_pb2.RunFinished),
    ):  # fmt: skip
        bodies = [message.FromString(body) for body in await harness.published(kind, run)]
        for body in bodies:
            body.run = ""
            if isinstance(body, events_pb2.RunSubmitted):
                body.observed.uid = ""
        found.append(sorted(str(body) for body in bodies))
    return found


@dataclass
class KillingRuns:
    """The store, whose n-th call ends the process: before it does anything, or after it did."""

    runs: Any
    at: int
    before: bool
    kill: Callable[[], object]

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.runs, name)

        async def call(*arguments: Any) -> Any:
            self.at -= 1
            is_last = self.at == 0
            if is_last and self.before:
                self.kill()
                await asyncio.Event().wait()
            result = await method(*arguments)
            if is_last:
                self.kill()
                await asyncio.Event().wait()
            return result

        return call


MAX_POINTS, MIN_POINTS = 24, 12
RECORDED = [
    "dag-diamond-parameters",
    "loop-items-strings-and-maps",
    "retry-until-success",
    "artifact-file-and-directory",
]


@pytest.mark.parametrize("name", RECORDED)
async def test_an_observer_that_is_killed_anywhere_records_what_an_undisturbed_one_does(
    harness: Harness, name: str
) -> None:
    await harness.crash()
    expected = None
    for point in range(MAX_POINTS):
        argo = ReplayedArgo(states(name, str(uuid.uuid4())))
        was_killed = not point or await observe_until_killed(
            harness, argo, (point + 1) // 2, before=point % 2 == 0
        )
        argo.advance(point % 3)
        started = await observing(harness, observation("ml=default"), argo)
        try:
            await ended(started, id_of(argo.states[-1]))
        finally:
            await started.crash()
        found = await rows(harness, id_of(argo.states[-1]))
        expected = expected or found
        assert found == expected, point
        if not was_killed:
            break
    assert point > MIN_POINTS


async def observe_until_killed(harness: Harness, argo: ReplayedArgo, at: int, *, before: bool) -> bool:
    """Whether an observer came to its `at`-th call of the store, at which it was killed."""
    killed = asyncio.Event()
    runs: Any = KillingRuns(harness.runs, at, before, killed.set)
    started = await observing(replace(harness, runs=runs), observation("ml=default"), argo)
    waits = {asyncio.create_task(killed.wait()), asyncio.create_task(ended(harness, id_of(argo.state)))}
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
        return killed.is_set()
    finally:
        await started.crash()
        for wait in waits:
            wait.cancel()
