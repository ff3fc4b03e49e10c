"""The RPCs on real servers, of runs whose events were published."""

import asyncio
import time
from collections.abc import Sequence

import grpc
import pytest
from example_runs import all_events
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from lineage_client import Client, running
from run_events import PROJECT, RunEvents, artifact, timestamp

from periplus.dispatcher.v1.events_pb2 import StepDelayed, StepFinished
from periplus.lineage.v1 import lineage_pb2 as pb
from periplus.lineage.v1.lineage_pb2_grpc import LineageServiceStub
from periplus.types.v1 import step_pb2 as types
from periplus_common import auth, rpc
from periplus_lineage.app import app
from periplus_lineage.settings import Settings
from periplus_model import codec


async def test_a_published_run_is_returned_with_its_steps(settings: Settings) -> None:
    run_events = RunEvents("r1").chain("ingest", "train")
    async with running(settings) as client:
        await client.publish(run_events.events)
        run = await client.wait_for_run(
            "r1",
            lambda r: (
                r.finished_at.seconds
                and all(
                    s.outputs.artifacts and all(a.digest for a in (*s.inputs.artifacts, *s.outputs.artifacts))
                    for s in r.steps
                )
            ),
        )
    assert [step.path for step in run.steps] == ["ingest", "train"]
    assert run.pipeline == "digits"
    assert run.step_count == 2
    assert run.steps[1].inputs.artifacts[0].digest == run.steps[0].outputs.artifacts[0].digest != ""


async def test_a_step_says_why_it_is_not_cached_also_what_was_known_at_its_end_only(
    settings: Settings,
) -> None:
    run_events = RunEvents("drifted").chain("train")
    reason = "its container main ran sha256:e instead of sha256:d, to which python:3.11 pointed"
    for event in run_events.events:
        if isinstance(event, StepFinished):
            event.template.uncacheable_reason = reason
    async with running(settings) as client:
        await client.publish(run_events.events)
        run = await client.wait_for_run("drifted", lambda r: r.complete)
    assert [step.uncacheable_reason for step in run.steps] == [reason]


async def test_a_watch_ends_with_its_run_and_reports_every_step(settings: Settings) -> None:
    run_events = RunEvents("r2").chain("ingest", "train")
    async with running(settings) as client:
        watch = client.watch("r2")
        publishing = asyncio.create_task(publish_slowly(client, run_events.events))
        phases: dict[str, list[int]] = {}
        async for update in watch:
            for step in update.steps:
                phases.setdefault(step.path, []).append(step.phase)
        await publishing
        assert update.run.phase == types.RUN_PHASE_SUCCEEDED
    assert all(reported == sorted(reported) for reported in phases.values())
    assert {path: reported[-1] for path, reported in phases.items()} == {"ingest": 3, "train": 3}


async def test_a_step_that_has_not_finished_has_the_message_of_what_delays_it(settings: Settings) -> None:
    submitted, started, finished, ended = RunEvents("slow").step("train").events
    key = {"project": PROJECT, "run": "slow", "step": "train", "template": "train"}
    delayed = StepDelayed(**key, node="1", reason="ErrImagePull: no", observed_at=timestamp(1))
    resolved = StepDelayed(**key, node="2", observed_at=timestamp(2))
    pending, over = types.STEP_PHASE_PENDING, types.STEP_PHASE_SUCCEEDED
    async with running(settings) as client:

        async def reports(event: Message, phase: int, message: str) -> None:
            await client.publish([event])
            await client.wait_for_run(
                "slow", lambda r: (r.steps[0].phase, r.steps[0].message) == (phase, message)
            )

        await reports(submitted, pending, "")
        await reports(delayed, pending, "ErrImagePull: no")
        await reports(resolved, pending, "")
        await reports(started, types.STEP_PHASE_RUNNING, "")
        await reports(finished, over, "")
        await reports(ended, over, "")


async def publish_slowly(client: Client, events: Sequence[Message]) -> None:
    for event in events:
        await client.publish([event])
        await asyncio.sleep(0.05)


async def test_an_unknown_run_is_not_found(settings: Settings) -> None:
    async with running(settings) as client:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.get_run("unknown")
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_run_with_cached_steps_counts_them_and_the_time_that_they_saved(settings: Settings) -> None:
    async with running(settings) as client:
        await client.publish(all_events())
        run = await client.wait_for_run(
            "r2", lambda r: r.phase == types.RUN_PHASE_SUCCEEDED and r.step_count == 5
        )
    assert (run.cached_steps, run.saved.seconds) == (2, 14)
    train = next(step for step in run.steps if step.path == "train(0)")
    assert (train.producer_run, train.producer_step, train.phase) == (
        "r1",
        "train(0)",
        types.STEP_PHASE_CACHED,
    )
    # In the order of the plan, although the plan does not contain the items.
    assert [step.path for step in run.steps] == ["features", "train(0)", "train(1)", "choose", "register"]


async def test_a_cached_step_has_the_inputs_of_its_producer_without_those_that_are_not_in_its_key(
    settings: Settings,
) -> None:
    data = artifact("data", "d.csv", "rows")
    first = RunEvents("r1").step(
        "a", inputs=(data,), parameters={"c": "1", "name": "x"}, output_parameters={"y": "2"}
    )
    second = RunEvents("r2", at=1000).step(
        "a", output_parameters={"y": "2"}, producer=("r1", "a"), ignored_inputs=("name",)
    )
    async with running(settings) as client:
        await client.publish(second.events)
        (alone,) = (await client.wait_for_run("r2", lambda r: r.step_count and r.finished_at.seconds)).steps
        assert alone.inputs == types.Inputs()
        await client.publish(first.events)
        await client.wait_for_run(
            "r1", lambda r: r.step_count and any(a.digest for a in r.steps[0].inputs.artifacts)
        )
        (step,) = (await client.get_run("r2")).steps
        watched = [step async for update in client.watch("r2") for step in update.steps]
        request = pb.TraverseRequest(project=PROJECT, start=["step:r2/a"], direction=pb.DIRECTION_UPSTREAM)
        page = await client.stub.Traverse(request, metadata=client.metadata)
    assert [(p.name, p.value) for p in step.inputs.parameters] == [("c", "1")]
    assert [(a.name, a.digest) for a in step.inputs.artifacts] == [("data", data.digest)]
    assert watched == [step]
    assert next(node.step.inputs for node in page.nodes if node.id == "step:r2/a") == step.inputs


async def test_a_saved_time_that_is_too_large_is_bounded_and_the_run_is_listed(
    settings: Settings,
) -> None:
    events = RunEvents("oversized").step("a").events
    events[-1].saved.seconds = 2**62
    async with running(settings) as client:
        await client.publish(events)
        run = await client.wait_for_run("oversized", lambda r: r.finished_at.seconds)
        listed = await client.stub.ListRuns(pb.ListRunsRequest(project=PROJECT), metadata=client.metadata)
    assert run.saved.ToTimedelta() == codec.MAX_DURATION
    assert [each.id for each in listed.runs] == ["oversized"]


async def test_a_watch_of_a_finished_run_reports_it_once(settings: Settings) -> None:
    async with running(settings) as client:
        await client.publish(RunEvents("done").chain("a").events)
        await client.wait_for_run(
            "done", lambda r: r.phase == types.RUN_PHASE_SUCCEEDED and r.steps[0].phase == 3
        )
        updates = [update async for update in client.watch("done")]
    assert [step.phase for step in updates[0].steps] == [types.STEP_PHASE_SUCCEEDED]
    assert updates[0].run.phase == types.RUN_PHASE_SUCCEEDED
    assert all(len(update.steps) <= 1 for update in updates)


async def test_a_watch_waits_for_steps_whose_events_are_later_than_the_end_of_their_run(
    settings: Settings,
) -> None:
    events = RunEvents("late").chain("a", "b").events
    async with running(settings) as client:
        await client.publish([events[0], events[-1]])
        watch = aiter(client.watch("late"))
        first = (await anext(watch)).run
        assert (first.phase, first.complete) == (types.RUN_PHASE_SUCCEEDED, False)
        await client.publish(events[1:-1])
        updates = [update async for update in watch]
    phases = {step.path: step.phase for update in updates for step in update.steps}
    assert phases == {"a": types.STEP_PHASE_SUCCEEDED, "b": types.STEP_PHASE_SUCCEEDED}
    assert [update.run.complete for update in updates][-1]


async def test_a_run_is_not_complete_without_the_event_that_has_its_plan(settings: Settings) -> None:
    events = RunEvents("unplanned").chain("a", "b").events
    async with running(settings) as client:
        await client.publish(events[1:])
        run = await client.wait_for_run("unplanned", lambda r: len(r.steps) == 2 and r.finished_at.seconds)
        assert not run.complete
        await client.publish(events[:1])
        await client.wait_for_run("unplanned", lambda r: r.complete)


async def test_a_watch_of_a_failed_run_ends_although_some_steps_never_started(settings: Settings) -> None:
    run_events = RunEvents("failed", phase=types.RUN_PHASE_FAILED)
    run_events.step("a", phase=types.STEP_PHASE_FAILED).step("b", depends_on=("a",))
    del run_events.step_events[2:]
    async with running(settings) as client:
        await client.publish(run_events.events)
        updates = [update async for update in client.watch("failed")]
    assert updates[-1].run.phase == types.RUN_PHASE_FAILED


async def test_a_watch_of_an_unknown_run_is_refused_after_the_time_that_its_caller_waits(
    settings: Settings,
) -> None:
    async with running(settings) as client:
        for wait in (0, 1):
            started = time.monotonic()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await anext(aiter(client.watch("unknown", wait=wait)))
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND
            assert time.monotonic() - started >= wait


async def test_a_watch_ends_at_its_deadline(settings: Settings) -> None:
    async with running(settings) as client:
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            async for _ in client.watch("never", timeout=0.5):
                pass
    assert ended.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_many_watches_share_one_notification_connection(settings: Settings) -> None:
    events = RunEvents("popular").chain("a", "b", "c").events
    async with running(settings) as client:
        await client.publish(events[:1])
        await client.wait_for_run("popular", lambda r: r.step_count == 3)

        async def watch() -> dict[str, int]:
            return {
                step.path: step.phase async for update in client.watch("popular") for step in update.steps
            }

        watches = [asyncio.create_task(watch()) for _ in range(25)]
        await publish_slowly(client, events[1:])
        assert all(phases == {"a": 3, "b": 3, "c": 3} for phases in await asyncio.gather(*watches))
        assert await client.listener_count() == 1


async def test_runs_are_listed_newest_first_page_by_page(settings: Settings) -> None:
    runs = [RunEvents(f"n{i}", at=i * 1000 // 2 * 2).chain("a") for i in range(7)]
    runs[3].phase = types.RUN_PHASE_FAILED
    async with running(settings) as client:
        await client.publish([event for run in runs for event in run.events])
        for run in runs:
            await client.wait_for_run(run.run, lambda r: r.finished_at.seconds and r.pipeline)
        listed, token = [], ""
        for _ in range(9):
            page = await client.stub.ListRuns(
                pb.ListRunsRequest(project=PROJECT, pipeline="digits", page_size=3, page_token=token)
            )
            listed += [run.id for run in page.runs]
            assert not any(run.steps for run in page.runs)
            token = page.next_page_token
            if not token:
                break
        failed = await client.stub.ListRuns(pb.ListRunsRequest(project=PROJECT, phase=types.RUN_PHASE_FAILED))
        other = await client.stub.ListRuns(pb.ListRunsRequest(project=PROJECT, pipeline="other"))
        first = await client.stub.ListRuns(pb.ListRunsRequest(project=PROJECT, page_size=3))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.stub.ListRuns(
                pb.ListRunsRequest(project=PROJECT, pipeline="digits", page_token=first.next_page_token)
            )
    assert listed == [f"n{i}" for i in reversed(range(7))]
    assert [run.id for run in failed.runs] == ["n3"]
    assert not other.runs
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_the_differences_of_two_runs_are_causes_before_effects(settings: Settings) -> None:
    async with running(settings) as client:
        await client.publish(all_events())
        await client.wait_for_run("r2", is_digested("train(1)"))
        await client.wait_for_run("r1", is_digested("train(1)"))
        diff = await client.stub.DiffRuns(pb.DiffRunsRequest(project=PROJECT, old="r1", new="r2"))
        same = await client.stub.DiffRuns(pb.DiffRunsRequest(project=PROJECT, old="r1", new="r1"))
    changes = [(c.step, c.field) for c in diff.changes]
    assert changes[:3] == [("", "parameters.c"), ("", "snapshot"), ("", "snapshot.commit")]
    train = [field for step, field in changes if step == "train(1)"]
    assert train == ["container.image", "inputs.c", "outputs.accuracy", "outputs.model"]
    assert [
        field for step, field in changes if step == "train(0)"
    ] == []  # it ran in one run and was served in the other
    flaky = next(c for c in diff.changes if c.step == "flaky")
    assert (flaky.field, flaky.HasField("new")) == ("step", False)
    assert not same.changes


def is_digested(path: str):
    def condition(run: pb.Run) -> bool:
        step = next((s for s in run.steps if s.path == path), None)
        return bool(
            run.finished_at.seconds and step and step.outputs.artifacts and step.outputs.artifacts[0].digest
        )

    return condition


async def test_a_cached_step_does_not_differ_from_its_producer(settings: Settings) -> None:
    produced = RunEvents("m").step(
        "one", parameters={"c": "1"}, output_parameters={"x": "1"}, document='{"container": {"image": "i"}}'
    )
    # The events of a cached step do not have its inputs.
    served = RunEvents("s", at=1000).step("one", output_parameters={"x": "1"}, producer=("m", "one"))
    async with running(settings) as client:
        await client.publish([*produced.events, *served.events])
        for run in "ms":
            await client.wait_for_run(
                run, lambda r: r.finished_at.seconds and r.steps and r.steps[0].phase > 2
            )
        diff = await client.stub.DiffRuns(pb.DiffRunsRequest(project=PROJECT, old="m", new="s"))
    assert not diff.changes


async def test_a_traversal_returns_steps_and_artifacts_in_pages(settings: Settings) -> None:
    async with running(settings) as client:
        await client.publish(RunEvents("w").chain("ingest", "train").events)
        await client.wait_for_run("w", is_digested("train"))
        request = pb.TraverseRequest(
            project=PROJECT, start=["step:w/train"], direction=pb.DIRECTION_UPSTREAM, page_size=2
        )
        page = await client.stub.Traverse(request)
        request.page_token = page.next_page_token
        second_page = await client.stub.Traverse(request)
    assert [(n.depth, n.kind, n.name, n.run) for n in (*page.nodes, *second_page.nodes)] == [
        (0, pb.NODE_KIND_STEP, "train", "w"),
        (1, pb.NODE_KIND_ARTIFACT, "out", "w"),
        (2, pb.NODE_KIND_STEP, "ingest", "w"),
    ]
    assert page.nodes[0].step.phase == types.STEP_PHASE_SUCCEEDED
    assert page.nodes[1].artifact.digest == page.nodes[0].step.inputs.artifacts[0].digest != ""
    assert [(e.to, e.name) for e in (*page.edges, *second_page.edges)] == [
        ("step:w/train", "in"), (page.nodes[1].id, "out")
    ]  # fmt: skip


@pytest.mark.parametrize(
    "request_",
    [
        pb.TraverseRequest(project=PROJECT, start=["run:x"]),
        pb.TraverseRequest(project=PROJECT, direction=pb.DIRECTION_UPSTREAM),
        pb.TraverseRequest(project=PROJECT, start=["x"], direction=pb.DIRECTION_UPSTREAM),
        pb.TraverseRequest(project="NO", start=["run:x"], direction=pb.DIRECTION_UPSTREAM),
        pb.TraverseRequest(project=PROJECT, start=["run:a\0b"], direction=pb.DIRECTION_UPSTREAM),
    ],
)
async def test_a_traversal_that_breaks_a_rule_is_invalid(
    settings: Settings, request_: pb.TraverseRequest
) -> None:
    async with running(settings) as client:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.stub.Traverse(request_)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_name_with_u0000_is_invalid(settings: Settings) -> None:
    async with running(settings) as client:
        for call in (
            client.stub.GetRun(pb.GetRunRequest(project=PROJECT, run="a\0b")),
            client.stub.ListRuns(pb.ListRunsRequest(project=PROJECT, pipeline="a\0b")),
            client.stub.DiffRuns(pb.DiffRunsRequest(project=PROJECT, old="a\0b", new="x")),
            anext(aiter(client.watch("a\0b"))),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_service_that_stops_ends_its_watches_at_once(settings: Settings) -> None:
    service = app(settings)
    port, token = await service.__aenter__(), settings.token.get_secret_value()
    async with rpc.channel(f"127.0.0.1:{port}", token) as channel:
        request = pb.WatchRunRequest(project=PROJECT, run="endless", wait=Duration(seconds=300))
        watch = LineageServiceStub(channel).WatchRun(request, metadata=auth.metadata(token), timeout=30)

        async def code() -> grpc.StatusCode:
            async for _ in watch:
                pass
            return await watch.code()

        watching = asyncio.create_task(code())
        await asyncio.sleep(0.3)
        async with asyncio.timeout(8):  # the grace period of the server is 10 s
            await service.__aexit__(None, None, None)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await watching
    assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
