"""The language of manifests, as far as the recordings of a real Argo do not hold it already."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from periplus_local.argo.testing import Client, local_argo, nodes_of, phases_of

Body = dict[str, Any]


@pytest.fixture(scope="module")
def argo() -> Iterator[Client]:
    with local_argo(slots=4, grace_seconds=1) as client:
        yield client


def sh(name: str, command: str, **more: object) -> Body:
    return {
        "name": name,
        "container": {"image": "busybox", "command": ["sh", "-c"], "args": [command]},
        **more,
    }


def say(text: str, name: str = "say", **more: object) -> Body:
    """A template whose output parameter `o` is the text."""
    outputs = {"parameters": [{"name": "o", "valueFrom": {"path": "/tmp/o"}}]}
    return sh(name, f"printf '%s' '{text}' > /tmp/o", outputs=outputs, **more)


def takes(name: str, *inputs: str, text: str) -> Body:
    return say(text, name, inputs={"parameters": [{"name": key} for key in inputs]})


def task(name: str, template: str = "ok", /, **more: object) -> Body:
    given = more.pop("given", None)
    arguments = (
        {"arguments": {"parameters": [{"name": k, "value": v} for k, v in given.items()]}} if given else {}
    )
    return {"name": name, "template": template, **arguments, **more}


def dag(*tasks: Body, **more: object) -> Body:
    return {"name": "main", "dag": {"tasks": list(tasks)}, **more}


def steps(*groups: list[Body], **more: object) -> Body:
    return {"name": "main", "steps": list(groups), **more}


OK, BAD = sh("ok", "true"), sh("bad", "exit 1")


def run(argo: Client, *templates: Body, **spec: Any) -> Body:
    """The workflow with these templates, ended."""
    return argo.ended(start(argo, *templates, **spec))


def start(argo: Client, *templates: Body, **spec: Any) -> str:
    labels = spec.pop("labels", {})
    body = {"entrypoint": templates[0]["name"], "templates": list(templates), **spec}
    return argo.create({"metadata": {"generateName": "w-", "labels": labels}, "spec": body})


def node(workflow: Body, suffix: str = "") -> Body:
    return nodes_of(workflow)[workflow["metadata"]["name"] + suffix]


def output(workflow: Body, suffix: str, name: str = "o") -> str:
    parameters = node(workflow, suffix)["outputs"]["parameters"]
    return next(item["value"] for item in parameters if item["name"] == name)


def test_depends_knows_every_result(argo: Client) -> None:
    loop = {"withItems": [0, 1]}
    mixed = {"name": "mixed", **sh("x", "exit {{inputs.parameters.c}}")} | {
        "name": "mixed",
        "inputs": {"parameters": [{"name": "c"}]},
    }
    main = dag(
        task("good"),
        task("bad", "bad"),
        task("broken", "broken"),
        task("skipped", "ok", when="1 == 2"),
        task("omitted", "ok", depends="bad"),
        task("some", "mixed", given={"c": "{{item}}"}, **loop),
        task("none", "bad", **loop),
        task("a", depends="good.Succeeded"),
        task("b", depends="bad.Failed"),
        task("c", depends="broken.Errored"),
        task("d", depends="skipped.Skipped"),
        task("e", depends="omitted.Omitted"),
        task("f", depends="some.AnySucceeded"),
        task("g", depends="none.AllFailed"),
        task("h", depends="some.AllFailed || none.AnySucceeded"),
        task("i", depends="!good.Failed && (bad.Failed || good.Skipped)"),
    )
    main["dag"]["failFast"] = False
    broken = say("x", "broken")
    broken["container"]["args"] = ["true"]
    phases = phases_of(run(argo, main, OK, BAD, broken, mixed))
    assert {key: phases[f"$.{key}"] for key in "abcdefghi"} == {
        **dict.fromkeys("abcdefg", "Succeeded"),
        "h": "Omitted",
        "i": "Succeeded",
    }


def test_continue_on_lets_dependencies_go_on_and_does_not_fail_the_whole(argo: Client) -> None:
    first = task("a", "bad", continueOn={"failed": True})
    seen = run(argo, dag(first, task("b", dependencies=["a"])), OK, BAD)
    assert (seen["status"]["phase"], phases_of(seen)["$.b"]) == ("Succeeded", "Succeeded")
    last = run(
        argo, dag(task("a"), task("b", "bad", dependencies=["a"], continueOn={"failed": True})), OK, BAD
    )
    assert last["status"]["phase"] == "Succeeded"


def test_a_dag_runs_its_targets_and_what_they_need_and_nothing_else(argo: Client) -> None:
    main = dag(task("a"), task("b", depends="a"), task("c", depends="b"), task("d"))
    main["dag"]["target"] = "b"
    assert sorted(phases_of(run(argo, main, OK))) == ["$", "$.a", "$.b"]


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


def at_once(workflow: Body, prefix: str) -> int:
    """How many steps whose names begin so printed that they ran while others did."""
    marks = []
    for name, item in nodes_of(workflow).items():
        if prefix in name and item["type"] == "Pod":
            began, ended = item["outputs"]["parameters"][0]["value"].split()
            marks += [(float(began), 1), (float(ended), -1)]
    most = count = 0
    for _, change in sorted(marks):
        count += change
        most = max(most, count)
    return most


CLOCK = say("", "clock", inputs={"parameters": [{"name": "i", "default": ""}]})
CLOCK["container"]["args"] = ["a=$(date +%s.%N); sleep 0.15; echo $a $(date +%s.%N) > /tmp/o"]


@pytest.mark.parametrize(
    ("spec", "template", "most"), [({"parallelism": 2}, {}, 2), ({}, {"parallelism": 1}, 1)]
)
def test_parallelism_of_a_workflow_or_a_template_holds(
    argo: Client, spec: Body, template: Body, most: int
) -> None:
    main = dag(task("c", "clock", withItems=[1, 2, 3, 4], given={"i": "{{item}}"}), **template)
    assert at_once(run(argo, main, CLOCK, **spec), ".c(") == most


def test_a_mutex_lets_one_step_in_at_a_time_in_one_workflow_or_in_many(argo: Client) -> None:
    locked = CLOCK | {"synchronization": {"mutexes": [{"name": "door"}]}}
    main = dag(task("c", "clock", withItems=[1, 2, 3]))
    names = [start(argo, main, locked) for _ in range(2)]
    both = [argo.ended(name) for name in names]
    joined = {"metadata": {"name": "x"}, "status": {"nodes": {}}}
    for seen in both:
        joined["status"]["nodes"] |= seen["status"]["nodes"]
    assert at_once(joined, ".c(") == 1
    assert all("synchronizationStatus" not in item for item in joined["status"]["nodes"].values())


def test_a_step_that_waits_for_a_mutex_says_so_and_can_be_stopped(argo: Client) -> None:
    hold = sh("main", "sleep 30", synchronization={"mutexes": [{"name": "held"}]})
    first = start(argo, hold)
    argo.until(first, lambda w: phases_of(w).get("$") == "Running")
    second = start(argo, hold)
    waiting = argo.until(second, lambda w: phases_of(w).get("$") == "Pending")
    assert "held lock" in node(waiting)["message"]
    argo.do(second, "stop")
    assert argo.ended(second)["status"]["phase"] == "Failed"
    argo.do(first, "terminate")
    assert argo.ended(first)["status"]["phase"] == "Failed"


def test_fail_fast_of_a_template_starts_nothing_more(argo: Client) -> None:
    main = dag(task("w", "bad", withItems=[1, 2, 3]), failFast=True, parallelism=1)
    seen = run(argo, main, BAD)
    assert sorted(phases_of(seen)) == ["$", "$.w", "$.w(0:1)"]
    assert "failFast" in seen["status"]["message"]


def test_recursion_ends_at_a_depth(argo: Client) -> None:
    seen = run(argo, steps([task("again", "main")]))
    assert seen["status"]["phase"] in {"Failed", "Error"}
    assert any("recursion depth" in item.get("message", "") for item in nodes_of(seen).values())


def test_stop_runs_the_exit_handler_and_terminate_does_not(argo: Client) -> None:
    for deed, expected in (("stop", "Succeeded"), ("terminate", None)):
        name = start(
            argo, dag(task("a", "slow"), task("b", depends="a")), OK, sh("slow", "sleep 60"), onExit="ok"
        )
        argo.until(name, lambda w: phases_of(w).get("$.a") == "Running")
        argo.do(name, deed)
        seen = argo.ended(name)
        strategy = deed.capitalize()
        assert seen["status"]["message"] == f"Stopped with strategy '{strategy}'"
        assert node(seen, ".a")["message"] == f"workflow shutdown with strategy:  {strategy}"
        assert phases_of(seen).get("$.onExit") == expected


def test_a_suspended_workflow_starts_nothing_until_it_is_resumed(argo: Client) -> None:
    name = start(argo, OK, suspend=True)
    time.sleep(0.2)
    assert phases_of(argo.get(name)) == {}
    argo.do(name, "resume")
    assert argo.ended(name)["status"]["phase"] == "Succeeded"


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
    argo.do(name, "retry", parameters=["bad=9"])
    again = argo.ended(name)
    assert again["status"]["phase"] == "Succeeded"
    assert output(again, "[1].w(0:1)") == output(seen, "[1].w(0:1)")
    assert phases_of(again)["$[1].w(1:2)"] == "Succeeded"


def test_resubmit_starts_a_new_workflow_and_names_the_old_one(argo: Client) -> None:
    seen = run(
        argo, say("{{workflow.parameters.p}}"), arguments={"parameters": [{"name": "p", "value": "1"}]}
    )
    made = argo.do(seen["metadata"]["name"], "resubmit", parameters=["p=2"])
    again = argo.ended(made["metadata"]["name"])
    assert output(again, "") == "2"
    label = "workflows.argoproj.io/resubmitted-from-workflow"
    assert again["metadata"]["labels"][label] == seen["metadata"]["name"]


def test_variables_of_the_workflow_are_there(argo: Client) -> None:
    text = " ".join(
        f"{{{{workflow.{key}}}}}"
        for key in (
            "namespace", "mainEntrypoint", "serviceAccountName", "priority", "creationTimestamp.Y",
            "labels.team", "parameters.p",
        )
    )  # fmt: skip
    seen = run(
        argo, say(text + " {{pod.name}} {{node.name}}"), serviceAccountName="sa", priority=3, labels={"team": "blue"},
        arguments={"parameters": [{"name": "p", "value": 1.5}]},
    )  # fmt: skip
    name = seen["metadata"]["name"]
    year = seen["metadata"]["creationTimestamp"][:4]
    assert output(seen, "") == f"argo say sa 3 {year} blue 1.5 {name} {name}"


def test_global_outputs_are_seen_by_later_steps_and_shown_by_the_workflow(argo: Client) -> None:
    named = say("seven", "give")
    named["outputs"]["parameters"][0]["globalName"] = "g"
    main = steps([task("a", "give")], [task("b", "take")])
    seen = run(argo, main, named, say("{{workflow.outputs.parameters.g}}", "take"))
    assert output(seen, "[1].b") == "seven"
    assert seen["status"]["outputs"]["parameters"] == [{"name": "g", "value": "seven"}]


def test_tasks_see_the_status_times_and_exit_codes_of_others(argo: Client) -> None:
    given = {"m": "{{tasks.a.status}} {{tasks.a.exitCode}} {{tasks.a.finishedAt}}"}
    main = dag(task("a", "bad"), task("b", "echo", depends="a.Failed", given=given))
    seen = run(argo, main, BAD, takes("echo", "m", text="{{inputs.parameters.m}}"))
    assert output(seen, ".b") == f"Failed 1 {node(seen, '.a')['finishedAt']}"


def test_a_skipped_step_gives_its_default_or_lets_the_taker_use_its_own(argo: Client) -> None:
    produce = say("x", "make")
    produce["outputs"]["parameters"].append({"name": "d", "valueFrom": {"path": "/tmp/d", "default": "made"}})
    take = takes("take", "m", "d", text="{{inputs.parameters.m}} {{inputs.parameters.d}}")
    take["inputs"]["parameters"][0]["default"] = "own"
    ref = "{{tasks.a.outputs.parameters.%s}}"
    main = dag(
        task("a", "make", when="1 == 2"),
        task("b", "take", depends="a", given={"m": ref % "o", "d": ref % "d"}),
    )
    assert output(run(argo, main, produce, take), ".b") == "own made"


def test_results_of_a_loop_are_one_json_list_and_only_captured_when_asked_for(argo: Client) -> None:
    script = {"name": "gen", "inputs": {"parameters": [{"name": "i"}]}}
    script["script"] = {
        "image": "busybox",
        "command": ["sh"],
        "source": 'echo "{\\"n\\": {{inputs.parameters.i}}}"',
    }
    loop = task("g", "gen", withItems=[1, 2], given={"i": "{{item}}"})
    main = dag(loop, task("t", "echo", depends="g", given={"m": "{{tasks.g.outputs.result}}"}))
    seen = run(argo, main, script, takes("echo", "m", text="{{inputs.parameters.m}}"))
    assert output(seen, ".t") == '[{"n":1},{"n":2}]'
    alone = run(argo, dag(loop), script)
    assert "result" not in node(alone, ".g(0:1)")["outputs"]


def test_an_inline_template_and_a_sequence_in_steps(argo: Client) -> None:
    inline = {"container": {"image": "busybox", "command": ["true"]}}
    main = steps(
        [{"name": "i", "inline": inline}], [task("s", "ok", withSequence={"count": "2", "start": "5"})]
    )
    assert set(phases_of(run(argo, main, OK))) >= {"$[0].i", "$[1].s(0:5)", "$[1].s(1:6)"}


def test_two_hundred_workflows_at_once_all_end(argo: Client) -> None:
    gate = {"name": "main", "suspend": {"duration": "0"}}
    names = [start(argo, gate) for _ in range(200)]
    assert {argo.ended(name)["status"]["phase"] for name in names} == {"Succeeded"}


def test_two_thousand_steps_in_one_workflow_end(argo: Client) -> None:
    tasks = [task("t0", "ok", when="1 == 2")]
    tasks += [task(f"t{i}", "ok", when="1 == 2", depends=f"t{i - 1}") for i in range(1, 2000)]
    seen = run(argo, dag(*tasks), OK)
    assert len(nodes_of(seen)) == 2001
    assert seen["status"]["phase"] == "Succeeded"


def test_a_flow_that_waits_is_one_workflow_and_holds_no_pod_meanwhile(argo: Client) -> None:
    flow = takes("flow", "attempt", text="{{=asInt(inputs.parameters.attempt) < 2 ? 'waiting' : 'done'}}")
    state = "{{steps.flow.outputs.parameters.o}}"
    main = {
        "name": "main",
        "inputs": {"parameters": [{"name": "attempt", "default": "0"}]},
        "steps": [
            [task("flow", "flow", given={"attempt": "{{inputs.parameters.attempt}}"})],
            [task("wait", "wait", when=f"{state} == waiting")],
            [
                task(
                    "again",
                    "main",
                    when=f"{state} == waiting",
                    given={"attempt": "{{=asInt(inputs.parameters.attempt) + 1}}"},
                )
            ],
        ],
        "outputs": {
            "parameters": [
                {
                    "name": "state",
                    "valueFrom": {
                        "expression": "steps.flow.outputs.parameters.o == 'waiting' "
                        "? steps.again.outputs.parameters.state : steps.flow.outputs.parameters.o"
                    },
                }
            ]
        },
    }
    name = start(argo, main, flow, {"name": "wait", "suspend": {}})
    for depth in range(2):
        suffix = "$" + "[2].again" * depth + "[1].wait"
        argo.until(name, lambda w, suffix=suffix: phases_of(w).get(suffix) == "Running")
        argo.do(name, "resume")
    seen = argo.ended(name)
    assert output(seen, "", "state") == "done"
    assert [item["type"] for item in nodes_of(seen).values()].count("Pod") == 3


def test_the_items_of_a_loop_are_skipped_one_by_one(argo: Client) -> None:
    main = dag(
        task("w", "echo", withItems=[1, 2, 3], when="{{item}} != 2", given={"m": "{{item}}"}),
        task("all", "echo", depends="w", given={"m": "{{tasks.w.outputs.parameters.o}}"}),
    )
    seen = run(argo, main, takes("echo", "m", text="{{inputs.parameters.m}}"))
    assert (node(seen, ".w(1:2)")["type"], node(seen, ".w(1:2)")["message"]) == (
        "Skipped",
        "when '2 != 2' evaluated false",
    )
    assert output(seen, ".all") == '["1","3"]'


def test_items_that_are_maps_and_lists_are_seen_by_tags_and_expressions(argo: Client) -> None:
    items = [{"a": "x", "b": {"c": 1}}, {"a": "y", "b": [1, 2]}]
    main = steps([task("w", "echo", withItems=items, given={"m": "{{item.a}}-{{item.b}}-{{=item.a}}"})])
    seen = run(argo, main, takes("echo", "m", text="{{inputs.parameters.m}}"))
    said = sorted(
        item["outputs"]["parameters"][0]["value"] for item in nodes_of(seen).values() if item["type"] == "Pod"
    )
    assert [text.split("-")[0] + text.split("-")[-1] for text in said] == ["xx", "yy"]


def test_a_with_param_that_is_no_list_fails_the_task_that_asked(argo: Client) -> None:
    main = dag(task("a", "say"), task("b", "ok", depends="a", withParam="{{tasks.a.outputs.parameters.o}}"))
    seen = run(argo, main, OK, say("no list"))
    assert (seen["status"]["phase"], phases_of(seen)["$.b"]) == ("Error", "Error")
    assert node(seen, ".b")["message"]


def test_a_reference_to_a_gate_that_was_resumed_without_an_answer_is_an_error_and_no_hang(
    argo: Client,
) -> None:
    gate = {
        "name": "gate",
        "suspend": {},
        "outputs": {"parameters": [{"name": "x", "valueFrom": {"supplied": {}}}]},
    }
    main = dag(
        task("g", "gate"), task("b", "echo", depends="g", given={"m": "{{tasks.g.outputs.parameters.x}}"})
    )
    name = start(argo, main, gate, takes("echo", "m", text="{{inputs.parameters.m}}"))
    argo.until(name, lambda w: phases_of(w).get("$.g") == "Running")
    argo.do(name, "resume", nodeFieldSelector="displayName=g")
    seen = argo.ended(name)
    assert (seen["status"]["phase"], node(seen, ".b")["phase"]) == ("Error", "Error")
    assert "tasks.g.outputs.parameters.x" in node(seen, ".b")["message"]


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
