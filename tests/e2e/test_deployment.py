"""Periplus as pods: PERIPLUS_DEPLOYMENT names the namespace that deploy/k8s was applied to, for the kubectl that is set up here.

The services' token is in their Secrets. Needs the rights to scale Deployments and to forward ports.
"""

import base64
import json
import os
import re
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import grpc
import pytest
from stack import ROOT

from periplus.cache.v1 import cache_pb2
from periplus.cache.v1.cache_pb2_grpc import CacheServiceStub
from periplus.dispatcher.v1 import dispatcher_pb2
from periplus.dispatcher.v1.dispatcher_pb2_grpc import DispatcherServiceStub
from periplus.lineage.v1 import lineage_pb2
from periplus.lineage.v1.lineage_pb2_grpc import LineageServiceStub
from periplus.types.v1 import step_pb2

NAMESPACE = os.environ.get("PERIPLUS_DEPLOYMENT", "")
SERVICES = ("dispatcher", "cache", "snapshotter", "lineage")
WAIT_SECONDS = 300
ITEMS = 12

pytestmark = pytest.mark.skipif(not NAMESPACE, reason="PERIPLUS_DEPLOYMENT is not set")

FAN_OUT = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {generateName: scaled-}
spec:
  entrypoint: main
  parallelism: 3
  templates:
  - name: main
    dag:
      tasks:
      - {name: first, template: first}
      - name: each
        template: each
        depends: first
        arguments: {parameters: [{name: seed, value: "{{tasks.first.outputs.parameters.o}}"}, {name: item, value: "{{item}}"}]}
        withSequence: {count: "ITEMS"}
      - name: last
        template: last
        depends: each
        arguments: {parameters: [{name: all, value: "{{tasks.each.outputs.parameters.o}}"}]}
    outputs: {parameters: [{name: total, valueFrom: {parameter: "{{tasks.last.outputs.parameters.o}}"}}]}
  - name: first
    script: {image: IMAGE, command: [python3], source: "'NONCE'; open('/tmp/o', 'w').write('1')"}
    outputs: {parameters: [{name: o, valueFrom: {path: /tmp/o}}]}
  - name: each
    inputs: {parameters: [{name: seed}, {name: item}]}
    script:
      image: IMAGE
      command: [python3]
      source: "'NONCE'; open('/tmp/o', 'w').write(str(int('{{inputs.parameters.seed}}') + int('{{inputs.parameters.item}}')))"
    outputs: {parameters: [{name: o, valueFrom: {path: /tmp/o}}]}
  - name: last
    inputs: {parameters: [{name: all}]}
    script:
      image: IMAGE
      command: [python3]
      source: |
        import json
        'NONCE'
        open('/tmp/o', 'w').write(str(sum(map(int, json.loads('{{inputs.parameters.all}}')))))
    outputs: {parameters: [{name: o, valueFrom: {path: /tmp/o}}]}
"""


def kubectl(*arguments: str) -> str:
    done = subprocess.run(
        ["kubectl", "-n", NAMESPACE, *arguments],
        capture_output=True, text=True, timeout=WAIT_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def forwarded(service: str) -> Iterator[grpc.Channel]:
    """A channel to one of a service's pods."""
    forward = subprocess.Popen(
        ["kubectl", "-n", NAMESPACE, "port-forward", f"service/{service}", ":9000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert forward.stdout is not None
        port = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
        assert port, forward.stderr.read() if forward.stderr else ""
        with grpc.insecure_channel(f"127.0.0.1:{port[1]}") as channel:
            yield channel
    finally:
        forward.kill()
        forward.communicate()


@pytest.fixture(scope="module")
def metadata() -> list[tuple[str, str]]:
    secrets = json.loads(kubectl("get", "secrets", "-o", "json"))["items"]
    token = next(s["data"]["DISPATCHER_TOKEN"] for s in secrets if "DISPATCHER_TOKEN" in s.get("data", {}))
    return [("authorization", f"Bearer {base64.b64decode(token).decode()}")]


class Deployment:
    """Calls of the deployed services. Each has a connection of its own, since the pod behind one may be gone."""

    def __init__(self, metadata: list[tuple[str, str]]) -> None:
        self._metadata = metadata

    def submit(self, manifest: str) -> dispatcher_pb2.SubmitRunResponse:
        request = dispatcher_pb2.SubmitRunRequest(
            spec=dispatcher_pb2.RunSpec(project="default", manifest=manifest), request_id=str(uuid.uuid4())
        )
        with forwarded("dispatcher") as channel:
            return DispatcherServiceStub(channel).SubmitRun(request, timeout=60, metadata=self._metadata)

    def run(self, run: str) -> lineage_pb2.Run | None:
        """The run as lineage has it; None while it can not be asked."""
        request = lineage_pb2.GetRunRequest(project="default", run=run)
        try:
            with forwarded("lineage") as channel:
                return LineageServiceStub(channel).GetRun(request, timeout=10, metadata=self._metadata).run
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND):
                raise
            return None

    def complete(self, run: str) -> lineage_pb2.Run:
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            if (found := self.run(run)) is not None and found.complete:
                return found
            time.sleep(1)
        raise TimeoutError(f"{run} is not complete after {WAIT_SECONDS} s")

    def entries(self, run: str) -> set[str]:
        """The steps of a run that the cache has an entry of."""
        request = cache_pb2.ListEntriesRequest(project="default", producer_run=run)
        with forwarded("cache") as channel:
            found = CacheServiceStub(channel).ListEntries(request, timeout=30, metadata=self._metadata)
        return {entry.producer_step for entry in found.entries}

    def wait_for_entries(self, run: lineage_pb2.Run) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while missing := {step.path for step in run.steps} - self.entries(run.id):
            assert time.monotonic() < deadline, f"no entries of {missing}"
            time.sleep(1)


@pytest.fixture(scope="module")
def deployment(metadata: list[tuple[str, str]]) -> Deployment:
    return Deployment(metadata)


def manifest() -> str:
    text = FAN_OUT.replace("IMAGE", os.environ["PERIPLUS_TEST_IMAGE"]).replace("ITEMS", str(ITEMS))
    return text.replace("NONCE", str(uuid.uuid4()))


def scale(service: str, replicas: int) -> None:
    kubectl("scale", f"deployment/{service}", f"--replicas={replicas}")
    kubectl("rollout", "status", f"deployment/{service}", f"--timeout={WAIT_SECONDS}s")


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_scaled_to_three_and_back_during_a_run_and_nothing_is_lost(
    deployment: Deployment, service: str
) -> None:
    source = manifest()
    submitted = deployment.submit(source).run
    with ExitStack() as undo:
        undo.callback(scale, service, 1)
        scale(service, 3)
    run = deployment.complete(submitted)
    assert run.phase == step_pb2.RUN_PHASE_SUCCEEDED
    assert {step.path: step.phase for step in run.steps} == dict.fromkeys(
        ["first", *(f"each({i})" for i in range(ITEMS)), "last"], step_pb2.STEP_PHASE_SUCCEEDED
    )
    assert run.outputs.parameters[0].value == str(sum(range(1, ITEMS + 1)))
    deployment.wait_for_entries(run)
    again = deployment.submit(source)
    assert again.phase == step_pb2.RUN_PHASE_SUCCEEDED, "every step is a hit"
    assert {step.phase for step in deployment.complete(again.run).steps} == {step_pb2.STEP_PHASE_CACHED}


def test_the_example_of_the_readme_runs_and_is_cached(deployment: Deployment) -> None:
    image = os.environ["PERIPLUS_TEST_IMAGE"]
    example = (ROOT / "examples/yaml/train.yaml").read_text().replace("value: python:3.11", f"value: {image}")
    example = example.replace("import ", f"# {uuid.uuid4()}\n        import ")
    run = deployment.complete(deployment.submit(example).run)
    assert run.phase == step_pb2.RUN_PHASE_SUCCEEDED
    deployment.wait_for_entries(run)
    assert deployment.submit(example).phase == step_pb2.RUN_PHASE_SUCCEEDED
