"""The REST API of the local Argo: authentication, hera's requests, lists, logs, events, templates."""

import json
from collections.abc import Iterator

import pytest
from hera.exceptions import AlreadyExists, NotFound
from hera.workflows import WorkflowsService
from hera.workflows.models import Workflow, WorkflowCreateRequest, WorkflowSetRequest

from periplus_local.argo.samples import container_template, workflow
from periplus_local.argo.testing import Client, Refusal, local_argo, nodes_of, phases_of

GATE = {
    "name": "gate",
    "suspend": {},
    "outputs": {"parameters": [{"name": "x", "valueFrom": {"supplied": {}, "default": "d"}}]},
}


@pytest.fixture(scope="module")
def argo() -> Iterator[Client]:
    with local_argo() as client:
        yield client


def gated() -> dict:
    main = {
        "name": "main",
        "dag": {"tasks": [{"name": "gate", "template": "gate"}]},
        "outputs": {
            "parameters": [{"name": "x", "valueFrom": {"parameter": "{{tasks.gate.outputs.parameters.x}}"}}]
        },
    }
    return workflow(main, GATE)


def opened(argo: Client) -> tuple[str, str]:
    """A workflow with an open gate: its name and the id of the gate's node."""
    name = argo.create(gated())
    open_workflow = argo.until(name, lambda w: phases_of(w).get("$.gate") == "Running")
    return name, nodes_of(open_workflow)[f"{name}.gate"]["id"]


def test_a_caller_without_the_token_is_refused(argo: Client) -> None:
    for token in ("", "wrong", argo.token + "x"):
        with pytest.raises(Refusal) as refusal:
            Client(argo.address, token).call("GET", "version")
        assert refusal.value.status == 401
        assert json.loads(refusal.value.body)["code"] == 16


def test_a_request_for_another_host_is_refused(argo: Client) -> None:
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example"):
        with pytest.raises(Refusal) as refusal:
            argo.call("GET", "version", headers={"Host": host})
        assert refusal.value.status == 403
    assert argo.call("GET", "version", headers={"Host": "localhost:1"})["version"] == "v4.1.2+periplus.local"


def test_hera_creates_gets_sets_lists_and_deletes_workflows(argo: Client) -> None:
    service = WorkflowsService(host=argo.address, token=argo.token, namespace="argo")
    body = gated() | {"metadata": {"name": "from-hera", "namespace": "argo"}}
    created = service.create_workflow(WorkflowCreateRequest(workflow=Workflow.model_validate(body)))
    assert created.metadata.name == "from-hera"
    with pytest.raises(AlreadyExists):
        service.create_workflow(WorkflowCreateRequest(workflow=Workflow.model_validate(body)))
    argo.until("from-hera", lambda w: phases_of(w).get("$.gate") == "Running")
    service.set_workflow(
        "from-hera",
        WorkflowSetRequest(
            node_field_selector="displayName=gate",
            phase="Succeeded",
            output_parameters=json.dumps({"x": "7"}),
        ),
    )
    argo.ended("from-hera")
    status = service.get_workflow("from-hera").status
    assert status.phase == "Succeeded"
    assert status.nodes["from-hera"].outputs.parameters[0].value == "7"
    assert service.get_version().version.startswith("v4.1.2")
    assert "from-hera" in [item.metadata.name for item in service.list_workflows().items]
    service.delete_workflow("from-hera")
    with pytest.raises(NotFound):
        service.get_workflow("from-hera")


def test_a_second_answer_of_a_gate_is_refused(argo: Client) -> None:
    name, gate = opened(argo)
    argo.answer(name, gate, {"x": "1"})
    argo.ended(name)
    with pytest.raises(Refusal) as refusal:
        argo.answer(name, gate, {"x": "2"})
    assert (refusal.value.status, json.loads(refusal.value.body)["code"]) == (500, 13)
    assert "no suspend nodes matching nodeFieldSelector" in refusal.value.body


def test_an_answer_with_an_unknown_output_changes_nothing(argo: Client) -> None:
    name, gate = opened(argo)
    with pytest.raises(Refusal) as refusal:
        argo.answer(name, gate, {"y": "1"})
    assert "node is not expecting output parameter 'y'" in refusal.value.body
    assert phases_of(argo.get(name))["$.gate"] == "Running"
    argo.do(name, "terminate")
    argo.ended(name)


def test_resume_without_a_selector_uses_the_defaults_and_with_one_does_not(argo: Client) -> None:
    name, _ = opened(argo)
    argo.do(name, "resume")
    assert nodes_of(argo.ended(name))[name]["outputs"]["parameters"] == [{"name": "x", "value": "d"}]
    name, gate = opened(argo)
    argo.do(name, "resume", nodeFieldSelector=f"id={gate}")
    parameter = nodes_of(argo.ended(name))[f"{name}.gate"]["outputs"]["parameters"][0]
    assert parameter == {"name": "x", "valueFrom": {"supplied": {}, "default": "d"}}


def test_a_list_is_filtered_by_labels_and_paged(argo: Client) -> None:
    for index in range(3):
        body = workflow(container_template("main")) | {
            "metadata": {"generateName": "l-", "labels": {"set": "one"}}
        }
        body["metadata"]["labels"]["n"] = str(index)
        argo.ended(argo.create(body))
    found = argo.call("GET", "workflows/argo?listOptions.labelSelector=set%3Done,n%20in%20(0,2)")
    assert [item["metadata"]["labels"]["n"] for item in found["items"]] == ["2", "0"]
    page = argo.call("GET", "workflows/argo?listOptions.labelSelector=set%3Done&listOptions.limit=2")
    rest = argo.call(
        "GET",
        "workflows/argo?listOptions.labelSelector=set&listOptions.limit=2"
        f"&listOptions.continue={page['metadata']['continue']}",
    )
    assert [len(page["items"]), len(rest["items"])] == [2, 1]
    assert argo.call("GET", "workflows/argo?listOptions.labelSelector=set%3Dnone")["items"] is None


def test_logs_are_streamed_by_pod_and_followed_to_the_end(argo: Client) -> None:
    name = argo.create(workflow(container_template("main", "echo one; sleep 0.3; echo two")))
    path = f"workflows/argo/{name}/log?logOptions.container=main&logOptions.follow=true&podName={name}"
    argo.until(name, lambda w: "$" in phases_of(w))
    with argo.open("GET", path) as lines:
        printed = [json.loads(line)["result"] for line in lines]
    assert printed == [{"content": "one", "podName": name}, {"content": "two", "podName": name}]
    argo.ended(name)
    with argo.open("GET", f"workflows/argo/{name}/log?logOptions.container=main") as lines:
        assert [json.loads(line)["result"]["content"] for line in lines] == ["one", "two"]


def events(argo: Client, query: str, count: int) -> list[dict]:
    """The first events of a stream."""
    found = []
    with argo.open("GET", f"workflow-events/argo?{query}") as stream:
        for line in stream:
            if line.startswith(b"data: "):
                found.append(json.loads(line[6:])["result"])
            if len(found) == count:
                return found
    raise AssertionError("the stream has ended")


def test_the_event_stream_has_existing_workflows_then_changes_and_resumes_from_a_version(
    argo: Client,
) -> None:
    body = workflow(container_template("main", "sleep 0.2")) | {
        "metadata": {"generateName": "s-", "labels": {"test": "stream"}}
    }
    name = argo.create(body)
    query = "listOptions.labelSelector=test%3Dstream"
    with argo.open("GET", f"workflow-events/argo?{query}") as stream:
        events_until_end = []
        for line in stream:
            if line.startswith(b"data: "):
                events_until_end.append(json.loads(line[6:])["result"])
                if (
                    events_until_end[-1]["object"]["metadata"]["labels"].get(
                        "workflows.argoproj.io/completed"
                    )
                    == "true"
                ):
                    break
    assert events_until_end[0]["type"] == "ADDED"
    assert {event["type"] for event in events_until_end[1:]} == {"MODIFIED"}
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events_until_end]
    assert versions == sorted(versions)
    (last,) = events(argo, f"{query}&listOptions.resourceVersion={versions[0]}", 1)
    assert (last["type"], last["object"]["status"]["phase"]) == ("MODIFIED", "Succeeded")
    argo.call("DELETE", f"workflows/argo/{name}")
    (gone,) = events(argo, f"{query}&listOptions.resourceVersion={versions[-1]}", 1)
    assert (gone["type"], gone["object"]["metadata"]["name"]) == ("DELETED", name)


def test_templates_are_stored_and_run_by_reference(argo: Client) -> None:
    say = container_template(
        "say", "echo {{inputs.parameters.m}} > /tmp/o", inputs={"parameters": [{"name": "m"}]}
    )
    say["outputs"] = {"parameters": [{"name": "o", "valueFrom": {"path": "/tmp/o"}}]}
    spec = {
        "entrypoint": "main",
        "arguments": {"parameters": [{"name": "m", "value": 3}]},
        "templates": [
            {
                "name": "main",
                "dag": {
                    "tasks": [
                        {
                            "name": "a",
                            "template": "say",
                            "arguments": {
                                "parameters": [{"name": "m", "value": "{{workflow.parameters.m}}"}]
                            },
                        }
                    ]
                },
            },
            say,
        ],
    }
    template = {"metadata": {"name": "shared"}, "spec": spec}
    argo.call("POST", "workflow-templates/argo", {"template": template})
    with pytest.raises(Refusal) as refusal:
        argo.call("POST", "workflow-templates/argo", {"template": template})
    assert refusal.value.status == 409
    whole = {"metadata": {"generateName": "r-"}, "spec": {"workflowTemplateRef": {"name": "shared"}}}
    ended = argo.ended(argo.create(whole))
    assert ended["status"]["phase"] == "Succeeded"
    assert ended["status"]["storedWorkflowTemplateSpec"]["entrypoint"] == "main"
    one = workflow(
        {
            "name": "main",
            "steps": [
                [
                    {
                        "name": "a",
                        "templateRef": {"name": "shared", "template": "say"},
                        "arguments": {"parameters": [{"name": "m", "value": "hello"}]},
                    }
                ]
            ],
        }
    )
    ended = argo.ended(argo.create(one))
    node = nodes_of(ended)[f"{ended['metadata']['name']}[0].a"]
    assert node["outputs"]["parameters"][0]["value"] == "hello"
    submitted = argo.call(
        "POST",
        "workflows/argo/submit",
        {
            "resourceKind": "WorkflowTemplate",
            "resourceName": "shared",
            "submitOptions": {"parameters": ["m=9"]},
        },
    )
    ended = argo.ended(submitted["metadata"]["name"])
    assert ended["metadata"]["labels"]["workflows.argoproj.io/workflow-template"] == "shared"
    assert nodes_of(ended)[f"{ended['metadata']['name']}.a"]["outputs"]["parameters"][0]["value"] == "9"
    listed = argo.call("GET", "workflow-templates/argo")["items"]
    assert [item["metadata"]["name"] for item in listed] == ["shared"]
    argo.call("DELETE", "workflow-templates/argo/shared")
    with pytest.raises(Refusal) as refusal:
        argo.call("GET", "workflow-templates/argo/shared")
    assert refusal.value.status == 404
