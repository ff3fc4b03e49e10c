"""Runs on the local Argo: what happens if a service can not be reached, a request is repeated, or a process crashes."""

import asyncio
import io
import json
import logging
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dispatcher_harness import DELAYED, FINISHED, RUN_FINISHED, RUN_SUBMITTED, STARTED, WAIT_SECONDS, Harness
from manifests import ANY_KEYS, PROCESSES, dag, gives, say, sh, shows, steps, task, workflow

from periplus.dispatcher.v1 import events_pb2
from periplus.types.v1 import step_pb2
from periplus_common import telemetry
from periplus_common.errors import Invalid, NotFound, Refused
from periplus_dispatcher.argo import client as argo
from periplus_dispatcher.argo.connection import ArgoTimeouts, Connection
from periplus_dispatcher.domain import GateAnswer
from periplus_dispatcher.planner import Planner
from periplus_dispatcher.service import Dispatcher
from periplus_dispatcher.wire.runs import encode_plan
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


def unreachable(harness: Harness) -> Dispatcher:
    """A dispatcher whose Argo can not be reached."""
    return Dispatcher(
        harness.runs,
        UnreachableArgo(harness.argo),
        Planner(harness.cache, harness.snapshotter, harness.argo, PROCESSES, ANY_KEYS),
        harness.repository,
        timedelta(seconds=30),
    )


class UnreachableArgo(argo.HeraArgo):
    """An Argo at an address where nothing listens."""

    def __init__(self, there: argo.HeraArgo) -> None:
        service = type(there._service)(
            host="http://127.0.0.1:9/", token="t", namespace="argo", session=there._service.session
        )
        super().__init__(Connection(service, ArgoTimeouts()), "argo")


async def test_fields_without_effect_on_the_local_argo_are_warnings_of_the_run(harness: Harness) -> None:
    plain = await harness.submit(two())
    asked = two()
    asked["spec"]["nodeSelector"] = {"gpu": "yes"}
    warned = await harness.submit(asked)
    assert plain.planned is not None
    assert warned.planned is not None
    assert [warning for warning in plain.planned.warnings if "no effect" in warning] == []
    assert [warning for warning in warned.planned.warnings if "no effect" in warning] == [
        "accepted with no effect here: spec.nodeSelector"
    ]


async def test_the_events_of_a_run_from_its_submission_to_its_end(harness: Harness) -> None:
    ended = await harness.run(two())
    assert (ended.run.phase, ended.output) == (RunPhase.SUCCEEDED, "<1>")
    submitted = events_pb2.RunSubmitted.FromString((await harness.published(RUN_SUBMITTED, ended.run.id))[0])
    assert [(n.path, list(n.depends_on)) for n in submitted.steps] == [("up", []), ("end", ["up"])]
    started = [
        events_pb2.StepStarted.FromString(b).step for b in await harness.published(STARTED, ended.run.id)
    ]
    assert started == ["up", "end"] or set(started) <= {"up", "end"}, (
        "a short step may appear only when it has finished"
    )
    assert ended.phases == {"up": "succeeded", "end": "succeeded"}
    end = next(e for e in ended.finished if e.step == "end")
    assert [(p.name, p.value) for p in end.inputs.parameters] == [("x", "1")]
    assert [(p.name, p.value) for p in end.outputs.parameters] == [("o", "<1>")]
    assert (end.attempts, end.outputs.exit_code) == (1, 0)
    finished = events_pb2.RunFinished.FromString((await harness.published(RUN_FINISHED, ended.run.id))[0])
    assert finished.phase == step_pb2.RUN_PHASE_SUCCEEDED


async def test_a_run_of_hits_creates_no_workflow(harness: Harness) -> None:
    await harness.run(two())
    done = await harness.submit(two())
    assert (done.run.phase, done.run.manifest) == (RunPhase.SUCCEEDED, "")
    assert await harness.argo.get(done.run.id) is None
    assert (await harness.ended(done.run.id)).phases == {"up": "cached", "end": "cached"}
    with pytest.raises(Refused, match="every step was a hit"):
        async for _ in harness.dispatcher.logs("default", done.run.id, "", follow=False):
            pass


async def test_a_request_sent_twice_is_one_run_and_its_id_with_another_request_is_refused(
    harness: Harness,
) -> None:
    manifest, request = two(str(uuid.uuid4())), str(uuid.uuid4())
    first = await asyncio.gather(*(harness.submit(manifest, request) for _ in range(5)))
    assert len({done.run.id for done in first}) == 1
    assert (await harness.submit(manifest, request)).planned is None
    with pytest.raises(Invalid) as refused:
        await harness.submit(two("other"), request)
    assert (refused.value.field, refused.value.reason) == ("request_id", "REQUEST_ID_REUSED")
    ended = await harness.ended(first[0].run.id)
    assert len(await harness.published(RUN_SUBMITTED, ended.run.id)) == 1
    assert len(ended.finished) == 2


async def test_a_run_stays_pending_while_argo_can_not_be_reached_and_is_launched_later(
    harness: Harness,
) -> None:
    await harness.crash()
    done = await unreachable(harness).submit(harness.request(two(str(uuid.uuid4()))), str(uuid.uuid4()))
    assert done.run.phase is RunPhase.PENDING
    harness.follow()
    assert (await harness.ended(done.run.id)).run.phase is RunPhase.SUCCEEDED


async def test_a_pending_run_is_launched_although_the_event_stream_did_not_end(harness: Harness) -> None:
    await harness.run(two())  # the follower's watch is up
    done = await unreachable(harness).submit(harness.request(two(str(uuid.uuid4()))), str(uuid.uuid4()))
    assert (await harness.ended(done.run.id)).run.phase is RunPhase.SUCCEEDED


async def test_a_run_that_is_cancelled_before_it_started_never_starts(harness: Harness) -> None:
    await harness.crash()
    done = await unreachable(harness).submit(harness.request(two()), str(uuid.uuid4()))
    assert (
        await harness.dispatcher.cancel("default", done.run.id, terminate=False, reason="")
        is RunPhase.CANCELLED
    )
    harness.follow()
    ended = await harness.ended(done.run.id)
    assert (ended.run.phase, ended.finished) == (RunPhase.CANCELLED, [])
    assert await harness.argo.get(done.run.id) is None


async def test_without_the_cache_every_step_runs_and_a_warning_says_so(harness: Harness) -> None:
    await harness.run(two())
    harness.cache.is_unreachable = True
    done = await harness.submit(two())
    assert done.planned
    assert done.planned.warnings == (
        "every step runs, as the cache could not be asked: the cache can not be reached",
    )
    assert (await harness.ended(done.run.id)).ran == {"up", "end"}


async def test_a_gate_is_answered_as_a_miss_if_the_cache_can_not_be_reached(harness: Harness) -> None:
    await harness.run(two())
    del harness.cache.entries[
        next(k for k in harness.cache.entries if "/tmp/o" in k[0] and "<$x>" not in k[0])
    ]
    changed = two(up="sleep 0.5")
    done = await harness.submit(changed)
    assert done.planned
    assert [s.action.value for s in done.planned.plan.steps] == ["keep", "gate"]
    harness.cache.is_unreachable = True
    ended = await harness.ended(done.run.id)
    assert (ended.ran, ended.output) == ({"up", "end"}, "<1>")


async def test_without_the_snapshotter_a_run_has_no_snapshot(harness: Harness) -> None:
    harness.snapshotter.is_unreachable = True
    done = await harness.submit(two(str(uuid.uuid4())), claim=b"")
    assert done.planned
    assert done.planned.warnings == ("the run has no snapshot: the snapshotter can not be reached",)
    assert (await harness.ended(done.run.id)).run.snapshot == ""


async def test_results_from_another_environment_are_no_hits(harness: Harness) -> None:
    await harness.run(two(), claim=b"")
    assert (await harness.submit(two(), claim=b"")).run.phase is RunPhase.SUCCEEDED
    harness.snapshotter.environment = "sha256:other"
    assert (await harness.run(two(), claim=b"")).ran == {"up", "end"}


async def test_after_a_crash_a_new_follower_continues_and_nothing_is_published_or_run_twice(
    harness: Harness,
) -> None:
    done = await harness.submit(two(str(uuid.uuid4()), up="sleep 1"))
    await asyncio.sleep(0.3)
    await harness.crash()
    await asyncio.sleep(1.2)
    harness.follow()
    harness.follow()  # and a second replica
    ended = await harness.ended(done.run.id)
    assert sorted(e.step for e in ended.finished) == ["end", "up"]
    assert len(await harness.published(RUN_FINISHED, done.run.id)) == 1


async def test_a_run_that_was_stored_and_not_launched_before_a_crash_is_launched(harness: Harness) -> None:
    request = harness.request(two(str(uuid.uuid4())))
    planned = await Planner(harness.cache, harness.snapshotter, harness.argo, PROCESSES, ANY_KEYS).plan(
        request
    )
    run, statuses = harness.dispatcher._new_run(request, str(uuid.uuid4()), planned)
    await harness.runs.add(run, statuses, [])
    assert (await harness.ended(run.id)).ran == {"up", "end"}


async def gated(harness: Harness) -> tuple[str, list[Json]]:
    """A run whose gate is open, with nobody to answer it: its name and its gates."""
    await harness.run(two())
    await harness.crash()
    return await opened_gates(harness)


async def opened_gates(harness: Harness, *, up: str = "true") -> tuple[str, list[Json]]:
    """A run like an earlier one, but for the command of its first step, so that the second waits at a gate."""
    name = (await harness.submit(two(up=up))).run.id
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            nodes = ((await harness.argo.get(name) or {}).get("status") or {}).get("nodes") or {}
            if found := [n for n in nodes.values() if n["type"] == "Suspend" and n["phase"] != "Pending"]:
                return name, found
            await asyncio.sleep(0.02)


async def test_a_gate_that_is_answered_twice_keeps_its_first_answer(harness: Harness) -> None:
    name, (gate,) = await gated(harness)
    harness.follow()
    harness.follow()  # a second replica
    ended = await harness.ended(name)
    assert (ended.ran, ended.cached, ended.output) == ({"up"}, {"end"}, "<1>")
    answer = (await harness.runs.get_answers(name))[gate["id"]]
    assert answer.verdict.verdict is Verdict.HIT
    with pytest.raises(NotFound):
        await harness.argo.answer_gate(name, gate["id"], answer.parameters, "again")


async def test_an_answer_that_was_stored_before_a_crash_is_the_one_that_is_sent(harness: Harness) -> None:
    name, (gate,) = await gated(harness)
    outputs = Outputs({"o": "stored"})
    stored = GateAnswer(
        {"periplus-hit": "true", "periplus-p-o": "stored"}, StepVerdict("", Verdict.HIT, outputs=outputs)
    )
    await harness.runs.add_answers(name, {gate["id"]: stored})
    harness.follow()
    ended = await harness.ended(name)
    assert (ended.cached, ended.output) == ({"end"}, "stored")
    assert next(e for e in ended.finished if e.step == "end").outputs.parameters[0].value == "stored"


async def test_a_gate_that_a_person_resumes_lets_its_step_run(harness: Harness) -> None:
    name, (gate,) = await gated(harness)
    harness.client.do(name, "resume", nodeFieldSelector=f"id={gate['id']}")
    harness.follow()
    assert (await harness.ended(name)).ran == {"up", "end"}


async def test_a_gate_that_ends_by_its_timeout_lets_its_step_run(harness: Harness) -> None:
    await harness.run(two())
    planner = Planner(harness.cache, harness.snapshotter, harness.argo, PROCESSES, ANY_KEYS)
    short = Dispatcher(harness.runs, harness.argo, planner, harness.repository, timedelta(seconds=1))
    await harness.crash()
    name = (await short.submit(harness.request(two(up="true")), str(uuid.uuid4()))).run.id
    async with asyncio.timeout(WAIT_SECONDS):
        while not (await harness.argo.get(name) or {})["status"].get("finishedAt"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    harness.follow()
    ended = await harness.ended(name)
    assert (ended.run.phase, ended.ran, ended.output) == (RunPhase.SUCCEEDED, {"up", "end"}, "<1>")


async def test_a_step_that_waits_for_a_lock_is_delayed_until_it_has_it(harness: Harness) -> None:
    mutex = {"mutexes": [{"name": f"m-{uuid.uuid4()}"}]}
    first, second = (
        sh("first", "sleep 2", synchronization=mutex),
        sh("second", "sleep 1", synchronization=mutex),
    )
    started = task("second", "second", depends="pause")
    chain = dag(task("first", "first"), task("pause", "pause"), started)
    name = (await harness.submit(workflow(chain, first, second, sh("pause", "sleep 0.5")))).run.id
    assert (await harness.ended(name)).ran == {"first", "pause", "second"}
    events = [events_pb2.StepDelayed.FromString(body) for body in await harness.published(DELAYED, name)]
    assert [(event.step, event.reason.split(".")[0].partition("/")[0]) for event in events] == [
        ("second", "Waiting for argo"),
        ("second", ""),
    ]
    assert events[0].observed_at.ToDatetime() < events[1].observed_at.ToDatetime()


async def test_a_run_whose_workflow_was_deleted_ends_with_an_error(harness: Harness) -> None:
    await harness.crash()
    done = await harness.submit(two(str(uuid.uuid4()), up="sleep 30"))
    harness.client.call("DELETE", f"workflows/{harness.client.namespace}/{done.run.id}")
    harness.follow()
    ended = await harness.ended(done.run.id)
    assert (ended.run.phase, ended.run.message) == (RunPhase.ERROR, "the Workflow was deleted from Argo")


async def test_a_failed_step_fails_its_run_with_its_message(harness: Harness) -> None:
    manifest = workflow(
        dag(task("bad", "bad"), task("after", "ok", depends="bad")), sh("bad", "exit 3"), sh("ok", "true")
    )
    ended = await harness.run(manifest)
    assert (ended.run.phase, ended.phases) == (RunPhase.FAILED, {"bad": "failed", "after": "skipped"})
    assert "exit code 3" in ended.finished[0].message or "exit code 3" in ended.finished[1].message


async def test_a_cancelled_run_stays_cancelled(harness: Harness) -> None:
    done = await harness.submit(two(str(uuid.uuid4()), up="sleep 30"))
    await harness.dispatcher.cancel("default", done.run.id, terminate=True, reason="enough")
    assert (await harness.ended(done.run.id)).run.phase is RunPhase.CANCELLED
    assert (
        await harness.dispatcher.cancel("default", done.run.id, terminate=True, reason="")
        is RunPhase.CANCELLED
    )
    with pytest.raises(NotFound):
        await harness.dispatcher.cancel("another", done.run.id, terminate=True, reason="")


async def test_a_run_that_was_cancelled_before_a_crash_is_stopped_after_it(harness: Harness) -> None:
    await harness.crash()
    done = await harness.submit(two(str(uuid.uuid4()), up="sleep 30"))
    await harness.runs.set_cancelled(done.run.id)
    harness.follow()
    assert (await harness.ended(done.run.id)).run.phase is RunPhase.CANCELLED


async def test_the_workflow_of_a_cancelled_run_is_stopped(harness: Harness) -> None:
    chain = dag(task("a", "a"), task("b", "b", depends="a"))
    done = await harness.submit(workflow(chain, sh("a", "sleep 1"), sh("b", "sleep 300")))
    await harness.crash()
    await harness.runs.set_cancelled(done.run.id)
    await harness.runs.finish(
        done.run, [], RunPhase.CANCELLED, "before it began", Outputs(), datetime.now(UTC)
    )
    harness.follow()
    async with asyncio.timeout(WAIT_SECONDS):
        while not (await harness.argo.get(done.run.id))["status"].get("finishedAt"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_projects_do_not_share_request_ids(harness: Harness) -> None:
    request = str(uuid.uuid4())
    one = await harness.submit(two(), request)
    harness.project = "other"
    two_ = await harness.submit(two(), request)
    assert one.run.id != two_.run.id
    assert (await harness.ended(two_.run.id)).run.project == "other"


async def test_steps_in_loops_and_retries_and_nested_templates_have_their_paths(harness: Harness) -> None:
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
    ended = await harness.run(manifest)
    assert ended.run.phase is RunPhase.SUCCEEDED, ended.run.message
    leaves = {f"out({i}).in({j}).leaf": "succeeded" for i in (0, 1) for j in (0, 1)}
    assert ended.phases == {"again": "succeeded", "no": "skipped", **leaves}
    assert next(e for e in ended.finished if e.step == "again").attempts == 2


async def test_an_exit_handler_runs_although_every_step_is_a_hit(harness: Harness) -> None:
    manifest = workflow(dag(task("a", "a")), say("a", "1"), sh("bye", "true"), onExit="bye")
    await harness.run(manifest)
    done = await harness.submit(manifest)
    assert done.planned is not None
    assert [warning.partition(":")[0] for warning in done.planned.warnings] == [
        "every step is cached, but the exit handler bye runs"
    ]
    again = await harness.ended(done.run.id)
    assert again.run.manifest
    assert "a" in again.cached
    assert "bye" in again.ran


async def test_a_run_of_hits_whose_exit_handler_need_not_run_creates_no_workflow(harness: Harness) -> None:
    optional = {"annotations": {"periplus.dev/on-exit": "if-run"}}
    manifest = workflow(
        dag(task("a", "a")), say("a", "1"), sh("bye", "true", metadata=optional), onExit="bye"
    )
    assert (await harness.run(manifest)).ran == {"a", "bye"}
    done = await harness.submit(manifest)
    assert done.planned is not None
    assert (done.run.phase, done.run.manifest, done.planned.warnings) == (RunPhase.SUCCEEDED, "", ())
    assert await harness.argo.get(done.run.id) is None
    assert (await harness.ended(done.run.id)).phases == {"a": "cached"}


async def test_the_nodes_of_cached_items_do_not_exist_in_argo_and_the_plan_says_so(harness: Harness) -> None:
    def manifest(*items: str) -> Json:
        fan = task("train", "train", withItems=list(items), given={"x": "{{item}}"})
        return workflow(dag(fan), say("train", "$x", "x"))

    await harness.run(manifest("a", "b"))
    done = await harness.submit(manifest("a", "b", "c"))
    assert done.planned is not None
    plan = encode_plan(done.planned)
    no_node = "it has no node in Argo"
    assert [no_node in step.reason for step in plan.steps] == [True, True, False]
    ended = await harness.ended(done.run.id)
    assert ended.phases == {"train(0)": "cached", "train(1)": "cached", "train(2)": "succeeded"}
    nodes = (await harness.argo.get(done.run.id) or {})["status"]["nodes"].values()
    items = {node["displayName"] for node in nodes if node.get("templateName") == "train"}
    assert items == {"run", "run(0:c)"}
    complete = (await harness.submit(manifest("a", "b"))).planned
    assert complete is not None
    assert not any(no_node in step.reason for step in encode_plan(complete).steps), "there is no Workflow"


async def test_the_artifacts_of_a_hit_reach_the_steps_that_read_them(harness: Harness) -> None:
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

    assert (await harness.run(manifest("1"))).output == "hello1"
    changed = await harness.run(manifest("2"))
    assert (changed.output, changed.cached, changed.ran) == ("hello2", {"makes"}, {"reads"})


async def test_a_run_with_the_cache_off_runs_every_step(harness: Harness) -> None:
    await harness.run(two())
    assert (await harness.run(two(), mode=CacheMode.OFF)).ran == {"up", "end"}


async def test_the_run_of_a_workflow_with_a_long_name_has_an_id_of_at_most_63_characters(
    harness: Harness,
) -> None:
    manifest = two() | {"metadata": {"generateName": "n" * 80 + "-"}}
    ended = await harness.run(manifest)
    assert len(ended.run.id) <= 63
    assert ended.run.phase is RunPhase.SUCCEEDED


async def test_a_refused_manifest_leaves_no_run(harness: Harness) -> None:
    for broken in (
        two() | {"kind": "CronWorkflow"},
        two() | {"metadata": {"name": "Not_A_Name"}},
        two() | {"metadata": {"generateName": "größe-"}},
    ):
        with pytest.raises(Invalid) as refused:
            await harness.submit(broken)
        assert refused.value.field.startswith("spec.manifest"), refused.value
    assert await harness.runs.list_open() == []


async def test_fields_that_are_null_are_absent(harness: Harness) -> None:
    manifest = two()
    manifest["metadata"] |= {"labels": None, "annotations": None}
    manifest["spec"] |= {"arguments": None, "hooks": None, "templateDefaults": None}
    manifest["spec"]["templates"][1] |= {"inputs": None, "metadata": {"annotations": None}}
    manifest["spec"]["templates"][0]["dag"]["tasks"][0] |= {
        "arguments": None,
        "when": None,
        "withItems": None,
    }
    assert (await harness.run(manifest)).run.phase is RunPhase.SUCCEEDED


async def test_an_invalid_policy_is_refused_with_its_field(harness: Harness) -> None:
    manifest = two()
    manifest["spec"]["templates"][1]["metadata"] = {"annotations": {"periplus.dev/cache": "x"}}
    with pytest.raises(Invalid) as refused:
        await harness.submit(manifest)
    assert refused.value.field == "spec.manifest.spec.templates[1].metadata.annotations['periplus.dev/cache']"


async def test_a_plan_leaves_no_run(harness: Harness) -> None:
    await harness.run(two())
    draft = await harness.dispatcher.plan(harness.request(two()))
    assert draft.plan.is_complete
    assert json.loads(json.dumps(draft.manifest)) == two()
    assert len(await harness.published(FINISHED, "nobody")) == 0
    unchecked = await unreachable(harness).plan(harness.request(two()))
    assert any("did not check" in warning for warning in unchecked.warnings)


async def test_log_lines_have_the_path_of_their_step(harness: Harness) -> None:
    manifest = workflow(
        dag(task("a", "loud", given={"x": "one"}), task("b", "loud", withItems=["two", "three"], given={"x": "{{item}}"})),
        sh("loud", "echo $x", "x"),
    )  # fmt: skip
    run = (await harness.run(manifest)).run.id
    assert {line async for line in harness.dispatcher.logs("default", run, "", follow=False)} == {
        ("a", "one"), ("b(0)", "two"), ("b(1)", "three"),
    }  # fmt: skip
    assert [line async for line in harness.dispatcher.logs("default", run, "b", follow=False)] != []
    assert [line async for line in harness.dispatcher.logs("default", run, "b(1)", follow=False)] == [
        ("b(1)", "three")
    ]


MODES = [None, CacheMode.OFF, CacheMode.REFRESH]


@pytest.mark.parametrize("run_mode", MODES, ids=lambda mode: mode.label if mode else "none")
@pytest.mark.parametrize("step_mode", [CacheMode.OFF, CacheMode.READ], ids=lambda mode: mode.label)
async def test_the_cache_and_the_events_get_the_steps_own_policy_and_the_runs_mode(
    harness: Harness, step_mode: CacheMode, run_mode: CacheMode | None
) -> None:
    """The cache combines the two, the same way for look-up and record."""
    manifest = two(str(uuid.uuid4()), up="true")
    for template in manifest["spec"]["templates"][1:]:
        template["metadata"] = {"annotations": {"periplus.dev/cache": step_mode.label}}
    ended = await harness.run(manifest, mode=run_mode)
    assert ended.ran == {"up", "end"}
    for mode, templates in harness.cache.requests:
        assert mode is run_mode
        assert {template.policy.mode for template in templates.values()} == {step_mode}
    for event in ended.finished:
        assert event.template.policy.mode == step_mode
        assert event.cache_mode == (run_mode or 0)
    if step_mode is CacheMode.READ and run_mode is None:
        assert len(harness.cache.requests) == 2, "the gate asks the cache as well"


async def test_all_events_of_a_run_belong_to_the_trace_of_its_submission_also_after_a_restart(
    harness: Harness,
) -> None:
    await harness.crash()
    trace_id = uuid.uuid4().hex
    with telemetry.remote_context({"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}):
        done = await harness.submit(two(str(uuid.uuid4())))
    harness.follow()
    await harness.ended(done.run.id)
    traces = await harness.traces(done.run.id)
    assert traces.keys() >= {RUN_SUBMITTED, FINISHED, RUN_FINISHED}
    assert set().union(*traces.values()) == {trace_id}


async def test_a_run_whose_submission_has_no_trace_is_followed_without_one(harness: Harness) -> None:
    done = await harness.submit(two(str(uuid.uuid4())))
    await harness.ended(done.run.id)
    assert (done.run.traceparent, set().union(*(await harness.traces(done.run.id)).values())) == ("", {""})


async def test_lines_about_a_run_are_logged_with_its_id(harness: Harness) -> None:
    handler = logging.StreamHandler(lines := io.StringIO())
    handler.setFormatter(telemetry.JsonFormatter("dispatcher"))
    logger = logging.getLogger("periplus_dispatcher")
    logger.addHandler(handler)
    try:
        await harness.crash()
        done = await unreachable(harness).submit(harness.request(two(str(uuid.uuid4()))), str(uuid.uuid4()))
    finally:
        logger.removeHandler(handler)
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    pending = [line for line in found if "stays pending" in line["message"]]
    assert [(line["project"], line["run"]) for line in pending] == [("default", done.run.id)]
