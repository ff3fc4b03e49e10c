"""Further requests of Argo's own client and of hera: logs, lists, templates, artifacts."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from hera.exceptions import InternalServerError
from hera.exceptions import NotImplemented as NotImplementedByArgo
from hera.workflows.async_service import AsyncWorkflowsService
from hera.workflows.models import (
    Workflow,
    WorkflowCreateRequest,
    WorkflowLintRequest,
    WorkflowRetryRequest,
    WorkflowSetRequest,
    WorkflowStopRequest,
)

from periplus_local.argo.samples import container_template, dag, sh, start, task, workflow
from periplus_local.argo.testing import Client, Refusal, local_argo, phases_of
from periplus_local.stack.testing import Servers

GATED = dag(task("a", "say"), task("gate", "gate", depends="a"), task("b", "say", depends="gate"))
TEMPLATE = {
    "metadata": {"name": "shared"},
    "spec": {
        "entrypoint": "main",
        "arguments": {"parameters": [{"name": "m", "value": "d"}]},
        "templates": [
            container_template("main", "echo {{workflow.parameters.m}}"),
            container_template("other", "echo other"),
        ],
    },
}


@pytest.fixture(scope="module")
def argo(embedded: Servers) -> Iterator[Client]:
    s3 = embedded.s3
    with local_argo(
        slots=2,
        s3_endpoint=s3.endpoint,
        s3_access_key=s3.access_key,
        s3_secret_key=s3.secret_key,
        s3_bucket=s3.bucket,
    ) as client:
        yield client


@pytest.fixture(scope="module")
def printed(argo: Client) -> str:
    """A workflow whose two steps printed three lines each."""
    name = start(
        argo,
        dag(task("a", "say"), task("b", "say", depends="a")),
        sh("say", "echo one; echo two; echo three"),
    )
    argo.ended(name)
    return name


def lines(argo: Client, path: str) -> list[str]:
    with argo.open("GET", f"workflows/argo/{path}") as stream:
        return [json.loads(line)["result"]["content"] for line in stream]


def test_followed_logs_include_steps_that_start_later(argo: Client) -> None:
    name = start(argo, GATED, sh("say", "echo {{node.name}}"), {"name": "gate", "suspend": {}})
    argo.until(name, lambda w: phases_of(w).get("$.gate") == "Running")
    with argo.open("GET", f"workflows/argo/{name}/log?logOptions.follow=true") as stream:
        contents = [json.loads(stream.readline())["result"]["content"]]
        argo.do(name, "resume")
        contents += [json.loads(line)["result"]["content"] for line in stream]
    assert contents == [f"{name}.a", f"{name}.b"]


def test_logs_are_filtered_by_pod_tail_and_pattern(argo: Client, printed: str) -> None:
    label = f"workflows.argoproj.io/workflow%3D{printed}"
    assert lines(argo, f"{printed}/log") == ["one", "two", "three"] * 2
    assert lines(argo, "@latest/log?logOptions.container=main") == ["one", "two", "three"] * 2
    assert lines(argo, f"{printed}/log?logOptions.tailLines=1") == ["three", "three"]
    assert lines(argo, f"{printed}/log?logOptions.tailLines=1&logOptions.follow=true") == ["three", "three"]
    assert lines(argo, f"{printed}/log?grep=%5Et%5B%5Eh%5D") == ["two", "two"]
    assert lines(argo, f"{printed}/log?selector={label}&logOptions.tailLines=1") == ["three", "three"]
    assert lines(argo, f"{printed}/log?selector=a%3Db") == []
    assert lines(argo, f"{printed}/log?logOptions.container=wait") == []


@pytest.mark.parametrize("option", ["timestamps=true", "sinceSeconds=3", "previous=true", "tailLines=-1"])
def test_an_unsupported_log_option_is_refused_by_name(argo: Client, printed: str, option: str) -> None:
    with pytest.raises(Refusal) as refusal:
        lines(argo, f"{printed}/log?logOptions.{option}")
    assert refusal.value.status == 400
    assert f"logOptions.{option.partition('=')[0]}" in refusal.value.body


def found(argo: Client, query: str) -> list[dict[str, Any]]:
    return list(argo.call("GET", f"workflows/argo?{query}")["items"] or [])


def test_a_list_is_filtered_by_name_and_time_and_has_the_fields_of_the_mask(
    argo: Client, printed: str
) -> None:
    fields = "fields=metadata,items.metadata.name,items.status.phase"
    only = {"metadata": {"name": printed}, "spec": {"arguments": {}}}
    ended = {"phase": "Succeeded", "startedAt": None, "finishedAt": None}
    by_name = f"listOptions.fieldSelector=metadata.name%3D{printed}"
    assert found(argo, f"{by_name}&{fields}") == [only | {"status": ended}]
    assert found(argo, f"listOptions.fieldSelector=metadata.name%3D{printed[:-2]}") == []
    assert found(argo, f"listOptions.fieldSelector=metadata.name%3D{printed[:-2]}&nameFilter=Prefix")
    assert printed not in str(found(argo, f"listOptions.fieldSelector=metadata.name!%3D{printed}&{fields}"))
    assert found(argo, f"{by_name}&createdAfter=2999-01-01T00:00:00Z") == []
    assert found(argo, f"{by_name}&finishedBefore=2999-01-01T00:00:00Z")
    (slim,) = found(argo, f"{by_name}&fields=-items.status.nodes,items.spec")
    assert "nodes" not in slim["status"]
    assert slim["spec"] == {"arguments": {}}
    assert slim["status"]["phase"] == "Succeeded"


def submitted(argo: Client, **options: Any) -> dict[str, Any]:
    request = {"resourceKind": "workflowtemplate", "resourceName": "shared", "submitOptions": options}
    return dict(argo.call("POST", "workflows/argo/submit", request))


def test_a_template_is_updated_and_submitted(argo: Client) -> None:
    argo.call("POST", "workflow-templates/argo", {"template": TEMPLATE})
    argo.call(
        "PUT",
        "workflow-templates/argo/",
        {"template": TEMPLATE | {"metadata": {"name": "shared", "labels": {"a": "b"}}}},
    )
    assert argo.call("GET", "workflow-templates/argo?namePattern=shar")["items"][0]["metadata"]["labels"] == {
        "a": "b"
    }
    created = submitted(
        argo, name="from-shared", entryPoint="other", labels="x=y", annotations="n=m", parameters=["m=z"]
    )
    assert created["metadata"]["labels"]["x"] == "y"
    assert created["metadata"]["annotations"]["n"] == "m"
    argo.ended("from-shared")
    assert lines(argo, "from-shared/log") == ["other"]
    for dry in ("dryRun", "serverDryRun"):
        assert submitted(argo, name="never-created", **{dry: True})["metadata"]["name"] == "never-created"
    with pytest.raises(Refusal, match="not found"):
        argo.get("never-created")
    with pytest.raises(Refusal, match=r"submitOptions\.podPriorityClassName: does not work here"):
        submitted(argo, podPriorityClassName="high")
    argo.call("DELETE", "workflow-templates/argo/shared")


def artifact(argo: Client, path: str) -> Any:
    """The open answer of a path that is not below /api/v1/."""
    request = urllib.request.Request(
        f"{argo.address}/{path}", headers={"Authorization": f"Bearer {argo.token}"}
    )
    try:
        return urllib.request.urlopen(request, timeout=20)
    except urllib.error.HTTPError as error:
        raise Refusal(error.code, error.read().decode()) from error


def test_an_artifact_can_be_downloaded(argo: Client) -> None:
    created = container_template("main", "printf bytes > /tmp/o")
    created["outputs"] = {"artifacts": [{"name": "o", "path": "/tmp/o", "archive": {"none": {}}}]}
    name = argo.create(workflow(created))
    assert argo.ended(name)["status"]["phase"] == "Succeeded"
    with artifact(argo, f"artifacts/argo/{name}/{name}/o") as answered:
        assert answered.read() == b"bytes"
        assert answered.headers["content-disposition"] == 'filename="o"'
        assert answered.headers["content-security-policy"].startswith("sandbox")
    with pytest.raises(Refusal, match=r"artifact .*nope.* not found"):
        artifact(argo, f"artifacts/argo/{name}/{name}/nope")


def test_unimplemented_parts_of_the_api_are_refused_by_name(argo: Client) -> None:
    for path, name_in_message in (
        ("cron-workflows/argo", "cron workflows"),
        ("sensors/argo", "sensors"),
        ("nope", "GET /api/v1/nope"),
    ):
        with pytest.raises(Refusal) as refusal:
            argo.call("GET", path)
        assert refusal.value.status == 501
        assert name_in_message in refusal.value.body
    assert argo.call("GET", "archived-workflows")["items"] is None


async def test_heras_asynchronous_service_creates_sets_retries_and_lists(argo: Client) -> None:
    gate = {
        "name": "main",
        "steps": [[{"name": "gate", "template": "gate"}], [{"name": "work", "template": "work"}]],
    }
    body = workflow(gate, {"name": "gate", "suspend": {}}, container_template("work", "exit 1")) | {
        "metadata": {"name": "by-hera", "namespace": "argo"}
    }
    async with AsyncWorkflowsService(host=argo.address, token=argo.token, namespace="argo") as service:
        created = WorkflowCreateRequest(workflow=Workflow.model_validate(body))
        await service.lint_workflow(WorkflowLintRequest(workflow=created.workflow))
        await service.create_workflow(created)
        await asyncio.to_thread(argo.until, "by-hera", lambda w: phases_of(w).get("$[0].gate") == "Running")
        request = WorkflowSetRequest(node_field_selector="displayName=gate", phase="Succeeded")
        await service.set_workflow("by-hera", request)
        await asyncio.to_thread(argo.ended, "by-hera")
        await service.retry_workflow("by-hera", WorkflowRetryRequest())
        await asyncio.to_thread(argo.ended, "by-hera")
        picked = await service.list_workflows(fields="items.metadata.name,items.status.phase", limit="1")
        assert [(item.metadata.name, item.status.phase) for item in picked.items] == [("by-hera", "Failed")]
        with pytest.raises(InternalServerError, match="cannot shutdown a completed workflow"):
            await service.stop_workflow("by-hera", WorkflowStopRequest())
        with pytest.raises(NotImplementedByArgo, match="cron workflows"):
            await service.list_cron_workflows()
        assert (await service.list_archived_workflows(namespace="argo")).items is None
        await service.delete_workflow("by-hera")


def test_latest_names_the_newest_workflow_in_every_request(argo: Client) -> None:
    name = argo.create(workflow({"name": "main", "suspend": {}}))
    assert argo.get("@latest")["metadata"]["name"] == name
    argo.until("@latest", lambda w: phases_of(w).get("$") == "Running")
    argo.do("@latest", "terminate")
    assert argo.ended(name)["status"]["phase"] == "Failed"
