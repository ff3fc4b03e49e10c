"""Artifacts on a real store: keys that a manifest names, raw data, sub-paths, modes, global names."""

import io
import os
import tarfile
from typing import Any

import pytest

from periplus_local.argo.testing import Client, nodes_of

from .s3_store import BUCKET, S3Store

Body = dict[str, Any]


def sh(name: str, command: str, **more: Any) -> Body:
    return {
        "name": name,
        "container": {"image": "busybox", "command": ["sh", "-c"], "args": [command]},
        **more,
    }


def artifacts(*listed: Body) -> Body:
    return {"artifacts": list(listed)}


def steps(*groups: list[Body], **more: Any) -> Body:
    return {"name": "main", "steps": list(groups), **more}


def run(client: Client, *templates: Body, **spec: Any) -> tuple[str, dict[str, Body]]:
    """Run a workflow: its name, and its nodes by their name without the workflow's."""
    body = {"entrypoint": templates[0]["name"], "templates": list(templates), **spec}
    name = client.create({"metadata": {"generateName": "a-"}, "spec": body})
    seen = client.ended(name)
    assert seen["status"]["phase"] == "Succeeded", [n.get("message") for n in nodes_of(seen).values()]
    return name, {key.removeprefix(name): node for key, node in nodes_of(seen).items()}


OUT = {"parameters": [{"name": "o", "valueFrom": {"path": "/tmp/o"}}]}


def output(node: Body) -> str:
    return node["outputs"]["parameters"][0]["value"]


pytestmark = pytest.mark.skipif("ARGO_SERVER" in os.environ, reason="reads the local Argo's own store")


def test_an_artifact_is_stored_under_the_key_in_the_manifest_and_loaded_by_that_key(
    client: Client, s3: S3Store
) -> None:
    place = {"key": "named/{{workflow.name}}/x.txt"}
    make = sh(
        "make",
        "echo here > /tmp/x",
        outputs=artifacts({"name": "x", "path": "/tmp/x", "archive": {"none": {}}, "s3": place}),
    )
    take = sh(
        "take",
        "cat /tmp/in > /tmp/o",
        inputs=artifacts({"name": "x", "path": "/tmp/in", "s3": place}),
        outputs=OUT,
    )
    main = steps([{"name": "m", "template": "make"}], [{"name": "t", "template": "take"}])
    name, nodes = run(client, main, make, take)
    assert output(nodes["[1].t"]) == "here"
    assert nodes["[0].m"]["outputs"]["artifacts"][0]["s3"]["key"] == f"named/{name}/x.txt"
    assert s3.minio.get_object(BUCKET, f"named/{name}/x.txt").data == b"here\n"


def test_an_artifact_is_stored_as_a_tar_of_its_folder(client: Client, s3: S3Store) -> None:
    make = sh(
        "main", "mkdir -p /tmp/d/e; echo 1 > /tmp/d/e/f", outputs=artifacts({"name": "d", "path": "/tmp/d"})
    )
    name, nodes = run(client, make)
    key = nodes[""]["outputs"]["artifacts"][0]["s3"]["key"]
    assert key == f"{name}/{name}/d.tgz"
    with tarfile.open(fileobj=io.BytesIO(s3.minio.get_object(BUCKET, key).data)) as packed:
        assert "d/e/f" in packed.getnames()


def test_an_input_may_be_raw_data_with_a_mode_or_a_sub_path_of_an_output(client: Client) -> None:
    make = sh(
        "make",
        "mkdir /tmp/d; echo deep > /tmp/d/f",
        outputs=artifacts({"name": "d", "path": "/tmp/d", "archive": {"none": {}}}),
    )
    inputs = artifacts({"name": "run", "path": "/tmp/run.sh", "mode": 493}, {"name": "f", "path": "/tmp/f"})
    take = sh("take", "/tmp/run.sh /tmp/f > /tmp/o", inputs=inputs, outputs=OUT)
    given = artifacts(
        {"name": "run", "raw": {"data": "#!/bin/sh\necho ran; cat $1\n"}},
        {"name": "f", "from": "{{steps.m.outputs.artifacts.d}}", "subPath": "f"},
    )
    main = steps([{"name": "m", "template": "make"}], [{"name": "t", "template": "take", "arguments": given}])
    _, nodes = run(client, main, make, take)
    assert output(nodes["[1].t"]) == "ran\ndeep"


def test_an_artifact_argument_of_the_workflow_reaches_its_entrypoint(client: Client) -> None:
    take = sh("main", "cat /tmp/in > /tmp/o", inputs=artifacts({"name": "x", "path": "/tmp/in"}), outputs=OUT)
    given = artifacts({"name": "x", "raw": {"data": "from outside"}})
    assert output(run(client, take, arguments=given)[1][""]) == "from outside"


def test_nested_templates_pass_artifacts_out_and_in(client: Client) -> None:
    make = sh("make", "echo deep > /tmp/x", outputs=artifacts({"name": "x", "path": "/tmp/x"}))
    inner = {
        "name": "inner",
        "dag": {"tasks": [{"name": "m", "template": "make"}]},
        "outputs": artifacts({"name": "y", "from": "{{tasks.m.outputs.artifacts.x}}"}),
    }
    outer = {
        "name": "outer",
        "inputs": artifacts({"name": "z"}),
        "steps": [
            [
                {
                    "name": "t",
                    "template": "take",
                    "arguments": artifacts({"name": "x", "from": "{{inputs.artifacts.z}}"}),
                }
            ]
        ],
    }
    take = sh("take", "cat /tmp/in > /tmp/o", inputs=artifacts({"name": "x", "path": "/tmp/in"}), outputs=OUT)
    given = artifacts({"name": "z", "from": "{{steps.i.outputs.artifacts.y}}"})
    main = steps(
        [{"name": "i", "template": "inner"}], [{"name": "o", "template": "outer", "arguments": given}]
    )
    _, nodes = run(client, main, make, inner, outer, take)
    assert output(nodes["[1].o[0].t"]) == "deep"
    assert nodes["[0].i"]["outputs"]["artifacts"][0]["name"] == "y"


def test_a_missing_object_fails_the_step_that_needs_it(client: Client) -> None:
    take = sh(
        "main", "true", inputs=artifacts({"name": "x", "path": "/tmp/in", "s3": {"key": "no/such/thing"}})
    )
    name = client.create(
        {"metadata": {"generateName": "a-"}, "spec": {"entrypoint": "main", "templates": [take]}}
    )
    seen = client.ended(name)
    assert seen["status"]["phase"] == "Error"
    assert "does not exist" in seen["status"]["message"]
