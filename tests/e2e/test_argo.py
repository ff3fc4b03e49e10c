"""The stack on the real Argo that ARGO_SERVER names, or else on the local one: only addresses and credentials differ."""

import os
import signal
import time
import uuid

import pytest
from cluster import GATE_SECONDS, Argo
from stack import ROOT, Stack

from periplus.types.v1 import step_pb2

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

TRAIN = (ROOT / "examples" / "yaml" / "train.yaml").read_text()


@pytest.fixture(scope="module")
def manifest() -> str:
    """The example with a unique comment in each source, so that no entry exists."""
    return TRAIN.replace("import ", f"# {uuid.uuid4()}\n        import ", 20)


def test_the_first_run_creates_pods_and_the_second_no_workflow(
    cluster: Stack, argo: Argo, manifest: str
) -> None:
    first = cluster.finish(manifest, image=argo.image)
    assert first.phase == step_pb2.RUN_PHASE_SUCCEEDED, first.message
    assert len(argo.pods(first.id)) == 8
    second = cluster.submit(manifest, image=argo.image)
    assert second.phase == step_pb2.RUN_PHASE_SUCCEEDED
    assert argo.workflow(second.run) is None


def test_gates_behind_a_miss_are_answered_and_skip_their_steps(
    cluster: Stack, argo: Argo, manifest: str
) -> None:
    changed = cluster.finish(manifest.replace('print("wrote"', 'print("has written"'), image=argo.image)
    assert changed.phase == step_pb2.RUN_PHASE_SUCCEEDED, changed.message
    assert changed.cached_steps == 7
    assert argo.pods(changed.id) == ["ingest"]
    assert argo.gates(changed.id) == {"periplus-gate": "Succeeded"}


def test_a_fan_out_runs_only_the_items_that_are_not_cached(cluster: Stack, argo: Argo, manifest: str) -> None:
    more = cluster.finish(manifest, image=argo.image, neighbours="[1, 3, 5, 9, 11]")
    assert more.phase == step_pb2.RUN_PHASE_SUCCEEDED, more.message
    ran = {s.path for s in more.steps if s.phase == step_pb2.STEP_PHASE_SUCCEEDED}
    assert "train(4)" in ran
    assert not ran & {"ingest", "features", "train(0)", "train(1)", "train(2)", "train(3)"}


CHAIN = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {{generateName: chain-}}
spec:
  entrypoint: main
  templateDefaults:
    retryStrategy: {{limit: "2"}}
  templates:
  - name: main
    dag:
      tasks:
      - {{name: s0, template: first}}
{tasks}
    outputs:
      parameters: [{{name: out, valueFrom: {{parameter: "{{{{tasks.s{last}.outputs.parameters.out}}}}"}}}}]
{templates}
"""
TASK = """
      - name: s{n}
        template: {template}
        depends: s{before}
        arguments: {{parameters: [{{name: x, value: "{{{{tasks.s{before}.outputs.parameters.out}}}}"}}]}}
"""
TEMPLATE = """
  - name: {name}
    {inputs}
    script: {{image: {image}, command: [python3], source: "open('/tmp/out', 'w').write({value})  # {comment}"}}
    outputs: {{parameters: [{{name: out, valueFrom: {{path: /tmp/out}}}}]}}
"""
STEPS = 10


def chain(image: str, **comments: str) -> str:
    """A chain of ten behind a first step, with a retry strategy for each template. Comments decide what is cached."""
    tasks = [
        TASK.format(n=n, before=n - 1, template="middle" if n == STEPS // 2 else "next")
        for n in range(1, STEPS + 1)
    ]
    increment = "str(int('{{inputs.parameters.x}}') + 1)"
    values = {"first": "'0'", "next": increment, "middle": increment}
    templates = [
        TEMPLATE.format(
            name=name,
            image=image,
            inputs="" if name == "first" else "inputs: {parameters: [{name: x}]}",
            value=value,
            comment=comments[name],
        )
        for name, value in values.items()
    ]
    return CHAIN.format(tasks="".join(tasks), last=STEPS, templates="".join(templates))


@pytest.fixture(scope="module")
def same(cluster: Stack, argo: Argo) -> str:
    """The comment of a chain all of whose steps are cached."""
    comment = uuid.uuid4().hex
    run = cluster.finish(chain(argo.image, first=comment, next=comment, middle=comment))
    assert run.phase == step_pb2.RUN_PHASE_SUCCEEDED, run.message
    return comment


def test_a_chain_behind_a_miss_waits_at_one_gate(cluster: Stack, argo: Argo, same: str) -> None:
    run = cluster.finish(chain(argo.image, first=uuid.uuid4().hex, next=same, middle=same))
    assert run.phase == step_pb2.RUN_PHASE_SUCCEEDED, run.message
    assert run.outputs.parameters[0].value == str(STEPS)
    assert len(argo.pods(run.id)) == 1
    assert list(argo.gates(run.id).values()) == ["Succeeded"]


def test_a_miss_within_a_stretch_runs_alone(cluster: Stack, argo: Argo, same: str) -> None:
    run = cluster.finish(chain(argo.image, first=uuid.uuid4().hex, next=same, middle=uuid.uuid4().hex))
    assert run.phase == step_pb2.RUN_PHASE_SUCCEEDED, run.message
    assert run.outputs.parameters[0].value == str(STEPS)
    ran = {s.path for s in run.steps if s.phase == step_pb2.STEP_PHASE_SUCCEEDED}
    assert ran == {"s0", f"s{STEPS // 2}"}
    assert len(argo.pods(run.id)) == 2


def test_a_resubmitted_workflow_runs_and_its_gates_are_answered(
    cluster: Stack, argo: Argo, same: str
) -> None:
    run = cluster.finish(chain(argo.image, first=uuid.uuid4().hex, next=same, middle=same))
    again = cluster.wait_for_run(argo.resubmit(run.id))
    assert again.phase == step_pb2.RUN_PHASE_SUCCEEDED, again.message
    assert again.outputs.parameters[0].value == str(STEPS)
    assert len(argo.pods(again.id)) == 1


def test_a_dispatcher_that_was_killed_answers_the_open_gates(cluster: Stack, argo: Argo, same: str) -> None:
    accepted = cluster.submit(chain(argo.image, first=uuid.uuid4().hex, next=same, middle=same))
    cluster.kill("dispatcher")
    run = cluster.wait_for_run(accepted.run)
    assert run.phase == step_pb2.RUN_PHASE_SUCCEEDED, run.message
    assert len(argo.pods(run.id)) == 1


def test_without_a_dispatcher_the_steps_behind_a_gate_run(cluster: Stack, argo: Argo, same: str) -> None:
    accepted = cluster.submit(chain(argo.image, first=uuid.uuid4().hex, next=same, middle=same))
    stopped = cluster.pid("dispatcher")
    os.kill(stopped, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + GATE_SECONDS + 200
        while (argo.workflow(accepted.run) or {}).get("status", {}).get("phase") != "Succeeded":
            assert time.monotonic() < deadline, argo.nodes(accepted.run)
            time.sleep(0.5)
    finally:
        os.kill(stopped, signal.SIGCONT)
    run = cluster.wait_for_run(accepted.run)
    assert run.phase == step_pb2.RUN_PHASE_SUCCEEDED, run.message
    assert len(argo.pods(run.id)) == STEPS + 1
