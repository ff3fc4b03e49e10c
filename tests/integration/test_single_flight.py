"""Two runs that would make the same at the same time, on the whole stack: the steps themselves count how often they run."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import Stack

from periplus.dispatcher.v1 import dispatcher_pb2
from periplus.types.v1 import step_pb2

CHAIN = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: flight-}
spec:
  entrypoint: main
  templates:
  - name: main
    dag:
      tasks:
      - {name: first, template: step, arguments: {parameters: [{name: x, value: first}]}}
      - {name: list, template: list, depends: first, arguments: {parameters: [{name: x, value: "{{tasks.first.outputs.parameters.y}}"}]}}
      - {name: each, template: step, depends: list, withParam: "{{tasks.list.outputs.parameters.y}}", arguments: {parameters: [{name: x, value: "{{item}}"}]}}
      - {name: last, template: step, depends: each, arguments: {parameters: [{name: x, value: "{{tasks.each.outputs.parameters.y}}"}]}}
  - name: step
    inputs: {parameters: [{name: x}]}
    container: {image: none, command: [sh, -ec], args: [STEP]}
    outputs: {parameters: [{name: y, valueFrom: {path: /tmp/y}}]}
  - name: list
    inputs: {parameters: [{name: x}]}
    container: {image: none, command: [sh, -ec], args: ["echo list >> FOLDER/ran; echo '[1, 2]' > /tmp/y"]}
    outputs: {parameters: [{name: y, valueFrom: {path: /tmp/y}}]}
"""
STEP = (
    """'echo "{{inputs.parameters.x}}" >> FOLDER/ran; WAIT; printf %s "{{inputs.parameters.x}}" > /tmp/y'"""
)
UNTIL_GO = "until [ -e FOLDER/go ]; do sleep 0.1; done"

FAN_OUT = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: partial-}
spec:
  entrypoint: main
  templates:
  - name: main
    dag:
      tasks:
      - {name: each, template: step, withItems: [1, 2, 3], arguments: {parameters: [{name: x, value: "{{item}}"}]}}
  - name: step
    inputs: {parameters: [{name: x}]}
    container: {image: none, command: [sh, -ec], args: ['echo {{inputs.parameters.x}} >> FOLDER/ran; [ {{inputs.parameters.x}} != 2 -o -e FOLDER/go ]; echo {{inputs.parameters.x}} > /tmp/y']}
    outputs: {parameters: [{name: y, valueFrom: {path: /tmp/y}}]}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the steps of the local Argo see: they have a /tmp of their own. Its path makes the steps those of this test only."""
    made = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="periplus-flight-"))
    yield made
    shutil.rmtree(made)


def chain(folder: Path, wait: str = UNTIL_GO) -> str:
    return CHAIN.replace("STEP", STEP).replace("WAIT", wait).replace("FOLDER", str(folder))


def ran(folder: Path) -> Counter[str]:
    file = folder / "ran"
    return Counter(file.read_text().splitlines()) if file.exists() else Counter()


def verdicts(submitted: dispatcher_pb2.SubmitRunResponse) -> set[int]:
    return {step.verdict for step in submitted.plan.steps}


def test_two_runs_at_once_make_each_step_once_and_the_second_says_for_whom_it_waits(
    stack: Stack, folder: Path
) -> None:
    first, second = stack.submit(chain(folder)), stack.submit(chain(folder))
    assert verdicts(first) == {step_pb2.VERDICT_MISS}
    assert verdicts(second) == {step_pb2.VERDICT_PENDING}
    reasons = [step.reason for step in second.plan.steps]
    assert all(reason.startswith(f"waiting for run {first.run}, step ") for reason in reasons), reasons
    waiting = f"waiting for run {first.run}, step first, since "
    stack.wait_until(lambda: waiting in stack.periplus("runs", second.run).stdout)
    (folder / "go").touch()
    runs = [stack.wait_for_run(each.run) for each in (first, second)]
    assert [run.phase for run in runs] == [step_pb2.RUN_PHASE_SUCCEEDED] * 2
    assert ran(folder) == {"first": 1, "list": 1, "1": 1, "2": 1, "[1,2]": 1}
    assert {step.phase for step in runs[1].steps} == {step_pb2.STEP_PHASE_CACHED}
    assert {step.producer_run for step in runs[1].steps} == {first.run}


def test_when_the_step_fails_the_next_run_makes_it(stack: Stack, folder: Path) -> None:
    wait = f"{UNTIL_GO}; [ -e FOLDER/failed ] || {{ touch FOLDER/failed; exit 1; }}"
    first, second = stack.submit(chain(folder, wait)), stack.submit(chain(folder, wait))
    waiting = f"waiting for run {first.run}, step first, since "
    stack.wait_until(lambda: waiting in stack.periplus("runs", second.run).stdout)
    (folder / "go").touch()
    assert stack.wait_for_run(first.run).phase == step_pb2.RUN_PHASE_FAILED
    assert stack.wait_for_run(second.run).phase == step_pb2.RUN_PHASE_SUCCEEDED
    assert ran(folder) == {"first": 2, "list": 1, "1": 1, "2": 1, "[1,2]": 1}


def test_of_a_fan_out_only_what_failed_runs_again(stack: Stack, folder: Path) -> None:
    manifest = FAN_OUT.replace("FOLDER", str(folder))
    failed = stack.finish(manifest)
    assert failed.phase == step_pb2.RUN_PHASE_FAILED
    (folder / "go").touch()
    again = stack.wait_for_run(stack.submit(manifest).run)
    assert again.phase == step_pb2.RUN_PHASE_SUCCEEDED
    assert ran(folder) == {"1": 1, "2": 2, "3": 1}
