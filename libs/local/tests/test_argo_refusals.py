"""What the local Argo refuses before anything runs, and with which message."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from periplus_local.argo.samples import container_template, workflow
from periplus_local.argo.testing import Client, Refusal, local_argo


@pytest.fixture(scope="module")
def argo() -> Iterator[Client]:
    with local_argo() as client:
        yield client


def mounting(*mounts: Any, **volume: Any) -> dict[str, Any]:
    """The fields of a spec that mount one volume."""
    template = container_template("main")
    template["container"]["volumeMounts"] = [{"name": "v", **mount} for mount in mounts]
    return {"templates": [template], "volumes": [{"name": "v", **volume}]}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"typo": 1}, "spec.typo"),
        ({"volumeClaimTemplates": [{}]}, "spec.volumeClaimTemplates"),
        *(
            ({"templates": [{"name": "main", kind: {"url": "x"}}]}, f"spec.templates[0].{kind}")
            for kind in ("http", "resource", "data", "plugin", "containerSet")
        ),
        ({"templates": [container_template("main") | {"daemon": True}]}, "spec.templates[0].daemon"),
        ({"synchronization": {"semaphores": [{}]}}, "spec.synchronization.semaphores"),
        ({"synchronization": {"mutex": {"name": "x"}}}, "spec.synchronization.mutex"),
        ({"templates": [container_template("main") | {"sidecars": [{}]}]}, "spec.templates[0].sidecars"),
        (
            {
                "templates": [
                    {"name": "main", "container": {"image": "x", "command": ["y"], "volumeMounts": [{}]}}
                ]
            },
            "spec.templates[0].container.volumeMounts",
        ),
        (
            mounting({"mountPath": "/a"}, persistentVolumeClaim={"claimName": "c"}),
            "spec.templates[0].container.volumeMounts[0]",
        ),
        (mounting({"mountPath": "/a", "subPath": "b"}, emptyDir={}), "volumeMounts[0]"),
        (mounting({"mountPath": "/a"}, {"mountPath": "/b"}, emptyDir={}), "volumeMounts[1]"),
        (
            {
                "templates": [
                    container_template(
                        "main", outputs={"artifacts": [{"name": "a", "path": "/a", "gcs": {"key": "k"}}]}
                    )
                ]
            },
            "spec.templates[0].outputs.artifacts[0].gcs",
        ),
        (
            {"templates": [{"name": "main", "steps": [[{"name": "a", "template": "x", "wen": "1"}]]}]},
            "spec.templates[0].steps[0][0].wen",
        ),
        (
            {"templates": [container_template("main") | {"synchronization": {"semaphores": [{}]}}]},
            "semaphores",
        ),
    ],
)
def test_an_unsupported_field_is_refused_by_its_path(argo: Client, change: dict, path: str) -> None:
    body = workflow(container_template("main"), **change)
    for route, status in (("workflows/argo", 400), ("workflows/argo/lint", 500)):
        with pytest.raises(Refusal) as refusal:
            argo.call("POST", route, {"workflow": body})
        assert refusal.value.status == status
        assert path in json.loads(refusal.value.body)["message"]


IGNORED = {
    "affinity": {"nodeAffinity": {}},
    "imagePullSecrets": [{"name": "a"}],
    "nodeSelector": {"a": "b"},
    "podSpecPatch": '{"nodeName": "a"}',
    "tolerations": [{"key": "a"}],
    "ttlStrategy": {"secondsAfterCompletion": 1},
    "volumes": [{"name": "a", "configMap": {"name": "c"}}],
}


def warning(workflow: dict) -> str:
    (message,) = [item for item in workflow["status"]["conditions"] if item["type"] == "SpecWarning"]
    return message["message"]


def test_ignored_fields_are_listed_by_lint_and_by_runs_also_of_templates(argo: Client) -> None:
    own = {**IGNORED, "memoize": {"key": "x", "cache": {"configMap": {"name": "c"}}}}
    template = container_template("main") | {
        key: own[key] for key in own if key not in {"imagePullSecrets", "ttlStrategy"}
    }
    template["container"]["resources"] = {"requests": {"cpu": 1}}
    body = workflow(template, serviceAccountName="me", **IGNORED)
    for ended in (
        argo.call("POST", "workflows/argo/lint", {"workflow": body}),
        argo.ended(argo.create(body)),
    ):
        message = warning(ended)
        for field in (*IGNORED, "templates[0].container.resources", "templates[0].memoize"):
            assert f"spec.{field}" in message
        assert "memoize is replaced by the cache of Periplus" in message
        assert "serviceAccountName" not in message
    template_body = {"metadata": {"name": "idle"}, "spec": {"entrypoint": "main", "templates": [template]}}
    argo.call("POST", "workflow-templates/argo", {"template": template_body})
    name = argo.create(
        {"metadata": {"generateName": "t-"}, "spec": {"workflowTemplateRef": {"name": "idle"}}}
    )
    assert "spec.templates[0].nodeSelector" in warning(argo.ended(name))


def test_ignored_fields_are_listed_once_per_run(argo: Client) -> None:
    body = workflow(
        container_template("main"), nodeSelector={"a": "b"}, podGC={"strategy": "OnPodCompletion"}
    )
    ended = argo.ended(argo.create(body))
    message = [item for item in ended["status"]["conditions"] if item["type"] == "SpecWarning"]
    assert len(message) == 1
    assert "spec.nodeSelector" in message[0]["message"]
    assert "spec.podGC" in message[0]["message"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'{"workflow": {"metadata": {}, "metadata": {}}}',
        b'{"workflow": NaN}',
        b'{"workflow": {"metadata": {"name": "a"}, "spec": 1}}',
        b'{"workflow": 3}',
        b"[" * 100_000,
        b'{"a":' * 200 + b"1" + b"}" * 200,
        b'{"workflow": "' + b"x" * (1 << 20) + b'"}',
    ],
)
def test_malformed_workflows_are_refused_and_the_server_goes_on(argo: Client, raw: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        argo.call("POST", "workflows/argo", raw)
    assert refusal.value.status == 400
    assert argo.call("GET", "version")


def test_a_reference_to_an_unknown_template_is_refused(argo: Client) -> None:
    call = {"name": "a", "templateRef": {"name": "nobody", "template": "x"}}
    for main, path in (
        ({"name": "main", "steps": [[call]]}, "spec.templates[0].steps[0][0].templateRef"),
        ({"name": "main", "dag": {"tasks": [call]}}, "spec.templates[0].dag.tasks[0].templateRef"),
    ):
        with pytest.raises(Refusal) as refusal:
            argo.create(workflow(main))
        assert refusal.value.status == 400
        assert path in refusal.value.body
    with pytest.raises(Refusal) as refusal:
        argo.create({"metadata": {"name": "x"}, "spec": {"workflowTemplateRef": {"name": "nobody"}}})
    assert refusal.value.status in {400, 404}


def test_a_workflow_of_a_mebibyte_is_accepted_and_one_byte_more_is_refused(argo: Client) -> None:
    body = workflow(container_template("main")) | {
        "metadata": {"generateName": "big-", "annotations": {"a": ""}}
    }
    body["metadata"]["namespace"] = "argo"
    bytes_left = (1 << 20) - len(json.dumps(body, separators=(",", ":")))
    body["metadata"]["annotations"]["a"] = "x" * bytes_left
    assert argo.call("POST", "workflows/argo/lint", {"workflow": body})
    body["metadata"]["annotations"]["a"] += "x"
    with pytest.raises(Refusal) as refusal:
        argo.call("POST", "workflows/argo/lint", {"workflow": body})
    assert "larger than 1048576 bytes" in refusal.value.body


def test_an_unknown_workflow_is_not_found(argo: Client) -> None:
    for path in ("workflows/argo/nobody", "workflows/argo/nobody/log"):
        with pytest.raises(Refusal) as refusal:
            argo.call("GET", path)
        assert (refusal.value.status, json.loads(refusal.value.body)["code"]) == (404, 5)


def test_a_template_with_an_unsupported_mount_is_refused_when_created(argo: Client) -> None:
    spec = mounting({"mountPath": "/a"}, secret={"secretName": "s"})
    body = {"template": {"metadata": {"name": "mounts"}, "spec": spec}}
    with pytest.raises(Refusal) as refusal:
        argo.call("POST", "workflow-templates/argo", body)
    assert "spec.templates[0].container.volumeMounts[0]" in json.loads(refusal.value.body)["message"]


def test_a_template_whose_parameter_is_a_list_is_refused_by_its_path(argo: Client) -> None:
    spec = {
        "arguments": {"parameters": [{"name": "files", "value": []}]},
        "templates": [container_template("main")],
    }
    with pytest.raises(Refusal) as refusal:
        argo.call(
            "POST", "workflow-templates/argo", {"template": {"metadata": {"name": "listed"}, "spec": spec}}
        )
    assert refusal.value.status == 400
    assert "spec.arguments.parameters[0].value" in json.loads(refusal.value.body)["message"]
