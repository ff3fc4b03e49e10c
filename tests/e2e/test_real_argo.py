"""The stack on a real Argo: only addresses and credentials differ.

Needs ARGO_SERVER, ARGO_NAMESPACE, S3_ENDPOINT, S3_BUCKET, S3_ACCESS_KEY and S3_SECRET_KEY, and PERIPLUS_TEST_IMAGE:
an image with Python 3 that the cluster can pull. Without them every test is skipped.
"""

import os
import uuid
from collections.abc import Iterator

import httpx
import pytest
from stack import ROOT, Stack, up

from periplus.types.v1 import step_pb2

NEEDED = (
    "ARGO_SERVER",
    "ARGO_NAMESPACE",
    "S3_ENDPOINT",
    "S3_BUCKET",
    "S3_ACCESS_KEY",
    "S3_SECRET_KEY",
    "PERIPLUS_TEST_IMAGE",
)
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        any(name not in os.environ for name in NEEDED), reason="needs a real Argo: " + ", ".join(NEEDED)
    ),
]
TRAIN = (ROOT / "examples" / "yaml" / "train.yaml").read_text()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Services on this machine, steps on the cluster. The test image counts as one that never changes under its tag."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DISPATCHER_IMMUTABLE_IMAGE_PREFIXES", os.environ["PERIPLUS_TEST_IMAGE"])
        with up(tmp_path_factory.mktemp("cluster") / "home", "--cluster") as running:
            yield running


@pytest.fixture(scope="module")
def manifest() -> str:
    """The example with a unique comment in each source, so that no entry exists."""
    return TRAIN.replace("import ", f"# {uuid.uuid4()}\n        import ", 20)


def nodes(run: str) -> dict[str, tuple[str, str]]:
    """Type and phase of the nodes of a Workflow, by name; empty if the Workflow does not exist."""
    address = f"{os.environ['ARGO_SERVER']}/api/v1/workflows/{os.environ['ARGO_NAMESPACE']}/{run}"
    token = os.environ.get("ARGO_TOKEN", "")
    found = httpx.get(address, headers={"Authorization": token} if token else {}, timeout=30)
    if found.status_code == 404:
        return {}
    return {n["name"]: (n["type"], n["phase"]) for n in found.json()["status"]["nodes"].values()}


def test_the_first_run_creates_pods_and_the_second_no_workflow(cluster: Stack, manifest: str) -> None:
    image = os.environ["PERIPLUS_TEST_IMAGE"]
    first = cluster.finish(manifest, image=image)
    assert first.phase == step_pb2.RUN_PHASE_SUCCEEDED, first.message
    assert sum(kind == "Pod" for kind, _ in nodes(first.id).values()) == 8
    second = cluster.submit(manifest, image=image)
    assert second.phase == step_pb2.RUN_PHASE_SUCCEEDED
    assert nodes(second.run) == {}


def test_gates_behind_a_miss_are_answered_and_skip_their_steps(cluster: Stack, manifest: str) -> None:
    image = os.environ["PERIPLUS_TEST_IMAGE"]
    changed = cluster.finish(manifest.replace('print("wrote"', 'print("has written"'), image=image)
    assert changed.phase == step_pb2.RUN_PHASE_SUCCEEDED, changed.message
    assert changed.cached_steps == 7
    tree = nodes(changed.id)
    assert [name for name, (kind, _) in tree.items() if kind == "Pod"] == [f"{changed.id}.ingest"]
    gates = {name: phase for name, (kind, phase) in tree.items() if kind == "Suspend"}
    assert gates == {f"{changed.id}.periplus-gate": "Succeeded"}


def test_a_fan_out_runs_only_the_items_that_are_not_cached(cluster: Stack, manifest: str) -> None:
    image = os.environ["PERIPLUS_TEST_IMAGE"]
    more = cluster.finish(manifest, image=image, neighbours="[1, 3, 5, 9, 11]")
    assert more.phase == step_pb2.RUN_PHASE_SUCCEEDED, more.message
    ran = {s.path for s in more.steps if s.phase == step_pb2.STEP_PHASE_SUCCEEDED}
    assert "train(4)" in ran
    assert not ran & {"ingest", "features", "train(0)", "train(1)", "train(2)", "train(3)"}
