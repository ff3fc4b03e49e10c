"""`kill -9` of any process during a run: the run finishes, and no finished step runs again."""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import ROOT, WAIT_SECONDS, Stack, up

from periplus.types.v1 import step_pb2

PROCESSES = ["dispatcher", "cache", "snapshotter", "lineage", "argo", "nats", "postgres", "s3"]

# Ten steps in a chain and a fan-out of four; each appends a line to a file outside of the stack when it finishes.
LINKS = "\n".join(
    f"      - {{name: s{i}, depends: s{i - 1}, template: link, arguments: "
    f'{{parameters: [{{name: x, value: "{{{{tasks.s{i - 1}.outputs.parameters.y}}}}"}}]}}}}'
    for i in range(1, 10)
)
CHAIN = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: chaos-}
spec:
  entrypoint: main
  arguments:
    parameters: [{name: seed}, {name: notes}]
  templates:
  - name: main
    dag:
      tasks:
      - {name: s0, template: link, arguments: {parameters: [{name: x, value: "{{workflow.parameters.seed}}"}]}}
LINKS
      - name: fan
        depends: s9
        template: link
        withItems: [a, b, c, d]
        arguments: {parameters: [{name: x, value: "{{item}}-{{tasks.s9.outputs.parameters.y}}"}]}
  - name: link
    inputs: {parameters: [{name: x}]}
    script:
      image: python:3.11
      command: [python3]
      env: [{name: X, value: "{{inputs.parameters.x}}"}, {name: NOTES, value: "{{workflow.parameters.notes}}"}]
      source: |
        import os, time
        time.sleep(0.3)
        with open("/tmp/y", "w") as file:
            file.write(os.environ["X"] + "+")
        with open(os.environ["NOTES"], "a") as file:
            file.write(os.environ["X"] + "\\n")
    outputs: {parameters: [{name: y, valueFrom: {path: /tmp/y}}]}
""".replace("LINKS", LINKS)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory):
    """A stack of its own, because these tests kill its processes."""
    with up(tmp_path_factory.mktemp("chaos") / "home") as running:
        yield running


@pytest.fixture
def notes() -> Iterator[Path]:
    """A file that steps can write to. Not in /tmp, which is private to each step."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder) / "notes"


def wait_for(notes: Path, lines: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not notes.exists() or len(notes.read_text().splitlines()) < lines:
        assert time.monotonic() < deadline, "no step finished"
        time.sleep(0.02)


@pytest.mark.parametrize("process", PROCESSES)
def test_a_run_and_another_that_waits_for_its_steps_survive_kill_9_of(
    own: Stack, process: str, notes: Path
) -> None:
    run = own.submit(CHAIN, seed=process, notes=str(notes)).run
    waiting = own.submit(CHAIN, seed=process, notes=str(notes)).run
    wait_for(notes, 3)
    own.kill(process)
    finished, other = own.wait_for_run(run), own.wait_for_run(waiting)
    assert finished.phase == other.phase == step_pb2.RUN_PHASE_SUCCEEDED, finished.message + other.message
    assert len(finished.steps) == len(other.steps) == 14
    assert {s.phase for s in finished.steps} <= {step_pb2.STEP_PHASE_SUCCEEDED, step_pb2.STEP_PHASE_CACHED}
    counts = Counter(notes.read_text().splitlines())
    made = [
        s.path for each in (finished, other) for s in each.steps if s.phase == step_pb2.STEP_PHASE_SUCCEEDED
    ]
    # Only a step that is running when the local Argo or S3 is killed may run again.
    assert 0 <= sum(counts.values()) - len(made) <= (1 if process in ("argo", "s3") else 0), (counts, made)
    # A step is made twice if its gate opens while the cache can not be asked, or its result takes longer than the lease.
    assert 14 <= len(made) <= 28
    assert len(counts) == 14


def test_after_all_kills_the_same_run_is_cached(own: Stack, notes: Path) -> None:
    own.finish(CHAIN, seed="again", notes=str(notes))
    again = own.submit(CHAIN, seed="again", notes=str(notes))
    assert again.phase == step_pb2.RUN_PHASE_SUCCEEDED
    assert len(notes.read_text().splitlines()) == 14


def test_the_digits_run_survives_kill_9_of_each_service_in_turn(
    own: Stack, notes: Path, tmp_path: Path
) -> None:
    for file in (ROOT / "examples" / "digits").glob("*.py"):
        (tmp_path / file.name).write_text(file.read_text())
    scoring = tmp_path / "scoring.py"
    # The six train steps and the evaluate step call it once each, at their end.
    noting = f'    with open("{notes}", "a") as file:\n        file.write("scored\\n")\n    return round('
    scoring.write_text(scoring.read_text().replace("    return round(", noting, 1))
    submitted = own.periplus("run", str(tmp_path / "pipeline.py"), "--no-watch", "-o", "json")
    run = json.loads(submitted.stdout)["run"]
    for number, process in enumerate(("dispatcher", "cache", "snapshotter", "lineage", "argo"), start=1):
        wait_for(notes, number)
        own.kill(process)
    finished = own.wait_for_run(run if isinstance(run, str) else run["id"])
    assert finished.phase == step_pb2.RUN_PHASE_SUCCEEDED, finished.message
    assert len(finished.steps) == 11
    assert notes.read_text().splitlines() == ["scored"] * 7
