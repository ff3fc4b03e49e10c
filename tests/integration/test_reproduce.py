"""Reproductions on the real stack: the same outputs, other outputs, and what is said before anything runs."""

import json
import re
import subprocess
import time
import uuid
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import grpc
import pytest
from stack import ROOT, WAIT_SECONDS, Stack

from periplus.dispatcher.v1 import dispatcher_pb2
from periplus.lineage.v1 import lineage_pb2
from periplus.snapshotter.v1 import snapshotter_pb2
from periplus.types.v1 import step_pb2

TRAIN = (ROOT / "examples" / "yaml" / "train.yaml").read_text()
Json = dict[str, Any]


def fresh(manifest: str = TRAIN) -> str:
    """The example with a unique comment in each source, so that no entry exists."""
    return manifest.replace("import ", f"# {uuid.uuid4()}\n        import ", 20)


def finish(stack: Stack, text: str, **parameters: str) -> lineage_pb2.Run:
    """Run a manifest until lineage has the digests of all its artifacts, without which nothing can be proven."""
    run = stack.finish(text, **parameters)
    deadline = time.monotonic() + WAIT_SECONDS
    while not all(a.digest for step in run.steps for a in (*step.inputs.artifacts, *step.outputs.artifacts)):
        assert time.monotonic() < deadline, run
        time.sleep(0.1)
        run = stack.run(run.id)
    return run


def reproduce(stack: Stack, *arguments: str, cwd: Path = ROOT) -> tuple[int, Json]:
    """The exit code and the document of `periplus reproduce`."""
    done = stack.periplus("reproduce", *arguments, "-o", "json", check=False, cwd=cwd)
    return done.returncode, json.loads(done.stdout)


def states(found: Json) -> dict[str, str]:
    return {each["name"]: each["state"] for each in found["requirements"]}


def test_a_deterministic_run_grades_identical_and_knows_what_it_reproduces(stack: Stack) -> None:
    first = finish(stack, fresh(), noise="0.2")
    code, found = reproduce(stack, first.id)
    assert (code, found["grade"], found["different"], found["not_comparable"]) == (0, "IDENTICAL", 0, 0)
    compared = {(each["step"], each["output"]) for each in found["outputs"]}
    assert {
        ("ingest", "outputs.points"),
        ("train(3)", "outputs.accuracy"),
        ("register", "outputs.model"),
    } <= compared
    again = stack.run(found["run"])
    assert (again.reproduces, again.pipeline, again.cached_steps) == (first.id, first.pipeline, 0)
    assert again.outputs.parameters == first.outputs.parameters
    assert f"reproduces: {first.id}" in stack.periplus("runs", again.id).stdout
    assert stack.run(first.id).reproduces == ""


SCRIPT = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: again-}
spec:
  entrypoint: main
  templates:
  - name: main
    dag:
      tasks:
      - {name: steady, template: steady}
      - {name: other, template: other, depends: steady}
  - name: steady
    inputs: {artifacts: [{name: data, path: /tmp/data, s3: {key: KEY}}]}
    script: {image: "python:3.11", command: [python3], source: "open('/tmp/o', 'w').write(open('/tmp/data').read()) # SALT"}
    outputs: {artifacts: [{name: copy, path: /tmp/o}]}
  - name: other
    script: {image: "python:3.11", command: [python3], source: "import uuid; open('/tmp/o', 'w').write(VALUE) # SALT"}
    outputs: {parameters: [{name: o, valueFrom: {path: /tmp/o}}]}
"""


def put(stack: Stack, key: str, content: bytes) -> None:
    client, bucket = stack.objects()
    client.put_object(bucket, key, BytesIO(content), len(content))


def manifest(key: str, value: str = "'1'") -> str:
    return SCRIPT.replace("KEY", key).replace("VALUE", value).replace("SALT", uuid.uuid4().hex)


@pytest.fixture
def key(stack: Stack) -> str:
    found = f"datasets/{uuid.uuid4().hex}.csv"
    put(stack, found, b"1,2,3")
    return found


def test_a_step_with_a_random_output_grades_different_and_is_named_with_the_output(
    stack: Stack, key: str
) -> None:
    first = finish(stack, manifest(key, value="str(uuid.uuid4())"))
    code, found = reproduce(stack, first.id)
    assert (code, found["grade"], found["different"]) == (1, "DIFFERENT", 1)
    worst = found["outputs"][0]
    assert (worst["step"], worst["output"], worst["grade"]) == ("other", "outputs.o", "DIFFERENT")
    assert worst["original"] != worst["reproduced"]
    assert {each["output"] for each in found["outputs"] if each["step"] == "steady"} >= {
        "phase",
        "outputs.copy",
    }
    shown = stack.periplus("reproduce", first.id, "--step", "other", check=False)
    assert "other  outputs.o  different" in " ".join(shown.stdout.split("\n")).replace("   ", "  ")


def test_an_input_that_was_overwritten_or_is_gone_is_named_before_anything_runs(
    stack: Stack, key: str
) -> None:
    first = finish(stack, manifest(key))
    code, found = reproduce(stack, first.id, "--dry-run")
    assert (code, states(found)[key], found["run"]) == (0, "MET", "")
    put(stack, key, b"4,5,6")
    code, found = reproduce(stack, first.id)
    assert (code, found["run"], found["grade"]) == (6, "", None)
    (changed,) = [each for each in found["requirements"] if each["name"] == key]
    assert (changed["kind"], changed["state"], changed["steps"]) == ("INPUT", "CHANGED", ["steady"])
    assert changed["expected_digest"] != changed["actual_digest"]
    assert stack.periplus(*changed["fix"].partition("periplus ")[2].split()).stdout
    stack.delete(key)
    code, found = reproduce(stack, first.id)
    assert (code, states(found)[key]) == (6, "MISSING")
    put(stack, key, b"1,2,3")
    assert reproduce(stack, first.id)[0] == 0


def test_a_run_whose_input_was_overwritten_runs_on_demand_and_grades_different(
    stack: Stack, key: str
) -> None:
    first = finish(stack, manifest(key))
    put(stack, key, b"4,5,6")
    code, found = reproduce(stack, first.id, "--anyway")
    assert (code, found["grade"]) == (1, "DIFFERENT")
    assert [(each["step"], each["output"]) for each in found["outputs"] if each["grade"] == "DIFFERENT"] == [
        ("steady", "outputs.copy")
    ]


def test_a_cached_run_is_reproduced_by_running_and_compared_with_what_it_was_served(
    stack: Stack, key: str
) -> None:
    text = manifest(key)
    finish(stack, text)
    cached = finish(stack, text)
    assert cached.cached_steps == 2
    code, found = reproduce(stack, cached.id)
    assert (code, found["grade"], states(found)[key]) == (0, "IDENTICAL", "MET")
    assert stack.run(found["run"]).cached_steps == 0
    put(stack, key, b"4,5,6")
    assert states(reproduce(stack, cached.id, "--dry-run")[1])[key] == "CHANGED"


def test_one_step_runs_with_the_inputs_that_it_had(stack: Stack) -> None:
    first = finish(stack, fresh())
    code, found = reproduce(stack, first.id, "--step", "train(2)")
    assert (code, found["grade"]) == (0, "IDENTICAL")
    assert {each["step"] for each in found["outputs"]} == {"train(2)"}
    again = stack.run(found["run"])
    assert [step.template for step in again.steps] == ["train"]
    (item,) = [step for step in first.steps if step.path == "train(2)"]
    assert again.steps[0].inputs.parameters == item.inputs.parameters
    assert again.reproduced_step == "train(2)"
    assert reproduce(stack, first.id, "--step", "nowhere")[0] == 5


def test_a_step_with_side_effects_is_not_repeated_unless_one_says_so(stack: Stack, key: str) -> None:
    text = manifest(key).replace(
        "- name: other\n",
        '- name: other\n    metadata: {annotations: {periplus.dev/side-effects: "true"}}\n',
        1,
    )
    text = text.replace(
        "outputs: {artifacts: [{name: copy,", f"outputs: {{artifacts: [{{name: copy, s3: {{key: {key}.copy}},"
    )
    first = finish(stack, text)
    code, found = reproduce(stack, first.id)
    assert code == 6
    assert states(found) | {"other": "UNSAFE", f"steady: {key}.copy": "UNSAFE"} == states(found)


def test_a_reproduction_records_nothing_and_is_no_producer_of_later_runs(stack: Stack, key: str) -> None:
    text = manifest(key)
    first = finish(stack, text)
    _, found = reproduce(stack, first.id)
    stack.wait_for_cache(stack.run(found["run"]))
    later = finish(stack, text)
    assert {step.producer_run for step in later.steps} == {first.id}


def roll_back(stack: Stack, pipeline: str, run: str, *options: str) -> tuple[int, Json]:
    """The exit code and the document of `periplus rollback`."""
    done = stack.periplus("rollback", pipeline, "--to", run, *options, "-o", "json", check=False)
    return done.returncode, json.loads(done.stdout)


def test_a_rollback_serves_the_outputs_of_an_earlier_run_and_runs_nothing(stack: Stack) -> None:
    text = fresh().replace("generateName: rings-", f"generateName: r{uuid.uuid4().hex[:8]}-")
    good = finish(stack, text)
    finish(stack, text, noise="0.3")
    code, found = roll_back(stack, good.pipeline, good.id, "--yes")
    assert code == 0
    run = stack.wait_for_run(found["run"])
    assert {step.phase for step in run.steps} == {step_pb2.STEP_PHASE_CACHED}
    assert {step.producer_run for step in run.steps} == {good.id}
    assert (run.rolled_back_to, run.outputs, run.snapshot) == (good.id, good.outputs, good.snapshot)
    listed = json.loads(stack.periplus("runs", "--pipeline", good.pipeline, "-n", "1", "-o", "json").stdout)
    assert [each["id"] for each in listed["runs"]] == [run.id]
    assert ["rollback:", "to", good.id] in [
        each.split() for each in stack.periplus("runs", run.id).stdout.splitlines()
    ]
    for before, after in zip(good.steps, run.steps, strict=True):
        assert (before.path, list(before.outputs.artifacts)) == (after.path, list(after.outputs.artifacts))
    upstream = stack.periplus("lineage", "up", run.id).stdout
    assert good.id in upstream
    assert reproduce(stack, run.id)[1]["grade"] == "IDENTICAL"
    again = finish(stack, text, noise="0.3")
    assert again.cached_steps == len(again.steps)


def test_a_rollback_is_refused_where_bytes_are_gone_or_were_overwritten(stack: Stack, key: str) -> None:
    good = finish(stack, manifest(key))
    (copy,) = [a.object.key for step in good.steps for a in step.outputs.artifacts]
    assert roll_back(stack, good.pipeline, good.id, "--dry-run")[0] == 0
    client, bucket = stack.objects()
    content = client.get_object(bucket, copy).read()
    put(stack, copy, b"other")
    code, found = roll_back(stack, good.pipeline, good.id, "--yes")
    assert (code, found["run"], states(found)[copy]) == (6, "", "CHANGED")
    stack.delete(copy)
    code, found = roll_back(stack, good.pipeline, good.id, "--yes")
    assert (code, found["run"], states(found)[copy]) == (6, "", "MISSING")
    put(stack, copy, content)
    assert roll_back(stack, good.pipeline, good.id, "--yes")[0] == 0
    assert roll_back(stack, "another", good.id, "--yes")[0] == 2
    assert roll_back(stack, good.pipeline, good.id)[0] == 2


def test_a_run_that_failed_is_nothing_to_roll_back_to(stack: Stack, key: str) -> None:
    failed = finish(stack, manifest(key, value="1/0"))
    assert failed.phase == step_pb2.RUN_PHASE_FAILED
    assert roll_back(stack, failed.pipeline, failed.id, "--yes")[0] == 6
    code, found = reproduce(stack, failed.id)
    assert (code, found["different"]) == (0, 0)


PIPELINE = """
from helper import twice
from periplus.sdk import pipeline, step

@step
def first(x: int) -> int:
    return twice(x)  # SALT

@pipeline
def doubled(x: int = 4) -> int:
    return first(first(x))
"""


def needs_of(found: Json, kind: str) -> list[tuple[str, str]]:
    return [(each["name"], each["state"]) for each in found["requirements"] if each["kind"] == kind]


def test_a_pipeline_of_the_sdk_is_reproduced_from_its_archive_which_planning_it_stores_again(
    stack: Stack, tmp_path: Path
) -> None:
    file, elsewhere = tmp_path / "project" / "doubled.py", tmp_path / "elsewhere"
    elsewhere.mkdir()
    file.parent.mkdir()
    file.write_text(PIPELINE)
    (file.parent / "helper.py").write_text(f"def twice(x):\n    return 2 * x + 0 * len('{uuid.uuid4()}')\n")
    run = json.loads(stack.periplus("run", str(file), "-o", "json").stdout)["run"]
    code, found = reproduce(stack, run, cwd=elsewhere)
    assert (code, found["grade"], found["different"]) == (0, "IDENTICAL", 0), found
    assert needs_of(found, "ENVIRONMENT") == [("packages, interpreter and platform", "MET")]
    ((archive, state),) = needs_of(found, "CODE")
    assert state == "MET"
    stack.delete(archive)
    code, found = reproduce(stack, run, "--dry-run")
    assert (code, needs_of(found, "CODE")) == (6, [(archive, "MISSING")])
    stack.periplus("plan", str(file))
    code, found = reproduce(stack, run, "--dry-run")
    assert (code, needs_of(found, "CODE")) == (0, [(archive, "MET")])


def test_files_that_a_snapshot_has_not_are_named_before_a_reproduction(stack: Stack, tmp_path: Path) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
    put(stack, key := f"datasets/{uuid.uuid4().hex}.csv", b"1")
    (tmp_path / "one.yaml").write_text(manifest(key))
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "a"]):
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True)
    (tmp_path / "model.bin").write_bytes(bytes(3 << 20))
    done = stack.periplus("run", "one.yaml", "-o", "json", cwd=tmp_path)
    reason = "3145728 bytes are too many"
    ran = json.loads(done.stdout)
    run = ran["run"]
    stack.wait_for_run(run)
    assert ran["warnings"] == [f"model.bin is not in the snapshot: {reason}"]
    code, found = reproduce(stack, run, "--dry-run")
    (named,) = [each for each in found["requirements"] if each["name"] == "model.bin"]
    assert (code, named["kind"], named["state"]) == (0, "CODE", "UNKNOWN")
    assert named["reason"] == f"the run's snapshot has it not: {reason}"
    assert f"  model.bin: {reason}" in stack.periplus("snapshot", "show", run).stdout.splitlines()


def test_a_run_of_another_environment_is_not_reproduced_in_this_one(stack: Stack, key: str) -> None:
    claim = snapshotter_pb2.Claim(installed=[snapshotter_pb2.Package(name="numpy", version="0.1")])
    claim.platform.python_version = "2.7.18"
    spec = dispatcher_pb2.RunSpec(project="default", manifest=manifest(key), claim=claim)
    request = dispatcher_pb2.SubmitRunRequest(spec=spec, request_id=str(uuid.uuid4()))
    run = stack.wait_for_run(stack.dispatcher.SubmitRun(request, timeout=60).run)
    code, found = reproduce(stack, run.id)
    assert (code, found["run"]) == (6, "")
    assert needs_of(found, "ENVIRONMENT") == [("packages, interpreter and platform", "CHANGED")]
    (needed,) = [each for each in found["requirements"] if each["kind"] == "ENVIRONMENT"]
    assert re.search(r"package\.\S+: \S+ -> ", needed["reason"])


def code_of(call: Callable[[], object]) -> grpc.StatusCode | None:
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return None


def test_the_service_refuses_what_is_unmet_whoever_calls_and_one_request_is_one_run(
    stack: Stack, key: str
) -> None:
    good = finish(stack, manifest(key))
    (copy,) = [a.object.key for step in good.steps for a in step.outputs.artifacts]
    again = dispatcher_pb2.ReproduceRunRequest(project="default", run=good.id, request_id=str(uuid.uuid4()))
    back = dispatcher_pb2.RollBackPipelineRequest(
        project="default", run=good.id, pipeline=good.pipeline, request_id=str(uuid.uuid4())
    )

    def reproduce_run(**more: str) -> dispatcher_pb2.ReproduceRunResponse:
        request = dispatcher_pb2.ReproduceRunRequest()
        request.CopyFrom(again)
        request.MergeFrom(dispatcher_pb2.ReproduceRunRequest(**more))
        return stack.dispatcher.ReproduceRun(request, timeout=60)

    put(stack, key, b"other")
    put(stack, copy, b"other")
    assert code_of(reproduce_run) is grpc.StatusCode.FAILED_PRECONDITION
    assert code_of(lambda: stack.dispatcher.RollBackPipeline(back, timeout=60)) is (
        grpc.StatusCode.FAILED_PRECONDITION
    )
    put(stack, key, b"1,2,3")
    put(stack, copy, b"1,2,3")
    first, second = (reproduce_run() for _ in range(2))
    assert first.run == second.run
    assert (len(first.requirements) > 0, len(second.requirements)) == (True, 0)
    assert code_of(lambda: reproduce_run(step="other")) is grpc.StatusCode.INVALID_ARGUMENT
    one, other = (stack.dispatcher.RollBackPipeline(back, timeout=60) for _ in range(2))
    assert one.run == other.run
    back.run = first.run
    assert (
        code_of(lambda: stack.dispatcher.RollBackPipeline(back, timeout=60))
        is grpc.StatusCode.INVALID_ARGUMENT
    )
    again.request_id = ""
    assert code_of(reproduce_run) is grpc.StatusCode.INVALID_ARGUMENT
