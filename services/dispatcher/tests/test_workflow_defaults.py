"""What Argo's controller adds to every Workflow is part of the keys, and of nothing that is submitted."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fakes import MemoryCache, MemorySnapshotter, MemoryTemplates
from kubernetes_api import KubernetesApi, kubernetes_api
from manifests import ANY_KEYS, PROCESSES, dag, say, task, workflow
from test_settings import settings

from periplus_common.errors import Unavailable
from periplus_dispatcher import kubernetes
from periplus_dispatcher.domain import ObservedWorkflow, RunRequest
from periplus_dispatcher.observed.run import new_run
from periplus_dispatcher.observed.workflow import checked
from periplus_dispatcher.planner import PlannedRun, Planner
from periplus_dispatcher.workflow_defaults import KubernetesDefaults
from periplus_model.steps import CacheMode, Verdict

Json = dict[str, Any]
NAME = "argo/workflow-controller-configmap"
PATCH = json.dumps({"nodeName": "n1", "containers": [{"name": "main", "env": [{"name": "A", "value": "1"}]}]})


@pytest.fixture
def api() -> Iterator[KubernetesApi]:
    with kubernetes_api() as running:
        yield running


@asynccontextmanager
async def defaults(api: KubernetesApi) -> AsyncIterator[KubernetesDefaults]:
    async with kubernetes.connect(api.url) as session:
        assert session is not None
        yield KubernetesDefaults(session, NAME)


def write(api: KubernetesApi, **found: Any) -> None:
    api.write("workflow-controller-configmap", "ConfigMap", workflowDefaults=json.dumps(found))


def manifest(**spec: Any) -> Json:
    return workflow(dag(task("a", "a")), say("a", "x"), **spec)


async def plan(api: KubernetesApi, found: Json) -> PlannedRun:
    async with defaults(api) as read:
        planner = Planner(
            MemoryCache(), MemorySnapshotter(), MemoryTemplates(), PROCESSES, ANY_KEYS, defaults=read
        )
        return await planner.plan(RunRequest("p", json.dumps(found), {}))


async def document(api: KubernetesApi, found: Json) -> str:
    return (await plan(api, found)).expanded.templates["a"].step.document


async def test_what_the_controller_adds_to_a_step_is_part_of_its_key_and_is_not_submitted(
    api: KubernetesApi,
) -> None:
    documents = []
    for added in ({}, {"podSpecPatch": PATCH}, {"templateDefaults": {"container": {"workingDir": "/srv"}}}):
        write(api, spec=added)
        planned = await plan(api, manifest())
        assert planned.manifest == manifest()
        documents.append(planned.expanded.templates["a"].step.document)
    assert len(set(documents)) == 3
    write(api, spec={"serviceAccountName": "runner", "podGC": {"strategy": "OnPodCompletion"}})
    assert await document(api, manifest()) == documents[0]
    write(api, spec={"podSpecPatch": "{}"})
    assert await document(api, manifest(podSpecPatch=PATCH)) == documents[1], "the workflow's own wins"
    write(api)
    assert await document(api, manifest()) == documents[0]
    api.write("workflow-controller-configmap", "ConfigMap", other="x")
    assert await document(api, manifest()) == documents[0]


async def test_secrets_and_annotations_of_the_defaults_apply(api: KubernetesApi) -> None:
    patch = {"containers": [{"name": "main", "envFrom": [{"secretRef": {"name": "proxy"}}]}]}
    write(api, spec={"podSpecPatch": json.dumps(patch)})
    (step,) = (await plan(api, manifest())).plan.steps
    assert step.verdict.verdict is Verdict.UNCACHEABLE
    assert "its envFrom comes from the Secret proxy" in step.verdict.reason
    write(
        api,
        spec={"podSpecPatch": json.dumps(patch)},
        metadata={"annotations": {"periplus.dev/ignore-env-from": "proxy", "periplus.dev/cache": "read"}},
    )
    described = (await plan(api, manifest())).expanded.templates["a"].step
    assert (described.uncacheable_reason, described.policy.mode) == ("", CacheMode.READ)
    own = manifest()
    own["metadata"]["annotations"] = {"periplus.dev/cache": "write"}
    assert (await plan(api, own)).expanded.templates["a"].step.policy.mode is CacheMode.WRITE


@pytest.mark.parametrize(
    ("status", "text", "reason"),
    [(403, "{}", "Kubernetes answers 403"), (404, "{}", "Kubernetes answers 404"), (200, "[1]", ""), (200, "a: [", ""), (200, "spec: 1", "no Workflow")],
)  # fmt: skip
async def test_steps_are_not_cached_where_it_is_not_known_what_the_controller_adds(
    api: KubernetesApi, status: int, text: str, reason: str
) -> None:
    api.write("workflow-controller-configmap", "ConfigMap", workflowDefaults=text)
    api.status = status
    async with defaults(api) as read:
        with pytest.raises(Unavailable, match="can not be read"):
            await read.read()
    (step,) = (await plan(api, manifest())).plan.steps
    start = f"what Argo's controller adds to it is not known: the ConfigMap {NAME} can not be read: "
    assert step.verdict.verdict is Verdict.UNCACHEABLE
    assert step.verdict.reason.startswith(start)
    assert reason in step.verdict.reason


async def test_the_key_of_an_observed_step_is_that_of_a_run_of_periplus_with_the_defaults(
    api: KubernetesApi,
) -> None:
    """Argo stores a Workflow with its defaults, and with empty fields that it writes itself."""
    added = {
        "podSpecPatch": PATCH,
        "serviceAccountName": "runner",
        "templateDefaults": {"container": {"env": [{"name": "B", "value": "2"}]}},
    }
    write(api, spec=added)
    own = manifest()
    stored = json.loads(json.dumps(own))
    stored["spec"] |= json.loads(json.dumps(added)) | {"arguments": {}}
    stored["spec"]["templateDefaults"] |= {"inputs": {}, "outputs": {}, "metadata": {}, "name": ""}
    stored["spec"]["templateDefaults"]["container"] |= {"name": "", "resources": {}}
    stored["spec"]["templates"][1]["container"] |= {"name": "", "resources": {}}
    stored["metadata"] = {"name": "w", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    stored["status"] = {"phase": "Running", "nodes": {}}
    run, _ = new_run(checked(stored), ObservedWorkflow("ml", "w", "u"), "p", PROCESSES, is_recorded=False)
    assert run.state.templates["a"].step.document == await document(api, own)


def test_the_config_map_of_the_controller_needs_a_namespace_and_the_kubernetes_api(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for more in ({"ARGO_CONFIG_MAP": "x"}, {"ARGO_CONFIG_MAP": NAME}, {"ARGO_CONFIG_MAP": "a/../b"}):
        with pytest.raises(ValueError, match="argo_config_map"):
            settings(monkeypatch, **more)
    assert settings(monkeypatch, ARGO_CONFIG_MAP=NAME, KUBERNETES_URL="https://x").argo_config_map == NAME
