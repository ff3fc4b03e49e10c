"""What the local Argo refuses before anything runs, and how it says so."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from periplus_local.argo.samples import leaf, workflow
from periplus_local.argo.testing import Client, Refusal, local_argo


@pytest.fixture(scope="module")
def argo() -> Iterator[Client]:
    with local_argo() as client:
        yield client


def mounting(*mounts: Any, **volume: Any) -> dict[str, Any]:
    """What makes a workflow mount one volume."""
    template = leaf("main")
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
        ({"templates": [leaf("main") | {"daemon": True}]}, "spec.templates[0].daemon"),
        ({"synchronization": {"semaphores": [{}]}}, "spec.synchronization.semaphores"),
        ({"synchronization": {"mutex": {"name": "x"}}}, "spec.synchronization.mutex"),
        ({"templates": [leaf("main") | {"sidecars": [{}]}]}, "spec.templates[0].sidecars"),
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
                    leaf("main", outputs={"artifacts": [{"name": "a", "path": "/a", "gcs": {"key": "k"}}]})
                ]
            },
            "spec.templates[0].outputs.artifacts[0].gcs",
        ),
        (
            {"templates": [{"name": "main", "steps": [[{"name": "a", "template": "x", "wen": "1"}]]}]},
            "spec.templates[0].steps[0][0].wen",
        ),
        ({"templates": [leaf("main") | {"synchronization": {"semaphores": [{}]}}]}, "semaphores"),
    ],
)
def test_a_field_that_does_not_work_here_is_refused_by_its_path(
    argo: Client, change: dict, path: str
) -> None:
    asked = workflow(leaf("main"), **change)
    for route, status in (("workflows/argo", 400), ("workflows/argo/lint", 500)):
        with pytest.raises(Refusal) as refusal:
            argo.call("POST", route, {"workflow": asked})
        assert refusal.value.status == status
        assert path in json.loads(refusal.value.body)["message"]


IDLE = {
    "affinity": {"nodeAffinity": {}},
    "imagePullSecrets": [{"name": "a"}],
    "nodeSelector": {"a": "b"},
    "podSpecPatch": '{"nodeName": "a"}',
    "tolerations": [{"key": "a"}],
    "ttlStrategy": {"secondsAfterCompletion": 1},
    "volumes": [{"name": "a", "configMap": {"name": "c"}}],
}


def warning(workflow: dict) -> str:
    (said,) = [item for item in workflow["status"]["conditions"] if item["type"] == "SpecWarning"]
    return said["message"]


def test_what_has_no_effect_is_said_by_a_check_by_a_run_and_of_a_template(argo: Client) -> None:
    own = {**IDLE, "memoize": {"key": "x", "cache": {"configMap": {"name": "c"}}}}
    template = leaf("main") | {key: own[key] for key in own if key not in {"imagePullSecrets", "ttlStrategy"}}
    template["container"]["resources"] = {"requests": {"cpu": 1}}
    asked = workflow(template, serviceAccountName="me", **IDLE)
    for seen in (
        argo.call("POST", "workflows/argo/lint", {"workflow": asked}),
        argo.ended(argo.create(asked)),
    ):
        said = warning(seen)
        for field in (*IDLE, "templates[0].container.resources", "templates[0].memoize"):
            assert f"spec.{field}" in said
        assert "memoize is replaced by the cache of Periplus" in said
        assert "serviceAccountName" not in said
    kept = {"metadata": {"name": "idle"}, "spec": {"entrypoint": "main", "templates": [template]}}
    argo.call("POST", "workflow-templates/argo", {"template": kept})
    name = argo.create(
        {"metadata": {"generateName": "t-"}, "spec": {"workflowTemplateRef": {"name": "idle"}}}
    )
    assert "spec.templates[0].nodeSelector" in warning(argo.ended(name))


def test_fields_without_effect_are_said_once_per_run(argo: Client) -> None:
    asked = workflow(leaf("main"), nodeSelector={"a": "b"}, podGC={"strategy": "OnPodCompletion"})
    seen = argo.ended(argo.create(asked))
    said = [item for item in seen["status"]["conditions"] if item["type"] == "SpecWarning"]
    assert len(said) == 1
    assert "spec.nodeSelector" in said[0]["message"]
    assert "spec.podGC" in said[0]["message"]


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
def test_what_is_no_workflow_is_refused_and_the_server_goes_on(argo: Client, raw: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        argo.call("POST", "workflows/argo", raw)
    assert refusal.value.status == 400
    assert argo.call("GET", "version")


def test_a_reference_to_a_template_that_is_not_there_is_refused(argo: Client) -> None:
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


def test_a_workflow_of_a_mebibyte_is_taken_and_one_byte_more_is_refused(argo: Client) -> None:
    asked = workflow(leaf("main")) | {"metadata": {"generateName": "big-", "annotations": {"a": ""}}}
    asked["metadata"]["namespace"] = "argo"
    room = (1 << 20) - len(json.dumps(asked, separators=(",", ":")))
    asked["metadata"]["annotations"]["a"] = "x" * room
    assert argo.call("POST", "workflows/argo/lint", {"workflow": asked})
    asked["metadata"]["annotations"]["a"] += "x"
    with pytest.raises(Refusal) as refusal:
        argo.call("POST", "workflows/argo/lint", {"workflow": asked})
    assert "larger than 1048576 bytes" in refusal.value.body


def test_an_unknown_workflow_is_not_found(argo: Client) -> None:
    for path in ("workflows/argo/nobody", "workflows/argo/nobody/log"):
        with pytest.raises(Refusal) as refusal:
            argo.call("GET", path)
        assert (refusal.value.status, json.loads(refusal.value.body)["code"]) == (404, 5)


def test_a_template_that_mounts_what_is_not_here_is_refused_when_it_is_made(argo: Client) -> None:
    spec = mounting({"mountPath": "/a"}, secret={"secretName": "s"})
    body = {"template": {"metadata": {"name": "mounts"}, "spec": spec}}
    with pytest.raises(Refusal) as refusal:
        argo.call("POST", "workflow-templates/argo", body)
    assert "spec.templates[0].container.volumeMounts[0]" in json.loads(refusal.value.body)["message"]


def test_a_template_whose_parameter_is_a_list_is_refused_by_its_path(argo: Client) -> None:
    spec = {"arguments": {"parameters": [{"name": "files", "value": []}]}, "templates": [leaf("main")]}
    with pytest.raises(Refusal) as refusal:
        argo.call(
            "POST", "workflow-templates/argo", {"template": {"metadata": {"name": "listed"}, "spec": spec}}
        )
    assert refusal.value.status == 400
    assert "spec.arguments.parameters[0].value" in json.loads(refusal.value.body)["message"]
