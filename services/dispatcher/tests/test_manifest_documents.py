"""A file of WorkflowTemplates or of a CronWorkflow is a run of its workflow; several documents come with each other."""

from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from manifests import dag, say, task, workflow
from test_library import PIPELINE, Library, ref, refused, template, verdicts, whole

from periplus_dispatcher.rewrite.rewriter import SCHEDULED_TIME, to_submit
from periplus_model.steps import Verdict

Json = dict[str, Any]
CRON: Json = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "CronWorkflow",
    "metadata": {
        "name": "nightly",
        "labels": {"workflows.argoproj.io/controller-instanceid": "blue", "other": "x"},
        "annotations": {"periplus.dev/ttl": "7d", "other": "x"},
    },
    "spec": {
        "schedules": ["0 2 * * *"],
        "suspend": True,
        "workflowMetadata": {"labels": {"team": "data"}, "annotations": {"note": "n"}},
        "workflowSpec": workflow(dag(task("a", "t")), say("t", "1"), parameters={"k": "1"})["spec"],
    },
}


def text(*documents: Json) -> str:
    return yaml.safe_dump_all(documents)


@pytest.mark.parametrize("cluster", [False, True])
def test_a_file_of_a_template_is_a_run_of_its_workflow(cluster: bool) -> None:
    found = {**PIPELINE, "kind": "ClusterWorkflowTemplate"} if cluster else PIPELINE
    library = Library()
    planned = library.plan(text(found), k="8", open="1")
    assert planned.pipeline == "pipe"
    label = "workflows.argoproj.io/" + ("cluster-" if cluster else "") + "workflow-template"
    assert planned.manifest["metadata"] == {"generateName": "pipe-", "labels": {label: "pipe"}}
    assert planned.manifest["spec"]["templates"] == PIPELINE["spec"]["templates"]
    assert planned.parameters == {"k": "8", "open": "1"}
    assert verdicts(planned) == {"p": Verdict.MISS, "t": Verdict.MISS}
    assert library.templates.read == []


def test_a_file_of_a_cron_workflow_is_a_run_of_its_workflow() -> None:
    planned = Library().plan(text(CRON), k="2")
    assert planned.pipeline == "nightly"
    assert planned.manifest["kind"] == "Workflow"
    assert planned.manifest["metadata"] == {
        "generateName": "nightly-",
        "labels": {
            "workflows.argoproj.io/controller-instanceid": "blue",
            "workflows.argoproj.io/cron-workflow": "nightly",
            "team": "data",
        },
        "annotations": {"periplus.dev/ttl": "7d", "note": "n"},
    }
    assert planned.manifest["spec"] == CRON["spec"]["workflowSpec"]
    assert verdicts(planned) == {"a": Verdict.MISS}
    now = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
    sent = to_submit(planned.manifest, "nightly-x", "argo", "p", planned.parameters, now)
    assert sent["metadata"]["annotations"][SCHEDULED_TIME] == "2026-11-29T12:00:00+00:00"


def test_a_cron_workflow_can_refer_to_a_template() -> None:
    cron = {**CRON, "spec": {**CRON["spec"], "workflowSpec": whole("pipe")["spec"]}}
    planned = Library(PIPELINE).plan(text(cron), open="1")
    assert planned.parameters == {"k": "7", "open": "1"}
    assert planned.manifest["metadata"]["labels"]["workflows.argoproj.io/workflow-template"] == "pipe"


def test_templates_of_the_file_are_read_before_those_of_argo() -> None:
    mine, its = template("lib", say("t", "mine")), template("lib", say("t", "its"))
    library = Library(its)
    planned = library.plan(text(mine, workflow(dag(ref("a", "lib", "t")))))
    assert "mine" in str(planned.manifest)
    assert "its" not in str(planned.manifest)
    assert library.templates.read == []
    assert b"mine" in library.snapshotter.templates[0][1]


def test_empty_documents_are_left_out() -> None:
    manifest = "# a comment\n---\n---\n" + text(workflow(dag(task("a", "t")), say("t", "1"))) + "---\n"
    assert verdicts(Library().plan(manifest)) == {"a": Verdict.MISS}


WORKFLOW = workflow(dag(task("a", "t")), say("t", "1"))


@pytest.mark.parametrize(
    ("documents", "field", "message"),
    [
        ([WORKFLOW, WORKFLOW], "spec.manifest", "has 2 Workflows and CronWorkflows, and a run is one of them"),
        ([WORKFLOW, CRON], "spec.manifest", "has 2 Workflows and CronWorkflows, and a run is one of them"),
        ([template("a", say("t", "1"))], "spec.manifest", "has no template with an entrypoint, and a run starts at one"),
        ([PIPELINE, {**PIPELINE, "metadata": {"name": "other"}}], "spec.manifest",
         "has 2 templates with an entrypoint, and a run starts at one"),
        ([PIPELINE, PIPELINE], "spec.manifest[1].metadata.name", "the file has WorkflowTemplate pipe twice"),
        ([{**PIPELINE, "metadata": {}}], "spec.manifest.metadata.name", "is required: a WorkflowTemplate is referred to by it"),
        ([WORKFLOW, {"kind": "Pod"}], "spec.manifest[1].kind",
         "must be Workflow, WorkflowTemplate or CronWorkflow, not 'Pod'"),
        ([WORKFLOW, template("lib", {"name": "t", "container": {"image": 1}})],
         "spec.manifest[1].spec.templates[0].container.image", "must be a text, not a number; put it in quotes"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_single_run_is_refused_with_its_document(
    documents: list[Json], field: str, message: str
) -> None:
    error = refused(Library(), text(*documents))
    assert error.field == field
    assert error.message == message
