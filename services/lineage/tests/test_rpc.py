"""The RPCs on real servers, and on runs that were published as events."""

import asyncio
from collections.abc import Sequence

import grpc
import pytest
from client import Client, opened
from google.protobuf.message import Message
from scenario import everything
from story import PROJECT, Story, artifact

from periplus.lineage.v1 import lineage_pb2 as pb
from periplus.lineage.v1.lineage_pb2_grpc import LineageServiceStub
from periplus.types.v1 import step_pb2 as types
from periplus_common import auth, rpc
from periplus_lineage.app import app
from periplus_lineage.settings import Settings


async def test_what_was_published_is_read_back(settings: Settings) -> None:
    story = Story("r1").chain("ingest", "train")
    async with opened(settings) as client:
        await client.tell(story.events)
        run = await client.run_when(
            "r1", lambda r: r.steps[1].outputs.artifacts[0].digest and r.finished_at.seconds
        )
    assert [step.path for step in run.steps] == ["ingest", "train"]
    assert run.pipeline == "digits"
    assert run.step_count == 2
    assert run.steps[1].inputs.artifacts[0].digest == run.steps[0].outputs.artifacts[0].digest != ""


async def test_a_watch_ends_with_its_run_and_tells_every_step(settings: Settings) -> None:
    story = Story("r2").chain("ingest", "train")
    async with opened(settings) as client:
        watch = client.watch("r2")
        telling = asyncio.create_task(slowly(client, story.events))
        phases: dict[str, list[int]] = {}
        async for news in watch:
            for step in news.steps:
                phases.setdefault(step.path, []).append(step.phase)
        await telling
        assert news.run.phase == types.RUN_PHASE_SUCCEEDED
    assert all(told == sorted(told) for told in phases.values())
    assert {path: told[-1] for path, told in phases.items()} == {"ingest": 3, "train": 3}


async def slowly(client: Client, events: Sequence[Message]) -> None:
    for event in events:
        await client.tell([event])
        await asyncio.sleep(0.05)


async def test_an_unknown_run_is_not_found(settings: Settings) -> None:
    async with opened(settings) as client:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.run("nobody")
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_fully_cached_run_says_what_it_saved(settings: Settings) -> None:
    async with opened(settings) as client:
        await client.tell(everything())
        run = await client.run_when(
            "r2", lambda r: r.phase == types.RUN_PHASE_SUCCEEDED and r.step_count == 5
        )
    assert (run.cached_steps, run.saved.seconds) == (2, 14)
    train = next(step for step in run.steps if step.path == "train(0)")
    assert (train.producer_run, train.producer_step, train.phase) == (
        "r1",
        "train(0)",
        types.STEP_PHASE_CACHED,
    )
    # In the order of the plan, although it did not know the items.
    assert [step.path for step in run.steps] == ["features", "train(0)", "train(1)", "choose", "register"]


async def test_a_cached_step_was_given_what_its_maker_was_given_but_for_what_its_key_leaves_out(
    settings: Settings,
) -> None:
    data = artifact("data", "d.csv", "rows")
    first = Story("r1").step("a", inputs=(data,), given={"c": "1", "name": "x"}, gave={"y": "2"})
    second = Story("r2", at=1000).step("a", gave={"y": "2"}, origin=("r1", "a"), ignored=("name",))
    async with opened(settings) as client:
        await client.tell(second.events)
        (alone,) = (await client.run_when("r2", lambda r: r.step_count and r.finished_at.seconds)).steps
        assert alone.inputs == types.Inputs()
        await client.tell(first.events)
        await client.run_when("r1", lambda r: r.step_count and r.steps[0].inputs.artifacts[0].digest)
        (step,) = (await client.run("r2")).steps
        watched = [step async for news in client.watch("r2") for step in news.steps]
        up = pb.TraverseRequest(project=PROJECT, start=["step:r2/a"], direction=pb.DIRECTION_UPSTREAM)
        walked = await client.stub.Traverse(up, metadata=client.metadata)
    assert [(p.name, p.value) for p in step.inputs.parameters] == [("c", "1")]
    assert [(a.name, a.digest) for a in step.inputs.artifacts] == [("data", data.digest)]
    assert watched == [step]
    assert next(node.step.inputs for node in walked.nodes if node.id == "step:r2/a") == step.inputs


async def test_a_run_that_saved_more_time_than_there_is_keeps_nobody_from_the_list(
    settings: Settings,
) -> None:
    events = Story("endless").step("a").events
    events[-1].saved.seconds = 2**62
    async with opened(settings) as client:
        await client.tell(events)
        run = await client.run_when("endless", lambda r: r.finished_at.seconds)
        listed = await client.stub.ListRuns(pb.ListRunsRequest(project=PROJECT), metadata=client.metadata)
    assert run.saved.seconds == 10**9
    assert [each.id for each in listed.runs] == ["endless"]


async def test_a_watch_of_a_run_that_has_ended_tells_it_once(settings: Settings) -> None:
    async with opened(settings) as client:
        await client.tell(Story("done").chain("a").events)
        await client.run_when(
            "done", lambda r: r.phase == types.RUN_PHASE_SUCCEEDED and r.steps[0].phase == 3
        )
        news = [message async for message in client.watch("done")]
    assert [step.phase for step in news[0].steps] == [types.STEP_PHASE_SUCCEEDED]
    assert news[0].run.phase == types.RUN_PHASE_SUCCEEDED
    assert all(len(message.steps) <= 1 for message in news)


async def test_a_watch_waits_a_while_for_steps_that_come_after_the_end_of_their_run(
    settings: Settings,
) -> None:
    events = Story("late").chain("a", "b").events
    async with opened(settings) as client:
        await client.tell([events[0], events[-1]])
        watch = aiter(client.watch("late"))
        assert (await anext(watch)).run.phase == types.RUN_PHASE_SUCCEEDED
        await client.tell(events[1:-1])
        phases = {step.path: step.phase async for message in watch for step in message.steps}
    assert phases == {"a": types.STEP_PHASE_SUCCEEDED, "b": types.STEP_PHASE_SUCCEEDED}


async def test_a_watch_ends_though_steps_of_a_failed_run_never_began(settings: Settings) -> None:
    story = Story("failed", phase=types.RUN_PHASE_FAILED)
    story.step("a", phase=types.STEP_PHASE_FAILED).step("b", depends_on=("a",))
    del story.told[2:]
    async with opened(settings) as client:
        await client.tell(story.events)
        news = [message async for message in client.watch("failed")]
    assert news[-1].run.phase == types.RUN_PHASE_FAILED


async def test_a_watch_ends_with_its_callers_time(settings: Settings) -> None:
    async with opened(settings) as client:
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            async for _ in client.watch("never", timeout=0.5):
                pass
    assert ended.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_many_follow_one_run_through_one_connection(settings: Settings) -> None:
    events = Story("popular").chain("a", "b", "c").events
    async with opened(settings) as client:
        await client.tell(events[:1])
        await client.run_when("popular", lambda r: r.step_count == 3)

        async def follow() -> dict[str, int]:
            return {step.path: step.phase async for news in client.watch("popular") for step in news.steps}

        followers = [asyncio.create_task(follow()) for _ in range(25)]
        await slowly(client, events[1:])
        assert all(seen == {"a": 3, "b": 3, "c": 3} for seen in await asyncio.gather(*followers))
        assert await client.listeners() == 1


async def test_runs_are_listed_newest_first_page_by_page(settings: Settings) -> None:
    stories = [Story(f"n{i}", at=i * 1000 // 2 * 2).chain("a") for i in range(7)]
    stories[3].phase = types.RUN_PHASE_FAILED
    async with opened(settings) as client:
        await client.tell([event for story in stories for event in story.events])
        for story in stories:
            await client.run_when(story.run, lambda r: r.finished_at.seconds and r.pipeline)
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
        nobodys = await client.stub.ListRuns(pb.ListRunsRequest(project=PROJECT, pipeline="other"))
        first = await client.stub.ListRuns(pb.ListRunsRequest(project=PROJECT, page_size=3))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.stub.ListRuns(
                pb.ListRunsRequest(project=PROJECT, pipeline="digits", page_token=first.next_page_token)
            )
    assert listed == [f"n{i}" for i in reversed(range(7))]
    assert [run.id for run in failed.runs] == ["n3"]
    assert not nobodys.runs
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_the_differences_of_two_runs_come_causes_first(settings: Settings) -> None:
    async with opened(settings) as client:
        await client.tell(everything())
        await client.run_when("r2", digested("train(1)"))
        await client.run_when("r1", digested("train(1)"))
        diff = await client.stub.DiffRuns(pb.DiffRunsRequest(project=PROJECT, old="r1", new="r2"))
        same = await client.stub.DiffRuns(pb.DiffRunsRequest(project=PROJECT, old="r1", new="r1"))
    told = [(c.step, c.field) for c in diff.changes]
    assert told[:3] == [("", "parameters.c"), ("", "snapshot"), ("", "snapshot.commit")]
    train = [field for step, field in told if step == "train(1)"]
    assert train == ["container.image", "inputs.c", "outputs.accuracy", "outputs.model"]
    assert [field for step, field in told if step == "train(0)"] == []  # run there and served here: the same
    flaky = next(c for c in diff.changes if c.step == "flaky")
    assert (flaky.field, flaky.HasField("new")) == ("step", False)
    assert not same.changes


def digested(path: str):
    def wanted(run: pb.Run) -> bool:
        step = next((s for s in run.steps if s.path == path), None)
        return bool(
            run.finished_at.seconds and step and step.outputs.artifacts and step.outputs.artifacts[0].digest
        )

    return wanted


async def test_a_cached_step_differs_in_nothing_that_made_it(settings: Settings) -> None:
    made = Story("m").step("one", given={"c": "1"}, gave={"x": "1"}, document='{"container": {"image": "i"}}')
    # Nobody says again what a step was given that did not run.
    served = Story("s", at=1000).step("one", gave={"x": "1"}, origin=("m", "one"))
    async with opened(settings) as client:
        await client.tell([*made.events, *served.events])
        for run in "ms":
            await client.run_when(run, lambda r: r.finished_at.seconds and r.steps and r.steps[0].phase > 2)
        diff = await client.stub.DiffRuns(pb.DiffRunsRequest(project=PROJECT, old="m", new="s"))
    assert not diff.changes


async def test_a_walk_is_told_with_its_steps_and_artifacts(settings: Settings) -> None:
    async with opened(settings) as client:
        await client.tell(Story("w").chain("ingest", "train").events)
        await client.run_when("w", digested("train"))
        request = pb.TraverseRequest(
            project=PROJECT, start=["step:w/train"], direction=pb.DIRECTION_UPSTREAM, page_size=2
        )
        page = await client.stub.Traverse(request)
        request.page_token = page.next_page_token
        rest = await client.stub.Traverse(request)
    assert [(n.depth, n.kind, n.name, n.run) for n in (*page.nodes, *rest.nodes)] == [
        (0, pb.NODE_KIND_STEP, "train", "w"),
        (1, pb.NODE_KIND_ARTIFACT, "out", "w"),
        (2, pb.NODE_KIND_STEP, "ingest", "w"),
    ]
    assert page.nodes[0].step.phase == types.STEP_PHASE_SUCCEEDED
    assert page.nodes[1].artifact.digest == page.nodes[0].step.inputs.artifacts[0].digest != ""
    assert [(e.to, e.name) for e in (*page.edges, *rest.edges)] == [
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
async def test_a_walk_that_makes_no_sense_is_invalid(
    settings: Settings, request_: pb.TraverseRequest
) -> None:
    async with opened(settings) as client:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.stub.Traverse(request_)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_nul_in_a_name_is_a_callers_mistake(settings: Settings) -> None:
    async with opened(settings) as client:
        for call in (
            client.stub.GetRun(pb.GetRunRequest(project=PROJECT, run="a\0b")),
            client.stub.ListRuns(pb.ListRunsRequest(project=PROJECT, pipeline="a\0b")),
            client.stub.DiffRuns(pb.DiffRunsRequest(project=PROJECT, old="a\0b", new="x")),
            anext(aiter(client.watch("a\0b"))),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_service_that_stops_sends_those_who_watch_away_at_once(settings: Settings) -> None:
    service = app(settings)
    port, token = await service.__aenter__(), settings.token.get_secret_value()
    async with rpc.channel(f"127.0.0.1:{port}", token) as channel:
        request = pb.WatchRunRequest(project=PROJECT, run="endless")
        watch = LineageServiceStub(channel).WatchRun(request, metadata=auth.metadata(token), timeout=30)

        async def code() -> grpc.StatusCode:
            async for _ in watch:
                pass
            return await watch.code()

        watching = asyncio.create_task(code())
        await asyncio.sleep(0.3)
        async with asyncio.timeout(8):  # the server would let it go on for 10 s
            await service.__aexit__(None, None, None)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await watching
    assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
