"""With whatever entries in the cache, a run has the outputs that it has without the cache."""

import random
from typing import Any

import pytest
from dispatcher_harness import Harness
from manifests import dag, gives, say, sh, shows, steps, task, workflow

from periplus_model.steps import CacheMode, RunPhase

Json = dict[str, Any]
UP = "{{tasks.up.outputs.parameters.o}}"
RAW = {"artifacts": [{"name": "note", "path": "/tmp/note", "raw": {"data": "n"}}]}


def last(text: str = "$x", name: str = "end") -> Json:
    return say(name, text, "x")


CASES: dict[str, Json] = {
    "chain": workflow(
        dag(
            task("up", "up"),
            task("mid", "mid", depends="up", given={"x": UP}),
            task("end", "end", depends="mid", given={"x": "{{tasks.mid.outputs.parameters.o}}"}),
            outputs=shows("tasks.end.outputs.parameters.o"),
        ),
        say("up", "1"), say("mid", "<$x>", "x"), last(),
    ),
    "same shape": workflow(
        dag(
            task("up", "up"),
            task("one", "one", depends="up", given={"x": UP}),
            task("two", "two", depends="up", given={"x": UP}),
            task("end", "end", depends="one && two",
                 given={"x": "{{tasks.one.outputs.parameters.o}} {{tasks.two.outputs.parameters.o}}"}),
            outputs=shows("tasks.end.outputs.parameters.o"),
        ),
        say("up", "1"), say("one", "one $x", "x"), say("two", "two $x", "x"), last(),
    ),
    "loop of maps": workflow(
        dag(
            task("up", "up"),
            task("loop", "loop", depends="up", withItems=[{"a": 1, "b": "p q"}, {"a": 2, "b": "r"}, {"a": 3, "b": ""}],
                 given={"x": "{{item.a}}-{{item.b}}", "k": UP}),
            task("end", "end", depends="loop", given={"x": "{{tasks.loop.outputs.parameters.o}}"}),
            outputs=shows("tasks.end.outputs.parameters.o"),
        ),
        say("up", "k"), say("loop", "$x$k", "x", "k"), last(),
    ),
    "loop with a default and an artifact of its own": workflow(
        dag(
            task("up", "up"),
            task("loop", "loop", depends="up", withParam=UP, given={"x": "{{item}}"}),
            task("end", "end", depends="loop", given={"x": "{{tasks.loop.outputs.parameters.o}}"}),
            outputs=shows("tasks.end.outputs.parameters.o"),
        ),
        say("up", "[1,2,3]"),
        sh("loop", 'printf %s "$x$d$(cat /tmp/note)" > /tmp/o', "x", "d", outputs=gives("o"))
        | {"inputs": {"parameters": [{"name": "x"}, {"name": "d", "value": "dd"}], **RAW}},
        last(),
    ),
    "loop of objects": workflow(
        dag(
            task("up", "up"),
            task("loop", "loop", depends="up", withParam=UP, given={"x": "{{item}}"}),
            task("end", "end", depends="loop", given={"x": "{{tasks.loop.outputs.parameters.o}}"}),
            outputs=shows("tasks.end.outputs.parameters.o"),
        ),
        say("up", "[1,2,3]"), say("loop", '{\\"v\\": $x}', "x"), last(),
    ),
    "loop of objects and texts": workflow(
        dag(
            task("up", "up"),
            task("loop", "loop", depends="up", withParam=UP, given={"x": "{{item}}"}),
            task("end", "end", depends="loop", given={"x": "{{tasks.loop.outputs.parameters.o}}"}),
            outputs=shows("tasks.end.outputs.parameters.o"),
        ),
        say("up", '[\\"t\\",[1],[2]]'), say("loop", "$x", "x"), last(),
    ),
    "loop of results": workflow(
        dag(
            task("up", "up"),
            task("loop", "loop", depends="up", withParam=UP, given={"x": "{{item}}"}),
            task("end", "end", depends="loop", given={"x": "{{tasks.loop.outputs.result}}"}),
            outputs=shows("tasks.end.outputs.parameters.o"),
        ),
        say("up", '[1,\\"2\\",3]'), sh("loop", 'echo "$x"', "x"), last(),
    ),
    "sequence": workflow(
        dag(
            task("up", "up"),
            task("loop", "loop", depends="up", withSequence={"count": "3"}, given={"x": "{{item}}", "k": UP}),
            task("end", "end", depends="loop", given={"x": "{{tasks.loop.outputs.parameters.o}}"}),
            outputs=shows("tasks.end.outputs.parameters.o"),
        ),
        say("up", "k"), say("loop", "$x$k", "x", "k"), last(),
    ),
    "result": workflow(
        dag(
            task("up", "up"),
            task("mid-dle", "mid", depends="up", given={"x": UP}),
            task("end", "end", depends="mid-dle",
                 given={"x": "{{=tasks['mid-dle'].outputs.result + '!'}}{{tasks.mid-dle.outputs.result}}"}),
            outputs=shows("tasks.end.outputs.parameters.o"),
        ),
        say("up", "1"), sh("mid", 'echo "<$x>"', "x"), last(),
    ),
    "steps": workflow(
        steps(
            [task("up", "up")],
            [task("a", "loop", withItems=["p", "q"], given={"x": "{{item}}", "k": "{{steps.up.outputs.parameters.o}}"}),
             task("b", "mid", given={"x": "{{steps.up.outputs.parameters.o}}"})],
            [task("end", "end", given={"x": "{{steps.a.outputs.parameters.o}}{{steps.b.outputs.parameters.o}}"})],
            outputs=shows("steps.end.outputs.parameters.o"),
        ),
        say("up", "1"), say("mid", "<$x>", "x"), say("loop", "$x$k", "x", "k"), last(),
    ),
    "nested": workflow(
        dag(
            task("up", "up"),
            task("in", "inner", depends="up", given={"x": UP}),
            task("in2", "inner", depends="in", given={"x": "{{tasks.in.outputs.parameters.o}}"}),
            task("end", "end", depends="in2", given={"x": "{{tasks.in2.outputs.parameters.o}}"}),
            outputs=shows("tasks.end.outputs.parameters.o"),
        ),
        dag(
            task("a", "mid", given={"x": "{{inputs.parameters.x}}"}),
            task("b", "mid", depends="a", given={"x": "{{tasks.a.outputs.parameters.o}}"}),
            name="inner", inputs={"parameters": [{"name": "x"}]}, outputs=shows("tasks.b.outputs.parameters.o"),
        ),
        say("up", "1"), say("mid", "<$x>", "x"), last(),
    ),
    "loop over nested": workflow(
        dag(
            task("up", "up"),
            task("in", "inner", depends="up", withItems=[1, 2], given={"x": "{{item}}" + UP}),
            task("end", "end", depends="in", given={"x": "{{tasks.in.outputs.parameters.o}}"}),
            outputs=shows("tasks.end.outputs.parameters.o"),
        ),
        dag(
            task("a", "mid", given={"x": "{{inputs.parameters.x}}"}),
            task("b", "mid", depends="a", given={"x": "{{tasks.a.outputs.parameters.o}}"}),
            name="inner", inputs={"parameters": [{"name": "x"}]}, outputs=shows("tasks.b.outputs.parameters.o"),
        ),
        say("up", "1"), say("mid", "<$x>", "x"), last(),
    ),
    "recursion of the start": workflow(
        steps(
            [task("more", "more", given={"x": "{{inputs.parameters.x}}"})],
            [task("again", "main", when="{{steps.more.outputs.parameters.o}} < 3",
                  given={"x": "{{steps.more.outputs.parameters.o}}"})],
            inputs={"parameters": [{"name": "x", "value": "0"}]},
            outputs=shows("steps.more.outputs.parameters.o"),
        ),
        sh("more", "printf %s $((x + 1)) > /tmp/o", "x", outputs=gives("o")),
    ),
    "conditions": workflow(
        dag(
            task("up", "up"),
            task("yes", "mid", depends="up", when=UP + " == 1", given={"x": UP}),
            task("no", "mid", depends="up", when=UP + " == 2", given={"x": UP}),
            task("fan", "mid", depends="up", when=UP + " == 1", withItems=["a", "b"], given={"x": "{{item}}" + UP}),
            task("after", "end", depends="no.Skipped && fan", given={"x": "{{tasks.fan.outputs.parameters.o}}"}),
            outputs=shows("tasks.after.outputs.parameters.o"),
        ),
        say("up", "1"), say("mid", "<$x>", "x"), last(),
    ),
    "failures": workflow(
        dag(
            task("up", "up"),
            task("bad", "bad", depends="up", given={"x": UP}),
            task("fan", "bad", depends="up", withItems=["0", "1"], given={"x": "{{item}}"}),
            task("end", "end", depends="bad.Failed && fan.Failed", given={"x": UP}),
            task("not", "end", depends="bad.Succeeded || fan.Succeeded", given={"x": UP}),
            outputs=shows("tasks.end.outputs.parameters.o"),
        ),
        say("up", "1"),
        say("bad", "$x", "x") | {"container": sh("bad", 'printf 1 > /tmp/o; test "$x" = 0', "x")["container"]},
        last(),
    ),
    "failures that do not matter": workflow(
        steps(
            [task("up", "up")],
            [task("bad", "bad", continueOn={"failed": True}, given={"x": "{{steps.up.outputs.parameters.o}}"}),
             task("fan", "bad", continueOn={"failed": True}, withItems=["0", "1"], given={"x": "{{item}}"})],
            [task("end", "end", given={"x": "{{steps.up.outputs.parameters.o}}"})],
            outputs=shows("steps.end.outputs.parameters.o"),
        ),
        say("up", "1"),
        say("bad", "$x", "x") | {"container": sh("bad", 'printf 1 > /tmp/o; test "$x" = 0', "x")["container"]},
        last(),
    ),
    "result in a condition": workflow(
        steps(
            [task("up", "up")],
            [task("flip", "flip", given={"x": "{{steps.up.outputs.parameters.o}}"})],
            [task("heads", "end", when="{{steps.flip.outputs.result}} == heads", given={"x": "h"}),
             task("tails", "end", when="{{steps.flip.outputs.result}} == tails", given={"x": "t"})],
            outputs={"parameters": [{"name": "o", "valueFrom": {
                "expression": "steps.heads.status == 'Succeeded' ? steps.heads.outputs.parameters.o : 'none'"}}]},
        ),
        say("up", "1"), sh("flip", "echo heads", "x"), last(),
    ),
    "odd values": workflow(
        dag(
            task("up", "up"),
            task("mid", "mid", depends="up", given={"x": UP}),
            task("end", "end", depends="mid", given={"x": "{{tasks.mid.outputs.parameters.o}}"}),
            outputs=shows("tasks.end.outputs.parameters.o"),
        ),
        say("up", "ü 'q' \\\\ \\\" \n x"), say("mid", "$x$x", "x"), last(),
    ),
    "parameters of the start": workflow(
        dag(
            task("up", "mid", given={"x": "{{inputs.parameters.p}}"}),
            task("end", "end", depends="up", given={"x": UP + "{{workflow.parameters.p}}"}),
            inputs={"parameters": [{"name": "p"}]}, outputs=shows("tasks.end.outputs.parameters.o"),
        ),
        say("mid", "<$x>", "x"), last(), parameters={"p": "val"},
    ),
    "retries": workflow(
        dag(
            task("up", "up"),
            task("mid", "mid", depends="up", given={"x": UP}),
            task("fan", "mid", depends="up", withItems=[1, 2], given={"x": "{{item}}" + UP}),
            task("end", "end", depends="mid && fan",
                 given={"x": "{{tasks.mid.outputs.parameters.o}}{{tasks.fan.outputs.parameters.o}}"}),
            outputs=shows("tasks.end.outputs.parameters.o"),
        ),
        say("up", "1"), say("mid", "<$x>", "x", retryStrategy={"limit": "1"}), last(),
    ),
    "retries of everything": workflow(
        dag(
            task("up", "up"),
            task("mid", "mid", depends="up", given={"x": UP}),
            task("fan", "mid", depends="up", withItems=[1, 2], given={"x": "{{item}}" + UP}),
            task("end", "end", depends="mid && fan",
                 given={"x": "{{tasks.mid.outputs.parameters.o}}{{tasks.fan.outputs.parameters.o}}"}),
            outputs=shows("tasks.end.outputs.parameters.o"),
        ),
        say("up", "1"), say("mid", "<$x>", "x"), last(), templateDefaults={"retryStrategy": {"limit": "1"}},
    ),
    "stretch": workflow(
        dag(
            task("up", "up"),
            task("a", "mid", depends="up", given={"x": UP}),
            task("b", "one", depends="a", given={"x": "{{tasks.a.outputs.parameters.o}}"}),
            task("c", "two", depends="a && up", given={"x": "{{tasks.a.outputs.parameters.o}} " + UP}),
            task("fan", "loop", depends="b && c", withItems=[1, 2, 3],
                 given={"x": "{{item}}{{tasks.b.outputs.parameters.o}}", "k": "{{tasks.c.outputs.parameters.o}}"}),
            task("end", "end", depends="fan", given={"x": "{{tasks.fan.outputs.parameters.o}}"}),
            outputs=shows("tasks.end.outputs.parameters.o"),
        ),
        say("up", "1"), say("mid", "<$x>", "x"), say("one", "one $x", "x"), say("two", "two $x", "x"),
        say("loop", "$x$k", "x", "k"), last(),
    ),
    "stretch of artifacts, results and items of a member": workflow(
        dag(
            task("up", "up"),
            task("list", "list", depends="up", given={"x": UP}),
            task("file", "file", depends="list", given={"x": "{{tasks.list.outputs.result}}"}),
            task("fan", "loop", depends="list", withParam="{{tasks.list.outputs.result}}",
                 given={"x": "{{item.n}}", "k": UP}),
            {**task("read", "read", depends="file && fan", given={"x": "{{tasks.fan.outputs.parameters.o}}"}),
             "arguments": {"parameters": [{"name": "x", "value": "{{tasks.fan.outputs.parameters.o}}"}],
                           "artifacts": [{"name": "f", "from": "{{tasks.file.outputs.artifacts.f}}"}]}},
            task("end", "end", depends="read", given={"x": "{{tasks.read.outputs.parameters.o}}"}),
            outputs=shows("tasks.end.outputs.parameters.o"),
        ),
        say("up", "k"), sh("list", 'echo "[{\\"n\\":1},{\\"n\\":2}]"', "x"),
        sh("file", 'printf %s "$x" > /tmp/f', "x", outputs={"artifacts": [{"name": "f", "path": "/tmp/f"}]}),
        say("loop", "$x$k", "x", "k"),
        {**sh("read", 'printf %s "$x$(cat /tmp/f)" > /tmp/o', "x", outputs=gives("o")),
         "inputs": {"parameters": [{"name": "x"}], "artifacts": [{"name": "f", "path": "/tmp/f"}]}},
        last(),
    ),
    "conditions in a stretch": workflow(
        dag(
            task("up", "up"),
            task("a", "mid", depends="up", given={"x": UP}),
            task("yes", "one", depends="a", when="'{{tasks.a.outputs.parameters.o}}' == '<1>'",
                 given={"x": "{{tasks.a.outputs.parameters.o}}"}),
            task("no", "two", depends="a", when="'{{tasks.a.outputs.parameters.o}}' != '<1>'",
                 given={"x": "{{tasks.a.outputs.parameters.o}}"}),
            task("after", "mid", depends="yes && no", given={"x": "{{tasks.yes.outputs.parameters.o}}"}),
            task("end", "end", depends="after", given={"x": "{{tasks.after.outputs.parameters.o}}"}),
            outputs=shows("tasks.end.outputs.parameters.o"),
        ),
        say("up", "1"), say("mid", "<$x>", "x"), say("one", "one $x", "x"), say("two", "two $x", "x"),
        say("loop", "$x$k", "x", "k"), last(),
    ),
    "a failure behind a stretch": workflow(
        dag(
            task("up", "up"),
            task("a", "mid", dependencies=["up"], given={"x": UP}),
            task("bad", "bad", dependencies=["a"], given={"x": "{{tasks.a.outputs.parameters.o}}"}),
            task("never", "mid", dependencies=["bad"], given={"x": UP}),
            task("end", "end", dependencies=["a"], given={"x": "{{tasks.a.outputs.parameters.o}}"}),
            outputs=shows("tasks.end.outputs.parameters.o"),
        ),
        say("up", "1"), say("mid", "<$x>", "x"), sh("bad", "exit 1", "x", outputs=gives("o")), last(),
    ),
    "stretch in a loop over nested, with retries of everything": workflow(
        dag(
            task("up", "up"),
            task("in", "inner", depends="up", withItems=[1, 2], given={"x": "{{item}}" + UP}),
            task("end", "end", depends="in", given={"x": "{{tasks.in.outputs.parameters.o}}"}),
            outputs=shows("tasks.end.outputs.parameters.o"),
        ),
        dag(
            task("a", "mid", given={"x": "{{inputs.parameters.x}}"}),
            task("b", "one", depends="a", given={"x": "{{tasks.a.outputs.parameters.o}}"}),
            task("c", "loop", depends="a", withItems=["p", "q"],
                 given={"x": "{{item}}", "k": "{{tasks.a.outputs.parameters.o}}"}),
            task("d", "mid", depends="b && c",
                 given={"x": "{{tasks.b.outputs.parameters.o}}{{tasks.c.outputs.parameters.o}}"}),
            name="inner", inputs={"parameters": [{"name": "x"}]}, outputs=shows("tasks.d.outputs.parameters.o"),
        ),
        say("up", "1"), say("mid", "<$x>", "x"), say("one", "one $x", "x"), say("loop", "$x$k", "x", "k"), last(),
        templateDefaults={"retryStrategy": {"limit": "1"}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
async def test_whatever_the_cache_holds_a_run_has_the_outputs_that_it_has_without(
    harness: Harness, case: str
) -> None:
    manifest = CASES[case]
    plain = await harness.run(manifest, mode=CacheMode.OFF)
    assert not plain.run.state.generated
    assert plain.run.phase.is_final
    plan = (await harness.dispatcher.plan(harness.request(manifest))).plan
    entries = dict(harness.cache.entries)
    first = {
        key for key in entries if key[1:] == ("{}", "{}")
    }  # the step without inputs, which all others follow
    behind = set(entries) - first
    draw = random.Random(case)
    for left in [set(entries), set(), behind, set(draw.sample(sorted(entries), len(entries) // 2))]:
        harness.cache.entries = {key: entries[key] for key in left}
        warm = await harness.run(manifest)
        assert warm.run.phase is plain.run.phase, warm.run.message
        assert warm.run.outputs == plain.run.outputs
        assert len(warm.finished) == len(warm.phases), "a step was published twice"
        shown = {path: "succeeded" if phase == "cached" else phase for path, phase in warm.phases.items()}
        assert shown == plain.phases
        order = list(warm.phases)
        for step in plan.steps:
            for before in step.call.depends_on:
                if {step.call.path, before} <= warm.phases.keys():
                    assert order.index(before) < order.index(step.call.path)
        if first and left == behind and plain.run.phase is RunPhase.SUCCEEDED:
            assert warm.ran == {"up"}, "behind a step that gave the same as before nothing else runs"
