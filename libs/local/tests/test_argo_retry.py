"""Retries, deadlines, hooks and exit handlers; retry and resubmission of a workflow."""

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
    ended = run(argo, BAD | {"retryStrategy": strategy})
    assert time.monotonic() - began > 0.7  # 0.1 + 0.2 + 0.4 seconds of waiting
    assert node(ended)["message"] == "No more retries left"
    assert len(node(ended)["children"]) == 4
    strategy = {"limit": 10, "backoff": {"duration": "2", "factor": 2, "maxDuration": "1s"}}
    assert node(run(argo, BAD | {"retryStrategy": strategy}))["message"] in {
        "Backoff would exceed max duration limit",
        "Max duration limit exceeded",
    }


def test_a_retry_policy_distinguishes_failures_from_errors(argo: Client) -> None:
    lost = say("x", "lost")
    lost["container"]["args"] = ["true"]
    for template, policy, tries in (
        (lost, "OnFailure", 1),
        (lost, "OnError", 2),
        (BAD, "OnError", 1),
        (BAD, "OnFailure", 2),
        (lost, "Always", 2),
    ):
        ended = run(argo, template | {"retryStrategy": {"limit": "1", "retryPolicy": policy}})
        assert len(node(ended)["children"]) == tries, (template["name"], policy)


def test_an_attempt_can_refer_to_the_end_of_the_last_one(argo: Client) -> None:
    outputs = {"parameters": [{"name": "o", "valueFrom": {"path": "/tmp/o"}}]}
    command = (
        "echo {{retries}} {{lastRetry.exitCode}} {{lastRetry.status}} > /tmp/o; exit {{=3 - asInt(retries)}}"
    )
    ended = run(argo, sh("main", command, outputs=outputs, retryStrategy={"limit": 5}))
    printed = [output(ended, f"({index})") for index in range(4)]
    assert printed == ["0 0", "1 3 Failed", "2 2 Failed", "3 1 Failed"]
    assert node(ended)["outputs"]["exitCode"] == "0"


def test_template_defaults_make_dags_and_steps_retry_too(argo: Client) -> None:
    ended = run(argo, steps([task("a")]), OK, templateDefaults={"retryStrategy": {"limit": "0"}})
    assert phases_of(ended) == dict.fromkeys(
        ["$", "$(0)", "$(0)[0]", "$(0)[0].a", "$(0)[0].a(0)"], "Succeeded"
    )
    assert node(ended)["type"] == "Retry"


def test_the_deadline_of_a_workflow_ends_steps_and_gates_but_not_the_exit_handler(argo: Client) -> None:
    main = dag(task("slow", "slow"), task("gate", "gate"))
    gate = {"name": "gate", "suspend": {}}
    ended = run(
        argo, main, sh("slow", "sleep 60"), gate, say("{{workflow.status}}", "bye"),
        activeDeadlineSeconds=1, onExit="bye",
    )  # fmt: skip
    assert ended["status"]["phase"] == "Failed"
    for suffix in (".slow", ".gate"):
        assert node(ended, suffix)["message"] == "Step exceeded its deadline"
    assert "exitCode" not in node(ended, ".slow").get("outputs", {})
    assert output(ended, ".onExit") == "Failed"


def test_a_timeout_ends_a_step(argo: Client) -> None:
    ended = run(argo, sh("main", "sleep 60", timeout="1s"))
    assert node(ended)["message"] == "Pod was active on the node longer than the specified deadline"


def test_the_exit_handler_can_refer_to_the_failures(argo: Client) -> None:
    bye = say("{{workflow.failures}} {{workflow.name}}", "bye")
    ended = run(argo, dag(task("a", "bad")), BAD, bye, onExit="bye")
    printed = output(ended, ".onExit")
    assert '"displayName' in printed.replace("\\", "")
    assert "main: Error (exit code 1)" in printed
    assert ended["status"]["phase"] == "Failed"
    failing = run(argo, OK, BAD, onExit="bad")
    assert (failing["status"]["phase"], node(failing)["phase"]) == ("Failed", "Succeeded")


def test_hooks_run_when_their_expression_becomes_true(argo: Client) -> None:
    hooks = {
        "running": {"template": "say", "expression": "tasks.a.status == 'Running'"},
        "ended": {"template": "say", "expression": "tasks.a.status == 'Succeeded'"},
        "never": {"template": "say", "expression": "tasks.a.status == 'Failed'"},
    }
    ended = run(
        argo, dag(task("a", "slow", hooks=hooks), task("b", depends="a")), OK, sh("slow", "sleep 0.3"), say("x"),
        hooks={"failed": {"template": "say", "expression": "workflow.status == 'Failed'"},
               "started": {"template": "say", "expression": "workflow.status == 'Running'"}},
    )  # fmt: skip
    hooked = {key for key, item in nodes_of(ended).items() if item.get("nodeFlag", {}).get("hooked")}
    name = ended["metadata"]["name"]
    assert hooked == {f"{name}.a.hooks.running", f"{name}.a.hooks.ended", f"{name}.hooks.started"}


def test_the_exit_hook_of_a_step_can_refer_to_its_outputs(argo: Client) -> None:
    hook = {
        "template": "echo",
        "arguments": {"parameters": [{"name": "m", "value": "{{steps.a.outputs.parameters.o}}"}]},
    }
    main = steps([task("a", "say", hooks={"exit": hook})])
    ended = run(argo, main, say("five"), takes("echo", "m", text="got {{inputs.parameters.m}}"))
    assert output(ended, "[0].a.onExit") == "got five"


def test_retry_runs_only_what_failed_and_what_comes_after(argo: Client) -> None:
    main = dag(task("a", "say"), task("b", "maybe", depends="a"), task("c", depends="b"))
    maybe = sh("maybe", "exit {{workflow.parameters.code}}")
    spec = {"arguments": {"parameters": [{"name": "code", "value": "1"}]}, "onExit": "ok"}
    ended = run(argo, main, OK, say("x"), maybe, **spec)
    name, first = ended["metadata"]["name"], node(ended, ".a")
    assert phases_of(ended)["$.c"] == "Omitted"
    argo.do(name, "retry", parameters=["code=0"])
    retried = argo.ended(name)
    assert retried["status"]["phase"] == "Succeeded"
    assert set(phases_of(retried).values()) == {"Succeeded"}
    assert node(retried, ".a") == first


def test_retry_of_steps_and_loops_keeps_what_succeeded(argo: Client) -> None:
    fail = takes("pick", "i", text="x")
    fail["container"]["args"] = [
        "test {{inputs.parameters.i}} != {{workflow.parameters.bad}} && date +%N > /tmp/o"
    ]
    main = steps([task("first", "say")], [task("w", "pick", withItems=[1, 2, 3], given={"i": "{{item}}"})])
    spec = {"arguments": {"parameters": [{"name": "bad", "value": "2"}]}}
    ended = run(argo, main, say("x"), fail, **spec)
    name = ended["metadata"]["name"]
    argo.do(name, "retry")
    retried = argo.ended(name)
    assert retried["status"]["phase"] == "Failed"
    assert output(retried, "[1].w(0:1)") == output(ended, "[1].w(0:1)")
    argo.do(name, "retry", parameters=["bad=9"])
    changed = argo.ended(name)
    assert changed["status"]["phase"] == "Succeeded"
    assert output(changed, "[1].w(0:1)") != output(ended, "[1].w(0:1)")
    assert node(changed, "[0].first")["finishedAt"] == node(ended, "[0].first")["finishedAt"]


def test_a_memoized_step_stays_memoized_in_the_next_resubmission(argo: Client) -> None:
    fail = sh("fail", "exit {{workflow.parameters.code}}")
    main = steps([task("first", "say")], [task("then", "fail")])
    ended = run(argo, main, say("x"), fail, arguments={"parameters": [{"name": "code", "value": "1"}]})
    name = ended["metadata"]["name"]
    for code in ("2", "0"):
        resubmitted = argo.do(name, "resubmit", memoized=True, parameters=[f"code={code}"])
        name = resubmitted["metadata"]["name"]
        retried = argo.ended(name)
    assert phases_of(retried) == {
        "$": "Succeeded", "$[0]": "Succeeded", "$[0].first": "Skipped", "$[1]": "Succeeded",
        "$[1].then": "Succeeded",
    }  # fmt: skip
    assert output(retried, "[0].first") == "x"
    assert node(retried, "[0].first")["message"] == f"original pod: {node(ended, '[0].first')['id']}"


def test_resubmit_starts_a_new_workflow_with_a_label_that_names_the_old_one(argo: Client) -> None:
    ended = run(
        argo, say("{{workflow.parameters.p}}"), arguments={"parameters": [{"name": "p", "value": "1"}]}
    )
    resubmitted = argo.do(ended["metadata"]["name"], "resubmit", parameters=["p=2"])
    retried = argo.ended(resubmitted["metadata"]["name"])
    assert output(retried, "") == "2"
    label = "workflows.argoproj.io/resubmitted-from-workflow"
    assert retried["metadata"]["labels"][label] == ended["metadata"]["name"]


def test_retry_of_a_successful_workflow_runs_the_selected_node_and_what_follows(argo: Client) -> None:
    stamp = say("x", "stamp")
    stamp["container"]["args"] = ["date +%s%N > /tmp/o"]
    inner = {"name": "inner", "dag": {"tasks": [task("p", "stamp"), task("q", "stamp", depends="p")]}}
    main = steps([task("a", "stamp")], [task("i", "inner")], [task("z", "stamp")])
    ended = run(argo, main, inner, stamp)
    name = ended["metadata"]["name"]
    argo.do(name, "retry", restartSuccessful=True, nodeFieldSelector="displayName=q")
    retried = argo.ended(name)
    assert retried["status"]["phase"] == "Succeeded"
    assert sorted(phases_of(retried)) == sorted(phases_of(ended))
    same = {
        suffix
        for suffix in ("[0].a", "[1].i.p", "[1].i.q", "[2].z")
        if output(retried, suffix) == output(ended, suffix)
    }
    assert same == {"[0].a", "[1].i.p"}


def test_on_transient_error_retries_only_messages_that_match_the_pattern() -> None:
    strategy = {"limit": 2, "retryPolicy": "OnTransientError"}
    busy, bad = sh("busy", "exit 75", retryStrategy=strategy), sh("bad", "exit 1", retryStrategy=strategy)
    with local_argo(transient_error_pattern=re.compile("exit code 7[0-9]")) as argo:
        ended = run(argo, dag(task("busy", "busy"), task("bad", "bad")), busy, bad)
    assert len(node(ended, ".busy")["children"]) == 3
    assert node(ended, ".busy")["message"] == "No more retries left"
    assert len(node(ended, ".bad")["children"]) == 1
    assert node(ended, ".bad")["message"] == "main: Error (exit code 1)"


@pytest.mark.parametrize(
    ("message", "passes"),
    [
        ("failed to load artifact: dial tcp 127.0.0.1:9000: connect: connection refused", True),
        ("[Errno 104] Connection reset by peer", True),
        ("main: Error (exit code 1)", False),
        ("", False),
    ],
)
def test_connection_errors_are_transient_and_exit_codes_are_not(message: str, passes: bool) -> None:
    assert is_transient(message, None) is passes


def test_the_deadline_of_a_workflow_ends_a_backoff_and_dependents_do_not_start(
    argo: Client,
) -> None:
    strategy = {"limit": 2, "backoff": {"duration": "10m"}}
    graph = dag(task("bad", "bad"), task("after", depends="bad"))
    ended = run(argo, graph, OK, BAD | {"retryStrategy": strategy}, activeDeadlineSeconds=1)
    assert node(ended, ".bad")["message"].startswith("retry exceeded workflow deadline ")
    assert phases_of(ended) == {
        "$": "Failed",
        "$.bad": "Failed",
        "$.bad(0)": "Failed",
        "$.after": "Omitted",
    }


def test_a_suspend_node_does_not_count_for_parallelism(argo: Client) -> None:
    wait = {"name": "wait", "suspend": {}}
    name = start(argo, steps([task("wait", "wait"), task("ok")], parallelism=1), OK, wait)
    argo.until(name, lambda w: phases_of(w).get("$[0].ok") == "Succeeded")
    argo.do(name, "resume")
    assert argo.ended(name)["status"]["phase"] == "Succeeded"
