"""Workflows that others create use the cache: by the webhook, and from an adopted template. On the real Argo that ARGO_SERVER names, or else on
the local one. With KUBECONFIG the real API server asks the webhook; without, the tests do what it does.
"""

import base64
import copy
import json
import os
import socket
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cluster import Argo, connected, prepare_cluster
from stack import FINAL_PHASES, WAIT_SECONDS, Stack, up

from periplus.lineage.v1 import lineage_pb2
from periplus.types.v1 import step_pb2

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

Json = dict[str, Any]
TOKEN = "the-token-of-this-test"
LABEL = f"periplus.dev/test-{uuid.uuid4().hex[:8]}"
KUBERNETES = "KUBECONFIG" in os.environ and "ARGO_SERVER" in os.environ


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


PORT = free_port()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of the webhook, its key beside it."""
    text = subprocess.check_output([sys.executable, "-m", "periplus_local.certificate"], text=True)
    private, begin, public = text.partition("-----BEGIN CERTIFICATE-----")
    folder = tmp_path_factory.mktemp("certificate")
    (folder / "tls.key").write_text(private)
    (folder / "tls.crt").write_text(begin + public)
    return folder / "tls.crt"


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory, authority: Path) -> Iterator[Stack]:
    """Services that observe the namespace, record its results, and serve the webhook."""
    namespace = os.environ.get("ARGO_NAMESPACE", "argo") if "ARGO_SERVER" in os.environ else "argo"
    settings = {
        "GATE_SECONDS": "120", "OBSERVE": f"{namespace}=default", "OBSERVE_LABEL": f"{LABEL}=true",
        "OBSERVE_RECORDED_PROJECTS": "default", "WEBHOOK_ADDRESS": f"127.0.0.1:{PORT}", "WEBHOOK_TOKEN": TOKEN,
        "WEBHOOK_CERT_FILE": str(authority), "WEBHOOK_KEY_FILE": str(authority.with_suffix(".key")),
        "WEBHOOK_SECONDS": "30",  # of a busy machine
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as environment:
        for name, value in settings.items():
            environment.setenv(f"DISPATCHER_{name}", value)
        if "ARGO_SERVER" in os.environ:
            prepare_cluster(environment)
        with up(
            tmp_path_factory.mktemp("others") / "home",
            *(["--cluster"] if "ARGO_SERVER" in os.environ else []),
        ) as it:
            yield it


@pytest.fixture(scope="module")
def argo(others: Stack) -> Iterator[Argo]:
    with connected(others) as found:
        yield found


@pytest.fixture(scope="module")
def create(argo: Argo, authority: Path) -> Iterator[Callable[[Json], str]]:
    """Create a Workflow as others do, and give its name."""
    if KUBERNETES:
        with kubernetes(authority) as http:
            path = f"/apis/argoproj.io/v1alpha1/namespaces/{argo.namespace}/workflows"
            yield lambda made: str(http.post(path, json=made).raise_for_status().json()["metadata"]["name"])
        return

    def asked(made: Json) -> str:
        request = {
            "uid": str(uuid.uuid4()), "kind": {"group": "argoproj.io", "version": "v1alpha1", "kind": "Workflow"},
            "operation": "CREATE", "namespace": argo.namespace, "object": made,
        }  # fmt: skip
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
        context = ssl.create_default_context(cafile=str(authority))
        response = httpx.post(
            f"https://127.0.0.1:{PORT}/mutate/{TOKEN}", json=review, verify=context, timeout=60
        )
        answer = response.raise_for_status().json()["response"]
        assert answer["allowed"]
        created = patched(made, json.loads(base64.b64decode(answer.get("patch", b"W10="))))
        stored = argo.http.post(f"/api/v1/workflows/{argo.namespace}", json={"workflow": created})
        return str(stored.raise_for_status().json()["metadata"]["name"])

    yield asked


def kubernetes(authority: Path) -> Any:
    """A client of the API server, at which the webhook is registered for Workflows with the label."""
    from contextlib import contextmanager

    @contextmanager
    def registered() -> Iterator[httpx.Client]:
        config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        webhook = {
            "name": "test.webhook.periplus.dev",
            "clientConfig": {
                "url": f"https://127.0.0.1:{PORT}/mutate/{TOKEN}", "caBundle": base64.b64encode(authority.read_bytes()).decode(),
            },
            "rules": [{"apiGroups": ["argoproj.io"], "apiVersions": ["v1alpha1"], "resources": ["workflows"], "operations": ["CREATE"]}],
            "objectSelector": {"matchLabels": {LABEL: "true"}}, "failurePolicy": "Fail", "timeoutSeconds": 30,
            "sideEffects": "None", "reinvocationPolicy": "IfNeeded", "admissionReviewVersions": ["v1"],
        }  # fmt: skip
        name = LABEL.replace("/", "-").replace(".", "-")
        path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
        with httpx.Client(
            base_url=cluster["server"], verify=ssl.create_default_context(cafile=cluster["certificate-authority"]),
            headers={"Authorization": f"Bearer {user['token']}"}, timeout=60, trust_env=False,
        ) as http:  # fmt: skip
            body = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": name}, "webhooks": [webhook]}  # fmt: skip
            http.post(path, json=body).raise_for_status()
            try:
                _wait_until_asked(http)
                yield http
            finally:
                http.delete(f"{path}/{name}").raise_for_status()

    return registered()


def _wait_until_asked(http: httpx.Client) -> None:
    """Until the API server has read the configuration: the webhook warns of a Workflow without its template."""
    path = f"/apis/argoproj.io/v1alpha1/namespaces/{os.environ['ARGO_NAMESPACE']}/workflows"
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        tried = http.post(
            path, params={"dryRun": "All"}, json=workflow({"entrypoint": "none", "templates": []})
        )
        if "periplus:" in tried.raise_for_status().headers.get("warning", ""):
            return
        time.sleep(0.2)
    raise TimeoutError("the API server does not ask the webhook")


def patched(made: Json, operations: list[Json]) -> Json:
    """The object after the operations of the webhook's JSON patch."""
    found = copy.deepcopy(made)
    for each in operations:
        *way, last = [part.replace("~1", "/").replace("~0", "~") for part in each["path"].split("/")[1:]]
        holder: Any = found
        for part in way:
            holder = holder[int(part)] if isinstance(holder, list) else holder[part]
        if isinstance(holder, list):
            holder[len(holder) if last == "-" else int(last) : None if last == "-" else int(last) + 1] = [
                each["value"]
            ]
        elif each["op"] == "remove":
            del holder[last]
        else:
            holder[last] = each["value"]
    return found


def spec(argo: Argo, mark: str, first: str = "pass") -> Json:
    """Two steps; another `first` makes the first one run again, with the same result."""

    def script(name: str, source: str, *inputs: str) -> Json:
        given = "\n".join(f"{n} = '''{{{{inputs.parameters.{n}}}}}'''" for n in inputs)
        return {
            "name": name,
            "inputs": {"parameters": [{"name": n} for n in inputs]},
            "script": {
                "image": argo.image, "command": ["python3"], "imagePullPolicy": "IfNotPresent",
                "source": f"{given}\n{source}",
            },
            "outputs": {"parameters": [{"name": "o", "valueFrom": {"path": "/tmp/o"}}]},
        }  # fmt: skip

    write = "open('/tmp/o', 'w').write({})"
    calls = [
        {"name": "a", "template": "a", "arguments": {"parameters": [{"name": "p", "value": "{{workflow.parameters.p}}"}]}},
        {
            "name": "b", "template": "b", "depends": "a",
            "arguments": {"parameters": [{"name": "x", "value": "{{tasks.a.outputs.parameters.o}}"}]},
        },
    ]  # fmt: skip
    return {
        "entrypoint": "main",
        "arguments": {"parameters": [{"name": "p", "value": "1"}]},
        "templates": [
            {
                "name": "main", "dag": {"tasks": calls},
                "outputs": {"parameters": [{"name": "o", "valueFrom": {"parameter": "{{tasks.b.outputs.parameters.o}}"}}]},
            },
            script("a", f"{first}\n{write.format(f'{mark!r} + p')}", "p"), script("b", write.format("x + 'b'"), "x"),
        ],
    }  # fmt: skip


def workflow(of: Json) -> Json:
    return {
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
        "metadata": {"generateName": "others-", "labels": {LABEL: "true", "periplus.dev/project": "default"}}, "spec": of,
    }  # fmt: skip


def ended(stack: Stack, name: str) -> lineage_pb2.Run:
    """The run of a Workflow, once it has finished and the cache has recorded it."""
    deadline = time.monotonic() + 3 * WAIT_SECONDS
    while time.monotonic() < deadline:
        found = json.loads(stack.periplus("runs", "-o", "json").stdout)["runs"]
        run = next((each["id"] for each in found if each["id"].startswith(f"{name}@")), None)
        if run and stack.run(run).phase in FINAL_PHASES:
            done = stack.wait_for_run(run)
            stack.wait_for_cache(done)
            assert done.phase == step_pb2.RUN_PHASE_SUCCEEDED, done.message
            return done
        time.sleep(0.2)
    raise TimeoutError(f"{name} has no run that has finished")


def output(run: lineage_pb2.Run) -> str:
    return {p.name: p.value for p in run.outputs.parameters}["o"]


def test_a_workflow_that_others_create_is_served_from_the_cache_the_second_time(
    others: Stack, argo: Argo, create: Callable[[Json], str]
) -> None:
    mark = uuid.uuid4().hex
    first = create(workflow(spec(argo, mark)))
    cold = ended(others, first)
    assert (argo.pods(first), output(cold)) == (["a", "b"], f"{mark}1b")
    second = create(workflow(spec(argo, mark)))
    warm = ended(others, second)
    assert (argo.pods(second), output(warm)) == ([], f"{mark}1b")
    assert {step.phase for step in warm.steps} == {step_pb2.STEP_PHASE_CACHED}
    third = create(workflow(spec(argo, mark, first="pass  # again")))
    behind = ended(others, third)
    assert (argo.pods(third), output(behind)) == (["a"], f"{mark}1b")
    assert argo.gates(third)
    again = argo.resubmit(second)
    assert output(ended(others, again)) == f"{mark}1b"
    assert argo.pods(again) == []


def test_runs_of_an_adopted_template_are_served_until_it_is_released(others: Stack, argo: Argo) -> None:
    mark = uuid.uuid4().hex
    name = f"adopted-{mark[:8]}"
    labels = {"labels": {LABEL: "true", "periplus.dev/project": "default"}}
    argo.store_template(
        {"metadata": {"name": name}, "spec": {**spec(argo, mark), "workflowMetadata": labels}}
    )
    path = f"/api/v1/workflow-templates/{argo.namespace}/{name}"
    before = argo.http.get(path).raise_for_status().json()["spec"]

    def run() -> str:
        made = {
            **workflow({"workflowTemplateRef": {"name": name}}),
            "metadata": {"generateName": f"{name}-", **labels},
        }
        answer = argo.http.post(f"/api/v1/workflows/{argo.namespace}", json={"workflow": made})
        return str(answer.raise_for_status().json()["metadata"]["name"])

    trial = others.periplus("adopt", f"wftmpl/{name}", "--dry-run").stdout
    assert "+  entrypoint: main--call" in trial or "+entrypoint: main--call" in trial
    assert argo.http.get(path).json()["spec"] == before
    assert "2 steps will ask the cache" in others.periplus("adopt", f"wftmpl/{name}").stdout
    assert "is adopted already" in others.periplus("adopt", f"wftmpl/{name}").stdout
    first = run()
    assert output(ended(others, first)) == f"{mark}1b"
    assert len(argo.pods(first)) == 2
    second = run()
    assert output(ended(others, second)) == f"{mark}1b"
    assert argo.pods(second) == []
    changed = json.loads(others.periplus("release", f"wftmpl/{name}", "-o", "json").stdout)
    assert changed["changed"]
    assert argo.http.get(path).json()["spec"] == before
    assert "is not adopted" in others.periplus("release", f"wftmpl/{name}").stdout


@pytest.mark.skipif("ARGO_SERVER" not in os.environ, reason="the local Argo has no CronWorkflows")
def test_runs_of_an_adopted_cron_workflow_are_served(others: Stack, argo: Argo) -> None:
    mark = uuid.uuid4().hex
    name, labels = f"cron-{mark[:8]}", {LABEL: "true", "periplus.dev/project": "default"}
    path = f"/api/v1/cron-workflows/{argo.namespace}"
    body = {
        "metadata": {"name": name, "namespace": argo.namespace},
        "spec": {
            "schedules": ["0 0 1 1 *"], "workflowSpec": spec(argo, mark), "workflowMetadata": {"labels": labels},
        },
    }  # fmt: skip
    argo.http.post(path, json={"namespace": argo.namespace, "cronWorkflow": body}).raise_for_status()
    try:
        before = argo.http.get(f"{path}/{name}").json()["spec"]
        others.periplus("adopt", f"cron/{name}")

        def run() -> str:
            request = {"resourceKind": "CronWorkflow", "resourceName": name}
            answer = argo.http.post(f"/api/v1/workflows/{argo.namespace}/submit", json=request)
            return str(answer.raise_for_status().json()["metadata"]["name"])

        first = run()
        assert output(ended(others, first)) == f"{mark}1b"
        second = run()
        assert output(ended(others, second)) == f"{mark}1b"
        assert (len(argo.pods(first)), argo.pods(second)) == (2, [])
        others.periplus("release", f"cron/{name}")
        assert argo.http.get(f"{path}/{name}").json()["spec"] == before
    finally:
        argo.http.delete(f"{path}/{name}").raise_for_status()
