"""From verdicts to a plan: what is served, what is gated, and whether anything runs."""

import random
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import (
    MISS,
    UNKNOWN,
    dag,
    expand_checked,
    gives,
    hit,
    planned,
    say,
    sh,
    shows,
    steps,
    task,
    workflow,
)

from periplus_common.errors import Invalid
from periplus_dispatcher.domain import RunState
from periplus_dispatcher.rewrite.plan import MAX_INLINE_CHARACTERS, Plan, StepAction, decide, without_cache
from periplus_manifest.read import read
from periplus_model.queries import StepVerdict, literal_text
from periplus_model.steps import Artifact, ObjectRef, Outputs, Verdict

Json = dict[str, Any]
T = say("t", "$x", "x")
A = task("a", "t", given={"x": "1"})
FROM_A = {"x": "{{tasks.a.outputs.parameters.o}}"}


def actions(plan: Plan) -> dict[str, str]:
    return {step.call.path: step.action.value for step in plan.steps}


def verdicts(plan: Plan) -> dict[str, str]:
    return {step.call.path: step.verdict.verdict.label for step in plan.steps}


def test_a_plan_of_hits_is_complete_with_outputs_and_savings() -> None:
    manifest = workflow(
        dag(
            A, task("b", "t", depends="a", given=FROM_A), outputs=shows("tasks.b.outputs.parameters.o", "out")
        ),
        T,
    )
    plan = planned(manifest, {"a": hit(o="1", saved=2), "b": hit(o="2", saved=3)})
    assert plan.is_complete
    assert plan.outputs.parameters == {"out": "2"}
    assert plan.saved == timedelta(seconds=5)
    assert [path for path, _ in plan.hits] == ["a", "b"]


@pytest.mark.parametrize("verdict", [MISS, UNKNOWN, StepVerdict("", Verdict.UNCACHEABLE)])
def test_one_step_that_may_run_makes_a_plan_incomplete(verdict: StepVerdict) -> None:
    manifest = workflow(dag(A, task("b", "t", depends="a", given=FROM_A)), T)
    plan = planned(manifest, {"a": hit(o="1"), "b": verdict})
    assert not plan.is_complete
    assert plan.outputs == Outputs()
    assert actions(plan)["a"] == "serve"
    assert actions(plan)["b"] == ("gate" if verdict is UNKNOWN else "keep")


def test_a_step_without_a_verdict_runs() -> None:
    plan = planned(workflow(dag(A), T), {})
    assert (verdicts(plan), actions(plan)) == ({"a": "miss"}, {"a": "keep"})


def test_a_false_condition_skips_a_call_and_all_steps_in_it() -> None:
    inner = dag(task("deep", "t", given={"x": "1"}), name="inner")
    manifest = workflow(
        dag(A, task("no", "t", depends="a", when="{{tasks.a.outputs.parameters.o}} > 5", given=FROM_A),
            task("in", "inner", depends="a", when="{{tasks.a.outputs.parameters.o}} > 5"),
            task("then", "t", depends="no.Skipped && in.Skipped", given={"x": "1"}),
            task("never", "t", depends="no.Succeeded", given={"x": "1"})),
        inner, T,
    )  # fmt: skip
    plan = planned(
        manifest, {"a": hit(o="1"), "then": hit(o="1"), "in.deep": MISS, "no": MISS, "never": MISS}
    )
    assert verdicts(plan) == {
        "a": "hit", "no": "skipped", "in": "skipped", "in.deep": "skipped", "then": "hit", "never": "skipped",
    }  # fmt: skip
    assert plan.is_complete


def test_a_plan_with_an_unknown_condition_is_not_complete() -> None:
    manifest = workflow(
        dag(A, task("b", "t", depends="a", when="{{tasks.a.outputs.parameters.o}} > 5", given={"x": "1"})), T
    )
    plan = planned(manifest, {"a": MISS, "b": hit(o="1")})
    assert not plan.is_complete
    assert verdicts(plan)["b"] == "hit"


def test_a_step_that_depends_on_a_failure_is_skipped_if_there_was_none() -> None:
    manifest = workflow(dag(A, task("alarm", "t", depends="a.Failed || a.Errored", given={"x": "1"})), T)
    plan = planned(manifest, {"a": hit(o="1"), "alarm": MISS})
    assert verdicts(plan)["alarm"] == "skipped"
    assert plan.is_complete
    assert not planned(manifest, {"a": MISS, "alarm": MISS}).is_complete


def test_outputs_of_hits_are_known_through_template_invocators() -> None:
    inner = steps([task("deep", "t", given={"x": "{{inputs.parameters.p}}"})], name="inner",
                  inputs={"parameters": [{"name": "p"}]}, outputs=shows("steps.deep.outputs.parameters.o"))  # fmt: skip
    manifest = workflow(
        dag(task("in", "inner", given={"p": "1"}), outputs=shows("tasks.in.outputs.parameters.o")), inner, T
    )
    plan = planned(manifest, {"in.deep": hit(o="7")})
    assert plan.is_complete
    assert plan.outputs.parameters == {"o": "7"}
    assert verdicts(plan)["in"] == "unknown", "a call that only holds others has no verdict of its own"


def test_a_plan_of_hits_with_an_exit_handler_is_not_complete() -> None:
    manifest = workflow(dag(A), T, say("bye", "1"), onExit="bye")
    plan = planned(manifest, {"a": hit(o="1")})
    assert not plan.is_complete
    assert plan.exit_cost == (
        "every step is cached, but the exit handler bye runs: it costs a Workflow and 1 pod; if it need not run then, "
        "annotate it with periplus.dev/on-exit: if-run"
    )
    assert planned(manifest, {"a": MISS}).exit_cost == ""


def test_an_exit_handler_that_need_not_run_for_a_cached_run_leaves_the_plan_complete() -> None:
    def complete(verdict: StepVerdict, of_template: str = "", of_workflow: str = "", **spec: Any) -> bool:
        handler = say("bye", "1", metadata={"annotations": {"periplus.dev/on-exit": of_template}})
        manifest = workflow(dag(A), T, handler, say("other", "1"), **(spec or {"onExit": "bye"}))
        manifest["metadata"]["annotations"] = {"periplus.dev/on-exit": of_workflow}
        return planned(manifest, {"a": verdict}).is_complete

    assert complete(hit(o="1"), of_template="if-run")
    assert complete(hit(o="1"), of_workflow="if-run")
    assert complete(hit(o="1"), of_template="if-run", hooks={"exit": {"template": "bye"}})
    assert not complete(hit(o="1"), of_template="always", of_workflow="if-run")
    assert not complete(hit(o="1"), of_template="if-run", onExit="bye", hooks={"exit": {"template": "other"}})
    assert not complete(MISS, of_template="if-run")


@pytest.mark.parametrize("of_template", [True, False])
def test_another_value_of_the_annotation_of_an_exit_handler_is_refused_by_field(of_template: bool) -> None:
    annotated = {"annotations": {"periplus.dev/on-exit": "never"}}
    handler = say("bye", "1", **({"metadata": annotated} if of_template else {}))
    manifest = workflow(dag(A), T, handler, onExit="bye")
    if not of_template:
        manifest["metadata"] |= annotated
    with pytest.raises(Invalid, match="'never' is neither always nor if-run") as refused:
        planned(manifest, {})
    where = "spec.templates[2].metadata" if of_template else "metadata"
    assert refused.value.field == f"{where}.annotations['periplus.dev/on-exit']"


def fan(*items: StepVerdict) -> StepVerdict:
    verdict = Verdict.UNKNOWN if UNKNOWN in items else Verdict.MISS
    if all(item.verdict is Verdict.HIT for item in items):
        return hit(o="[]", items=items, items_json=str(list(range(len(items)))))
    return StepVerdict("", verdict, items=items, items_json=str(list(range(len(items)))))


@pytest.mark.parametrize(
    ("items", "action"),
    [((hit(o="1"), hit(o="2")), "serve"), ((hit(o="1"), MISS), "serve-part"), ((MISS, MISS), "keep"),
     ((hit(o="1"), UNKNOWN), "gate-fan-out"), ((UNKNOWN, MISS), "gate-fan-out")],
)  # fmt: skip
def test_the_action_for_a_fan_out_follows_from_the_verdicts_of_its_items(
    items: tuple[StepVerdict, ...], action: str
) -> None:
    manifest = workflow(dag(task("a", "t", withItems=list(range(len(items))), given={"x": "{{item}}"})), T)
    plan = planned(manifest, {"a": fan(*items)})
    assert actions(plan) == {"a": action}
    assert [path for path, _ in plan.steps[0].verdicts] == [f"a({n})" for n in range(len(items))]
    assert plan.is_complete == (action == "serve")


def test_a_fan_out_without_items_has_empty_lists_as_outputs() -> None:
    manifest = workflow(
        dag(
            task("a", "t", withItems=[], given={"x": "{{item}}"}),
            outputs=shows("tasks.a.outputs.parameters.o"),
        ),
        T,
    )
    plan = planned(manifest, {"a": hit(items_json="[]")})
    assert plan.is_complete
    assert plan.outputs.parameters == {"o": "[]"}


def test_a_hit_without_an_output_that_others_read_is_a_miss() -> None:
    loud = sh("loud", "echo 1; echo 2 > /tmp/o", outputs=gives("o"))
    reads = workflow(
        dag(task("a", "loud"), task("b", "t", depends="a", given={"x": "{{tasks.a.outputs.result}}"})),
        loud,
        T,
    )
    known = {"a": hit(o="2"), "b": hit(o="1")}
    assert verdicts(planned(reads, known))["a"] == "miss"
    assert verdicts(planned(reads, known | {"a": hit(o="2", result="1")}))["a"] == "hit"
    assert verdicts(planned(workflow(dag(task("a", "loud")), loud), {"a": hit()}))["a"] == "miss"


def test_a_hit_whose_outputs_can_not_be_written_into_a_manifest_runs_unless_nothing_runs() -> None:
    manifest = workflow(dag(A, task("b", "t", depends="a", given=FROM_A)), T)
    for value in (
        "{{inputs.parameters.x}}",
        "{{=1}}",
        "{{ {{item}}",
        "{{ x }} {{",
        "x" * (MAX_INLINE_CHARACTERS + 1),
    ):
        known = {"a": hit(o=value), "b": MISS}
        assert actions(planned(manifest, known))["a"] == "keep"
        assert verdicts(planned(manifest, known))["a"] == "miss"
        assert (
            planned(manifest, known).steps[0].verdict.reason.startswith("hit, but it runs: its outputs have ")
        )
        assert planned(manifest, known).saved == timedelta()
        complete = planned(manifest, known | {"b": hit(o="1")})
        assert (complete.is_complete, complete.steps[0].verdict.reason) == (True, "hit")


def test_what_takes_outputs_of_a_hit_that_runs_waits_for_them_and_what_does_not_is_served() -> None:
    twice = {"x": "{{tasks.b.outputs.parameters.o}}"}
    tasks = [
        A, task("b", "t", depends="a", given=FROM_A), task("c", "t", depends="b", given=twice),
        task("apart", "t", depends="a", given={"x": "1"}), task("last", "t", given={"x": "2"}),
    ]  # fmt: skip
    known = {"a": hit(o="{{item}}"), "b": hit(o="1"), "c": hit(o="2"), "apart": hit(o="3"), "last": MISS}
    plan = planned(workflow(dag(*tasks), T), known)
    served = {"a": "keep", "b": "gate", "c": "gate", "apart": "serve", "last": "keep"}
    assert actions(plan) == served
    reasons = {step.call.path: step.verdict.reason for step in plan.steps}
    assert reasons["b"] == "its input x is not known yet: a has to run first"
    assert plan.given_to(RunState({})).unserved == {"a": reasons["a"]}


@pytest.mark.parametrize(
    ("made", "action"),
    [(hit(), "serve"), (hit(o="{{item}}"), "keep"), (MISS, "keep"), (UNKNOWN, "keep")],
    ids=["hit", "hit that runs", "miss", "unknown"],
)
def test_what_takes_an_optional_artifact_is_served_only_where_its_producer_is(
    made: StepVerdict, action: str
) -> None:
    outputs = gives(*(made.outputs.parameters if made.outputs else ()))
    make = sh(
        "make", "true", outputs=outputs | {"artifacts": [{"name": "m", "path": "/m", "optional": True}]}
    )
    read = say("read", "1") | {"inputs": {"artifacts": [{"name": "f", "path": "/f"}]}}
    given = {"artifacts": [{"name": "f", "from": "{{tasks.make.outputs.artifacts.m}}", "optional": True}]}
    calls = (task("make", "make"), task("read", "read", depends="make", arguments=given), task("other", "t"))
    manifest = workflow(dag(*calls), make, read, say("t", "2"))
    plan = planned(manifest, {"make": made, "read": hit(o="1"), "other": MISS})
    assert actions(plan)["read"] == action
    assert verdicts(plan)["read"] == ("hit" if action == "serve" else "uncacheable")


def test_a_plan_without_the_cache_has_no_hit() -> None:
    expanded = expand_checked(
        workflow(dag(A, task("b", "t", given={"x": "2"}), task("c", "t", given={"x": "3"})), T)
    )
    plan = without_cache(
        expanded, decide(expanded, {"a": hit(o="1"), "b": UNKNOWN, "c": MISS}), "it is too large"
    )
    assert set(actions(plan).values()) == {"keep"}
    assert set(verdicts(plan).values()) == {"miss"}
    assert plan.steps[0].verdict.reason == "hit, but it runs: it is too large"


@pytest.mark.parametrize("value", ["{{ user }}", '{{"w": {w}}}', "{% if x %}{{ x }}{% endif %}", "a }} b {"])
def test_a_hit_whose_outputs_have_braces_that_are_no_tags_is_served(value: str) -> None:
    manifest = workflow(dag(A, task("b", "t", depends="a", given=FROM_A)), T)
    assert actions(planned(manifest, {"a": hit(o=value), "b": MISS}))["a"] == "serve"


def test_a_hit_with_an_artifact_in_another_repository_runs() -> None:
    leaf = sh("t", "true", outputs={"artifacts": [{"name": "m", "path": "/tmp/m"}]})
    there = StepVerdict(
        "", Verdict.HIT, outputs=Outputs({}, (Artifact("m", ObjectRef("k", "theirs", "else:9000")),))
    )
    plan = planned(workflow(dag(task("a", "t"), task("b", "t")), leaf), {"a": there, "b": MISS})
    assert actions(plan)["a"] == "keep"
    assert plan.steps[0].verdict.reason == "it runs: its artifacts are in another artifact repository"


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ({"inline": {"container": {"image": "i", "command": ["true"]}}}, "its template is written inline"),
        ({"templateRef": {"name": "lib", "template": "{{workflow.parameters.p}}"}}, "which template it calls is known only during"),
        ({"templateRef": {"name": "lib", "template": "t"}}, "its template lib/t is not part of this manifest"),
    ],
)  # fmt: skip
def test_a_call_of_a_template_that_is_not_in_the_manifest_is_listed_with_the_reason(
    call: Json, reason: str
) -> None:
    (step,) = planned(workflow(dag({"name": "a", **call}), T, parameters={"p": "t"}), {}).steps
    assert step.verdict.verdict is Verdict.UNCACHEABLE
    assert step.verdict.reason.startswith(reason)


def test_every_step_that_is_not_wrapped_has_a_reason() -> None:
    manifest = workflow(
        dag(
            A,
            task("waits", "wait"),
            task("hooked", "t", given={"x": "1"}, hooks={"exit": {"template": "wait"}}),
            task("loop", "t", withItems=[1], given={"x": "{{=item}}"}),
            task("silent", "silent"),
            task("again", "main", when="false == true || {{workflow.status}} == x"),
        ),
        T, {"name": "wait", "suspend": {}}, sh("silent", "true"),
    )  # fmt: skip
    plan = planned(manifest, {"a": MISS})
    assert all(step.verdict.reason for step in plan.steps)
    assert sum(step.verdict.verdict is Verdict.UNCACHEABLE for step in plan.steps) == 5


names = ("a", "b", "c", "d", "e")


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Json, dict[str, StepVerdict]]:
    """A DAG with conditions, nested parts and failures to wait for, and verdicts for its steps."""
    seed = random.Random(draw(st.integers(0, 2**32)))
    inner = dag(task("p", "t", given={"x": "1"}), task("q", "t", depends="p", given={"x": "1"}), name="inner")
    found: list[Json] = []
    for n, name in enumerate(names):
        earlier = [names[k] for k in range(n) if seed.random() < 0.5]
        wants = " && ".join(e + seed.choice(["", "", ".Succeeded", ".Failed", ".Skipped"]) for e in earlier)
        more: Json = {"depends": wants} if wants else {}
        if seed.random() < 0.3:
            more["when"] = seed.choice(["1 == 1", "1 == 2"])
        if seed.random() < 0.3:
            found.append(task(name, "inner", **more))
        else:
            found.append(task(name, "t", given={"x": "1"}, **more))
    manifest = workflow(dag(*found), inner, T)
    choice = [hit(o="1"), hit(o="1"), MISS, UNKNOWN, StepVerdict("", Verdict.UNCACHEABLE)]
    return manifest, {call.path: seed.choice(choice) for call in expand_checked(manifest).calls if call.query}


@settings(max_examples=200, deadline=None)
@given(graphs())
def test_a_plan_is_complete_exactly_if_every_step_is_a_hit_or_skipped(
    drawn: tuple[Json, dict[str, StepVerdict]],
) -> None:
    manifest, known = drawn
    plan = decide(expand_checked(manifest), known)
    leaves = [step for step in plan.steps if not step.call.is_invocator]
    settled = all(step.verdict.verdict in (Verdict.HIT, Verdict.SKIPPED) for step in leaves)
    assert plan.is_complete == settled
    for step in leaves:
        assert step.action is not StepAction.SERVE or step.verdict.verdict is Verdict.HIT


ML = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: churn-}
spec:
  entrypoint: pipeline
  arguments: {parameters: [{name: rows, value: "500"}]}
  templates:
  - name: pipeline
    dag:
      tasks:
      - name: extract
        template: extract
        arguments: {parameters: [{name: rows, value: "{{workflow.parameters.rows}}"}]}
      - name: train
        template: train
        dependencies: [extract]
        withItems: ["0.1", "1"]
        arguments:
          parameters: [{name: lr, value: "{{item}}"}]
          artifacts: [{name: data, from: "{{tasks.extract.outputs.artifacts.raw}}"}]
      - name: report
        template: report
        dependencies: [train]
        arguments:
          parameters:
          - {name: scores, value: "{{tasks.train.outputs.parameters.score}}"}
          - {name: page, value: "{% for s in scores %}{{ s | round(2) }}{% endfor %}"}
  - name: extract
    inputs: {parameters: [{name: rows}]}
    script:
      image: python:3.11
      command: [python3]
      source: |
        for i in range(int("{{inputs.parameters.rows}}")):
            print(f"{{{i}}} {{x}}", file=open("/tmp/raw.csv", "a"))
    outputs: {artifacts: [{name: raw, path: /tmp/raw.csv}]}
  - name: train
    inputs: {parameters: [{name: lr}], artifacts: [{name: data, path: /data}]}
    script:
      image: python:3.11
      command: [python3]
      source: |
        w, b = fit("/data", float("{{inputs.parameters.lr}}"))
        open("/tmp/model.json", "w").write(f'{{"w": {w}, "b": {b}, "lr": {{inputs.parameters.lr}}}}')
        open("/tmp/score", "w").write(f"{w:.4f}")
    outputs:
      parameters: [{name: score, valueFrom: {path: /tmp/score}}]
      artifacts: [{name: model, path: /tmp/model.json}]
  - name: report
    inputs: {parameters: [{name: scores}, {name: page}]}
    container:
      image: report
      args: ["--format={{ .Name }}: {{ .Score }}", "{{inputs.parameters.scores}}", "{{inputs.parameters.page}}"]
    outputs: {parameters: [{name: o, valueFrom: {path: /tmp/o}}]}
"""


def test_steps_whose_scripts_contain_braces_can_be_cached() -> None:
    found = expand_checked(read(ML))
    assert {call.path: call.uncacheable_reason for call in found.calls} == {
        "extract": "",
        "train": "",
        "report": "",
    }
    queries = {call.path: call.query for call in found.calls}
    report = queries["report"]
    assert report is not None
    assert literal_text(report.parameters["page"]) == "{% for s in scores %}{{ s | round(2) }}{% endfor %}"
    plan = decide(found, {"extract": MISS, "train": UNKNOWN, "report": UNKNOWN})
    assert actions(plan) == {"extract": "keep", "train": "gate-fan-out", "report": "gate"}
