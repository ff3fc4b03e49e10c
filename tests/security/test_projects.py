"""A project reads and writes its own objects, runs, entries and snapshots, and those of no other, on a whole stack."""

import uuid

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from stack import Stack

from periplus.dispatcher.v1 import dispatcher_pb2
from periplus.lineage.v1 import lineage_pb2
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


def spec(project: str, text: str, **parameters: str) -> dispatcher_pb2.RunSpec:
    return dispatcher_pb2.RunSpec(project=project, manifest=text, parameters=parameters)


def run(stack: Stack, project: str, text: str, **parameters: str) -> lineage_pb2.Run:
    """The run as it ended."""
    request = dispatcher_pb2.SubmitRunRequest(
        spec=spec(project, text, **parameters), request_id=uuid.uuid4().hex
    )
    name = stack.dispatcher.SubmitRun(request, timeout=60).run
    found = lineage_pb2.WatchRunRequest(project=project, run=name)
    for _ in stack.lineage.WatchRun(found, timeout=60):
        pass
    return stack.lineage.GetRun(lineage_pb2.GetRunRequest(project=project, run=name), timeout=30).run


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
@pytest.mark.parametrize("way", ["literal", "parameter", "tag", "doubled slash", "backslash"])
def test_a_manifest_with_the_key_of_another_project_is_refused(
    stack: Stack, secret: lineage_pb2.Run, role: str, call: str, way: str
) -> None:
    key = secret.steps[0].outputs.artifacts[0].object.key
    written = {
        "literal": key,
        "parameter": "{{workflow.parameters.key}}",
        "tag": "{{workflow.name}}" + key,
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


def test_a_key_that_belongs_to_no_project_is_shared_on_a_laptop(stack: Stack) -> None:
    assert run(stack, "victim", writing("datasets/{{workflow.name}}/x")).phase == step_pb2.RUN_PHASE_SUCCEEDED


def test_a_step_reads_and_writes_the_keys_of_its_project(stack: Stack) -> None:
    assert run(stack, "victim", writing("projects/victim/x")).phase == step_pb2.RUN_PHASE_SUCCEEDED
    assert run(stack, "victim", reading("projects/victim/x")).phase == step_pb2.RUN_PHASE_SUCCEEDED
