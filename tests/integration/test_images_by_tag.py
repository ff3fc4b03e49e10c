"""Images by tag on an Argo elsewhere, with Debian's docker-registry: a run is a hit only while its tag points to the same image.

The Argo is the local one, which runs no images, so that the outputs are the same whatever a tag points to.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from registry_server import MISSING, RegistryServer, registry_server
from stack import Stack, up

from periplus.dispatcher.v1 import dispatcher_pb2
from periplus.types.v1 import step_pb2
from periplus_local.argo.testing import local_argo
from periplus_local.stack.testing import Servers, embedded

__all__ = ["embedded"]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed here: {MISSING}")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with registry_server(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def stack(
    embedded: Servers, registry: RegistryServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    s3 = embedded.s3
    with (
        local_argo(
            s3_endpoint=s3.endpoint,
            s3_access_key=s3.access_key,
            s3_secret_key=s3.secret_key,
            s3_bucket=s3.bucket,
        ) as argo,
        pytest.MonkeyPatch.context() as environment,
    ):
        for name, value in {
            "ARGO_SERVER": argo.address,
            "ARGO_TOKEN": argo.token,
            "ARGO_NAMESPACE": argo.namespace,
            "S3_ENDPOINT": s3.endpoint,
            "S3_ACCESS_KEY": s3.access_key,
            "S3_SECRET_KEY": s3.secret_key,
            "S3_BUCKET": s3.bucket,
        }.items():
            environment.setenv(name, value)
        environment.setenv("SNAPSHOTTER_REGISTRIES", "")
        environment.setenv("SNAPSHOTTER_PRIVATE_REGISTRIES", registry.name)
        environment.setenv("SNAPSHOTTER_PLAIN_REGISTRIES", registry.name)
        with up(tmp_path_factory.mktemp("images") / "home", "--cluster") as running:
            yield running


def manifest(image: str, text: str = "x") -> str:
    container = {"image": image, "command": ["sh", "-c"], "args": [f"printf {text} > /tmp/o"]}
    outputs = {"parameters": [{"name": "o", "valueFrom": {"path": "/tmp/o"}}]}
    return json.dumps(
        {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"generateName": "tagged-"},
            "spec": {
                "entrypoint": "main",
                "templates": [
                    {"name": "main", "dag": {"tasks": [{"name": "only", "template": "only"}]}},
                    {"name": "only", "container": container, "outputs": outputs},
                ],
            },
        }
    )


def test_a_run_is_a_hit_only_while_its_tag_points_to_the_same_image(
    stack: Stack, registry: RegistryServer
) -> None:
    image = f"{registry.name}/team/lib:v1"
    phases = []
    for content in (b"one", b"one", b"two", b"one"):
        registry.push("team/lib:v1", {"lib": content})
        run = stack.finish(manifest(image))
        phases.append(step_pb2.StepPhase.Name(run.steps[-1].phase).removeprefix("STEP_PHASE_"))
        stack.wait_for_cache(run)
    assert phases == ["SUCCEEDED", "CACHED", "SUCCEEDED", "CACHED"]


def test_the_plan_says_what_is_pinned_and_what_is_not(stack: Stack, registry: RegistryServer) -> None:
    digest = registry.push("team/lib:v2", {"lib": b"v2"})

    def plan(image: str) -> dispatcher_pb2.Plan:
        spec = dispatcher_pb2.RunSpec(project="default", manifest=manifest(image))
        return stack.dispatcher.PlanRun(dispatcher_pb2.PlanRunRequest(spec=spec), timeout=60).plan

    image = f"{registry.name}/team/lib:v2"
    assert any(f"{image} to {digest}" in warning for warning in plan(image).warnings)
    for unknown in (f"{registry.name}/team/lib:v9", "python:3.11"):
        (step,) = [step for step in plan(unknown).steps if step.path == "only"]
        assert step.verdict == step_pb2.VERDICT_UNCACHEABLE
        assert step.reason.startswith(
            f"UNPINNED: its image {unknown} can change under its tag, and the registry "
        )


def reproduced(stack: Stack, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the document of `periplus reproduce`."""
    done = stack.periplus("reproduce", *arguments, "-o", "json", check=False)
    return done.returncode, json.loads(done.stdout)


def test_a_reproduction_has_the_image_of_then_and_says_when_the_registry_has_it_no_more(
    stack: Stack, registry: RegistryServer
) -> None:
    tag = "team/lib:moving"
    image, digest = f"{registry.name}/{tag}", registry.push(tag, {"lib": b"then"})
    run = stack.finish(manifest(image, text="moving"))
    registry.push(tag, {"lib": b"now"})
    pinned = f"{registry.name}/team/lib@{digest}"
    code, found = reproduced(stack, run.id, "--dry-run", "--show-manifest")
    (needed,) = [each for each in found["requirements"] if each["kind"] == "IMAGE"]
    assert (code, needed["name"], needed["state"], needed["steps"]) == (0, pinned, "MET", ["only"])
    assert [each["container"]["image"] for each in found["manifest"]["spec"]["templates"][1:]] == [pinned]
    code, found = reproduced(stack, run.id)
    assert (code, found["grade"]) == (0, "IDENTICAL")
    gone = f"http://{registry.name}/v2/team/lib/manifests/{digest}"
    assert httpx.delete(gone, trust_env=False).status_code == 202
    code, found = reproduced(stack, run.id)
    (needed,) = [each for each in found["requirements"] if each["kind"] == "IMAGE"]
    assert (code, found["run"], needed["state"]) == (6, "", "MISSING")
    assert digest in needed["reason"]


def test_an_image_that_was_never_resolved_is_listed_and_refuses_nothing(
    stack: Stack, registry: RegistryServer
) -> None:
    run = stack.finish(manifest("python:3.11", text="unresolved"))
    code, found = reproduced(stack, run.id, "--dry-run")
    (needed,) = [each for each in found["requirements"] if each["kind"] == "IMAGE"]
    assert (code, needed["name"], needed["state"]) == (0, "python:3.11", "UNKNOWN")


def metadata(name: str, version: str) -> dict[str, bytes]:
    path = f"usr/lib/python3/site-packages/{name}-{version}.dist-info/METADATA"
    return {path: f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()}


def test_the_packages_of_images_are_found_and_compared_and_a_moved_tag_is_seen(
    stack: Stack, registry: RegistryServer
) -> None:
    old, new = (f"{registry.name}/team/agent:{version}" for version in ("1", "2"))
    first = registry.push("team/agent:1", metadata("langchain", "0.3.1") | metadata("numpy", "2.0"))
    registry.push("team/agent:2", metadata("langchain", "0.3.2") | metadata("numpy", "2.0"))

    def said(*arguments: str, check: bool = True) -> str:
        return stack.periplus(*arguments, check=check).stdout

    assert [line.split() for line in said("images", "packages", old).splitlines()[1:]] == [
        ["langchain", "0.3.1"],
        ["numpy", "2.0"],
    ]
    assert [line.split() for line in said("images", "diff", old, new).splitlines()[1:]] == [
        ["langchain", "0.3.1", "0.3.2"]
    ]
    found = said("snapshot", "find", "langchain")
    assert f"{old}  {first[:19]}" in found
    assert "0.3.2" in found
    before = {
        line.split()[0]: line.split()[1] for line in said("images", "check", check=False).splitlines()[1:]
    }
    assert before[old] == before[new] == "same"
    registry.push("team/agent:1", metadata("langchain", "0.4"))
    checked = stack.periplus("images", "check", check=False)
    after = {line.split()[0]: line.split()[1] for line in checked.stdout.splitlines()[1:]}
    assert (after[old], after[new], checked.returncode) == ("moved", "same", 1)
