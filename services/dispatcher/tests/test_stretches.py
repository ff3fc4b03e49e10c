"""The stretches of a DAG: which calls have one gate together, and what it asks."""

import random
from itertools import pairwise
from typing import Any

from manifests import MISS, UNKNOWN, dag, gives, hit, say, sh, steps, task, workflow
from test_rewrite import called, named, rewritten

from periplus_dispatcher.rewrite.generated import RewrittenManifest
from periplus_dispatcher.rewrite.stretches import MAX_GATE_CHARACTERS
from periplus_model.queries import StepVerdict

Json = dict[str, Any]
UP, LEAF = say("up", "1"), say("t", "$x", "x")


def of(name: str) -> str:
    return "{{tasks." + name + ".outputs.parameters.o}}"


def behind(name: str, *before: str, **more: Any) -> Json:
    """A task that waits for others and reads the output of each."""
    more.setdefault("depends", " && ".join(before))
    more.setdefault("given", {"x": "".join(map(of, before))})
    return task(name, "t", **more)


def asked(
    *tasks: Json, known: dict[str, StepVerdict] | None = None, templates: tuple[Json, ...] = ()
) -> RewrittenManifest:
    """What becomes of `up`, which runs, and tasks behind it that wait for the cache's verdict."""
    verdicts = {"up": MISS} | {t["name"]: UNKNOWN for t in tasks} | (known or {})
    return rewritten(workflow(dag(task("up", "up"), *tasks), UP, LEAF, *templates), verdicts)


def stretches(done: RewrittenManifest) -> dict[str, list[str]]:
    """The members of each gate."""
    return {gate: list(members) for gate, members in done.stretches.items()}


def together(done: RewrittenManifest) -> list[str]:
    """The members of all stretches."""
    return [name for members in done.stretches.values() for name in members]


def test_a_chain_behind_a_running_step_has_one_gate() -> None:
    done = asked(behind("a", "up"), behind("b", "a"), behind("c", "b"))
    assert stretches(done) == {"periplus-gate": ["a", "b", "c"]}
    assert called(done, "periplus-gate") == {
        "name": "periplus-gate", "template": "periplus-gate", "depends": "up",
        "arguments": {"parameters": [{"name": "periplus-ref-1", "value": of("up")}], "artifacts": []},
    }  # fmt: skip
    assert called(done, "a") == {
        "name": "a", "template": "t--stretch", "depends": "up && periplus-gate",
        "arguments": {"parameters": [
            {"name": "x", "value": of("up")},
            {"name": "periplus-verdict", "value": "{{=tasks['periplus-gate'].outputs?.parameters?.['a_verdict'] ?? 'run'}}"},
            {"name": "periplus-p-o", "value": "{{=tasks['periplus-gate'].outputs?.parameters?.['a_p-o'] ?? ''}}"},
        ]},
    }  # fmt: skip
    outputs = named(done, "periplus-gate")["outputs"]["parameters"]
    assert {p["name"]: p["valueFrom"]["default"] for p in outputs} == {
        "a_verdict": "run", "a_p-o": "", "b_verdict": "run", "b_p-o": "", "c_verdict": "run", "c_p-o": "",
    }  # fmt: skip
    assert done.stretches["periplus-gate"]["b"].arguments["parameters"] == [{"name": "x", "value": of("a")}]


def test_a_member_behind_another_takes_the_answer_that_it_got_later_if_it_is_to_ask() -> None:
    done = asked(behind("a", "up"), behind("b", "a"), behind("c", "b", "a"))
    rest = {name: f"tasks['{name}'].outputs?.parameters?.['periplus-rest'] ?? '{{}}'" for name in "ab"}
    given = {p["name"]: p["value"] for p in called(done, "c")["arguments"]["parameters"]}
    assert given["periplus-p-o"] == (
        "{{=(tasks['periplus-gate'].outputs?.parameters?.['c_verdict'] ?? 'run') != 'ask'"
        " ? (tasks['periplus-gate'].outputs?.parameters?.['c_p-o'] ?? '')"
        f" : (fromJSON({rest['a']})['c_p-o'] ?? fromJSON({rest['b']})['c_p-o'] ?? '')}}}}"
    )
    assert given["periplus-rest"] == f"{{{{=({rest['a']}) != '{{}}' ? ({rest['a']}) : ({rest['b']})}}}}"
    assert "periplus-rest" in {p["name"] for p in named(done, "t--gate")["outputs"]["parameters"]}
    single = asked(behind("a", "up"))
    assert "periplus-rest" not in {p["name"] for p in named(single, "t--gate")["outputs"]["parameters"]}


def test_a_single_gated_step_keeps_a_gate_of_its_own() -> None:
    assert called(asked(behind("a", "up")), "a")["template"] == "t--cached"


def test_a_diamond_is_one_stretch() -> None:
    done = asked(behind("a", "up"), behind("b", "a"), behind("c", "a"), behind("d", "b", "c"))
    assert list(map(sorted, stretches(done).values())) == [["a", "b", "c", "d"]]


def test_what_waits_for_another_running_step_as_well_does_not_let_the_others_wait() -> None:
    done = asked(
        behind("a", "up"), behind("b", "a"), task("up2", "up"), behind("c", "b", "up2"), behind("d", "c"),
        known={"up2": MISS},
    )  # fmt: skip
    assert stretches(done) == {"periplus-gate": ["a", "b"], "periplus-gate-2": ["c", "d"]}
    assert [done.generated[gate].template for gate in done.stretches] == list(done.stretches)
    assert called(done, "periplus-gate")["depends"] == "up"
    assert called(done, "periplus-gate-2")["depends"] == "b && up2"


def test_a_step_that_also_waits_for_the_running_step_of_its_stretch_stays_in_it() -> None:
    done = asked(behind("a", "up"), behind("b", "a", "up"))
    assert stretches(done) == {"periplus-gate": ["a", "b"]}


def test_a_known_hit_between_belongs_to_no_stretch_and_its_output_is_asked_with() -> None:
    before = task("h", "t", given={"x": "1"})
    done = asked(before, behind("a", "up", "h"), behind("b", "a", "h"), known={"h": hit(o="v")})
    assert stretches(done) == {"periplus-gate": ["a", "b"]}
    assert called(done, "periplus-gate")["depends"] == "up && h"


def test_a_gate_never_waits_for_a_hit_that_waits_for_a_member() -> None:
    late = task("h", "t", depends="a", given={"x": "1"})
    done = asked(behind("a", "up"), late, behind("b", "h", "up"), behind("c", "b"), known={"h": hit(o="v")})
    assert stretches(done) == {"periplus-gate": ["b", "c"]}
    assert called(done, "a")["template"] == "t--cached"


def test_what_depends_on_a_failure_has_a_gate_of_its_own() -> None:
    done = asked(
        behind("a", "up"), behind("b", "a"), behind("c", "b", depends="b.Failed"), behind("d", "a", depends="a || b"),
    )  # fmt: skip
    assert stretches(done) == {"periplus-gate": ["a", "b"]}
    assert [called(done, n)["template"] for n in "cd"] == ["t--cached", "t--cached"]


def test_without_plain_success_of_the_others_there_are_no_stretches() -> None:
    up = task("up", "up", continueOn={"failed": True})
    tasks = [
        behind(n, *before, depends=None, dependencies=[*before]) for n, *before in (("a", "up"), ("b", "a"))
    ]
    tasks = [{k: v for k, v in t.items() if v is not None} for t in tasks]
    manifest = workflow(dag(up, *tasks), UP, LEAF)
    done = rewritten(manifest, {"up": MISS, "a": UNKNOWN, "b": UNKNOWN})
    assert not done.stretches
    done = rewritten(
        workflow(dag(task("up", "up"), *tasks), UP, LEAF), {"up": MISS, "a": UNKNOWN, "b": UNKNOWN}
    )
    assert called(done, "b")["dependencies"] == ["a", "periplus-gate"]
    assert called(done, "periplus-gate")["dependencies"] == ["up"]


def test_what_may_be_skipped_is_not_read_at_the_gate() -> None:
    maybe = behind("m", "up", when=of("up") + " == 1")
    done = asked(
        maybe, behind("a", "m"), behind("b", "a"), behind("c", "up"), behind("d", "c"), known={"m": MISS}
    )
    assert "a" not in together(done)
    assert called(done, "a")["template"] == "t--cached"


def test_a_condition_on_a_member_is_evaluated_with_its_output() -> None:
    done = asked(behind("a", "up"), behind("b", "a", when=of("a") + " == " + of("up")))
    member = done.stretches["periplus-gate"]["b"]
    assert member.condition == of("a") + " == {{inputs.parameters.periplus-ref-1}}"
    assert called(done, "b")["when"] == of("a") + " == " + of("up")


def test_arguments_that_only_argo_can_know_have_a_gate_of_their_own() -> None:
    for value in (
        "{{=tasks.a.outputs.parameters.o + '!'}}",
        "{{tasks.a.status}}",
        "{{=sprig.randAlpha(3)}}",
        "{{workflow.duration}}",
    ):
        done = asked(behind("a", "up"), behind("b", "a", given={"x": value}), behind("c", "a"))
        assert stretches(done) == {"periplus-gate": ["a", "c"]}, value


def test_expressions_over_what_has_run_are_inputs_of_the_gate() -> None:
    value = "{{=tasks.up.outputs.parameters.o + '!'}}"
    done = asked(behind("a", "up", given={"x": value}), behind("b", "a", "up", given={"x": value + of("a")}))
    assert [p["value"] for p in called(done, "periplus-gate")["arguments"]["parameters"]] == [value]
    text = done.stretches["periplus-gate"]["b"].arguments["parameters"][0]["value"]
    assert text == "{{inputs.parameters.periplus-ref-1}}" + of("a")


def test_artifacts_of_members_are_asked_with_and_others_are_inputs_of_the_gate() -> None:
    leaf = sh("copy", "cp /tmp/i /tmp/f", outputs={"artifacts": [{"name": "f", "path": "/tmp/f"}]})
    leaf["inputs"] = {"artifacts": [{"name": "i", "path": "/tmp/i"}]}
    first = sh("up", "touch /tmp/f", outputs={"artifacts": [{"name": "f", "path": "/tmp/f"}]})

    def copy(name: str, before: str) -> Json:
        source = "{{tasks." + before + ".outputs.artifacts.f}}"
        return {
            **task(name, "copy", depends=before),
            "arguments": {"artifacts": [{"name": "i", "from": source}]},
        }

    manifest = workflow(dag(task("up", "up"), copy("a", "up"), copy("b", "a")), first, leaf)
    done = rewritten(manifest, {"up": MISS, "a": UNKNOWN, "b": UNKNOWN})
    members = done.stretches["periplus-gate"]
    assert members["a"].arguments["artifacts"] == [
        {"name": "i", "from": "{{inputs.artifacts.periplus-ref-1}}"}
    ]
    assert members["b"].arguments["artifacts"] == [{"name": "i", "from": "{{tasks.a.outputs.artifacts.f}}"}]
    key = "{{=tasks['periplus-gate'].outputs?.parameters?.['a_a-f'] ?? ''}}"
    assert called(done, "a")["arguments"]["artifacts"][1] == {"name": "periplus-a-f", "s3": {"key": key}}


def test_a_fan_out_in_a_stretch_asks_for_its_items_there() -> None:
    fan = behind("f", "a", withParam=of("a"), given={"x": "{{item}}" + of("up")})
    done = asked(behind("a", "up"), fan, behind("b", "f"))
    assert stretches(done) == {"periplus-gate": ["a", "f", "b"]}
    member = done.stretches["periplus-gate"]["f"]
    assert member.items == of("a")
    assert member.arguments["parameters"] == [
        {"name": "x", "value": "{{item}}{{inputs.parameters.periplus-ref-1}}"}
    ]
    gate, run = named(done, "t--fan")["dag"]["tasks"]
    assert gate["when"] == "{{inputs.parameters.periplus-verdict}} == ask"
    assert run["withParam"].startswith("{{=((inputs.parameters['periplus-verdict'] == 'ask' ? tasks.gate.")


def test_results_of_members_are_asked_with_and_read_as_parameters() -> None:
    echo = sh("echo", 'echo "$x"', "x")
    done = asked(
        task("a", "echo", depends="up", given={"x": of("up")}),
        behind("b", "a", given={"x": "{{tasks.a.outputs.result}}"}),
        templates=(echo,),
    )
    text = done.stretches["periplus-gate"]["b"].arguments["parameters"][0]["value"]
    assert text == "{{tasks.a.outputs.result}}"
    assert (
        called(done, "b")["arguments"]["parameters"][0]["value"]
        == "{{tasks.a.outputs.parameters.periplus-result}}"
    )


def test_a_stretch_in_a_nested_dag_has_a_gate_without_anything_to_wait_for() -> None:
    inner = dag(
        task("a", "t", given={"x": "{{inputs.parameters.x}}"}), behind("b", "a"),
        name="inner", inputs={"parameters": [{"name": "x"}]}, outputs={"parameters": []},
    )  # fmt: skip
    manifest = workflow(
        dag(task("up", "up"), task("in", "inner", depends="up", given={"x": of("up")})), inner, UP, LEAF
    )
    done = rewritten(manifest, {"up": MISS, "in.a": UNKNOWN, "in.b": UNKNOWN})
    assert stretches(done) == {"periplus-gate": ["a", "b"]}
    assert "depends" not in called(done, "periplus-gate", "inner--call")
    assert called(done, "a", "inner--call")["depends"] == "periplus-gate"


def test_a_steps_template_has_a_gate_for_each_step() -> None:
    later = task("a", "t", given={"x": "{{steps.up.outputs.parameters.o}}"})
    last = task("b", "t", given={"x": "{{steps.a.outputs.parameters.o}}"})
    done = rewritten(
        workflow(steps([task("up", "up")], [later], [last]), UP, LEAF),
        {"up": MISS, "a": UNKNOWN, "b": UNKNOWN},
    )
    assert not done.stretches


def test_a_stretch_with_more_outputs_than_a_gate_may_have_is_split() -> None:
    names = [f"s{n}" for n in range(600)]
    chain = [behind("s0", "up"), *(behind(b, a) for a, b in pairwise(names))]
    done = asked(*chain)
    assert together(done) == names
    gates = [named(done, gate) for gate in done.stretches]
    assert len(gates) > 1
    assert all(sum(len(p["name"]) for p in g["outputs"]["parameters"]) < MAX_GATE_CHARACTERS for g in gates)
    wide = asked(*(behind(name, "up") for name in names))
    assert {called(wide, gate)["depends"] for gate in wide.stretches} == {"up"}
    assert len(wide.stretches) == 2


def test_a_plan_whose_stretches_make_the_manifest_too_large_has_a_gate_for_each_step() -> None:
    names = [f"s{n}" for n in range(3000)]
    chain = [behind("s0", "up"), *(behind(b, a) for a, b in pairwise(names))]
    done = asked(*chain)
    assert not done.stretches
    assert called(done, "s1")["template"] == "t--cached"


def test_a_task_that_has_the_name_of_a_gate_keeps_it() -> None:
    done = asked(behind("periplus-gate", "up"), behind("b", "periplus-gate"))
    assert stretches(done) == {"periplus-gate-2": ["periplus-gate", "b"]}


def test_every_random_dag_is_a_dag_with_its_gates_and_each_gate_waits_for_no_member() -> None:
    draw = random.Random(10)
    for _ in range(80):
        names = [f"s{n}" for n in range(draw.randint(2, 12))]
        tasks, known = [], {}
        for number, name in enumerate(names):
            before = draw.sample(names[:number], min(number, draw.randint(0, 3)))
            how = draw.choice(("gated", "gated", "gated", "runs", "hit"))
            given = {"x": "".join(map(of, before))} if how != "hit" else {"x": "1"}
            depends = draw.choice((" && ", " && ", " && ", " || ")).join(before)
            more = {"when": "{{workflow.name}} == x"} if draw.random() < 0.1 else {}
            tasks.append(task(name, "t", given=given, **({"depends": depends} if before else {}), **more))
            known[name] = {"gated": UNKNOWN, "runs": MISS, "hit": hit(o="v")}[how]
        done = rewritten(workflow(dag(*tasks), LEAF), known)  # which checks it, cycles and references as well
        found = together(done)
        assert len(found) == len(set(found))


def test_outputs_and_templates_without_a_place_in_a_stretch() -> None:
    optional = sh("opt", "true", outputs=gives("o"))
    optional["inputs"] = {"artifacts": [{"name": "i", "path": "/tmp/i"}]}
    source = {"name": "i", "from": "{{tasks.up.outputs.artifacts.f}}", "optional": True}
    first = sh(
        "up", "true", outputs=gives("o") | {"artifacts": [{"name": "f", "path": "/tmp/f", "optional": True}]}
    )
    tasks = [{**task(n, "opt", depends="up"), "arguments": {"artifacts": [source]}} for n in "ab"]
    done = rewritten(
        workflow(dag(task("up", "up"), *tasks), first, optional), {"up": MISS, "a": UNKNOWN, "b": UNKNOWN}
    )
    assert not done.stretches
