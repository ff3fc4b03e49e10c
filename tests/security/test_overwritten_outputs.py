"""An output that is overwritten after its digest was taken is served to nobody, and a consumer is recorded with what it read."""

import io
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import Stack

from periplus.dispatcher.v1 import dispatcher_pb2
from periplus.lineage.v1 import lineage_pb2
from periplus.types.v1 import step_pb2

MANIFEST = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: over-}
spec:
  entrypoint: main
  templates:
  - name: main
    dag:
      tasks:
      - {name: make, template: make}
      - {name: wait, template: wait, depends: make}
      - name: read
        template: read
        depends: wait
        arguments: {artifacts: [{name: in, from: "{{tasks.make.outputs.artifacts.out}}"}]}
  - name: make
    container: {image: none, command: [sh, -c], args: ["printf NAME-true > /tmp/out"]}
    outputs: {artifacts: [{name: out, path: /tmp/out, archive: {none: {}}}]}
  - name: wait
    metadata: {annotations: {periplus.dev/cache: "off"}}
    container: {image: none, command: [sh, -c], args: ["until [ -e MARK ]; do sleep 0.05; done"]}
  - name: read
    inputs: {artifacts: [{name: in, path: /tmp/in}]}
    container: {image: none, command: [cp, /tmp/in, /tmp/text]}
    outputs: {parameters: [{name: text, valueFrom: {path: /tmp/text}}]}
"""
BOTH_WRITE = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: both-}
spec:
  entrypoint: main
  templates:
  - name: main
    dag:
      tasks:
      - {name: first, template: first}
      - {name: second, template: second, depends: first}
  - name: first
    container: {image: none, command: [sh, -c], args: ["echo first > /tmp/out"]}
    outputs: {artifacts: [{name: out, path: /tmp/out, s3: {key: projects/default/both}}]}
  - name: second
    container: {image: none, command: [sh, -c], args: ["echo second > /tmp/out"]}
    outputs: {artifacts: [{name: out, path: /tmp/out, s3: {key: projects/default/both}}]}
"""


def manifest(name: str, mark: str = "/") -> str:
    """`mark` is the file that the step between waits for."""
    return MANIFEST.replace("NAME", name).replace("MARK", mark)


def overwrite(stack: Stack, key: str, content: bytes) -> None:
    client, bucket = stack.objects()
    client.put_object(bucket, key, io.BytesIO(content), len(content))


def step(run: lineage_pb2.Run, path: str) -> lineage_pb2.Step:
    return next(each for each in run.steps if each.path == path)


def text(run: lineage_pb2.Run) -> str:
    return step(run, "read").outputs.parameters[0].value


def verdicts(stack: Stack, text: str) -> dict[str, tuple[int, str]]:
    request = dispatcher_pb2.PlanRunRequest(spec=dispatcher_pb2.RunSpec(project="default", manifest=text))
    steps = stack.dispatcher.PlanRun(request, timeout=30).plan.steps
    return {each.path: (each.verdict, each.reason) for each in steps}


@pytest.mark.parametrize("content", [b"another content", b"same-fake"], ids=["longer", "of the same size"])
def test_an_output_that_was_overwritten_is_not_served(stack: Stack, content: bytes) -> None:
    wanted = manifest("same" if len(content) == 9 else "long")
    first = stack.finish(wanted)
    assert verdicts(stack, wanted)["make"][0] == step_pb2.VERDICT_HIT
    written, read = step(first, "make").outputs.artifacts[0], step(first, "read").inputs.artifacts[0]
    client, bucket = stack.objects()
    # Which is compared when it is recorded: a clock would not do.
    assert client.stat_object(bucket, written.object.key).etag == written.etag == read.etag
    overwrite(stack, written.object.key, content)
    assert verdicts(stack, wanted)["make"][0] == step_pb2.VERDICT_MISS
    again = stack.finish(wanted)
    assert step(again, "make").phase == step_pb2.STEP_PHASE_SUCCEEDED
    assert text(again) == text(first)


def digested_step(stack: Stack, run: str, path: str) -> lineage_pb2.Step:
    """The step once the digest of its output is taken."""
    while True:
        for each in stack.run(run).steps:
            if each.path == path and each.outputs.artifacts and each.outputs.artifacts[0].digest:
                return each
        time.sleep(0.05)


@pytest.fixture
def mark() -> Iterator[Path]:
    """A path that steps see; they have a /tmp of their own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder) / "mark"


def test_a_consumer_of_an_output_that_was_overwritten_within_the_run_is_recorded_with_what_it_read(
    stack: Stack, mark: Path
) -> None:
    wanted = manifest("within", str(mark))
    submitted = stack.submit(wanted).run
    watched = lineage_pb2.WatchRunRequest(project="default", run=submitted, wait={"seconds": 30})
    watching = stack.lineage.WatchRun(watched, timeout=30)
    watching.next()
    watching.cancel()
    made = digested_step(stack, submitted, "make")
    overwrite(stack, made.outputs.artifacts[0].object.key, b"a stranger's")
    mark.touch()
    first = stack.wait_for_run(submitted)
    stack.wait_for_cache(first)
    assert text(first) == "a stranger's"
    read, written = (
        step(first, "read").inputs.artifacts[0].digest,
        step(first, "make").outputs.artifacts[0].digest,
    )
    assert read != written
    assert verdicts(stack, wanted)["make"][0] == step_pb2.VERDICT_MISS
    again = stack.finish(wanted)
    assert text(again) == "within-true"
    assert step(again, "read").phase == step_pb2.STEP_PHASE_SUCCEEDED


def test_steps_that_write_one_key_are_not_served(stack: Stack) -> None:
    stack.finish(BOTH_WRITE)
    for verdict, reason in verdicts(stack, BOTH_WRITE).values():
        assert verdict == step_pb2.VERDICT_UNCACHEABLE
        assert "names the object that it is written to" in reason
