"""From a plan to the manifest that Argo runs: only calls change, and Argo would take what comes out."""

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from manifests import MISS, UNKNOWN, dag, expand_checked, gives, hit, say, sh, steps, task, workflow

from periplus_dispatcher.rewrite.generated import RewrittenManifest
from periplus_dispatcher.rewrite.plan import decide
from periplus_dispatcher.rewrite.rewriter import rewrite, to_submit
from periplus_manifest.check import check
from periplus_model.queries import StepVerdict
from periplus_model.steps import Artifact, ObjectRef, Outputs, Verdict

Json = dict[str, Any]
NOW = datetime(2026, 11, 29, tzinfo=UTC)
T = say("t", "$x", "x")
A = task("a", "t", given={"x": "1"})
B = task("b", "t", depends="a", given={"x": "{{tasks.a.outputs.parameters.o}}"})


def rewritten(manifest: Json, known: dict[str, StepVerdict], seconds: int = 60) -> RewrittenManifest:
    """Rewrite; what comes out must be taken by Argo, and the user's manifest must stay as it was."""
    before = copy.deepcopy(manifest)
    expanded = expand_checked(manifest)
    done = rewrite(
        manifest, decide(expanded, known), expanded.templates, gate_timeout=timedelta(seconds=seconds)
    )
    assert manifest == before
    check(done.manifest)
    leaves = [t for t in before["spec"]["templates"] if "container" in t or "script" in t]
    assert [t for t in done.manifest["spec"]["templates"] if t in leaves] == leaves, (
        "user templates stay as they are"
    )
    return done


def named(done: RewrittenManifest, name: str) -> Json:
    found: Json = next(t for t in done.manifest["spec"]["templates"] if t["name"] == name)
    return found


def called(done: RewrittenManifest, call: str, template: str = "main") -> Json:
    holder = named(done, template)
    calls = holder["dag"]["tasks"] if "dag" in holder else [t for g in holder["steps"] for t in g]
    found: Json = next(t for t in calls if t["name"] == call)
    return found


def test_a_plan_that_changes_nothing_gives_the_manifest_itself() -> None:
    manifest = workflow(dag(A, B), T)
    assert rewritten(manifest, {"a": MISS, "b": MISS}).manifest is manifest


def test_a_hit_becomes_a_call_that_carries_its_outputs_and_runs_nothing() -> None:
    done = rewritten(workflow(dag(A, B), T), {"a": hit(o="v"), "b": MISS})
    assert called(done, "a") == {
        "name": "a", "template": "t--hit",
        "arguments": {"parameters": [{"name": "periplus-p-o", "value": "v"}], "artifacts": []},
    }  # fmt: skip
    assert named(done, "t--hit") == {
        "name": "t--hit",
        "inputs": {"parameters": [{"name": "periplus-p-o"}], "artifacts": []},
        "dag": {"tasks": [{"name": "run", "template": "periplus-never", "when": "false"}]},
        "outputs": {
            "parameters": [{"name": "o", "valueFrom": {"expression": "inputs.parameters['periplus-p-o']"}}],
            "artifacts": [],
        },
    }  # fmt: skip
    assert called(done, "b") == B


def test_a_gate_asks_before_the_users_template_is_called() -> None:
    done = rewritten(workflow(dag(A, B), T), {"a": MISS, "b": UNKNOWN}, seconds=7)
    assert called(done, "a") == A
    assert called(done, "b") == B | {"template": "t--cached"}
    passed = {"parameters": [{"name": "x", "value": "{{inputs.parameters.x}}"}], "artifacts": []}
    gate, sel = named(done, "t--cached")["dag"]["tasks"]
    assert gate == {"name": "gate", "template": "t--gate", "arguments": passed}
    assert sel["depends"] == "gate"
    assert [p["name"] for p in sel["arguments"]["parameters"]] == ["x", "periplus-hit", "periplus-p-o"]
    assert named(done, "t--gate") == {
        "name": "t--gate",
        "inputs": {"parameters": [{"name": "x"}], "artifacts": []},
        "suspend": {"duration": "7s"},
        "outputs": {"parameters": [
            {"name": "periplus-hit", "valueFrom": {"supplied": {}, "default": "false"}},
            {"name": "periplus-p-o", "valueFrom": {"supplied": {}, "default": ""}},
        ]},
    }  # fmt: skip
    run = named(done, "t--select")["dag"]["tasks"][0]
    assert (run["template"], run["when"]) == ("t", "{{inputs.parameters.periplus-hit}} != true")
    assert done.generated["t--gate"].supplied == ("periplus-hit", "periplus-p-o")


def test_calls_of_one_template_share_a_wrapper_and_templates_with_one_signature_do_not() -> None:
    other = say("u", "other $x", "x")
    more = task("c", "t", depends="a", given={"x": "{{tasks.a.outputs.parameters.o}}"})
    alike = task("d", "u", depends="a", given={"x": "{{tasks.a.outputs.parameters.o}}"})
    done = rewritten(
        workflow(dag(A, B, more, alike), T, other), {"a": MISS, "b": UNKNOWN, "c": UNKNOWN, "d": UNKNOWN}
    )
    assert called(done, "b")["template"] == called(done, "c")["template"] == "t--stretch"
    assert called(done, "d")["template"] == "u--stretch"
    assert [t["template"] for t in named(done, "t--stretch")["dag"]["tasks"]] == ["t--cached", "t"]
    assert named(done, "u--select")["dag"]["tasks"][0]["template"] == "u"


FAN = task("f", "t", depends="a", withParam="{{tasks.a.outputs.parameters.o}}",
           given={"x": "{{item.n}}-{{tasks.a.outputs.parameters.o}}-{{workflow.name}}"})  # fmt: skip


def test_a_fan_out_moves_its_loop_behind_one_gate() -> None:
    done = rewritten(workflow(dag(A, FAN), T), {"a": MISS, "f": UNKNOWN})
    call = called(done, "f")
    assert not {"withParam", "withItems", "withSequence"} & set(call)
    assert [(p["name"], p["value"]) for p in call["arguments"]["parameters"]] == [
        ("periplus-items", "{{tasks.a.outputs.parameters.o}}"),
        ("periplus-ref-x-0", "{{workflow.name}}"),
        ("periplus-ref-x-1", "{{tasks.a.outputs.parameters.o}}"),
    ]
    gate, run = named(done, "t--fan")["dag"]["tasks"]
    assert gate["template"] == "t--fangate"
    assert (run["template"], run["depends"]) == ("t", "gate")
    assert run["arguments"]["parameters"] == [{
        "name": "x",
        "value": "{{item.n}}-{{inputs.parameters.periplus-ref-x-1}}-{{inputs.parameters.periplus-ref-x-0}}",
    }]  # fmt: skip
    assert done.generated["t--fangate"].supplied == ("periplus-todo", "periplus-p-o")
    assert done.fan_outs["f"].remaining is None


def test_a_fan_out_with_some_hits_runs_the_other_items() -> None:
    manifest = workflow(dag(task("f", "t", withItems=[1, 2, 3], given={"x": "{{item}}"})), T)
    some = StepVerdict("", Verdict.MISS, items=(MISS, hit(o="two"), MISS), items_json="[1,2,3]")
    done = rewritten(manifest, {"f": some})
    given = {p["name"]: json.loads(p["value"]) for p in called(done, "f")["arguments"]["parameters"]}
    assert given == {"periplus-todo": [1, 3], "periplus-p-o": [{"i": 0}, {"v": "two"}, {"i": 1}]}
    assert done.fan_outs["f"].remaining == (0, 2)


def test_a_result_that_others_read_becomes_a_parameter() -> None:
    loud = sh("loud", "echo $x", "x")
    reads = task("b", "t", depends="a-b", given={
        "x": "{{tasks.a-b.outputs.result}} {{ tasks.a-b.outputs.result }} {{=tasks['a-b'].outputs.result}}"})  # fmt: skip
    done = rewritten(
        workflow(dag(task("a-b", "loud", given={"x": "1"}), reads), loud, T),
        {"a-b": hit(result="r"), "b": MISS},
    )
    name = "tasks.a-b.outputs.parameters.periplus-result"
    assert called(done, "b")["arguments"]["parameters"][0]["value"] == (
        f"{{{{{name}}}}} {{{{{name}}}}} {{{{=tasks['a-b'].outputs.parameters['periplus-result']}}}}"
    )
    assert called(done, "a-b")["arguments"]["parameters"] == [
        {"name": "periplus-p-periplus-result", "value": "r"}
    ]


def test_nested_templates_are_copied_for_each_call() -> None:
    inner = dag(
        task("d", "t", given={"x": "{{inputs.parameters.p}}"}),
        name="inner",
        inputs={"parameters": [{"name": "p"}]},
    )
    calls = [task(n, "inner", given={"p": n}) for n in ("one", "two", "three")]
    done = rewritten(
        workflow(dag(*calls), inner, T), {"one.d": hit(o="1"), "two.d": hit(o="2"), "three.d": MISS}
    )
    assert [called(done, n)["template"] for n in ("one", "two", "three")] == [
        "inner--call",
        "inner--call-2",
        "inner",
    ]
    assert called(done, "d", "inner--call-2")["arguments"]["parameters"][0]["value"] == "2"
    assert named(done, "inner") == inner


def test_an_entrypoint_that_is_called_elsewhere_is_copied() -> None:
    main = steps([A], [task("again", "main", when="1 == 2")])
    done = rewritten(workflow(main, T), {"a": hit(o="1")})
    assert done.manifest["spec"]["entrypoint"] == "main--call"
    assert named(done, "main") == main
    assert called(done, "a", "main--call")["template"] == "t--hit"


def test_names_of_generated_templates_are_unique_and_short_enough() -> None:
    long = "t" * 128
    theirs = [say("periplus-never", "1"), say("t--hit", "1"), say("t--hit-2", "1"), say(long, "$x", "x")]
    main = dag(A, B, task("l", long, given={"x": "1"}), task("z", "t", depends="b", given={"x": "1"}))
    done = rewritten(
        workflow(main, T, *theirs), {"a": hit(o="1"), "b": hit(o="1"), "l": hit(o="1"), "z": MISS}
    )
    assert called(done, "a")["template"] == "t--hit-3"
    assert len(called(done, "l")["template"]) == 128
    assert [named(done, t["name"]) for t in theirs] == theirs


def test_only_artifacts_with_an_argument_or_a_location_are_passed_on() -> None:
    leaf = sh("t", "true", outputs={"artifacts": [{"name": "m", "path": "/tmp/m"}]}) | {
        "inputs": {"artifacts": [{"name": "given", "path": "/a"}, {"name": "left", "path": "/b", "optional": True},
                                 {"name": "own", "path": "/c", "raw": {"data": "x"}}]},
    }  # fmt: skip
    first = sh("first", "true", outputs={"artifacts": [{"name": "m", "path": "/tmp/m"}]})
    use = {"name": "b", "template": "t", "depends": "a",
           "arguments": {"artifacts": [{"name": "given", "from": "{{tasks.a.outputs.artifacts.m}}"}]}}  # fmt: skip
    place = StepVerdict(
        "",
        Verdict.HIT,
        outputs=Outputs({}, (Artifact("m", ObjectRef("k/m.tgz")), Artifact("logs", ObjectRef("l")))),
    )
    manifest = workflow(dag(task("a", "first"), use), first, leaf)
    done = rewritten(manifest, {"a": place, "b": MISS})
    assert called(done, "a")["arguments"]["artifacts"] == [{"name": "periplus-a-m", "s3": {"key": "k/m.tgz"}}]
    done = rewritten(manifest, {"a": MISS, "b": UNKNOWN})
    assert named(done, "t--cached")["inputs"]["artifacts"] == [
        {"name": "given"},
        {"name": "own", "raw": {"data": "x"}},
    ]


def test_a_fan_out_that_is_a_hit_is_served_without_artifacts() -> None:
    leaf = sh("t", "true", "x", outputs=gives("o") | {"artifacts": [{"name": "m", "path": "/tmp/m"}]})
    items = tuple(
        StepVerdict("", Verdict.HIT, outputs=Outputs({"o": n}, (Artifact("m", ObjectRef(n)),))) for n in "ab"
    )
    known = hit(o='["a","b"]', items=items, items_json="[1,2]")
    done = rewritten(
        workflow(dag(task("f", "t", withItems=[1, 2], given={"x": "{{item}}"}), A), leaf),
        {"f": known, "a": MISS},
    )
    assert called(done, "f")["arguments"]["artifacts"] == []


def test_a_manifest_that_would_be_too_large_runs_as_it_is() -> None:
    padding = say("padding", "x" * 1_000_000)
    manifest = workflow(dag(A, B), T, padding)
    done = rewritten(manifest, {"a": hit(o="v" * 60_000), "b": UNKNOWN})
    assert done.manifest is manifest
    assert done.is_too_large


def test_a_manifest_to_submit_has_its_name_labels_and_parameter_values() -> None:
    manifest = workflow(dag(A), T, parameters={"p": "1"})
    elsewhere = {"name": "q", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}
    manifest["spec"]["arguments"]["parameters"].append(elsewhere)
    sent = to_submit(manifest, "run-1", "ns", "proj", {"p": "2"}, NOW)
    assert sent["metadata"] == {
        "name": "run-1", "namespace": "ns", "labels": {"periplus.dev/managed": "true", "periplus.dev/project": "proj"},
    }  # fmt: skip
    assert sent["spec"]["arguments"]["parameters"] == [{"name": "p", "value": "2"}, elsewhere]
    assert manifest["metadata"] == {"generateName": "test-"}


def test_a_plan_of_two_thousand_steps_is_written() -> None:
    tasks = [task("s0", "t", given={"x": "0"})]
    for n in range(1, 2000):
        given = {"x": f"{{{{tasks.s{n - 1}.outputs.parameters.o}}}}"}
        tasks.append(task(f"s{n}", "t", depends=f"s{n - 1}", given=given))
    known = {f"s{n}": hit(o=str(n)) if n % 2 else UNKNOWN for n in range(2000)}
    done = rewritten(workflow(dag(*tasks), T), known)
    assert len(done.manifest["spec"]["templates"]) == 7


def test_an_input_named_item_is_passed_into_the_loop() -> None:
    main = dag(
        A,
        task("f", "t", depends="a", withParam="{{tasks.a.outputs.parameters.o}}",
             given={"x": "{{item}}{{inputs.parameters.item}}"}),
        inputs={"parameters": [{"name": "item", "value": "1"}]},
    )  # fmt: skip
    done = rewritten(workflow(main, T), {"a": MISS, "f": UNKNOWN})
    assert {"name": "periplus-ref-x-0", "value": "{{inputs.parameters.item}}"} in called(done, "f")[
        "arguments"
    ]["parameters"]


def test_an_argument_with_value_from_is_passed_into_the_loop() -> None:
    leaf = say("t", "$x$y", "x", "y")
    leaf["inputs"]["parameters"][1]["valueFrom"] = {"configMapKeyRef": {"name": "c", "key": "k"}}
    asked = task("f", "t", depends="a", withParam="{{tasks.a.outputs.parameters.o}}", given={"x": "{{item}}"})
    again = task("g", "t", depends="a", given={"x": "{{tasks.a.outputs.parameters.o}}"})
    first = task("a", "u", given={"x": "1"})
    done = rewritten(
        workflow(dag(first, asked, again), leaf, say("u", "$x", "x")), {"a": MISS, "f": UNKNOWN, "g": UNKNOWN}
    )
    assert named(done, "t--cached")["inputs"]["parameters"][1] == leaf["inputs"]["parameters"][1]
    assert done.fan_outs["f"].parameters == {}, "what only the run can tell is not made up"


def test_a_fan_out_whose_hits_are_too_large_together_is_kept() -> None:
    items = tuple(hit(o="v" * 1000) for _ in range(100))
    known = StepVerdict("", Verdict.MISS, items=(*items, MISS), items_json=json.dumps(list(range(101))))
    manifest = workflow(dag(task("f", "t", withItems=list(range(101)), given={"x": "{{item}}"})), T)
    assert rewritten(manifest, {"f": known}).manifest is manifest
