"""A project reads and writes its own objects, runs, entries and snapshots, and those of no other, on a whole stack."""

import time
import uuid
from typing import Any

import grpc
import pytest
from google.protobuf import json_format, message_factory
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stack import Stack

from periplus.cache.v1 import cache_pb2
from periplus.dispatcher.v1 import dispatcher_pb2
from periplus.lineage.v1 import lineage_pb2
from periplus.snapshotter.v1 import snapshotter_pb2
from periplus.snapshotter.v1.snapshotter_pb2_grpc import SnapshotterServiceStub
from periplus.types.v1 import step_pb2

MANIFEST = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: wall-}
spec:
  entrypoint: main
  arguments: {parameters: [{name: key, value: ""}]}
  templates:
  - name: main
    inputs: {INPUTS}
    container: {image: none, command: [sh, -ec], args: ['COMMAND']}
    outputs: {OUTPUTS}
"""


def manifest(inputs: str = "", outputs: str = "", command: str = "echo secret > /tmp/out") -> str:
    found = MANIFEST.replace("INPUTS", inputs).replace("OUTPUTS", outputs)
    return found.replace("COMMAND", command)


WRITE = manifest(outputs="artifacts: [{name: out, path: /tmp/out}]")


def reading(key: str) -> str:
    return manifest(f"artifacts: [{{name: in, path: /tmp/in, s3: {{key: '{key}'}}}}]", command="cat /tmp/in")


def writing(key: str) -> str:
    return manifest(outputs=f"artifacts: [{{name: out, path: /tmp/out, s3: {{key: '{key}'}}}}]")


KEY_FROM_A_STEP = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: wall-}
spec:
  entrypoint: main
  arguments: {parameters: [{name: suffix}]}
  templates:
  - name: main
    steps:
    - - {name: make, template: make}
    - - name: read
        template: read
        arguments: {artifacts: [{name: in, s3: {key: "projects/attacker/a{{steps.make.outputs.parameters.suffix}}"}}]}
  - name: make
    container: {image: none, command: [sh, -c], args: ["printf %s '{{workflow.parameters.suffix}}' > /tmp/suffix"]}
    outputs: {parameters: [{name: suffix, valueFrom: {path: /tmp/suffix}}]}
  - name: read
    inputs: {artifacts: [{name: in, path: /tmp/in}]}
    container: {image: none, command: [cat, /tmp/in]}
"""


RUN_TIME_KEY = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: wall-}
spec:
  entrypoint: main
  arguments: {parameters: [{name: key}]}
  templates:
  - name: main
    steps:
    - - {name: make, template: make}
    - - name: use
        template: use
        arguments: {parameters: [{name: key, value: "{{steps.make.outputs.parameters.key}}"}]}
  - name: make
    container: {image: none, command: [sh, -c], args: ["printf %s '{{workflow.parameters.key}}' > /tmp/key"]}
    outputs: {parameters: [{name: key, valueFrom: {path: /tmp/key}}]}
  - name: use
    inputs:
      parameters: [{name: key}]
      INPUT
    container: {image: none, command: [sh, -ec], args: ['COMMAND']}
    outputs:
      parameters: [{name: text, valueFrom: {path: /tmp/text}}]
      OUTPUT
"""
AT_RUN_TIME = "s3: {key: '{{inputs.parameters.key}}'}"
READ_AT_RUN_TIME = (
    RUN_TIME_KEY.replace("INPUT", f"artifacts: [{{name: in, path: /tmp/in, {AT_RUN_TIME}}}]")
    .replace("OUTPUT", "")
    .replace("COMMAND", "cp /tmp/in /tmp/text")
)
WRITE_AT_RUN_TIME = (
    RUN_TIME_KEY.replace("OUTPUT", f"artifacts: [{{name: out, path: /tmp/text, {AT_RUN_TIME}}}]")
    .replace("INPUT", "")
    .replace("COMMAND", "printf overwritten > /tmp/text")
)

SUB_PATHS = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: wall-}
spec:
  entrypoint: main
  arguments: {parameters: [{name: items}]}
  templates:
  - name: main
    steps:
    - - {name: make, template: make}
    - - name: read
        template: read
        withParam: "{{workflow.parameters.items}}"
        arguments: {artifacts: [{name: in, from: "{{steps.make.outputs.artifacts.out}}", subPath: "{{item}}"}]}
  - name: make
    container: {image: none, command: [sh, -ec], args: ["mkdir /tmp/out; echo A > /tmp/out/a; echo B > /tmp/out/b"]}
    outputs: {artifacts: [{name: out, path: /tmp/out, archive: {none: {}}}]}
  - name: read
    inputs: {artifacts: [{name: in, path: /tmp/in}]}
    container: {image: none, command: [cp, /tmp/in, /tmp/text]}
    outputs: {parameters: [{name: text, valueFrom: {path: /tmp/text}}]}
"""

OUTPUT_OF_A_SUB_PATH = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: wall-}
spec:
  entrypoint: main
  templates:
  - name: main
    steps: [[{name: make, template: make}]]
    outputs: {artifacts: [{name: out, from: "{{steps.make.outputs.artifacts.out}}", subPath: "{{steps.make.outputs.parameters.part}}"}]}
  - name: make
    container: {image: none, command: [sh, -ec], args: ["mkdir /tmp/out; echo A > /tmp/out/a; printf ../../a > /tmp/part"]}
    outputs:
      artifacts: [{name: out, path: /tmp/out, archive: {none: {}}}]
      parameters: [{name: part, valueFrom: {path: /tmp/part}}]
"""


FROM_EXPRESSION = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: wall-}
spec:
  entrypoint: main
  templates:
  - name: main
    dag:
      tasks:
      - {name: make, template: make}
      - name: read
        template: read
        depends: make
        arguments: {artifacts: [{name: in, from: "{{tasks.make.outputs.artifacts.out}}"}]}
  - name: make
    dag: {tasks: [{name: nothing, template: nothing}]}
    outputs: {artifacts: [{name: out, fromExpression: 'EXPRESSION'}]}
  - name: nothing
    container: {image: none, command: ["true"]}
  - name: read
    inputs: {artifacts: [{name: in, path: /tmp/in}]}
    container: {image: none, command: [cp, -r, /tmp/in, /tmp/text]}
    outputs: {parameters: [{name: text, valueFrom: {path: /tmp/text}}]}
"""


def spec(project: str, text: str, **parameters: str) -> dispatcher_pb2.RunSpec:
    return dispatcher_pb2.RunSpec(project=project, manifest=text, parameters=parameters)


def run(stack: Stack, project: str, text: str, **parameters: str) -> lineage_pb2.Run:
    """The run as it ended."""
    request = dispatcher_pb2.SubmitRunRequest(
        spec=spec(project, text, **parameters), request_id=uuid.uuid4().hex
    )
    return stack.wait_for_run(stack.dispatcher.SubmitRun(request, timeout=60).run, project)


def violation(error: grpc.RpcError) -> tuple[str, str]:
    """The violation's field and reason."""
    request, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
    for detail in rpc_status.from_call(error).details:
        detail.Unpack(request)
        detail.Unpack(info)
    return request.field_violations[0].field, info.reason


@pytest.fixture(scope="module")
def secret(stack: Stack) -> lineage_pb2.Run:
    """A run of the project `victim` with an artifact."""
    found = run(stack, "victim", WRITE)
    assert found.phase == step_pb2.RUN_PHASE_SUCCEEDED, found.message
    return found


def test_the_outputs_of_a_run_are_below_the_prefix_of_its_project(secret: lineage_pb2.Run) -> None:
    key = secret.steps[0].outputs.artifacts[0].object.key
    assert key.startswith(f"projects/victim/{secret.id}/")


def test_a_result_of_the_same_project_is_found_again_and_one_of_another_is_not(stack: Stack) -> None:
    text = WRITE.replace("secret", "found-again")
    first = run(stack, "victim", text)
    stack.wait_for_cache(first, "victim")
    plans = [
        stack.dispatcher.PlanRun(dispatcher_pb2.PlanRunRequest(spec=spec(project, text)), timeout=30).plan
        for project in ("victim", "attacker")
    ]
    assert [plan.steps[0].verdict for plan in plans] == [step_pb2.VERDICT_HIT, step_pb2.VERDICT_MISS]


@pytest.mark.parametrize("role", ["inputs", "outputs"])
@pytest.mark.parametrize("call", ["PlanRun", "SubmitRun"])
@pytest.mark.parametrize("way", ["literal", "parameter", "doubled slash", "backslash"])
def test_a_manifest_with_the_key_of_another_project_is_refused(
    stack: Stack, secret: lineage_pb2.Run, role: str, call: str, way: str
) -> None:
    key = secret.steps[0].outputs.artifacts[0].object.key
    written = {
        "literal": key,
        "parameter": "{{workflow.parameters.key}}",
        "doubled slash": key.replace("/", "//", 1),
        "backslash": key.replace("/", "\\"),
    }[way]
    text = reading(written) if role == "inputs" else writing(written)
    wanted = spec("attacker", text, key=key)
    request = {
        "PlanRun": dispatcher_pb2.PlanRunRequest(spec=wanted),
        "SubmitRun": dispatcher_pb2.SubmitRunRequest(spec=wanted, request_id=uuid.uuid4().hex),
    }[call]
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stack.dispatcher, call)(request, timeout=30)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    reason = "KEY_MALFORMED" if way in ("doubled slash", "backslash") else "KEY_FOREIGN"
    assert violation(caught.value) == (
        f"spec.manifest.spec.templates[0].{role}.artifacts[0].s3.key",
        reason,
    )


@pytest.mark.parametrize("bad", ["\\..\\..\\victim\\x", "/../../victim/x", "/./x", "//x"])
def test_a_key_that_becomes_another_during_the_run_is_refused_by_the_local_argo(
    stack: Stack, bad: str
) -> None:
    """The tag's value is an output of a step before, so that no plan can know it."""
    found = run(stack, "attacker", KEY_FROM_A_STEP, suffix=bad)
    assert found.phase == step_pb2.RUN_PHASE_FAILED
    assert "s3.key" in " ".join(step.message for step in found.steps)


def step(found: lineage_pb2.Run, path: str) -> lineage_pb2.Step:
    return next(step for step in found.steps if step.path == path)


def texts(found: lineage_pb2.Run) -> list[str]:
    """The values of the output parameter `text` of the run's steps."""
    return [p.value.strip() for s in found.steps for p in s.outputs.parameters if p.name == "text"]


def test_a_key_that_is_known_only_during_the_run_names_what_the_project_may_read_and_write(
    stack: Stack,
) -> None:
    for key in ("projects/victim/run-time", "datasets/run-time"):
        written = run(stack, "victim", WRITE_AT_RUN_TIME, key=key)
        assert written.phase == step_pb2.RUN_PHASE_SUCCEEDED, written.message
        read = run(stack, "victim", READ_AT_RUN_TIME, key=key)
        assert texts(read) == ["overwritten"]


@pytest.mark.parametrize("text", [READ_AT_RUN_TIME, WRITE_AT_RUN_TIME], ids=["read", "write"])
@pytest.mark.parametrize("bad", ["foreign", "traversal", "code", "snapshots"])
def test_a_key_that_becomes_that_of_another_project_ends_the_step_in_error(
    stack: Stack, secret: lineage_pb2.Run, text: str, bad: str
) -> None:
    theirs = secret.steps[0].outputs.artifacts[0].object.key
    key = {
        "foreign": theirs,
        "traversal": f"projects/intruder/../../{theirs}",
        "code": "code/victim/x",
        "snapshots": "snapshots/x",
    }[bad]
    found = run(stack, "intruder", text, key=key)
    assert found.phase in (step_pb2.RUN_PHASE_FAILED, step_pb2.RUN_PHASE_ERROR)
    used = step(found, "use")
    assert used.phase == step_pb2.STEP_PHASE_ERROR
    field = "inputs.artifacts.in.s3.key" if text is READ_AT_RUN_TIME else "outputs.artifacts.out.s3.key"
    reason = "has a part that is empty" if bad == "traversal" else "does not belong to the project intruder"
    assert field in used.message
    assert reason in used.message
    assert texts(found) == []
    read = run(stack, "victim", READ_AT_RUN_TIME, key=theirs)
    assert texts(read) == ["secret"]


def test_a_sub_path_that_is_known_only_during_the_run_reads_a_part_of_the_artifact(stack: Stack) -> None:
    assert sorted(texts(run(stack, "victim", SUB_PATHS, items='["a", "b"]'))) == ["A", "B"]


def test_a_sub_path_that_leaves_its_artifact_during_the_run_ends_the_step_in_error(stack: Stack) -> None:
    found = run(stack, "intruder", SUB_PATHS, items='["../../x", "../out/a"]')
    assert found.phase in (step_pb2.RUN_PHASE_FAILED, step_pb2.RUN_PHASE_ERROR)
    ended = [s for s in found.steps if s.path.startswith("read(")]
    assert {s.phase for s in ended} == {step_pb2.STEP_PHASE_ERROR}
    assert all("inputs.artifacts.in.s3.key" in s.message and "/../" in s.message for s in ended)
    assert texts(found) == []


def test_an_output_of_a_sub_path_does_not_leave_its_artifact(stack: Stack) -> None:
    found = run(stack, "attacker", OUTPUT_OF_A_SUB_PATH)
    assert found.phase == step_pb2.RUN_PHASE_ERROR
    assert "subPath makes the key" in found.message
    assert not found.outputs.artifacts


@pytest.mark.parametrize("expression", ["{'s3': {'key': '%s'}}", 'fromJSON(\'{"s3": {"key": "%s"}}\')'])
def test_an_expression_makes_no_artifact_of_the_key_of_another_project(
    stack: Stack, secret: lineage_pb2.Run, expression: str
) -> None:
    made = expression % secret.steps[0].outputs.artifacts[0].object.key
    found = run(stack, "attacker", FROM_EXPRESSION.replace("EXPRESSION", made.replace("'", "''")))
    assert step(found, "read").phase == step_pb2.STEP_PHASE_SKIPPED


def test_a_key_that_belongs_to_no_project_is_shared_on_a_laptop(stack: Stack) -> None:
    assert run(stack, "victim", writing("datasets/{{workflow.name}}/x")).phase == step_pb2.RUN_PHASE_SUCCEEDED


def test_a_step_reads_and_writes_the_keys_of_its_project(stack: Stack) -> None:
    assert run(stack, "victim", writing("projects/victim/x")).phase == step_pb2.RUN_PHASE_SUCCEEDED
    assert run(stack, "victim", reading("projects/victim/x")).phase == step_pb2.RUN_PHASE_SUCCEEDED


@pytest.fixture(scope="module")
def names(stack: Stack, secret: lineage_pb2.Run) -> dict[str, str]:
    """What the project `victim` has."""
    stack.wait_for_cache(secret, "victim")
    claim = snapshotter_pb2.Claim(
        platform=snapshotter_pb2.Platform(system="secret"),
        installed=[snapshotter_pb2.Package(name="periplus-secret", version="1")],
    )
    taken = snapshotter_pb2.TakeSnapshotRequest(project="victim", claim=claim)
    entries = stack.cache.ListEntries(cache_pb2.ListEntriesRequest(project="victim"), timeout=30).entries
    cached = run(stack, "victim", WRITE)
    savings = cache_pb2.GetSavingsRequest(project="victim", run=cached.id)
    deadline = time.monotonic() + 60
    while not stack.cache.GetSavings(savings, timeout=30).hits and time.monotonic() < deadline:
        time.sleep(0.05)
    while not (artifact := stack.run(secret.id, "victim").steps[0].outputs.artifacts[0]).digest:
        assert time.monotonic() < deadline, "lineage has no digest"
        time.sleep(0.05)
    return {
        "run": secret.id,
        "cached_run": cached.id,
        "step": secret.steps[0].path,
        "template": "main",
        "fingerprint": entries[0].fingerprint,
        "snapshot": SnapshotterServiceStub(stack.channels["snapshotter"]).TakeSnapshot(taken).snapshot,
        "key": artifact.object.key,
        "digest": artifact.digest,
    }


NOTHING = {
    "run": "wall-22222222",
    "cached_run": "wall-33333333",
    "step": "none",
    "template": "none",
    "fingerprint": "sha256:" + "1" * 64,
    "snapshot": "sha256:" + "2" * 64,
    "digest": "sha256:" + "3" * 64,
}
"""Of every kind of thing one that no project has."""

REQUESTS = {
    "GetRunPhase": [{"run": "{run}"}],
    "CancelRun": [{"run": "{run}"}],
    "ReadLogs": [{"run": "{run}"}],
    "GetRun": [{"run": "{run}"}],
    "ListRuns": [{"pipeline": "wall"}],
    "WatchRun": [{"run": "{run}"}],
    "DiffRuns": [{"old": "{run}", "new": "{run}"}],
    "Traverse": [
        {"start": [start], "direction": direction}
        for start in ("run:{run}", "step:{run}/{step}", "artifact:{digest}", "artifact:s3://artifacts/{key}")
        for direction in (1, 2)
    ],
    "ResolveSteps": [
        {
            "templates": {"t": {"name": "t", "document": '{"x": 1}'}},
            "steps": [{"id": "s", "template": "t", "artifacts": [{"name": "a", "object": {"key": "{key}"}}]}],
        }
    ],
    "RenewLeases": [{"leases": [{"token": 1}], "waiting_runs": ["{run}"]}],
    "WatchWaits": [{}],
    "ExplainMiss": [{"run": "{run}", "step": "{step}"}],
    "ListDivergences": [{"run": "{run}"}],
    "GetEntry": [{"fingerprint": "{fingerprint}"}],
    "ListEntries": [{"producer_run": "{run}"}, {"template": "{template}"}, {"show_invalidated": True}],
    "InvalidateEntries": [
        {"reason": "r", **chosen, "validate_only": only}
        for chosen in (
            {"fingerprints": ["{fingerprint}"]},
            {"template": "{template}"},
            {"producer_run": "{run}"},
        )
        for only in (True, False)
    ],
    "GetSavings": [{"run": "{cached_run}"}, {}],
    "GetShadowSavings": [{"pipeline": "wall"}, {}],
    "AdoptRuns": [{}, {"namespace": "argo"}],
    "AdoptTemplate": [{"template": {"kind": 1, "name": "{template}"}, "validate_only": True}],
    "ReleaseTemplate": [{"template": {"kind": 1, "name": "{template}"}, "validate_only": True}],
    "ReproduceRun": [
        {"run": "{run}", "validate_only": True},
        {"run": "{run}", "step": "{step}", "validate_only": True},
    ],
    "GradeReproduction": [{"run": "{run}"}],
    "RollBackPipeline": [{"run": "{run}", "pipeline": "wall", "validate_only": True}],
    "DigestObjects": [{"objects": [{"key": "{key}"}]}],
    "GetSnapshot": [{"snapshot": "{snapshot}"}, {"snapshot": "{snapshot}", "with_content": True}],
    "DiffSnapshots": [{"old": "{snapshot}", "new": "{snapshot}"}],
    "FindPackage": [{"name": "periplus-secret"}],
}
"""Requests of each RPC that names things. Three make new things of the project: see `MAKE`."""
MAKE = {"PlanRun", "SubmitRun", "TakeSnapshot"}
IMAGES = {"ResolveImages", "ReadImage", "CheckImages"}
"""They need a registry, which this stack has not. Those of a project: services/snapshotter/tests/test_image_store.py."""

OF_OBSERVED = {"GetShadowSavings"}
"""Answered with observed runs only, which this stack has none of; see tests/integration/test_observed.py."""
OF_LEASES = {"RenewLeases", "WatchWaits"}
"""Answered of leases and waits, of which no finished run has any; see services/cache/tests/test_leases.py."""
STREAM_SECONDS = {"WatchRun": 1.5, "WatchWaits": 0.5}

METHODS = {
    method.name: (service.full_name, method)
    for module in (cache_pb2, dispatcher_pb2, lineage_pb2, snapshotter_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def test_every_rpc_is_in_the_matrix() -> None:
    assert set(METHODS) == {*REQUESTS, *MAKE, *IMAGES}


def filled(value: Any, things: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: filled(each, things) for name, each in value.items()}
    if isinstance(value, list):
        return [filled(each, things) for each in value]
    if isinstance(value, str):
        for name, text in things.items():
            value = value.replace("{" + name + "}", text)
    return value


def answer(
    stack: Stack, rpc: str, fields: dict[str, Any], things: dict[str, str], project: str = "stranger"
) -> str:
    """All that a caller of the project learns, with the names of the things that it asked for left out."""
    service, method = METHODS[rpc]
    name = next(name for name in stack.channels if f".{name}." in service)
    request = message_factory.GetMessageClass(method.input_type)()
    filled_in = filled(fields, things)
    if isinstance(named := filled_in.get("template"), dict):  # what these RPCs name has the project in it
        named["project"] = project
    else:
        filled_in["project"] = project
    json_format.ParseDict(filled_in, request)
    response = message_factory.GetMessageClass(method.output_type)
    channel = stack.channels[name]
    call = channel.unary_stream if method.server_streaming else channel.unary_unary
    invoked = call(
        f"/{service}/{rpc}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response.FromString,
    )
    text = ""
    try:
        answered = invoked(request, timeout=STREAM_SECONDS.get(rpc, 30))
        for each in answered if method.server_streaming else [answered]:
            text += str(each)
    except grpc.RpcError as error:
        text += str(error.code())
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:  # whose details name what ended first
            details = rpc_status.from_call(error)
            text += f" {error.details()} {details.details if details else ''}"
    for thing, value in sorted(things.items(), key=lambda item: -len(item[1])):
        text = text.replace(value, f"<{thing}>")
    return text


@pytest.mark.parametrize(
    ("rpc", "fields"), [(rpc, fields) for rpc, listed in REQUESTS.items() for fields in listed]
)
def test_things_of_another_project_are_answered_as_things_that_do_not_exist(
    stack: Stack, names: dict[str, str], rpc: str, fields: dict[str, Any]
) -> None:
    nothing = NOTHING | {
        "key": names["key"].replace("out.tgz", "xyz.tgz")
    }  # as long, as an answer has its length
    assert answer(stack, rpc, fields, names) == answer(stack, rpc, fields, nothing)
    if fields.get("validate_only", True) and rpc not in OF_OBSERVED | OF_LEASES:
        # Else the line above would also hold for an RPC that answers no caller.
        assert answer(stack, rpc, fields, names, "victim") != answer(stack, rpc, fields, names)


def test_nothing_that_another_project_asked_for_changed_an_entry(stack: Stack, names: dict[str, str]) -> None:
    request = cache_pb2.GetEntryRequest(project="victim", fingerprint=names["fingerprint"])
    assert stack.cache.GetEntry(request, timeout=30).entry.invalidation_reason == ""
