"""Retries, deadlines and what is done when something failed: hooks, exit handlers, the retry of a run."""

import re
import time
from collections.abc import Iterator

import pytest

from periplus_local.argo.controller.retry_strategy import is_transient
from periplus_local.argo.samples import (
    BAD,
    OK,
    dag,
    node,
    output,
    run,
    say,
    sh,
    start,
    steps,
    takes,
    task,
)
from periplus_local.argo.testing import Client, local_argo, nodes_of, phases_of


@pytest.fixture(scope="module")
def argo() -> Iterator[Client]:
    with local_argo(slots=4, grace_seconds=1) as client:
        yield client


def test_backoff_waits_longer_each_time_and_ends_at_its_maximum(argo: Client) -> None:
    strategy = {"limit": 3, "backoff": {"duration": "100ms", "factor": 2}}
    began = time.monotonic()
    seen = run(argo, BAD | {"retryStrategy": strategy})
    assert time.monotonic() - began > 0.7  # 0.1 + 0.2 + 0.4 seconds of waiting
    assert node(seen)["message"] == "No more retries left"
    assert len(node(seen)["children"]) == 4
    strategy = {"limit": 10, "backoff": {"duration": "2", "factor": 2, "maxDuration": "1s"}}
    assert node(run(argo, BAD | {"retryStrategy": strategy}))["message"] in {
        "Backoff would exceed max duration limit",
        "Max duration limit exceeded",
    }


def test_a_retry_policy_tells_failures_from_errors(argo: Client) -> None:
    lost = say("x", "lost")
    lost["container"]["args"] = ["true"]
    for template, policy, tries in (
        (lost, "OnFailure", 1),
        (lost, "OnError", 2),
        (BAD, "OnError", 1),
        (BAD, "OnFailure", 2),
        (lost, "Always", 2),
    ):
        seen = run(argo, template | {"retryStrategy": {"limit": "1", "retryPolicy": policy}})
        assert len(node(seen)["children"]) == tries, (template["name"], policy)


def test_an_attempt_knows_how_the_last_one_ended(argo: Client) -> None:
    outputs = {"parameters": [{"name": "o", "valueFrom": {"path": "/tmp/o"}}]}
    command = (
        "echo {{retries}} {{lastRetry.exitCode}} {{lastRetry.status}} > /tmp/o; exit {{=3 - asInt(retries)}}"
    )
    seen = run(argo, sh("main", command, outputs=outputs, retryStrategy={"limit": 5}))
    said = [output(seen, f"({index})") for index in range(4)]
    assert said == ["0 0", "1 3 Failed", "2 2 Failed", "3 1 Failed"]
    assert node(seen)["outputs"]["exitCode"] == "0"


def test_template_defaults_make_composite_templates_retry_too(argo: Client) -> None:
    seen = run(argo, steps([task("a")]), OK, templateDefaults={"retryStrategy": {"limit": "0"}})
    assert phases_of(seen) == dict.fromkeys(
        ["$", "$(0)", "$(0)[0]", "$(0)[0].a", "$(0)[0].a(0)"], "Succeeded"
    )
    assert node(seen)["type"] == "Retry"


def test_the_deadline_of_a_workflow_ends_steps_and_gates_but_not_the_exit_handler(argo: Client) -> None:
    main = dag(task("slow", "slow"), task("gate", "gate"))
    gate = {"name": "gate", "suspend": {}}
    seen = run(
        argo, main, sh("slow", "sleep 60"), gate, say("{{workflow.status}}", "bye"),
        activeDeadlineSeconds=1, onExit="bye",
    )  # fmt: skip
    assert seen["status"]["phase"] == "Failed"
    for suffix in (".slow", ".gate"):
        assert node(seen, suffix)["message"] == "Step exceeded its deadline"
    assert "exitCode" not in node(seen, ".slow").get("outputs", {})
    assert output(seen, ".onExit") == "Failed"


def test_a_timeout_ends_a_step(argo: Client) -> None:
    seen = run(argo, sh("main", "sleep 60", timeout="1s"))
    assert node(seen)["message"] == "Pod was active on the node longer than the specified deadline"


def test_the_exit_handler_knows_what_failed(argo: Client) -> None:
    bye = say("{{workflow.failures}} {{workflow.name}}", "bye")
    seen = run(argo, dag(task("a", "bad")), BAD, bye, onExit="bye")
    said = output(seen, ".onExit")
    assert '"displayName' in said.replace("\\", "")
    assert "main: Error (exit code 1)" in said
    assert seen["status"]["phase"] == "Failed"
    failing = run(argo, OK, BAD, onExit="bad")
    assert (failing["status"]["phase"], node(failing)["phase"]) == ("Failed", "Succeeded")


def test_hooks_run_when_their_expression_comes_true(argo: Client) -> None:
    hooks = {
        "running": {"template": "say", "expression": "tasks.a.status == 'Running'"},
        "ended": {"template": "say", "expression": "tasks.a.status == 'Succeeded'"},
        "never": {"template": "say", "expression": "tasks.a.status == 'Failed'"},
    }
    seen = run(
        argo, dag(task("a", "slow", hooks=hooks), task("b", depends="a")), OK, sh("slow", "sleep 0.3"), say("x"),
        hooks={"failed": {"template": "say", "expression": "workflow.status == 'Failed'"},
               "started": {"template": "say", "expression": "workflow.status == 'Running'"}},
    )  # fmt: skip
    hooked = {key for key, item in nodes_of(seen).items() if item.get("nodeFlag", {}).get("hooked")}
    name = seen["metadata"]["name"]
    assert hooked == {f"{name}.a.hooks.running", f"{name}.a.hooks.ended", f"{name}.hooks.started"}


def test_the_exit_hook_of_a_step_sees_its_outputs(argo: Client) -> None:
    hook = {
        "template": "echo",
        "arguments": {"parameters": [{"name": "m", "value": "{{steps.a.outputs.parameters.o}}"}]},
    }
    main = steps([task("a", "say", hooks={"exit": hook})])
    seen = run(argo, main, say("five"), takes("echo", "m", text="got {{inputs.parameters.m}}"))
    assert output(seen, "[0].a.onExit") == "got five"


def test_retry_runs_only_what_failed_and_what_comes_after(argo: Client) -> None:
    main = dag(task("a", "say"), task("b", "maybe", depends="a"), task("c", depends="b"))
    maybe = sh("maybe", "exit {{workflow.parameters.code}}")
    spec = {"arguments": {"parameters": [{"name": "code", "value": "1"}]}, "onExit": "ok"}
    seen = run(argo, main, OK, say("x"), maybe, **spec)
    name, first = seen["metadata"]["name"], node(seen, ".a")
    assert phases_of(seen)["$.c"] == "Omitted"
    argo.do(name, "retry", parameters=["code=0"])
    again = argo.ended(name)
    assert again["status"]["phase"] == "Succeeded"
    assert set(phases_of(again).values()) == {"Succeeded"}
    assert node(again, ".a") == first


def test_retry_of_steps_and_loops_keeps_what_succeeded(argo: Client) -> None:
    fail = takes("pick", "i", text="x")
    fail["container"]["args"] = [
        "test {{inputs.parameters.i}} != {{workflow.parameters.bad}} && date +%N > /tmp/o"
    ]
    main = steps([task("first", "say")], [task("w", "pick", withItems=[1, 2, 3], given={"i": "{{item}}"})])
    spec = {"arguments": {"parameters": [{"name": "bad", "value": "2"}]}}
    seen = run(argo, main, say("x"), fail, **spec)
    name = seen["metadata"]["name"]
    argo.do(name, "retry")
    again = argo.ended(name)
    assert again["status"]["phase"] == "Failed"
    assert output(again, "[1].w(0:1)") == output(seen, "[1].w(0:1)")
    argo.do(name, "retry", parameters=["bad=9"])
    changed = argo.ended(name)
    assert changed["status"]["phase"] == "Succeeded"
    assert output(changed, "[1].w(0:1)") != output(seen, "[1].w(0:1)")
    assert node(changed, "[0].first")["finishedAt"] == node(seen, "[0].first")["finishedAt"]


def test_a_step_that_was_taken_over_once_is_taken_over_again(argo: Client) -> None:
    fail = sh("fail", "exit {{workflow.parameters.code}}")
    main = steps([task("first", "say")], [task("then", "fail")])
    seen = run(argo, main, say("x"), fail, arguments={"parameters": [{"name": "code", "value": "1"}]})
    name = seen["metadata"]["name"]
    for code in ("2", "0"):
        made = argo.do(name, "resubmit", memoized=True, parameters=[f"code={code}"])
        name = made["metadata"]["name"]
        again = argo.ended(name)
    assert phases_of(again) == {
        "$": "Succeeded", "$[0]": "Succeeded", "$[0].first": "Skipped", "$[1]": "Succeeded",
        "$[1].then": "Succeeded",
    }  # fmt: skip
    assert output(again, "[0].first") == "x"
    assert node(again, "[0].first")["message"] == f"original pod: {node(seen, '[0].first')['id']}"


def test_resubmit_starts_a_new_workflow_and_names_the_old_one(argo: Client) -> None:
    seen = run(
        argo, say("{{workflow.parameters.p}}"), arguments={"parameters": [{"name": "p", "value": "1"}]}
    )
    made = argo.do(seen["metadata"]["name"], "resubmit", parameters=["p=2"])
    again = argo.ended(made["metadata"]["name"])
    assert output(again, "") == "2"
    label = "workflows.argoproj.io/resubmitted-from-workflow"
    assert again["metadata"]["labels"][label] == seen["metadata"]["name"]


def test_retry_of_a_run_that_succeeded_runs_what_is_picked_and_what_comes_after(argo: Client) -> None:
    stamp = say("x", "stamp")
    stamp["container"]["args"] = ["date +%s%N > /tmp/o"]
    inner = {"name": "inner", "dag": {"tasks": [task("p", "stamp"), task("q", "stamp", depends="p")]}}
    main = steps([task("a", "stamp")], [task("i", "inner")], [task("z", "stamp")])
    seen = run(argo, main, inner, stamp)
    name = seen["metadata"]["name"]
    argo.do(name, "retry", restartSuccessful=True, nodeFieldSelector="displayName=q")
    again = argo.ended(name)
    assert again["status"]["phase"] == "Succeeded"
    assert sorted(phases_of(again)) == sorted(phases_of(seen))
    same = {
        suffix
        for suffix in ("[0].a", "[1].i.p", "[1].i.q", "[2].z")
        if output(again, suffix) == output(seen, suffix)
    }
    assert same == {"[0].a", "[1].i.p"}


def test_only_failures_that_pass_by_themselves_are_tried_again_where_only_those_are_to_be() -> None:
    strategy = {"limit": 2, "retryPolicy": "OnTransientError"}
    busy, bad = sh("busy", "exit 75", retryStrategy=strategy), sh("bad", "exit 1", retryStrategy=strategy)
    with local_argo(transient_error_pattern=re.compile("exit code 7[0-9]")) as argo:
        seen = run(argo, dag(task("busy", "busy"), task("bad", "bad")), busy, bad)
    assert len(node(seen, ".busy")["children"]) == 3
    assert node(seen, ".busy")["message"] == "No more retries left"
    assert len(node(seen, ".bad")["children"]) == 1
    assert node(seen, ".bad")["message"] == "main: Error (exit code 1)"


@pytest.mark.parametrize(
    ("message", "passes"),
    [
        ("failed to load artifact: dial tcp 127.0.0.1:9000: connect: connection refused", True),
        ("[Errno 104] Connection reset by peer", True),
        ("main: Error (exit code 1)", False),
        ("", False),
    ],
)
def test_a_store_that_was_away_is_a_failure_that_passes_and_an_exit_code_is_none(
    message: str, passes: bool
) -> None:
    assert is_transient(message, None) is passes


def test_the_deadline_of_a_workflow_ends_a_backoff_and_what_waits_for_the_step_does_not_begin(
    argo: Client,
) -> None:
    strategy = {"limit": 2, "backoff": {"duration": "10m"}}
    graph = dag(task("bad", "bad"), task("after", depends="bad"))
    seen = run(argo, graph, OK, BAD | {"retryStrategy": strategy}, activeDeadlineSeconds=1)
    assert node(seen, ".bad")["message"].startswith("retry exceeded workflow deadline ")
    assert phases_of(seen) == {
        "$": "Failed",
        "$.bad": "Failed",
        "$.bad(0)": "Failed",
        "$.after": "Omitted",
    }


def test_a_wait_takes_no_place_from_the_steps_beside_it(argo: Client) -> None:
    wait = {"name": "wait", "suspend": {}}
    name = start(argo, steps([task("wait", "wait"), task("ok")], parallelism=1), OK, wait)
    argo.until(name, lambda seen: phases_of(seen).get("$[0].ok") == "Succeeded")
    argo.do(name, "resume")
    assert argo.ended(name)["status"]["phase"] == "Succeeded"
