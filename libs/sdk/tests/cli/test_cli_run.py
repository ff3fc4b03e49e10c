"""`periplus run` and `plan`: the requests, the output and the exit code."""

import json
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from periplus.dispatcher.v1 import dispatcher_pb2 as dispatcher
from periplus.lineage.v1 import lineage_pb2 as lineage
from periplus.types.v1 import step_pb2 as types
from periplus_common.errors import Unavailable
from periplus_manifest.read import read_all

MANIFEST = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\n"
HIT, MISS = types.VERDICT_HIT, types.VERDICT_MISS


def planned(
    path: str, verdict: int, reason: str = "", saved: int = 0, producer_run: str = ""
) -> dispatcher.PlannedStep:
    template = path.partition("(")[0]
    step = dispatcher.PlannedStep(
        path=path, template=template, verdict=verdict, reason=reason, producer_run=producer_run
    )
    if saved:
        step.saved.seconds = saved
    return step


def step(path: str, phase: int, **fields: object) -> lineage.Step:
    message = lineage.Step(path=path, template=path, phase=phase, **fields)
    if phase in (3, 4, 5):
        message.started_at.FromDatetime(datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC))
        message.finished_at.FromDatetime(datetime(2026, 11, 22, 12, 0, 2, tzinfo=UTC))
    return message


def changes(phase: int, *steps: lineage.Step, message: str = "") -> list[lineage.WatchRunResponse]:
    """The messages of WatchRun for a run that is running, then finished."""
    start = Timestamp(seconds=1_800_000_000)
    running = lineage.Run(project="default", id="digits-1", phase=types.RUN_PHASE_RUNNING, submitted_at=start)
    over = lineage.Run(
        project="default",
        id="digits-1",
        phase=phase,
        message=message,
        submitted_at=start,
        finished_at=Timestamp(seconds=1_800_000_002),
        outputs=types.Outputs(parameters=[types.Parameter(name="accuracy", value="0.98")]),
    )
    first = lineage.WatchRunResponse(run=running, steps=[step("train", types.STEP_PHASE_RUNNING)])
    return [first, lineage.WatchRunResponse(run=over, steps=steps)]


@pytest.fixture
def workflow(tmp_path: Path) -> str:
    (tmp_path / "workflow.yaml").write_text(MANIFEST)
    return "workflow.yaml"


def cached() -> dispatcher.SubmitRunResponse:
    steps = [
        planned("ingest", HIT, saved=2, producer_run="digits-0"),
        planned("train", HIT, saved=40, producer_run="digits-0"),
    ]
    return dispatcher.SubmitRunResponse(
        run="digits-1",
        phase=types.RUN_PHASE_SUCCEEDED,
        plan=dispatcher.Plan(steps=steps, saved=Duration(seconds=42)),
        outputs=types.Outputs(parameters=[types.Parameter(name="accuracy", value="0.98")]),
    )


def running() -> dispatcher.SubmitRunResponse:
    steps = [
        planned("ingest", HIT, saved=2, producer_run="digits-0"),
        planned("train", MISS, "parameters.c differs"),
    ]
    return dispatcher.SubmitRunResponse(
        run="digits-1", phase=types.RUN_PHASE_RUNNING, plan=dispatcher.Plan(steps=steps)
    )


def test_a_fully_cached_run_ends_at_once_and_prints_the_savings(script, periplus, workflow):
    script.answers["SubmitRun"] = cached()
    result = periplus("run", workflow)
    assert result.code == 0
    assert result.out.startswith(
        dedent("""\
        run digits-1
        STEP    CACHE  SAVES  WHY
        ingest  hit    2.0 s  produced by digits-0
        train   hit    40 s   produced by digits-0

        2 steps: 2 cached; saves 42 s

        run digits-1 succeeded in """)
    )
    assert result.out.endswith(": 0 steps ran, 2 cached (42 s saved)\n  accuracy = 0.98\n")
    assert script.requests("WatchRun") == []


def test_a_manifest_is_sent_unchanged_with_its_parameters_and_claim(script, periplus, workflow):
    script.answers["SubmitRun"] = cached()
    result = periplus(
        "run", workflow, "-p", "c=1=2", "-p", "empty=", "--cache", "refresh", "--request-id", "id-1"
    )
    assert result.code == 0
    (request,) = script.requests("SubmitRun")
    assert request.request_id == "id-1"
    assert request.spec.project == "default"
    assert request.spec.manifest == MANIFEST
    assert dict(request.spec.parameters) == {"c": "1=2", "empty": ""}
    assert request.spec.cache_mode == types.CACHE_MODE_REFRESH
    assert request.spec.claim.platform.python_implementation == "CPython"
    assert "grpcio" in {package.name for package in request.spec.claim.installed}


def test_a_pipeline_is_compiled_and_sent_with_its_code(script, periplus, tmp_path):
    (tmp_path / "flow.py").write_text(
        dedent("""\
        from periplus.sdk import pipeline, step
        print("noise of the user's file")

        @step
        def double(x: int) -> int:
            return 2 * x

        @pipeline
        def flow(x: int = 1):
            return double(x)
        """)
    )
    script.answers["SubmitRun"] = cached()
    result = periplus("run", "flow.py", "-p", "x=21", "-o", "json")
    assert result.code == 0
    assert result.document["run"] == "digits-1"
    (request,) = script.requests("SubmitRun")
    assert '"value": "21"' in request.spec.manifest
    assert request.spec.claim.code_archive.startswith(b"\x1f\x8b")


def test_an_image_is_that_of_the_steps_that_name_none(script, periplus, tmp_path):
    (tmp_path / "flow.py").write_text(
        dedent("""\
        from periplus.sdk import pipeline, step

        @step(image="own:1")
        def one() -> int:
            return 1

        @step
        def two(x: int) -> int:
            return x

        @pipeline(image="base:1")
        def flow():
            return two(one())
        """)
    )
    script.answers["SubmitRun"] = cached()
    for command in ("compile", "run"):
        assert periplus(command, "flow.py", "--image", "given:1").code == 0
    (request,) = script.requests("SubmitRun")
    templates = {t["name"]: t for t in json.loads(request.spec.manifest)["spec"]["templates"]}
    assert templates["one"]["container"]["image"] == "own:1"
    assert templates["two"]["container"]["image"] == "given:1"


def test_a_run_is_followed_line_by_line_and_its_phase_is_the_exit_code(script, periplus, workflow):
    script.answers["SubmitRun"] = running()
    script.answers["WatchRun"] = changes(types.RUN_PHASE_SUCCEEDED, step("train", types.STEP_PHASE_SUCCEEDED))
    result = periplus("run", workflow)
    assert result.code == 0
    assert "\ntrain  running\ntrain  succeeded  2.0 s\n" in result.out
    assert "\nrun digits-1 succeeded in " in result.out
    assert result.out.endswith(": 1 step ran, 0 cached\n  accuracy = 0.98\n")


def test_a_run_that_fails_exits_with_1_and_names_the_step_and_its_logs(script, periplus, workflow):
    failed = step("train(3)", types.STEP_PHASE_FAILED, message="exit code 1")
    script.answers["SubmitRun"] = running()
    script.answers["WatchRun"] = changes(types.RUN_PHASE_FAILED, failed)
    result = periplus("run", workflow)
    assert result.code == 1
    assert "run digits-1 failed" in result.out
    assert "train(3) failed: exit code 1" in result.err
    assert "periplus logs digits-1 --step 'train(3)'" in result.err


def test_a_cancelled_run_exits_with_4(script, periplus, workflow):
    script.answers["SubmitRun"] = running()
    script.answers["WatchRun"] = changes(types.RUN_PHASE_CANCELLED, message="stopped")
    assert periplus("run", workflow).code == 4


def test_without_watching_the_command_ends_when_the_run_is_accepted(script, periplus, workflow):
    script.answers["SubmitRun"] = running()
    result = periplus("run", workflow, "--no-watch")
    assert (result.code, script.requests("WatchRun")) == (0, [])
    assert result.out.endswith("run digits-1 was accepted; periplus watch digits-1\n")


def test_a_stream_that_breaks_is_opened_again(script, periplus, workflow):
    first, last = changes(types.RUN_PHASE_SUCCEEDED, step("train", types.STEP_PHASE_SUCCEEDED))
    streams = iter([[first, Unavailable("Postgres is away")], [first], [last]])
    script.answers["SubmitRun"] = running()
    script.answers["WatchRun"] = lambda _: next(streams)
    result = periplus("run", workflow, "-o", "json")
    assert (result.code, result.document["phase"]) == (0, "SUCCEEDED")


def test_a_request_whose_response_is_lost_is_sent_again_with_the_same_id(script, periplus, workflow):
    answers = iter([Unavailable("Postgres is away"), cached()])
    script.answers["SubmitRun"] = lambda _: next(answers)
    assert periplus("run", workflow).code == 0
    first, second = script.requests("SubmitRun")
    assert first == second


def test_the_json_of_a_run_is_one_document(script, periplus, workflow):
    script.answers["SubmitRun"] = running()
    script.answers["WatchRun"] = changes(types.RUN_PHASE_SUCCEEDED, step("train", types.STEP_PHASE_SUCCEEDED))
    document = periplus("run", workflow, "-o", "json").document
    assert {key: document[key] for key in ("run", "phase", "steps_run", "steps_cached")} == {
        "run": "digits-1", "phase": "SUCCEEDED", "steps_run": 1, "steps_cached": 0,
    }  # fmt: skip
    assert document["outputs"]["parameters"] == [{"name": "accuracy", "value": "0.98"}]
    assert document["plan"]["steps"][0]["verdict"] == "HIT"
    assert document["plan"]["steps"][0]["saved"] == 2.0
    assert document["steps"][0]["phase"] == "SUCCEEDED"
    assert document["steps"][0]["started_at"] == "2026-11-22T12:00:00Z"


def test_a_plan_has_one_row_for_items_with_the_same_verdict(script, periplus, workflow):
    steps = [planned("ingest", HIT, saved=2)]
    steps += [planned(f"train({index})", HIT if index % 100 else MISS, saved=0) for index in range(2000)]
    script.answers["PlanRun"] = dispatcher.PlanRunResponse(
        plan=dispatcher.Plan(steps=steps, warnings=["image python:3.11 is not pinned"])
    )
    result = periplus("plan", workflow)
    assert result.out == dedent("""\
        STEP           CACHE      SAVES  WHY
        ingest         hit        2.0 s
        train(0…1900)  miss x20
        train(1…1999)  hit x1980

        2,001 steps: 1,981 cached, 20 to run
        """)
    assert result.err == "warning: image python:3.11 is not pinned\n"


HERA = """
    from hera.workflows import {imports}, script


    @script(image="python:3.11")
    def say(x: str):
        print("é😀", x)


"""
ONE = 'with Workflow(generate_name="{name}-", entrypoint="say") as {name}:\n    say()\n'


def hera_file(tmp_path: Path, *parts: str, imports: str = "Workflow") -> str:
    (tmp_path / "flow.py").write_text(dedent(HERA.format(imports=imports)) + "".join(parts))
    return "flow.py"


def test_the_hera_workflow_of_a_file_is_sent_as_its_manifest(periplus, script, tmp_path: Path) -> None:
    script.answers["PlanRun"] = dispatcher.PlanRunResponse()
    file = hera_file(tmp_path, "print('loaded')\n", ONE.format(name="one"))
    done = periplus("plan", file, "-p", "seed=7")
    assert done.code == 0, done.err
    assert "loaded" not in done.out
    (request,) = script.requests("PlanRun")
    (document,) = read_all(request.spec.manifest)
    assert document["metadata"] == {"generateName": "one-"}
    assert "print('é😀', x)" in document["spec"]["templates"][0]["script"]["source"]
    assert dict(request.spec.parameters) == {"seed": "7"}


def test_hera_templates_come_along_as_further_documents(periplus, script, tmp_path: Path) -> None:
    script.answers["PlanRun"] = dispatcher.PlanRunResponse()
    template = 'with WorkflowTemplate(name="lib", entrypoint="say") as lib:\n    say()\n'
    file = hera_file(tmp_path, ONE.format(name="one"), template, imports="Workflow, WorkflowTemplate")
    assert periplus("plan", file).code == 0
    assert periplus("plan", f"{file}:lib").code == 0
    first, second = [read_all(request.spec.manifest) for request in script.requests("PlanRun")]
    assert [each["kind"] for each in first] == ["Workflow", "WorkflowTemplate"]
    assert [each["kind"] for each in second] == ["Workflow", "WorkflowTemplate"]
    assert second[0]["spec"] == {"workflowTemplateRef": {"name": "lib"}}
    source = first[1]["spec"]["templates"][0]["script"]["source"]
    assert "print('é😀', x)" in source


def test_one_of_several_hera_workflows_is_named(periplus, script, tmp_path: Path) -> None:
    script.answers["PlanRun"] = dispatcher.PlanRunResponse()
    file = hera_file(tmp_path, ONE.format(name="one"), ONE.format(name="two"))
    refused = periplus("plan", file)
    assert refused.code == 2
    assert "has several workflows: one, two" in refused.err
    assert "flow.py:one" in refused.err
    assert periplus("plan", f"{file}:two").code == 0
    assert "no pipeline or workflow three" in periplus("plan", f"{file}:three").err
    (request,) = script.requests("PlanRun")
    assert read_all(request.spec.manifest)[0]["metadata"] == {"generateName": "two-"}
    assert "only pipelines are compiled" in periplus("compile", f"{file}:two").err


def test_a_pipeline_is_run_though_the_file_has_a_hera_workflow(periplus, script, tmp_path: Path) -> None:
    script.answers["PlanRun"] = dispatcher.PlanRunResponse()
    pipeline = "from periplus.sdk import pipeline, step\n@step\ndef f() -> int:\n    return 1\n@pipeline\ndef mine() -> int:\n    return f()\n"
    file = hera_file(tmp_path, ONE.format(name="one"), pipeline)
    assert periplus("plan", file).code == 0
    assert periplus("plan", f"{file}:one").code == 0
    names = [read_all(r.spec.manifest)[0]["metadata"]["generateName"] for r in script.requests("PlanRun")]
    assert names == ["mine-", "one-"]


def test_a_hera_workflow_is_submitted_from_python(script, tmp_path: Path) -> None:
    from hera.workflows import Container, Workflow

    from periplus.sdk import argo

    with Workflow(generate_name="py-", entrypoint="c") as workflow:
        Container(name="c", image="busybox", command=["true"])
    script.answers["SubmitRun"] = dispatcher.SubmitRunResponse(run="py-1")
    assert argo.submit(workflow, parameters={"p": "1"}, request_id="once").run == "py-1"
    assert argo.submit(workflow.to_dict(), request_id="once").run == "py-1"
    file = tmp_path / "w.yaml"
    file.write_text(workflow.to_yaml())
    assert argo.submit(file, request_id="once").run == "py-1"
    requests = script.requests("SubmitRun")
    assert [r.request_id for r in requests] == ["once"] * 3
    assert [read_all(r.spec.manifest) for r in requests] == [[workflow.to_dict()]] * 3
    assert dict(requests[0].spec.parameters) == {"p": "1"}
    assert requests[0].spec.claim.platform.python_version
    odd = {"kind": "Workflow", "text": "é😀\x7f\x85\u2028\ufeff\n"}
    assert read_all(argo.manifest([odd, odd])) == [odd, odd]
    script.answers["PlanRun"] = dispatcher.PlanRunResponse(plan=dispatcher.Plan(warnings=["w"]))
    assert list(argo.plan([workflow]).warnings) == ["w"]


def test_the_rewrite_is_shown_as_the_difference_to_the_manifest(periplus, script, workflow: str) -> None:
    source = {"kind": "Workflow", "spec": {"templates": [{"name": "a", "text": "é"}, {"name": "b"}]}}
    submitted = {
        "kind": "Workflow",
        "spec": {"templates": [{"name": "a", "text": "é"}, {"name": "c\x1b[2J"}]},
    }
    script.answers["PlanRun"] = dispatcher.PlanRunResponse(
        source=json.dumps(source), submitted=json.dumps(submitted)
    )
    shown = periplus("plan", workflow, "--show-rewrite")
    assert shown.code == 0, shown.err
    assert "\n--- manifest\n+++ submitted\n" in shown.out
    assert "\n-  - name: b\n" in shown.out
    assert "\x1b" not in shown.out
    assert script.requests("PlanRun")[0].with_rewrite
    document = periplus("plan", workflow, "--show-rewrite", "-o", "json").document
    assert document["rewrite"] == {"source": source, "submitted": submitted}
    script.answers["PlanRun"] = dispatcher.PlanRunResponse(source=json.dumps(source))
    assert "nothing would be submitted" in periplus("plan", workflow, "--show-rewrite").out
    assert "rewrite" not in periplus("plan", workflow, "-o", "json").document
    assert not script.requests("PlanRun")[-1].with_rewrite
