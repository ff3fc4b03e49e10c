"""Orders and what becomes of them when something is away, comes twice, or ends in the middle; on the local Argo."""

import asyncio
import io
import json
import logging
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from manifests import PROCESSES, dag, gives, say, sh, shows, steps, task, workflow
from world import FINISHED, PATIENCE, RUN_FINISHED, RUN_SUBMITTED, STARTED, World

from periplus.dispatcher.v1 import events_pb2
from periplus.types.v1 import step_pb2
from periplus_common import telemetry
from periplus_common.errors import Invalid, NotFound, Refused
from periplus_dispatcher import argo
from periplus_dispatcher.domain import GateAnswer
from periplus_dispatcher.planner import Planner
from periplus_dispatcher.service import Dispatcher
from periplus_model.queries import StepVerdict
from periplus_model.steps import CacheMode, Outputs, RunPhase, Verdict

Json = dict[str, Any]
FROM_UP = {"x": "{{tasks.up.outputs.parameters.o}}"}


def two(text: str = "1", up: str = "") -> Json:
    """Two steps, the second behind the first. `up` stands in the first one's command."""
    first = say("up", text)
    first["container"]["args"][0] += f"; {up}" if up else ""
    return workflow(
        dag(task("up", "up"), task("end", "end", depends="up", given=FROM_UP), outputs=shows("tasks.end.outputs.parameters.o")),
        first, say("end", "<$x>", "x"),
    )  # fmt: skip


def away(world: World) -> Dispatcher:
    """A dispatcher whose Argo is not there."""
    return Dispatcher(
        world.runs,
        Away(world.argo),
        Planner(world.cache, world.snapshotter, PROCESSES),
        world.store,
        timedelta(seconds=30),
    )


class Away(argo.HeraArgo):
    """An Argo at an address where nobody listens."""

    def __init__(self, there: argo.HeraArgo) -> None:
        service = type(there._service)(
            host="http://127.0.0.1:9/", token="t", namespace="argo", session=there._session
        )
        super().__init__(service, "argo", argo.ArgoTimeouts())


async def test_what_has_no_effect_on_this_argo_is_said_with_the_run(world: World) -> None:
    plain = await world.submit(two())
    asked = two()
    asked["spec"]["nodeSelector"] = {"gpu": "yes"}
    warned = await world.submit(asked)
    assert plain.planned is not None
    assert warned.planned is not None
    assert [said for said in plain.planned.warnings if "no effect" in said] == []
    assert [said for said in warned.planned.warnings if "no effect" in said] == [
        "accepted with no effect here: spec.nodeSelector"
    ]


async def test_a_run_is_told_from_its_beginning_to_its_end(world: World) -> None:
    ended = await world.run(two())
    assert (ended.run.phase, ended.output) == (RunPhase.SUCCEEDED, "<1>")
    submitted = events_pb2.RunSubmitted.FromString((await world.published(RUN_SUBMITTED, ended.run.id))[0])
    assert [(n.path, list(n.depends_on)) for n in submitted.steps] == [("up", []), ("end", ["up"])]
    started = [
        events_pb2.StepStarted.FromString(b).step for b in await world.published(STARTED, ended.run.id)
    ]
    assert started == ["up", "end"] or set(started) <= {"up", "end"}, (
        "a quick step may be seen only when it has ended"
    )
    assert ended.phases == {"up": "succeeded", "end": "succeeded"}
    end = next(e for e in ended.finished if e.step == "end")
    assert [(p.name, p.value) for p in end.inputs.parameters] == [("x", "1")]
    assert [(p.name, p.value) for p in end.outputs.parameters] == [("o", "<1>")]
    assert (end.attempts, end.outputs.exit_code) == (1, 0)
    finished = events_pb2.RunFinished.FromString((await world.published(RUN_FINISHED, ended.run.id))[0])
    assert finished.phase == step_pb2.RUN_PHASE_SUCCEEDED


async def test_a_run_of_hits_makes_no_workflow(world: World) -> None:
    await world.run(two())
    done = await world.submit(two())
    assert (done.run.phase, done.run.manifest) == (RunPhase.SUCCEEDED, "")
    assert await world.argo.get(done.run.id) is None
    assert (await world.ended(done.run.id)).phases == {"up": "cached", "end": "cached"}
    with pytest.raises(Refused, match="every step was a hit"):
        async for _ in world.dispatcher.logs("default", done.run.id, "", follow=False):
            pass


async def test_a_request_sent_twice_is_one_run_and_one_used_for_another_order_is_refused(
    world: World,
) -> None:
    manifest, request = two(str(uuid.uuid4())), str(uuid.uuid4())
    first = await asyncio.gather(*(world.submit(manifest, request) for _ in range(5)))
    assert len({done.run.id for done in first}) == 1
    assert (await world.submit(manifest, request)).planned is None
    with pytest.raises(Invalid) as refused:
        await world.submit(two("other"), request)
    assert (refused.value.field, refused.value.reason) == ("request_id", "REQUEST_ID_REUSED")
    ended = await world.ended(first[0].run.id)
    assert len(await world.published(RUN_SUBMITTED, ended.run.id)) == 1
    assert len(ended.finished) == 2


async def test_where_argo_is_away_a_run_waits_and_is_launched_later(world: World) -> None:
    await world.crash()
    done = await away(world).submit(world.order(two(str(uuid.uuid4()))), str(uuid.uuid4()))
    assert done.run.phase is RunPhase.PENDING
    world.follow()
    assert (await world.ended(done.run.id)).run.phase is RunPhase.SUCCEEDED


async def test_a_run_that_argo_never_got_is_launched_while_its_stream_goes_on(world: World) -> None:
    await world.run(two())  # the follower's watch is up
    done = await away(world).submit(world.order(two(str(uuid.uuid4()))), str(uuid.uuid4()))
    assert (await world.ended(done.run.id)).run.phase is RunPhase.SUCCEEDED


async def test_a_run_that_is_stopped_before_it_began_never_begins(world: World) -> None:
    await world.crash()
    done = await away(world).submit(world.order(two()), str(uuid.uuid4()))
    assert (
        await world.dispatcher.cancel("default", done.run.id, terminate=False, reason="")
        is RunPhase.CANCELLED
    )
    world.follow()
    ended = await world.ended(done.run.id)
    assert (ended.run.phase, ended.finished) == (RunPhase.CANCELLED, [])
    assert await world.argo.get(done.run.id) is None


async def test_where_the_cache_is_away_all_runs_and_the_plan_says_so(world: World) -> None:
    await world.run(two())
    world.cache.away = True
    done = await world.submit(two())
    assert done.planned
    assert done.planned.warnings == ("every step runs, as the cache could not be asked: the cache is away",)
    assert (await world.ended(done.run.id)).ran == {"up", "end"}


async def test_a_gate_that_the_cache_does_not_answer_opens_as_a_miss(world: World) -> None:
    await world.run(two())
    del world.cache.entries[next(k for k in world.cache.entries if "/tmp/o" in k[0] and "<$x>" not in k[0])]
    changed = two(up="sleep 0.5")
    done = await world.submit(changed)
    assert done.planned
    assert [s.action.value for s in done.planned.plan.steps] == ["keep", "gate"]
    world.cache.away = True
    ended = await world.ended(done.run.id)
    assert (ended.ran, ended.output) == ({"up", "end"}, "<1>")


async def test_where_the_snapshotter_is_away_a_run_goes_without_a_snapshot(world: World) -> None:
    world.snapshotter.away = True
    done = await world.submit(two(str(uuid.uuid4())), claim=b"")
    assert done.planned
    assert done.planned.warnings == ("the run has no snapshot: the snapshotter is away",)
    assert (await world.ended(done.run.id)).run.snapshot == ""


async def test_an_environment_keeps_what_was_made_in_another_apart(world: World) -> None:
    await world.run(two(), claim=b"")
    assert (await world.submit(two(), claim=b"")).run.phase is RunPhase.SUCCEEDED
    world.snapshotter.environment = "sha256:other"
    assert (await world.run(two(), claim=b"")).ran == {"up", "end"}


async def test_after_a_crash_a_new_follower_goes_on_and_nothing_is_told_or_run_twice(world: World) -> None:
    done = await world.submit(two(str(uuid.uuid4()), up="sleep 1"))
    await asyncio.sleep(0.3)
    await world.crash()
    await asyncio.sleep(1.2)
    world.follow()
    world.follow()  # and a second replica
    ended = await world.ended(done.run.id)
    assert sorted(e.step for e in ended.finished) == ["end", "up"]
    assert len(await world.published(RUN_FINISHED, done.run.id)) == 1


async def test_a_run_that_was_recorded_and_not_launched_before_a_crash_is_launched(world: World) -> None:
    order = world.order(two(str(uuid.uuid4())))
    draft = await Planner(world.cache, world.snapshotter, PROCESSES).plan(order)
    run, told = world.dispatcher._new_run(order, str(uuid.uuid4()), draft)
    await world.runs.add(run, told, [])
    assert (await world.ended(run.id)).ran == {"up", "end"}


async def gated(world: World) -> tuple[str, list[Json]]:
    """A run whose gate is open, with nobody to answer it: its name and its gates."""
    await world.run(two())
    await world.crash()
    name = (await world.submit(two(up="true"))).run.id
    async with asyncio.timeout(PATIENCE):
        while True:
            nodes = ((await world.argo.get(name) or {}).get("status") or {}).get("nodes") or {}
            if found := [n for n in nodes.values() if n["type"] == "Suspend" and n["phase"] == "Running"]:
                return name, found
            await asyncio.sleep(0.02)


async def test_a_gate_that_is_answered_twice_keeps_its_first_answer(world: World) -> None:
    name, (gate,) = await gated(world)
    world.follow()
    world.follow()  # a second replica
    ended = await world.ended(name)
    assert (ended.ran, ended.cached, ended.output) == ({"up"}, {"end"}, "<1>")
    answer = (await world.runs.get_answers(name))[gate["id"]]
    assert answer.verdict.verdict is Verdict.HIT
    with pytest.raises(NotFound):
        await world.argo.answer_gate(name, gate["id"], answer.parameters, "again")


async def test_an_answer_that_was_kept_before_a_crash_is_the_one_that_is_told(world: World) -> None:
    name, (gate,) = await gated(world)
    outputs = Outputs({"o": "kept"})
    kept = GateAnswer(
        {"periplus-hit": "true", "periplus-p-o": "kept"}, StepVerdict("", Verdict.HIT, outputs=outputs)
    )
    await world.runs.add_answers(name, {gate["id"]: kept})
    world.follow()
    ended = await world.ended(name)
    assert (ended.cached, ended.output) == ({"end"}, "kept")
    assert next(e for e in ended.finished if e.step == "end").outputs.parameters[0].value == "kept"


async def test_a_gate_that_a_person_opens_lets_its_step_run(world: World) -> None:
    name, (gate,) = await gated(world)
    world.client.do(name, "resume", nodeFieldSelector=f"id={gate['id']}")
    world.follow()
    assert (await world.ended(name)).ran == {"up", "end"}


async def test_a_workflow_that_argo_has_lost_ends_its_run(world: World) -> None:
    await world.crash()
    done = await world.submit(two(str(uuid.uuid4()), up="sleep 30"))
    world.client.call("DELETE", f"workflows/{world.client.namespace}/{done.run.id}")
    world.follow()
    ended = await world.ended(done.run.id)
    assert (ended.run.phase, ended.run.message) == (RunPhase.ERROR, "the Workflow was deleted from Argo")


async def test_a_failed_step_fails_its_run_with_its_message(world: World) -> None:
    manifest = workflow(
        dag(task("bad", "bad"), task("after", "ok", depends="bad")), sh("bad", "exit 3"), sh("ok", "true")
    )
    ended = await world.run(manifest)
    assert (ended.run.phase, ended.phases) == (RunPhase.FAILED, {"bad": "failed", "after": "skipped"})
    assert "exit code 3" in ended.finished[0].message or "exit code 3" in ended.finished[1].message


async def test_a_run_can_be_stopped_and_stays_stopped(world: World) -> None:
    done = await world.submit(two(str(uuid.uuid4()), up="sleep 30"))
    await world.dispatcher.cancel("default", done.run.id, terminate=True, reason="enough")
    assert (await world.ended(done.run.id)).run.phase is RunPhase.CANCELLED
    assert (
        await world.dispatcher.cancel("default", done.run.id, terminate=True, reason="") is RunPhase.CANCELLED
    )
    with pytest.raises(NotFound):
        await world.dispatcher.cancel("another", done.run.id, terminate=True, reason="")


async def test_a_run_whose_canceller_died_before_argo_was_told_is_stopped_all_the_same(world: World) -> None:
    await world.crash()
    done = await world.submit(two(str(uuid.uuid4()), up="sleep 30"))
    await world.runs.set_cancelled(done.run.id)
    world.follow()
    assert (await world.ended(done.run.id)).run.phase is RunPhase.CANCELLED


async def test_a_workflow_of_a_run_that_ended_before_it_began_is_stopped(world: World) -> None:
    chain = dag(task("a", "a"), task("b", "b", depends="a"))
    done = await world.submit(workflow(chain, sh("a", "sleep 1"), sh("b", "sleep 30")))
    await world.crash()
    await world.runs.set_cancelled(done.run.id)
    await world.runs.finish(done.run, [], RunPhase.CANCELLED, "before it began", Outputs(), datetime.now(UTC))
    world.follow()
    async with asyncio.timeout(PATIENCE / 2):
        while not (await world.argo.get(done.run.id))["status"].get("finishedAt"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_runs_of_two_projects_are_kept_apart(world: World) -> None:
    request = str(uuid.uuid4())
    one = await world.submit(two(), request)
    world.project = "other"
    two_ = await world.submit(two(), request)
    assert one.run.id != two_.run.id
    assert (await world.ended(two_.run.id)).run.project == "other"


async def test_steps_in_loops_and_retries_and_nested_templates_have_their_paths(world: World) -> None:
    flaky = sh("flaky", 'test -n "$n" && test "$n" -gt 0', "n", retryStrategy={"limit": "2"})
    flaky["container"]["env"] = [{"name": "n", "value": "{{retries}}"}]
    del flaky["inputs"]
    inner = dag(
        task("leaf", "leaf", given={"x": "{{inputs.parameters.p}}"}),
        name="inner",
        inputs={"parameters": [{"name": "p"}]},
    )
    middle = dag(task("in", "inner", withItems=["a", "b"], given={"p": "{{item}}"}), name="middle")
    manifest = workflow(
        steps([task("again", "flaky")], [task("out", "middle", withItems=[1, 2])], [task("no", "flaky", when="1 == 2")]),
        middle, inner, say("leaf", "$x", "x"), flaky,
    )  # fmt: skip
    ended = await world.run(manifest)
    assert ended.run.phase is RunPhase.SUCCEEDED, ended.run.message
    leaves = {f"out({i}).in({j}).leaf": "succeeded" for i in (0, 1) for j in (0, 1)}
    assert ended.phases == {"again": "succeeded", "no": "skipped", **leaves}
    assert next(e for e in ended.finished if e.step == "again").attempts == 2


async def test_an_exit_handler_runs_though_all_is_known(world: World) -> None:
    manifest = workflow(dag(task("a", "a")), say("a", "1"), sh("bye", "true"), onExit="bye")
    await world.run(manifest)
    again = await world.run(manifest)
    assert again.run.manifest
    assert "a" in again.cached
    assert "bye" in again.ran


async def test_artifacts_of_a_hit_reach_who_reads_them(world: World) -> None:
    makes = sh("makes", "printf hello > /tmp/m", outputs={"artifacts": [{"name": "m", "path": "/tmp/m"}]})
    reads = sh("reads", 'printf "%s$x" "$(cat /tmp/i)" > /tmp/o', "x", outputs=gives("o"))
    reads["inputs"]["artifacts"] = [{"name": "i", "path": "/tmp/i"}]

    def manifest(x: str, more: str = "true") -> Json:
        first = {
            **makes,
            "container": {**makes["container"], "args": [makes["container"]["args"][0] + f"; {more}"]},
        }
        use = task("reads", "reads", depends="makes", given={"x": x})
        use["arguments"]["artifacts"] = [{"name": "i", "from": "{{tasks.makes.outputs.artifacts.m}}"}]
        return workflow(
            dag(task("makes", "makes"), use, outputs=shows("tasks.reads.outputs.parameters.o")), first, reads
        )

    assert (await world.run(manifest("1"))).output == "hello1"
    changed = await world.run(manifest("2"))
    assert (changed.output, changed.cached, changed.ran) == ("hello2", {"makes"}, {"reads"})


async def test_a_run_with_the_cache_off_asks_nothing_of_it(world: World) -> None:
    await world.run(two())
    assert (await world.run(two(), mode=CacheMode.OFF)).ran == {"up", "end"}


async def test_a_workflow_of_a_long_or_foreign_name_gets_a_run_of_at_most_63_characters(world: World) -> None:
    manifest = two() | {"metadata": {"generateName": "n" * 80 + "-"}}
    ended = await world.run(manifest)
    assert len(ended.run.id) <= 63
    assert ended.run.phase is RunPhase.SUCCEEDED


async def test_nothing_that_argo_refuses_leaves_a_run(world: World) -> None:
    for broken in (
        two() | {"kind": "CronWorkflow"},
        two() | {"metadata": {"name": "Not_A_Name"}},
        two() | {"metadata": {"generateName": "größe-"}},
    ):
        with pytest.raises(Invalid) as refused:
            await world.submit(broken)
        assert refused.value.field.startswith("spec.manifest"), refused.value
    assert await world.runs.list_open() == []


async def test_fields_that_are_null_are_not_there(world: World) -> None:
    manifest = two()
    manifest["metadata"] |= {"labels": None, "annotations": None}
    manifest["spec"] |= {"arguments": None, "hooks": None, "templateDefaults": None}
    manifest["spec"]["templates"][1] |= {"inputs": None, "metadata": {"annotations": None}}
    manifest["spec"]["templates"][0]["dag"]["tasks"][0] |= {
        "arguments": None,
        "when": None,
        "withItems": None,
    }
    assert (await world.run(manifest)).run.phase is RunPhase.SUCCEEDED


async def test_a_policy_that_makes_no_sense_is_refused_with_its_field(world: World) -> None:
    manifest = two()
    manifest["spec"]["templates"][1]["metadata"] = {"annotations": {"periplus.dev/cache": "x"}}
    with pytest.raises(Invalid) as refused:
        await world.submit(manifest)
    assert refused.value.field == "spec.manifest.spec.templates[1].metadata.annotations['periplus.dev/cache']"


async def test_a_plan_says_what_would_happen_and_leaves_no_run(world: World) -> None:
    await world.run(two())
    draft = await world.dispatcher.plan(world.order(two()))
    assert draft.plan.is_complete
    assert json.loads(json.dumps(draft.manifest)) == two()
    assert len(await world.published(FINISHED, "nobody")) == 0
    unchecked = await away(world).plan(world.order(two()))
    assert any("did not check" in warning for warning in unchecked.warnings)


async def test_logs_are_told_by_step(world: World) -> None:
    manifest = workflow(
        dag(task("a", "loud", given={"x": "one"}), task("b", "loud", withItems=["two", "three"], given={"x": "{{item}}"})),
        sh("loud", "echo $x", "x"),
    )  # fmt: skip
    run = (await world.run(manifest)).run.id
    assert {line async for line in world.dispatcher.logs("default", run, "", follow=False)} == {
        ("a", "one"), ("b(0)", "two"), ("b(1)", "three"),
    }  # fmt: skip
    assert [line async for line in world.dispatcher.logs("default", run, "b", follow=False)] != []
    assert [line async for line in world.dispatcher.logs("default", run, "b(1)", follow=False)] == [
        ("b(1)", "three")
    ]


MODES = [None, CacheMode.OFF, CacheMode.REFRESH]


@pytest.mark.parametrize("run_mode", MODES, ids=lambda mode: mode.label if mode else "none")
@pytest.mark.parametrize("step_mode", [CacheMode.OFF, CacheMode.READ], ids=lambda mode: mode.label)
async def test_the_cache_and_the_events_get_the_steps_own_policy_and_the_runs_mode(
    world: World, step_mode: CacheMode, run_mode: CacheMode | None
) -> None:
    """The cache combines the two, the same way for look-up and record."""
    manifest = two(str(uuid.uuid4()), up="true")
    for template in manifest["spec"]["templates"][1:]:
        template["metadata"] = {"annotations": {"periplus.dev/cache": step_mode.label}}
    ended = await world.run(manifest, mode=run_mode)
    assert ended.ran == {"up", "end"}
    for mode, templates in world.cache.requests:
        assert mode is run_mode
        assert {template.policy.mode for template in templates.values()} == {step_mode}
    for event in ended.finished:
        assert event.template.policy.mode == step_mode
        assert event.cache_mode == (run_mode or 0)
    if step_mode is CacheMode.READ and run_mode is None:
        assert len(world.cache.requests) == 2, "the gate asks the cache as well"


async def test_all_events_of_a_run_belong_to_the_trace_of_its_submission_also_after_a_restart(
    world: World,
) -> None:
    await world.crash()
    trace_id = uuid.uuid4().hex
    with telemetry.remote_context({"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}):
        done = await world.submit(two(str(uuid.uuid4())))
    world.follow()
    await world.ended(done.run.id)
    traces = await world.traces(done.run.id)
    assert traces.keys() >= {RUN_SUBMITTED, FINISHED, RUN_FINISHED}
    assert set().union(*traces.values()) == {trace_id}


async def test_a_run_whose_submission_has_no_trace_is_followed_without_one(world: World) -> None:
    done = await world.submit(two(str(uuid.uuid4())))
    await world.ended(done.run.id)
    assert (done.run.traceparent, set().union(*(await world.traces(done.run.id)).values())) == ("", {""})


async def test_lines_about_a_run_are_logged_with_its_id(world: World) -> None:
    handler = logging.StreamHandler(lines := io.StringIO())
    handler.setFormatter(telemetry.JsonFormatter("dispatcher"))
    logger = logging.getLogger("periplus_dispatcher")
    logger.addHandler(handler)
    try:
        await world.crash()
        done = await away(world).submit(world.order(two(str(uuid.uuid4()))), str(uuid.uuid4()))
    finally:
        logger.removeHandler(handler)
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    pending = [line for line in found if "stays pending" in line["message"]]
    assert [(line["project"], line["run"]) for line in pending] == [("default", done.run.id)]
