"""What a plan says, what the run does and what `why` says afterwards are the same."""

import json
import uuid

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
