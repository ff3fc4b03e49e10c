"""What is read of a Workflow that others wrote: recordings, Kubeflow's pipelines, and objects that break every bound."""

import copy
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifests import PROCESSES, dag, say, task
from replayed_argo import OUT, recorded, states

from periplus_common.errors import Invalid
from periplus_dispatcher.domain import ObservedWorkflow, Run, StepNode, StepStatus
from periplus_dispatcher.follow.nodes import ArtifactRepository
from periplus_dispatcher.follow.observe import WorkflowStatus
from periplus_dispatcher.manifest.uncacheable import StepEnvironment
from periplus_dispatcher.observed import kubeflow
from periplus_dispatcher.observed.namespaces import Observation, ObservedNamespace, parse_namespaces
from periplus_dispatcher.observed.run import new_run, pipeline, with_stored_templates
from periplus_dispatcher.observed.workflow import checked, observed_workflow, run_id
from periplus_dispatcher.wire import events
from periplus_model.steps import RunPhase

Json = dict[str, Any]
KUBEFLOW = os.environ.get("PERIPLUS_KUBEFLOW_MANIFESTS", "")
"""A folder with compiled pipelines of others; without it their test is skipped."""
NAMES = sorted(
    path.stem for path in OUT.glob("*.json") if json.loads(path.read_text()).get("workflows", [None])[0]
)


def read(workflow: Json) -> Json:
    found = checked(workflow)
    if kubeflow.is_compiled(found["spec"]):
        found["status"]["nodes"] = kubeflow.with_task_names(found["status"]["nodes"])
    return found


def observed(
    workflow: Json, environment: StepEnvironment = PROCESSES
) -> tuple[Run, list[StepNode], list[StepStatus]]:
    found = read(workflow)
    run, nodes = new_run(found, observed_workflow(found, "ml"), "p", environment, is_recorded=False)
    run = with_stored_templates(run, found, environment)
    status = WorkflowStatus(found, run.state, {}, ArtifactRepository("", ""))
    steps = status.steps()
    list(status.delays(datetime.fromisoformat("2026-01-02T03:04:05Z")))
    events.run_submitted(run, nodes)
    for step in steps:
        events.step_event(run, step)
    return run, nodes, steps


def workflow(spec: Json | None = None, nodes: Json | None = None, **metadata: Any) -> Json:
    made = {"name": "w", "uid": "u", "creationTimestamp": "2026-01-02T03:04:05Z", **metadata}
    main = dag(task("a", "a"))
    default = {"entrypoint": "main", "templates": [main, say("a", "x")]}
    return {
        "metadata": made,
        "spec": default if spec is None else spec,
        "status": {"phase": "Running", "nodes": nodes or {}},
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_steps_of_a_recorded_workflow_are_those_of_its_nodes(name: str) -> None:
    final = recorded(name)
    final["metadata"].setdefault("uid", "u")
    final["metadata"].setdefault("creationTimestamp", "2026-01-02T03:04:05Z")
    run, _, steps = observed(final)
    pods = [n for n in final.get("status", {}).get("nodes", {}).values() if n["type"] == "Pod"]
    attempts = [n for n in pods if (n.get("nodeFlag") or {}).get("retried")]
    started = {node["id"] for node in pods if node["phase"] != "Pending"}
    assert started - {node["id"] for node in attempts} <= {step.node for step in steps}
    assert run.id == run_id(final["metadata"]["name"], final["metadata"]["uid"])


def test_steps_of_a_cluster_workflow_template_have_what_it_does() -> None:
    final = recorded("workflow-of-a-wide-template")
    final["metadata"].update(uid="u", creationTimestamp="2026-01-02T03:04:05Z")
    run, _, steps = observed(final)
    assert run.pipeline == "wide"
    assert all(json.loads(run.state.templates[step.template].step.document) for step in steps)


def test_a_template_that_a_step_refers_to_is_read_from_the_status() -> None:
    node = {
        "id": "n",
        "displayName": "b",
        "type": "Pod",
        "phase": "Succeeded",
        "templateRef": {"name": "shared", "template": "t"},
    }
    made = workflow(nodes={"n": node})
    made["spec"]["templates"][0]["dag"]["tasks"].append(
        {"name": "b", "templateRef": {"name": "shared", "template": "t"}}
    )
    made["status"]["storedTemplates"] = {
        "namespaced/shared/t": say("t", "y"),
        "namespaced/shared/u": {"name": 1},
    }
    run, _, (step,) = observed(made)
    assert step.template == "namespaced/shared/t"
    assert "printf %s" in run.state.templates[step.template].step.document
    assert events.step_event(run, step).body.count(b"namespaced/shared/t") == 0, "people know it as t"


@pytest.mark.parametrize(
    ("metadata", "spec", "expected"),
    [
        ({"labels": {"workflows.argoproj.io/cron-workflow": "nightly"}, "generateName": "x-"}, {}, "nightly"),
        ({"generateName": "x-"}, {"workflowTemplateRef": {"name": "shared"}}, "shared"),
        (
            {"labels": {"workflows.argoproj.io/workflow-template": "shared"}, "generateName": "x-"},
            {},
            "shared",
        ),
        ({"generateName": "train-"}, {}, "train"),
        ({}, {}, "w"),
    ],
)
def test_a_pipeline_is_named_by_where_its_runs_come_from(metadata: Json, spec: Json, expected: str) -> None:
    assert pipeline(read(workflow(spec, **metadata))) == expected


# Kubeflow Pipelines


def compiled(spec: Json) -> Json:
    """A Workflow with a status, as if each task of its DAGs had run once."""
    templates = {t["name"]: t for t in spec["templates"]}
    nodes: Json = {}

    def call(name: str, template: str, given: Json, boundary: str, depth: int) -> None:
        found, node_id = templates[template], f"n{len(nodes)}"
        node = {"id": node_id, "displayName": name, "type": "DAG" if "dag" in found else "Pod", "phase": "Succeeded",
                "templateName": template, "inputs": given, "startedAt": "2026-01-02T03:04:05Z",
                "finishedAt": "2026-01-02T03:04:06Z"}  # fmt: skip
        nodes[node_id] = {**node, "boundaryID": boundary} if boundary else node
        for each in (found.get("dag") or {}).get("tasks", ()) if depth < 6 else ():
            call(each["name"], each["template"], each.get("arguments") or {}, node_id, depth + 1)

    call("run", spec["entrypoint"], {}, "", 0)
    return workflow(spec, nodes, generateName="kfp-")


MANIFESTS = sorted(Path(KUBEFLOW).glob("*.yaml")) if KUBEFLOW else []


@pytest.mark.skipif(
    not MANIFESTS, reason="PERIPLUS_KUBEFLOW_MANIFESTS names no folder with compiled pipelines"
)
def test_every_pipeline_of_kubeflow_is_observed_with_its_own_names() -> None:
    tasks = 0
    for path in MANIFESTS:
        spec = yaml.safe_load(path.read_text())["spec"]
        run, nodes, steps = observed(compiled(spec))
        assert nodes, path.name
        assert run.pipeline == kubeflow.pipeline(spec) != "", path.name
        for step in steps:
            tasks += bool(step.component)
            assert not step.path.endswith(".executor") or not step.component, path.name
    assert tasks > 300


def test_a_task_of_kubeflow_has_its_name_and_that_of_its_component() -> None:
    driver = {"name": "task", "value": json.dumps({"componentRef": {"name": "comp-add"}})}
    container = {"image": "i", "args": ["--pipeline_name", "add-numbers", "--run_display_name", "Sum of May"]}
    spec = {
        "entrypoint": "entrypoint",
        "podMetadata": {"labels": {"pipelines.kubeflow.org/v2_component": "true"}},
        "templates": [
            {"name": "entrypoint", "dag": {"tasks": [
                {"name": "add-driver", "template": "system-container-driver", "arguments": {"parameters": [driver]}},
                {"name": "add", "template": "system-container-executor", "depends": "add-driver"},
            ]}},
            {"name": "system-container-executor", "dag": {"tasks": [{"name": "executor", "template": "system-container-impl"}]}},
            {"name": "system-container-driver", "container": container},
            {"name": "system-container-impl", "container": {"image": "i"}},
        ],
    }  # fmt: skip
    run, _, steps = observed(compiled(spec))
    assert (run.pipeline, run.observed.display_name if run.observed else "") == ("add-numbers", "Sum of May")
    assert {(step.path, step.component) for step in steps} == {("add-driver", ""), ("add", "comp-add")}
    for value in ("[", "1", '{"componentRef": 1}', '{"componentRef": {"name": "\\u0000"}}', "[" * 100_000):
        driver["value"] = value
        assert all(step.component == "" for step in observed(compiled(spec))[2])


# Bounds


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("metadata.name", "No Name", "metadata.name"),
        ("metadata.name", "a@b", "metadata.name"),
        ("metadata.uid", "", "metadata.uid"),
        ("metadata.uid", 7, "metadata.uid"),
        ("metadata.creationTimestamp", "yesterday", "metadata.creationTimestamp"),
        ("metadata.creationTimestamp", "2026-01-02T03:04:05", "metadata.creationTimestamp"),
        ("metadata.labels", {"a": 1}, "metadata.labels.a"),
        ("metadata", [], "metadata"),
        ("spec", "x", "spec"),
        ("status", [1], "status"),
        ("status.nodes", [1], "status.nodes"),
        ("status.nodes", {str(n): {} for n in range(20_001)}, "status.nodes"),
        ("status.phase", "x" * 2000, "status.phase"),
        ("status.storedTemplates", {"a": 1}, "status.storedTemplates.a"),
    ],
)
def test_a_workflow_that_can_not_be_trusted_is_refused_with_its_field(
    path: str, value: Any, field: str
) -> None:
    made = workflow()
    *outer, last = path.split(".")
    target = made
    for name in outer:
        target = target[name]
    target[last] = value
    with pytest.raises(Invalid) as caught:
        checked(made)
    assert caught.value.field == field


NODE = {"id": "n", "displayName": "a", "type": "Pod", "phase": "Succeeded", "templateName": "a"}


@pytest.mark.parametrize(
    "change",
    [
        {"displayName": 7},
        {"displayName": "x" * 2000},
        {"displayName": "a\0b"},
        {"id": "other"},
        {"startedAt": "soon"},
        {"inputs": {"parameters": [{"value": "x"}]}},
        {"inputs": {"artifacts": [{"name": "a", "s3": {"key": "x" * 2000}}]}},
        {"outputs": {"artifacts": [{"name": "a", "s3": {}}]}},
        {"outputs": {"exitCode": "many"}},
        {"outputs": {"parameters": "all"}},
        {"templateRef": "x"},
        {"children": [1]},
        {"boundaryID": "n"},
        {"boundaryID": "m"},
    ],
)
def test_a_node_that_breaks_a_bound_is_left_out_and_the_others_are_read(change: Json) -> None:
    nodes = {
        "n": {**NODE, **change},
        "m": {**NODE, "id": "m", "displayName": "b", "boundaryID": "n"},
        "o": {**NODE, "id": "o"},
    }
    _, _, steps = observed(workflow(nodes=nodes))
    found = {step.node for step in steps}
    assert "o" in found
    assert "n" not in found


def test_a_long_message_is_cut_off_and_has_no_nul() -> None:
    (step,) = observed(workflow(nodes={"n": {**NODE, "message": "\0" * 50_000}}))[2]
    assert (len(step.message), "\0" in step.message) == (10_000, False)


@pytest.mark.parametrize(
    "spec",
    [{}, {"templates": 7}, {"entrypoint": "x", "templates": [{"name": []}]}, {"entrypoint": "a", "templates": [{"name": "a", "dag": {"tasks": [{"name": "b", "template": "a"}]}}]},
     {"arguments": [], "podMetadata": "x", "workflowTemplateRef": 3}],
)  # fmt: skip
def test_a_spec_that_can_not_be_read_leaves_a_run_without_a_plan(spec: Json) -> None:
    run, _, (step,) = observed(workflow(spec, {"n": NODE}))
    assert run.phase is RunPhase.PENDING
    assert events.step_event(run, step).body


def test_a_state_is_not_changed_by_being_read() -> None:
    state = states("dag-diamond-parameters", "u")[-1]
    before = copy.deepcopy(state)
    observed(state)
    assert state == before


# Settings


def test_a_workflows_label_chooses_only_among_the_projects_of_its_namespace() -> None:
    ml, etl = parse_namespaces("ml=digits|vision, etl=tables")
    assert (ml, etl.projects) == (ObservedNamespace("ml", ("digits", "vision")), ("tables",))

    def project(found: ObservedNamespace, *label: str) -> str | None:
        return found.project_of(
            workflow(labels=dict.fromkeys(["periplus.dev/project"], *label) if label else {})
        )

    assert (project(ml), project(ml, "vision"), project(ml, "tables"), project(etl, "")) == (
        "digits",
        "vision",
        None,
        None,
    )
    for text in ("ml", "ml=", "ml=A", "ml=a|", "ml=a,ml=b", "*=a", "ml=a=b"):
        with pytest.raises(ValueError, match="is not <namespace>=<project>"):
            parse_namespaces(text)
    assert parse_namespaces("") == ()


def test_only_workflows_with_the_label_are_selected_and_none_of_periplus() -> None:
    def selects(label: str, **labels: str) -> bool:
        return Observation({}, label).selects(workflow(labels=labels))

    assert Observation({}, "team/watch=yes").selector == "!periplus.dev/managed,team/watch=yes"
    assert [selects(""), selects("a=b", a="b"), selects("a=b", a="c"), selects("a", a="c"), selects("a")] == [
        True,
        True,
        False,
        True,
        False,
    ]
    assert not selects("", **{"periplus.dev/managed": "true"})
    for label in ("a b", "a=b,c", "!a", "a in (b)"):
        with pytest.raises(ValueError, match="is not a label"):
            Observation({}, label)


def test_the_id_of_an_observed_run_is_that_of_no_workflow() -> None:
    assert "@" in run_id("w", "u")
    assert run_id("w", "u") != run_id("w", "v")
    with pytest.raises(Invalid):
        checked(workflow(name=run_id("w", "u")))
    assert observed_workflow(checked(workflow()), "ml") == ObservedWorkflow("ml", "w", "u")
