"""The language of manifests, where the recordings of a real Argo do not cover it."""

from collections.abc import Iterator

import pytest

from periplus_local.argo.samples import BAD, OK, dag, node, output, run, say, sh, start, steps, takes, task
from periplus_local.argo.testing import Client, local_argo, nodes_of, phases_of


@pytest.fixture(scope="module")
def argo() -> Iterator[Client]:
    with local_argo(slots=4, grace_seconds=1) as client:
        yield client


def test_depends_evaluates_every_result(argo: Client) -> None:
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


def test_continue_on_lets_dependents_run_and_does_not_fail_the_workflow(argo: Client) -> None:
    first = task("a", "bad", continueOn={"failed": True})
    ended = run(argo, dag(first, task("b", dependencies=["a"])), OK, BAD)
    assert (ended["status"]["phase"], phases_of(ended)["$.b"]) == ("Succeeded", "Succeeded")
    last = run(
        argo, dag(task("a"), task("b", "bad", dependencies=["a"], continueOn={"failed": True})), OK, BAD
    )
    assert last["status"]["phase"] == "Succeeded"


def test_a_dag_runs_only_its_targets_and_their_dependencies(argo: Client) -> None:
    main = dag(task("a"), task("b", depends="a"), task("c", depends="b"), task("d"))
    main["dag"]["target"] = "b"
    assert sorted(phases_of(run(argo, main, OK))) == ["$", "$.a", "$.b"]


def test_workflow_variables_have_their_values(argo: Client) -> None:
    text = " ".join(
        f"{{{{workflow.{key}}}}}"
        for key in (
            "namespace", "mainEntrypoint", "serviceAccountName", "priority", "creationTimestamp.Y",
            "labels.team", "parameters.p",
        )
    )  # fmt: skip
    ended = run(
        argo, say(text + " {{pod.name}} {{node.name}}"), serviceAccountName="sa", priority=3, labels={"team": "blue"},
        arguments={"parameters": [{"name": "p", "value": 1.5}]},
    )  # fmt: skip
    name = ended["metadata"]["name"]
    year = ended["metadata"]["creationTimestamp"][:4]
    assert output(ended, "") == f"argo say sa 3 {year} blue 1.5 {name} {name}"


def test_global_outputs_are_variables_of_later_steps_and_outputs_of_the_workflow(argo: Client) -> None:
    named = say("seven", "give")
    named["outputs"]["parameters"][0]["globalName"] = "g"
    main = steps([task("a", "give")], [task("b", "take")])
    ended = run(argo, main, named, say("{{workflow.outputs.parameters.g}}", "take"))
    assert output(ended, "[1].b") == "seven"
    assert ended["status"]["outputs"]["parameters"] == [{"name": "g", "value": "seven"}]


def test_tasks_can_refer_to_status_times_and_exit_codes_of_others(argo: Client) -> None:
    given = {"m": "{{tasks.a.status}} {{tasks.a.exitCode}} {{tasks.a.finishedAt}}"}
    main = dag(task("a", "bad"), task("b", "echo", depends="a.Failed", given=given))
    ended = run(argo, main, BAD, takes("echo", "m", text="{{inputs.parameters.m}}"))
    assert output(ended, ".b") == f"Failed 1 {node(ended, '.a')['finishedAt']}"


def test_an_output_of_a_skipped_step_has_its_default_or_that_of_the_input(argo: Client) -> None:
    produce = say("x", "make")
    produce["outputs"]["parameters"].append(
        {"name": "d", "valueFrom": {"path": "/tmp/d", "default": "default"}}
    )
    take = takes("take", "m", "d", text="{{inputs.parameters.m}} {{inputs.parameters.d}}")
    take["inputs"]["parameters"][0]["default"] = "own"
    ref = "{{tasks.a.outputs.parameters.%s}}"
    main = dag(
        task("a", "make", when="1 == 2"),
        task("b", "take", depends="a", given={"m": ref % "o", "d": ref % "d"}),
    )
    assert output(run(argo, main, produce, take), ".b") == "own default"


def test_results_of_a_loop_are_one_json_list_and_captured_only_if_referred_to(argo: Client) -> None:
    script = {"name": "gen", "inputs": {"parameters": [{"name": "i"}]}}
    script["script"] = {
        "image": "busybox",
        "command": ["sh"],
        "source": 'echo "{\\"n\\": {{inputs.parameters.i}}}"',
    }
    loop = task("g", "gen", withItems=[1, 2], given={"i": "{{item}}"})
    main = dag(loop, task("t", "echo", depends="g", given={"m": "{{tasks.g.outputs.result}}"}))
    ended = run(argo, main, script, takes("echo", "m", text="{{inputs.parameters.m}}"))
    assert output(ended, ".t") == '[{"n":1},{"n":2}]'
    alone = run(argo, dag(loop), script)
    assert "result" not in node(alone, ".g(0:1)")["outputs"]


def test_steps_run_inline_templates_and_sequences(argo: Client) -> None:
    inline = {"container": {"image": "busybox", "command": ["true"]}}
    main = steps(
        [{"name": "i", "inline": inline}], [task("s", "ok", withSequence={"count": "2", "start": "5"})]
    )
    assert set(phases_of(run(argo, main, OK))) >= {"$[0].i", "$[1].s(0:5)", "$[1].s(1:6)"}


def test_a_suspended_workflow_has_no_running_pod(argo: Client) -> None:
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
    ended = argo.ended(name)
    assert output(ended, "", "state") == "done"
    assert [item["type"] for item in nodes_of(ended).values()].count("Pod") == 3


def test_the_items_of_a_loop_are_skipped_one_by_one(argo: Client) -> None:
    main = dag(
        task("w", "echo", withItems=[1, 2, 3], when="{{item}} != 2", given={"m": "{{item}}"}),
        task("all", "echo", depends="w", given={"m": "{{tasks.w.outputs.parameters.o}}"}),
    )
    ended = run(argo, main, takes("echo", "m", text="{{inputs.parameters.m}}"))
    assert (node(ended, ".w(1:2)")["type"], node(ended, ".w(1:2)")["message"]) == (
        "Skipped",
        "when '2 != 2' evaluated false",
    )
    assert output(ended, ".all") == '["1","3"]'


def test_items_that_are_maps_or_lists_work_in_tags_and_expressions(argo: Client) -> None:
    items = [{"a": "x", "b": {"c": 1}}, {"a": "y", "b": [1, 2]}]
    main = steps([task("w", "echo", withItems=items, given={"m": "{{item.a}}-{{item.b}}-{{=item.a}}"})])
    ended = run(argo, main, takes("echo", "m", text="{{inputs.parameters.m}}"))
    texts = sorted(
        item["outputs"]["parameters"][0]["value"]
        for item in nodes_of(ended).values()
        if item["type"] == "Pod"
    )
    assert [text.split("-")[0] + text.split("-")[-1] for text in texts] == ["xx", "yy"]


def test_a_with_param_that_is_no_list_fails_its_task(argo: Client) -> None:
    main = dag(task("a", "say"), task("b", "ok", depends="a", withParam="{{tasks.a.outputs.parameters.o}}"))
    ended = run(argo, main, OK, say("no list"))
    assert (ended["status"]["phase"], phases_of(ended)["$.b"]) == ("Error", "Error")
    assert node(ended, ".b")["message"]


def test_a_reference_to_a_gate_that_was_resumed_without_outputs_ends_in_error(
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
    ended = argo.ended(name)
    assert (ended["status"]["phase"], node(ended, ".b")["phase"]) == ("Error", "Error")
    assert "tasks.g.outputs.parameters.x" in node(ended, ".b")["message"]
