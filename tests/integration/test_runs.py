"""Runs on the real stack: which steps run, which are cached, and why."""

import json
import tempfile
import uuid
from pathlib import Path

import grpc
import pytest
from stack import ROOT, Stack

from periplus.cache.v1 import cache_pb2
from periplus.dispatcher.v1 import dispatcher_pb2
from periplus.lineage.v1 import lineage_pb2
from periplus.types.v1 import step_pb2

TRAIN = (ROOT / "examples" / "yaml" / "train.yaml").read_text()


def fresh(manifest: str = TRAIN) -> str:
    """The example with a unique comment in each source, so that no entry exists."""
    return manifest.replace("import ", f"# {uuid.uuid4()}\n        import ", 20)


def phases(run: lineage_pb2.Run) -> dict[str, str]:
    return {
        step.path: step_pb2.StepPhase.Name(step.phase).removeprefix("STEP_PHASE_").lower()
        for step in run.steps
    }


def ran(run: lineage_pb2.Run) -> set[str]:
    return {path for path, phase in phases(run).items() if phase == "succeeded"}


ALL = {"ingest", "features", "train(0)", "train(1)", "train(2)", "train(3)", "evaluate", "register"}


def test_the_second_run_is_cached_and_creates_no_workflow(stack: Stack) -> None:
    manifest = fresh()
    first = stack.finish(manifest)
    assert ran(first) == ALL
    second = stack.submit(manifest)
    assert second.phase == step_pb2.RUN_PHASE_SUCCEEDED
    assert {step.verdict for step in second.plan.steps} == {step_pb2.VERDICT_HIT}
    run = stack.wait_for_run(second.run)
    assert set(phases(run).values()) == {"cached"}
    assert {step.producer_run for step in run.steps} == {first.id}
    assert [(p.name, p.value) for p in second.outputs.parameters] == [("accuracy", "1.0000")]
    with pytest.raises(grpc.RpcError) as refused:
        list(stack.dispatcher.ReadLogs(dispatcher_pb2.ReadLogsRequest(project="default", run=second.run)))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


FEEDS = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: feeds-}
spec:
  entrypoint: main
  templates:
  - name: main
    dag:
      tasks:
      - {name: alone, template: alone}
      - {name: feeder, template: feeder}
      - name: reader
        template: reader
        depends: feeder
        arguments: {artifacts: [{name: x, from: "{{tasks.feeder.outputs.artifacts.o}}"}]}
  - name: alone
    script: {image: python:3.11, command: [python3], source: "open('/tmp/o', 'w').write('1')"}
    outputs: {parameters: [{name: o, valueFrom: {path: /tmp/o}}]}
  - name: feeder
    metadata: {annotations: {periplus.dev/side-effects: "true"}}
    script: {image: python:3.11, command: [python3], source: "open('/tmp/o', 'w').write('1')"}
    outputs: {artifacts: [{name: o, path: /tmp/o}]}
  - name: reader
    inputs: {artifacts: [{name: x, path: /tmp/x}]}
    script: {image: python:3.11, command: [python3], source: "open('/tmp/o', 'w').write(open('/tmp/x').read())"}
    outputs: {parameters: [{name: o, valueFrom: {path: /tmp/o}}]}
"""


def test_an_uncacheable_step_that_feeds_another_leaves_the_other_steps_to_the_cache(stack: Stack) -> None:
    manifest = FEEDS.replace('source: "', f"source: \"'{uuid.uuid4()}'; ")
    assert ran(stack.finish(manifest)) == {"alone", "feeder", "reader"}
    again = stack.finish(manifest)
    assert phases(again) == {"alone": "cached", "feeder": "succeeded", "reader": "cached"}


MODES = ("off", "read", "write", "readwrite", "refresh")


def with_modes() -> str:
    """A manifest with a step for each cache mode, named after it, of which the cache has no entry."""
    leaf = {
        "image": "python:3.11",
        "command": ["python3"],
        "source": f"'{uuid.uuid4()}'; open('/tmp/o', 'w').write('1')",
    }
    templates = [
        {
            "name": mode,
            "metadata": {"annotations": {"periplus.dev/cache": mode}},
            "script": leaf | {"source": f"'{mode}'; {leaf['source']}"},
            "outputs": {"parameters": [{"name": "o", "valueFrom": {"path": "/tmp/o"}}]},
        }
        for mode in MODES
    ]
    main = {"name": "main", "dag": {"tasks": [{"name": mode, "template": mode} for mode in MODES]}}
    return json.dumps(
        {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"generateName": "modes-"},
            "spec": {"entrypoint": "main", "templates": [main, *templates]},
        }
    )


def run_in_mode(stack: Stack, manifest: str, mode: step_pb2.CacheMode.ValueType) -> tuple[set[str], set[str]]:
    """The steps that ran, and the steps of which the run recorded entries."""
    spec = dispatcher_pb2.RunSpec(project="default", manifest=manifest, cache_mode=mode)
    request = dispatcher_pb2.SubmitRunRequest(spec=spec, request_id=str(uuid.uuid4()))
    run = stack.wait_for_run(stack.dispatcher.SubmitRun(request, timeout=60).run)
    stack.wait_for_cache(run)
    entries = stack.cache.ListEntries(
        cache_pb2.ListEntriesRequest(project="default", producer_run=run.id), timeout=30
    ).entries
    return ran(run), {entry.template for entry in entries}


def test_a_run_can_take_cache_permissions_from_its_steps_and_never_gives_them_any(stack: Stack) -> None:
    manifest = with_modes()
    assert run_in_mode(stack, manifest, step_pb2.CACHE_MODE_OFF) == (set(MODES), set())
    assert run_in_mode(stack, manifest, step_pb2.CACHE_MODE_REFRESH) == (
        set(MODES),
        {"write", "readwrite", "refresh"},
    )
    assert ran(stack.finish(manifest)) == {"off", "read", "write", "refresh"}


def test_a_changed_parameter_runs_what_depends_on_it_and_nothing_else(stack: Stack) -> None:
    manifest = fresh()
    stack.finish(manifest)
    changed = stack.finish(manifest, neighbours="[1, 3, 5, 7]")
    assert ran(changed) == {"train(3)", "evaluate", "register"} or ran(changed) == {"train(3)", "evaluate"}
    assert phases(changed)["ingest"] == phases(changed)["features"] == phases(changed)["train(0)"] == "cached"


def test_changed_code_that_writes_the_same_bytes_reruns_nothing_behind_the_gates(stack: Stack) -> None:
    manifest = fresh()
    stack.finish(manifest)
    changed = stack.finish(manifest.replace('print("wrote"', 'print("has written"'))
    assert ran(changed) == {"ingest"}
    assert {path for path, phase in phases(changed).items() if phase == "cached"} == ALL - {"ingest"}


def test_a_miss_names_the_field_that_differs(stack: Stack) -> None:
    manifest = fresh()
    stack.finish(manifest)
    changed = stack.finish(manifest, noise="0.2")
    request = cache_pb2.ExplainMissRequest(project="default", run=changed.id, step="ingest")
    why = stack.cache.ExplainMiss(request)
    assert [(c.field, c.old, c.new) for c in why.changes] == [("inputs.parameters.noise", "0.15", "0.2")]


def test_a_request_that_is_sent_twice_is_one_run(stack: Stack) -> None:
    request = str(uuid.uuid4())
    manifest = fresh()
    first = stack.submit(manifest, request)
    assert stack.submit(manifest, request).run == first.run
    with pytest.raises(grpc.RpcError) as refused:
        stack.submit(manifest, request, noise="0.3")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "another request" in refused.value.details()
    stack.wait_for_run(first.run)


def test_a_step_whose_cached_output_was_deleted_runs_again_and_is_recorded_again(stack: Stack) -> None:
    manifest = fresh()
    first = stack.finish(manifest)
    key = next(s for s in first.steps if s.path == "features").outputs.artifacts[0].object.key
    stack.delete(key)
    second = stack.finish(manifest)
    assert "features" in ran(second)
    assert phases(second)["train(0)"] == "cached"
    third = stack.submit(manifest)
    assert third.phase == step_pb2.RUN_PHASE_SUCCEEDED


def test_a_false_condition_skips_a_step_of_a_cached_run_too(stack: Stack) -> None:
    manifest = fresh(TRAIN.replace("> 0.90", "> 1.5"))
    assert phases(stack.finish(manifest))["register"] == "skipped"
    again = stack.submit(manifest)
    assert again.phase == step_pb2.RUN_PHASE_SUCCEEDED
    assert phases(stack.wait_for_run(again.run))["register"] == "skipped"


def test_a_failed_step_fails_the_run_and_is_not_cached(stack: Stack) -> None:
    manifest = fresh().replace("csv.writer(file)", "csv.writer(file) if 1 else 1; raise SystemExit(3)")
    first = stack.finish(manifest)
    assert first.phase == step_pb2.RUN_PHASE_FAILED
    assert "exit code 3" in next(s for s in first.steps if s.path == "ingest").message
    assert phases(stack.finish(manifest))["ingest"] == "failed"


def test_a_run_can_be_cancelled(stack: Stack) -> None:
    manifest = fresh().replace(
        "import csv, math, os", "import time; time.sleep(60)\n        import csv, math, os"
    )
    run = stack.submit(manifest).run
    stack.dispatcher.CancelRun(dispatcher_pb2.CancelRunRequest(project="default", run=run, terminate=True))
    assert stack.wait_for_run(run).phase == step_pb2.RUN_PHASE_CANCELLED


LOCKED = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: locked-}
spec:
  entrypoint: main
  templates:
  - name: main
    dag: {tasks: [{name: one, template: locked}, {name: two, template: locked}]}
  - name: locked
    synchronization: {mutexes: [{name: only-one}]}
    container: {image: busybox, command: [sleep, "3"]}
"""


def test_a_step_that_waits_for_a_lock_says_so_until_it_has_it(stack: Stack) -> None:
    run = stack.submit(LOCKED).run
    request = lineage_pb2.WatchRunRequest(project="default", run=run, wait={"seconds": 60})
    messages: dict[str, list[str]] = {"one": [], "two": []}
    for change in stack.lineage.WatchRun(request, timeout=60):
        for step in change.steps:
            messages[step.path].append(step.message)
    (waited,) = (found for found in messages.values() if any(found))
    (said,) = (number for number, message in enumerate(waited) if message)
    assert waited[said].startswith("Waiting for ")
    assert waited[said + 1 :] == [""] * len(waited[said + 1 :])


def test_log_lines_have_the_path_of_their_step(stack: Stack) -> None:
    run = stack.finish(fresh()).id
    lines = [
        (r.step, r.line)
        for r in stack.dispatcher.ReadLogs(dispatcher_pb2.ReadLogsRequest(project="default", run=run))
    ]
    assert ("ingest", "wrote 400 points") in lines
    assert {step for step, _ in lines} >= {"ingest", "train(0)", "train(3)", "register"}


def test_upstream_of_a_cached_step_is_the_run_that_produced_its_data(stack: Stack) -> None:
    manifest = fresh()
    first = stack.finish(manifest)
    second = stack.finish(manifest, neighbours="[1, 3]")
    request = lineage_pb2.TraverseRequest(
        project="default", start=[f"run:{second.id}"], direction=lineage_pb2.DIRECTION_UPSTREAM
    )
    found = stack.lineage.Traverse(request)
    assert f"step:{first.id}/ingest" in {node.id for node in found.nodes}


def test_a_call_without_the_token_is_refused(stack: Stack) -> None:
    channel = grpc.insecure_channel(stack.settings["dispatcher"])
    call = channel.unary_unary("/periplus.dispatcher.v1.DispatcherService/SubmitRun")
    with pytest.raises(grpc.RpcError) as refused:
        call(b"")
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


BAD = {
    "alias": ("a: &x 1\nb: *x\n", "spec.manifest"),
    "duplicate key": (TRAIN + "kind: Workflow\n", "spec.manifest"),
    "too large": ("#" * (1 << 20) + "\n" + TRAIN, "spec.manifest"),
    "cycle": (TRAIN.replace("depends: ingest", "depends: evaluate"), "spec.manifest.spec.templates[0]"),
    "unknown template": (
        TRAIN.replace("template: features", "template: nowhere"),
        "spec.manifest.spec.templates[0]",
    ),
    "missing parameter": (
        TRAIN.replace('          - {name: noise, value: "{{workflow.parameters.noise}}"}\n', ""),
        "spec.manifest.spec.templates[0]",
    ),
    "unknown step": (
        TRAIN.replace("tasks.ingest.outputs", "tasks.missing.outputs"),
        "spec.manifest.spec.templates[0]",
    ),
    "NaN": (TRAIN.replace('value: "400"', "value: .nan"), "spec.manifest"),
    "bad expression": (TRAIN.replace("{{item}}", "{{=item +}}"), "spec.manifest.spec.templates[0]"),
    "unknown field": (
        TRAIN.replace("  entrypoint: main", "  entrypoint: main\n  entrypont: x"),
        "spec.manifest",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_its_field_and_leaves_no_run(
    stack: Stack, case: str, tmp_path: Path
) -> None:
    manifest, field = BAD[case]
    before = stack.lineage.ListRuns(lineage_pb2.ListRunsRequest(project="default")).runs
    with pytest.raises(grpc.RpcError) as refused:
        stack.submit(manifest)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details().startswith(field), refused.value.details()
    after = stack.lineage.ListRuns(lineage_pb2.ListRunsRequest(project="default")).runs
    assert [run.id for run in after] == [run.id for run in before]
    file = tmp_path / "workflow.yaml"
    file.write_text(manifest)
    done = stack.periplus("run", str(file), check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_line_prints_a_run_as_json(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "workflow.yaml"
    file.write_text(fresh())
    done = stack.periplus("run", str(file), "-o", "json")
    run = json.loads(done.stdout)
    assert (
        stack.run(run["run"]["id"] if "run" in run and isinstance(run["run"], dict) else run["run"]).pipeline
        == "rings"
    )


RETRIED = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: retried-}
spec:
  entrypoint: main
  arguments: {parameters: [{name: count}]}
  templates:
  - name: main
    dag:
      tasks: [{name: twice, template: inner}]
  - name: inner
    retryStrategy: {limit: "1"}
    dag:
      tasks:
      - {name: a, template: counts}
      - name: b
        template: fails-first
        depends: a
        arguments: {parameters: [{name: x, value: "{{tasks.a.outputs.parameters.o}}"}]}
  - name: counts
    script:
      image: python:3.11
      command: [python3]
      source: |
        import pathlib
        count = pathlib.Path("{{workflow.parameters.count}}")
        count.write_text(count.read_text() + "x")
        pathlib.Path("/tmp/o").write_text(count.read_text())
    outputs: {parameters: [{name: o, valueFrom: {path: /tmp/o}}]}
  - name: fails-first
    inputs: {parameters: [{name: x}]}
    script:
      image: python:3.11
      command: [python3]
      source: |
        open("/tmp/o", "w").write("{{inputs.parameters.x}}")
        raise SystemExit("{{inputs.parameters.x}}" == "x")
    outputs: {parameters: [{name: o, valueFrom: {path: /tmp/o}}]}
"""


def test_the_steps_of_a_retried_dag_are_those_of_its_last_attempt(stack: Stack) -> None:
    # Not in /tmp, which is private to each step.
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as count:
        run = stack.finish(RETRIED, count=count.name)
    assert run.phase == step_pb2.RUN_PHASE_SUCCEEDED, run.message
    assert phases(run) == {"twice.a": "succeeded", "twice.b": "succeeded"}
    assert {s.path: s.outputs.parameters[0].value for s in run.steps} == {"twice.a": "xx", "twice.b": "xx"}
    entries = stack.cache.ListEntries(
        cache_pb2.ListEntriesRequest(project="default", producer_run=run.id), timeout=30
    ).entries
    assert {entry.producer_step for entry in entries} == {"twice.a", "twice.b"}
