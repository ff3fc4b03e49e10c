"""Workflows of library templates on the local Argo: the second run is cached, and an edited template runs again."""

import json
import uuid
from typing import Any

import pytest
import yaml
from dispatcher_harness import Harness
from manifests import dag, say, shows, task, workflow
from test_library import ref, template, whole

from periplus_common.errors import Invalid
from periplus_local.argo.testing import Refusal
from periplus_model.steps import RunPhase

Json = dict[str, Any]
OUTPUT = shows("tasks.b.outputs.parameters.o")
FROM_A = {"x": "{{tasks.a.outputs.parameters.o}}"}


def pipeline(text: str) -> list[Json]:
    """A DAG, and its two steps, the first of which gives a text."""
    main = dag(
        task("a", "first"), task("b", "second", depends="a", given=FROM_A), name="pipeline", outputs=OUTPUT
    )
    return [main, say("first", text), say("second", "<$x>", "x")]


def store(harness: Harness, found: Json) -> None:
    """Create a library object in Argo, or change it."""
    namespace = harness.client.namespace
    is_cluster = found["kind"] == "ClusterWorkflowTemplate"
    path = "cluster-workflow-templates" if is_cluster else f"workflow-templates/{namespace}"
    try:
        harness.client.call("POST", path, {"template": found})
    except Refusal as error:
        if error.status != 409:
            raise
        harness.client.call("PUT", f"{path}/{found['metadata']['name']}", {"template": found})


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


async def test_steps_of_templates_by_reference_are_cached_until_one_is_edited(harness: Harness) -> None:
    name, text = unique("lib"), unique("text")
    store(harness, template(name, *pipeline(text)))
    manifest = workflow(
        dag(ref("a", name, "first"), ref("b", name, "second", depends="a", given=FROM_A), outputs=OUTPUT)
    )
    cold = await harness.run(manifest)
    assert (cold.run.phase, cold.ran, cold.output) == (RunPhase.SUCCEEDED, {"a", "b"}, f"<{text}>")
    warm = await harness.run(manifest)
    assert (warm.cached, warm.output, warm.run.manifest) == ({"a", "b"}, f"<{text}>", "")
    store(harness, template(name, *pipeline(text + "2")))
    edited = await harness.run(manifest)
    assert (edited.ran, edited.output) == ({"a", "b"}, f"<{text}2>")


async def test_a_workflow_of_a_cluster_template_is_cached_and_takes_parameters(harness: Harness) -> None:
    name, text = unique("whole"), unique("text")
    main, first, second = pipeline("$x")
    first["inputs"] = {"parameters": [{"name": "x", "value": "{{workflow.parameters.k}}"}]}
    first["container"]["env"] = second["container"]["env"]
    arguments = {"parameters": [{"name": "k", "value": text}]}
    store(
        harness,
        template(name, main, first, second, cluster=True, entrypoint="pipeline", arguments=arguments),
    )
    cold = await harness.run(whole(name, cluster=True))
    assert (cold.ran, cold.output) == ({"a", "b"}, f"<{text}>")
    warm = await harness.run(whole(name, cluster=True))
    assert (warm.cached, warm.output) == ({"a", "b"}, f"<{text}>")
    other = await harness.run(whole(name, cluster=True), k=text + "2")
    assert (other.ran, other.output) == ({"a", "b"}, f"<{text}2>")


async def test_the_run_is_what_was_planned_though_the_template_is_edited_meanwhile(harness: Harness) -> None:
    name, text = unique("lib"), unique("text")
    store(harness, template(name, *pipeline(text)))
    request = harness.request(workflow(dag(ref("b", name, "first"), outputs=OUTPUT)))
    planned = await harness.dispatcher._plan(request)
    store(harness, template(name, *pipeline("edited")))
    run, hits = harness.dispatcher._new_run(request, str(uuid.uuid4()), planned)
    await harness.runs.add(run, hits, planned.plan.nodes)
    await harness.dispatcher.launch(run)
    assert (await harness.ended(run.id)).output == text


async def test_a_gate_in_a_library_template_is_answered(harness: Harness) -> None:
    name, text = unique("lib"), unique("text")
    nested = workflow(dag(ref("deep", name, "pipeline"), outputs=shows("tasks.deep.outputs.parameters.o")))
    store(harness, template(name, *pipeline(text)))
    cold = await harness.run(nested)
    assert cold.ran == {"deep.a", "deep.b"}
    # The first step is another one, and gives the same.
    main, first, second = pipeline(text)
    first["container"]["args"][0] += "; true"
    store(harness, template(name, main, first, second))
    warm = await harness.run(nested)
    assert (warm.ran, warm.cached, warm.output) == ({"deep.a"}, {"deep.b"}, f"<{text}>")
    names = {each["name"] for each in json.loads(warm.run.manifest)["spec"]["templates"]}
    assert f"{name}--second" in names


async def test_a_cron_workflow_of_a_template_is_run_as_if_it_were_scheduled_now(harness: Harness) -> None:
    name, text = unique("cron"), unique("text")
    found = template(name, *pipeline(text), entrypoint="pipeline")
    spec = {
        "schedules": ["0 2 * * *"],
        "workflowMetadata": {"labels": {"team": "data"}},
        "workflowSpec": {"workflowTemplateRef": {"name": name}},
    }
    cron = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "CronWorkflow",
        "metadata": {"name": "nightly"},
        "spec": spec,
    }
    documents = yaml.safe_dump_all([cron, found])
    cold = await harness.run(documents)
    assert (cold.ran, cold.output) == ({"a", "b"}, f"<{text}>")
    assert cold.run.id.startswith("nightly-")
    workflow = await harness.argo.get(cold.run.id)
    assert workflow is not None
    labels = workflow["metadata"]["labels"]
    assert labels["team"] == "data"
    assert labels["workflows.argoproj.io/cron-workflow"] == "nightly"
    assert labels["workflows.argoproj.io/workflow-template"] == name
    assert workflow["metadata"]["annotations"]["workflows.argoproj.io/scheduled-time"]
    assert (await harness.run(documents)).cached == {"a", "b"}


async def test_if_argo_refuses_the_copies_the_workflow_goes_as_it_was_written_and_nothing_is_recorded(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, text = unique("lib"), unique("text")
    store(harness, template(name, *pipeline(text)))
    manifest = workflow(dag(ref("b", name, "first"), outputs=OUTPUT))
    lint = harness.argo.lint

    async def lint_references_only(found: Json) -> tuple[str, ...]:
        if "templateRef" not in json.dumps(found):
            raise Invalid("no copies", field="spec.manifest.spec.templates")
        return await lint(found)

    monkeypatch.setattr(harness.argo, "lint", lint_references_only)
    done = await harness.submit(manifest)
    assert "templateRef" in done.run.manifest
    assert done.run.state.templates == {}
    ended = await harness.ended(done.run.id)
    assert (ended.run.phase, ended.output) == (RunPhase.SUCCEEDED, text)
    assert [event.template.document for event in ended.finished] == ["{}"]
    refused = workflow(dag(task("a", "t")), say("t", text))
    with pytest.raises(Invalid, match="no copies"):
        await harness.submit(refused)
