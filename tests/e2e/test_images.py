"""Images by tag on a real Argo: the nodes of its cluster pull them from Debian's docker-registry on loopback."""

import json
import os
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from registry_server import MISSING, RegistryServer, registry_server
from stack import Stack, up

from periplus.cache.v1 import cache_pb2
from periplus.lineage.v1 import lineage_pb2
from periplus.types.v1 import step_pb2

BUSYBOX = Path("/bin/busybox")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif("ARGO_SERVER" not in os.environ, reason="the local Argo runs no images"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed here: {MISSING}"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="there is no busybox to make an image of"),
]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module", params=["pin", "check"])
def stack(
    request: pytest.FixtureRequest, registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    if request.param == "check" and "DISPATCHER_KUBERNETES_URL" not in os.environ:
        pytest.skip("DISPATCHER_KUBERNETES_URL is not set")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DISPATCHER_IMAGE_POLICY", request.param)
        environment.setenv("SNAPSHOTTER_REGISTRIES", "")
        environment.setenv("SNAPSHOTTER_PRIVATE_REGISTRIES", registry.name)
        environment.setenv("SNAPSHOTTER_PLAIN_REGISTRIES", registry.name)
        with up(tmp_path_factory.mktemp("images") / "home", "--cluster") as running:
            yield running


@pytest.fixture
def policy(request: pytest.FixtureRequest, stack: Stack) -> str:
    return str(request.node.callspec.params["stack"])


def push(registry: RegistryServer, tag: str, content: str) -> None:
    """Push an image with busybox and the file /lib-version."""
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, body in (("bin/busybox", BUSYBOX.read_bytes()), ("lib-version", content.encode())):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(body), 0o755
            archive.addfile(member, BytesIO(body))
    registry.push(tag, layer=packed.getvalue())


def run(stack: Stack, image: str) -> tuple[str, str]:
    """The phase of a step that prints the version of its image, and the version."""
    command = "/bin/busybox mkdir -p /tmp && /bin/busybox cat /lib-version > /tmp/o"
    template = {
        "name": "main",
        "container": {"image": image, "command": ["/bin/busybox", "sh", "-c"], "args": [command]},
        "outputs": {"parameters": [{"name": "o", "valueFrom": {"path": "/tmp/o"}}]},
    }
    manifest = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": "tagged-"},
        "spec": {"entrypoint": "main", "hostNetwork": True, "templates": [template]},
    }
    found: lineage_pb2.Run = stack.finish(json.dumps(manifest))
    stack.wait_for_cache(found)
    (step,) = found.steps
    phase = step_pb2.StepPhase.Name(step.phase).removeprefix("STEP_PHASE_")
    return phase, "".join(p.value for p in step.outputs.parameters)


def test_a_run_has_the_results_of_the_image_that_its_tag_points_to(
    stack: Stack, registry: RegistryServer, policy: str
) -> None:
    tag = f"team/{policy}:v1"
    image = f"{registry.name}/{tag}"
    push(registry, tag, "one")
    assert run(stack, image) == ("SUCCEEDED", "one")
    assert run(stack, image) == ("CACHED", "one")
    push(registry, tag, "two")
    # Pinned, the node pulls what the tag points to. Else it runs what it has under the tag, which is no entry then.
    for _ in range(2 if policy == "check" else 1):
        assert run(stack, image) == ("SUCCEEDED", "two" if policy == "pin" else "one")
    push(registry, tag, "one")
    assert run(stack, image) == ("CACHED", "one")
    entries = stack.cache.ListEntries(cache_pb2.ListEntriesRequest(project="default"), timeout=30).entries
    assert len(entries) == (2 if policy == "pin" else 1)


def test_a_reproduction_runs_the_image_of_then(stack: Stack, registry: RegistryServer, policy: str) -> None:
    tag = f"team/again-{policy}:v1"
    image = f"{registry.name}/{tag}"
    push(registry, tag, f"then {policy}")
    assert run(stack, image)[1] == f"then {policy}"
    first = json.loads(stack.periplus("runs", "-n", "1", "-o", "json").stdout)["runs"][0]["id"]
    push(registry, tag, f"now {policy}")
    done = stack.periplus("reproduce", first, "-o", "json", check=False)
    found = json.loads(done.stdout)
    assert (done.returncode, found["grade"], found["different"]) == (0, "IDENTICAL", 0), done.stdout
    again = stack.run(found["run"])
    assert [p.value for p in again.steps[0].outputs.parameters] == [f"then {policy}"]
