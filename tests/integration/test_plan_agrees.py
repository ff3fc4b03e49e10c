"""What a plan says, what the run does, and what `why` and the run's summary say afterwards are the same."""

import json
import tempfile
import uuid
from pathlib import Path

import pytest
from stack import Stack

from periplus.dispatcher.v1 import dispatcher_pb2
from periplus.types.v1 import step_pb2

Json = dict[str, object]


def script(name: str, source: str, **more: object) -> Json:
    """A template of a Python script that no run has had."""
    unique = f"# {uuid.uuid4()}\n{source}\n"
    return {
        "name": name,
        "script": {"image": "python:3.11", "command": ["python3"], "source": unique},
        **more,
    }


def parameters(*names: str) -> Json:
    return {"parameters": [{"name": n, "valueFrom": {"path": f"/tmp/{n}"}} for n in names]}


def dag(tasks: list[Json], *templates: Json, name: str = "", **values: str) -> str:
    """A workflow of a pipeline of its own, or of that of a name."""
    arguments = {"parameters": [{"name": k, "value": v} for k, v in values.items()]}
    return json.dumps(
        {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"generateName": f"{name or f'p{uuid.uuid4().hex[:8]}'}-"},
            "spec": {
                "entrypoint": "main",
                "arguments": arguments,
                "templates": [{"name": "main", "dag": {"tasks": tasks}}, *templates],
            },
        }
    )


def plan(stack: Stack, manifest: str, **values: str) -> dict[str, tuple[str, str]]:
    """Verdict and reason of each step, by path."""
    spec = dispatcher_pb2.RunSpec(project="default", manifest=manifest, parameters=values)
    found = stack.dispatcher.PlanRun(dispatcher_pb2.PlanRunRequest(spec=spec), timeout=60).plan
    name = step_pb2.Verdict.Name
    return {s.path: (name(s.verdict).removeprefix("VERDICT_").lower(), s.reason) for s in found.steps}


def verdicts(stack: Stack, manifest: str, **values: str) -> dict[str, str]:
    return {path: verdict for path, (verdict, _) in plan(stack, manifest, **values).items()}


def phases(stack: Stack, manifest: str, **values: str) -> tuple[str, dict[str, str]]:
    """A run of a manifest that has succeeded, and the phases of its steps by path."""
    run = stack.finish(manifest, **values)
    assert run.phase == step_pb2.RUN_PHASE_SUCCEEDED, run.message
    name = step_pb2.StepPhase.Name
    return run.id, {s.path: name(s.phase).removeprefix("STEP_PHASE_").lower() for s in run.steps}


def why(stack: Stack, run: str, step: str) -> str:
    return json.loads(stack.periplus("why", run, step, "-o", "json").stdout)["reason"]


WRITES = 'import os, pathlib\npathlib.Path("/tmp/o").write_text(os.environ.get("X", ""))'


def writer(name: str = "make", source: str = WRITES, **more: object) -> Json:
    """A template with the parameter `x` and the output `o`, which is `x` unless its source says otherwise."""
    made = script(name, source, inputs={"parameters": [{"name": "x"}]}, outputs=parameters("o"), **more)
    made["script"]["env"] = [{"name": "X", "value": "{{inputs.parameters.x}}"}]  # type: ignore[index]
    return made


def call(name: str, x: str, **more: object) -> Json:
    given = {"parameters": [{"name": "x", "value": x}]}
    return {"name": name, "template": name, "arguments": given, **more}


READS = """import pathlib
conf = pathlib.Path("/tmp/conf").read_text()
pathlib.Path("/tmp/seen").write_text(conf)"""


def with_raw(text: str, template: Json) -> str:
    given = {"artifacts": [{"name": "conf", "raw": {"data": text}}]}
    return dag([{"name": "score", "template": "score", "arguments": given}], template)


def test_a_step_with_a_raw_input_is_cached_and_runs_for_another_text(stack: Stack) -> None:
    inputs = {"artifacts": [{"name": "conf", "path": "/tmp/conf"}]}
    score = script("score", READS, inputs=inputs, outputs=parameters("seen"))
    _, first = phases(stack, with_raw("lr: 0.1", score))
    assert first == {"score": "succeeded"}
    assert verdicts(stack, with_raw("lr: 0.1", score)) == {"score": "hit"}
    assert verdicts(stack, with_raw("lr: 0.9", score)) == {"score": "miss"}


CHECK = 'import pathlib, sys\npathlib.Path("/tmp/ok").write_text("fine")'
USE = 'import os, pathlib\npathlib.Path("/tmp/seen").write_text(str(os.path.isfile("/tmp/report")))'


@pytest.mark.parametrize("is_written", [False, True])
def test_a_step_whose_optional_output_was_not_made_is_cached_and_so_is_what_takes_it(
    stack: Stack, is_written: bool
) -> None:
    source = CHECK + ('\npathlib.Path("/tmp/report").write_text("r")' if is_written else "")
    report = {"name": "report", "path": "/tmp/report", "optional": True}
    check = script("check", source, outputs=parameters("ok") | {"artifacts": [report]})
    taken = {"artifacts": [report]}
    use = script("use", USE, inputs=taken, outputs=parameters("seen"))
    salted = script(
        "salted",
        USE + '\nimport os; os.environ["SALT"]',
        inputs=taken | {"parameters": [{"name": "salt"}]},
        outputs=parameters("seen"),
    )
    salted["script"]["env"] = [{"name": "SALT", "value": "{{inputs.parameters.salt}}"}]  # type: ignore[index]
    given = [{"name": "report", "from": "{{tasks.check.outputs.artifacts.report}}", "optional": True}]
    salt = [{"name": "salt", "value": "{{workflow.parameters.salt}}"}]
    manifest = dag(
        [
            {"name": "check", "template": "check"},
            {"name": "use", "template": "use", "depends": "check", "arguments": {"artifacts": given}},
            {
                "name": "salted",
                "template": "salted",
                "depends": "check",
                "arguments": {"artifacts": given, "parameters": salt},
            },
        ],
        check,
        use,
        salted,
        salt="1",
    )
    phases(stack, manifest)
    assert set(verdicts(stack, manifest).values()) == {"hit"}
    assert verdicts(stack, manifest, salt="2") == {"check": "hit", "use": "hit", "salted": "miss"}
    run, again = phases(stack, manifest, salt="2")
    assert again == {"check": "cached", "use": "cached", "salted": "succeeded"}
    seen = [p.value for s in stack.run(run).steps for p in s.outputs.parameters if p.name == "seen"]
    assert seen == [str(is_written)] * 2


def test_a_step_that_need_not_make_an_output_is_not_cached_where_its_inputs_are_known_during_the_run_only(
    stack: Stack,
) -> None:
    feed = script("feed", CHECK, outputs=parameters("ok")) | {
        "metadata": {"annotations": {"periplus.dev/side-effects": "true"}}
    }
    report = {"name": "report", "path": "/tmp/report", "optional": True}
    inputs = {"parameters": [{"name": "ok"}]}
    check = script("check", CHECK, inputs=inputs, outputs=parameters("ok") | {"artifacts": [report]})
    given = {"parameters": [{"name": "ok", "value": "{{tasks.feed.outputs.parameters.ok}}"}]}
    manifest = dag(
        [
            {"name": "feed", "template": "feed"},
            {"name": "check", "template": "check", "depends": "feed", "arguments": given},
        ],
        feed,
        check,
    )
    phases(stack, manifest)
    assert verdicts(stack, manifest) == {"feed": "uncacheable", "check": "uncacheable"}
    assert phases(stack, manifest)[1] == {"feed": "succeeded", "check": "succeeded"}


@pytest.mark.parametrize("text", ['"a{" + "{workflow.name}}b"', '"y" * 70_000'], ids=["tag", "long"])
def test_a_hit_that_has_to_run_again_is_to_run_in_the_plan_and_in_why(stack: Stack, text: str) -> None:
    source = f'import pathlib\npathlib.Path("/tmp/o").write_text({text})'
    make, apart = writer("make", source), writer("apart")
    manifest = dag([call("make", "1"), call("apart", "{{workflow.parameters.salt}}")], make, apart, salt="1")
    first, _ = phases(stack, manifest)
    assert set(verdicts(stack, manifest).values()) == {"hit"}
    assert phases(stack, manifest)[1] == {"make": "cached", "apart": "cached"}
    found = plan(stack, manifest, salt="2")
    assert {path: verdict for path, (verdict, _) in found.items()} == {"make": "miss", "apart": "miss"}
    reason = found["make"][1]
    assert reason.startswith(f"run {first} did the same, but it runs: its outputs have ")
    text_of_plan = stack.periplus("plan", _file(manifest), "-p", "salt=2").stdout
    assert "2 steps: 2 to run" in text_of_plan
    run, again = phases(stack, manifest, salt="2")
    assert again == {"make": "succeeded", "apart": "succeeded"}
    assert why(stack, run, "make") == reason


def _file(manifest: str) -> str:
    path = Path(tempfile.mkdtemp()) / "workflow.json"
    path.write_text(manifest)
    return str(path)


def test_a_plan_says_what_became_of_the_result_of_a_step_that_ran_before(stack: Stack) -> None:
    short = {"metadata": {"annotations": {"periplus.dev/ttl": "1s"}}}
    reads = {"metadata": {"annotations": {"periplus.dev/cache": "read"}}}
    fails = (
        'import pathlib, sys\npathlib.Path("/tmp/o").write_text("1")\nsys.exit(0 if "OK" in sys.argv else 1)'
    )
    templates = [
        writer("expired", **short),
        writer("unkept", **reads),
        writer("gone"),
        writer("failed", fails),
    ]
    gone = templates[2]
    gone["outputs"] = {"artifacts": [{"name": "o", "path": "/tmp/o"}]}
    calls = [call(str(t["name"]), "1", continueOn={"failed": True}) for t in templates]
    manifest = dag(calls, *templates)
    assert {reason for _, reason in plan(stack, manifest).values()} == {
        "it was never run before with this code and environment"
    }
    first = stack.finish(manifest)
    keys = {s.path: a.object.key for s in first.steps for a in s.outputs.artifacts}
    stack.delete(keys["gone"])
    stack.wait_until(lambda: plan(stack, manifest)["expired"][0] == "miss")
    found = plan(stack, manifest)
    same = f"run {first.id} did the same, but "
    assert found["expired"][1].startswith(f"{same}its time to live was over on 20")
    assert found["unkept"] == ("miss", f"{same}its cache mode was read, so its result was not recorded")
    assert found["gone"] == ("miss", f"{same}its result is no longer served: bytes are gone")
    assert found["failed"] == ("miss", f"run {first.id} tried the same and did not succeed")
    second = stack.finish(manifest)
    assert (
        why(stack, second.id, "expired")
        == f"run {first.id} did the same in step expired, but its result is no longer served: its time to live was over"
    )
    assert (
        why(stack, second.id, "gone")
        == f"run {first.id} did the same in step gone, but its result is no longer served: bytes are gone"
    )
    assert why(stack, second.id, "unkept") == found["unkept"][1]
    assert why(stack, second.id, "failed") == found["failed"][1]


def test_why_compares_with_a_step_of_its_own_pipeline_while_there_is_one(stack: Stack) -> None:
    name, other = (f"p{uuid.uuid4().hex[:8]}" for _ in range(2))
    make = writer()
    own, _ = phases(stack, dag([call("make", "1")], writer(), name=name))
    others, _ = phases(stack, dag([call("make", "2")], make, name=other))
    run, _ = phases(stack, dag([call("make", "3")], make, name=name))
    found = json.loads(stack.periplus("why", run, "make", "-o", "json").stdout)
    assert found["producer_run"] == own
    alone, _ = phases(stack, dag([call("make", "4")], make))
    found = json.loads(stack.periplus("why", alone, "make", "-o", "json").stdout)
    assert found["producer_run"] in (run, others)


@pytest.mark.parametrize("watch", [["--watch"], ["--no-watch"]], ids=str)
def test_a_request_that_is_sent_again_tells_what_its_run_did(stack: Stack, watch: list[str]) -> None:
    file, name = (
        _file(dag([call("one", "1"), call("two", "2")], writer("one"), writer("two"))),
        uuid.uuid4().hex,
    )
    first = stack.periplus("run", file, "--request-id", name).stdout
    again = stack.periplus("run", file, "--request-id", name, *watch).stdout
    assert "2 steps ran, 0 cached" in first
    assert "was submitted before with this request id" in again
    assert "2 steps ran, 0 cached" in again
    assert "nothing to do" not in again


def test_a_step_with_values_too_large_for_an_event_is_recorded_and_the_plan_says_what_is_not_kept(
    stack: Stack,
) -> None:
    big = script(
        "big", 'import pathlib\npathlib.Path("/tmp/o").write_text("x" * 300_000)', outputs=parameters("o")
    )
    takes = script("takes", WRITES, inputs={"parameters": [{"name": "text"}]}, outputs=parameters("o"))
    given = {"parameters": [{"name": "text", "value": "{{tasks.big.outputs.parameters.o}}"}]}
    tasks: list[Json] = [
        {"name": "big", "template": "big"},
        {"name": "takes", "template": "takes", "depends": "big", "arguments": given},
    ]
    manifest = dag(tasks, big, takes, text="y" * 300_000)
    first, _ = phases(stack, manifest)  # its steps are recorded, so that no event is a dead letter
    found = plan(stack, manifest)
    kept = "its result could not be recorded: its output o has 300,000 bytes, which is too large to be kept"
    assert found["big"] == ("miss", f"run {first} did the same, but {kept}")
    run, again = phases(stack, manifest)
    assert again == {"big": "succeeded", "takes": "cached"}
    assert why(stack, run, "big") == found["big"][1]
    (omitted,) = stack.run(run).steps[0].outputs.omitted
    assert (omitted.name, omitted.size_bytes) == ("o", 300_000)


def test_two_equal_steps_with_different_outputs_are_told_of_and_are_not_cached_any_more(stack: Stack) -> None:
    source = "import os, pathlib\nos.urandom(8)\npathlib.Path('/tmp/o').write_text(os.urandom(8).hex())"
    stops = {"periplus.dev/stop-on-divergence": "true"}
    rnd = script("rnd", source, outputs=parameters("o"), metadata={"annotations": stops})
    manifest = dag([{"name": "rnd", "template": "rnd"}], rnd)
    first, _ = phases(stack, manifest)
    assert verdicts(stack, manifest) == {"rnd": "hit"}
    # Not looked up, but recorded: it runs again with the same key.
    writes = rnd | {"metadata": {"annotations": stops | {"periplus.dev/cache": "write"}}}
    again = dag([{"name": "rnd", "template": "rnd"}], writes)
    second, _ = phases(stack, again)
    sentence = f"rnd of {second} gave another parameters.o than rnd of {first}, which has the same key"
    assert sentence in stack.periplus("runs", second).stderr
    assert sentence in stack.periplus("watch", second).stderr
    (told,) = json.loads(stack.periplus("runs", second, "-o", "json").stdout)["divergences"]
    assert (told["run"], told["producer_run"], told["outputs"]) == (second, first, ["parameters.o"])
    for run in (first, second):
        assert sentence in stack.periplus("why", run, "rnd").stdout
    verdict, reason = plan(stack, manifest)["rnd"]
    assert verdict == "uncacheable"
    assert reason.startswith(f"it stops on divergence: step rnd of run {second} gave another parameters.o")
    third, ran = phases(stack, manifest)
    assert ran == {"rnd": "succeeded"}
    assert why(stack, third, "rnd") == f"it is not cached: {reason}"
    stack.periplus("cache", "invalidate", f"{first}/rnd", "--yes")
    assert verdicts(stack, manifest) == {"rnd": "miss"}


def test_a_folder_that_is_stored_without_an_archive_is_not_cached_and_the_plan_says_so(stack: Stack) -> None:
    source = "import pathlib\npathlib.Path('/tmp/d').mkdir()\npathlib.Path('/tmp/d/a').write_text('1')"
    folder = {"artifacts": [{"name": "d", "path": "/tmp/d", "archive": {"none": {}}}]}
    manifest = dag([{"name": "make", "template": "make"}], script("make", source, outputs=folder))
    first, _ = phases(stack, manifest)
    verdict, reason = plan(stack, manifest)["make"]
    assert verdict == "miss"
    assert reason.startswith(f"run {first} did the same, but its result could not be recorded: ")
    assert reason.endswith(
        "is a folder that was stored without an archive, as many objects, which is not cached: leave out archive: {none: {}}"
    )
    run, again = phases(stack, manifest)
    assert again == {"make": "succeeded"}
    assert why(stack, run, "make") == reason
