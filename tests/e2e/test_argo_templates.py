"""Templates that Argo holds, by reference, on the real Argo that ARGO_SERVER names, or else on the local one."""

import json
import uuid
from typing import Any

import pytest
import yaml
from cluster import Argo
from stack import ROOT, Stack

from periplus.types.v1 import step_pb2

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

Json = dict[str, Any]
TRAIN: Json = yaml.safe_load((ROOT / "examples" / "yaml" / "train.yaml").read_text())


def library(name: str, salt: str) -> Json:
    """The example as a WorkflowTemplate without an entry in the cache."""
    templates = json.dumps(TRAIN["spec"]["templates"]).replace("import ", f"# {salt}\\nimport ")
    spec = {**TRAIN["spec"], "templates": json.loads(templates)}
    return {**TRAIN, "kind": "WorkflowTemplate", "metadata": {"name": name}, "spec": spec}


def workflow(**spec: Any) -> str:
    metadata = {"generateName": "by-ref-"}
    return json.dumps({**TRAIN, "metadata": metadata, "spec": spec})


@pytest.fixture
def name() -> str:
    return f"rings-{uuid.uuid4().hex[:8]}"


def test_a_workflow_of_a_template_is_cached_until_the_template_is_edited(
    cluster: Stack, argo: Argo, name: str
) -> None:
    argo.store_template(library(name, name))
    manifest = workflow(workflowTemplateRef={"name": name})
    first = cluster.finish(manifest, image=argo.image)
    assert first.phase == step_pb2.RUN_PHASE_SUCCEEDED, first.message
    assert len(argo.pods(first.id)) == 8
    stored = argo.workflow(first.id)
    assert stored is not None
    assert stored["metadata"]["labels"]["workflows.argoproj.io/workflow-template"] == name
    second = cluster.submit(manifest, image=argo.image)
    assert second.phase == step_pb2.RUN_PHASE_SUCCEEDED
    assert argo.workflow(second.run) is None
    argo.store_template(library(name, f"{name} edited"))
    edited = cluster.finish(manifest, image=argo.image)
    assert edited.phase == step_pb2.RUN_PHASE_SUCCEEDED, edited.message
    assert "ingest" in argo.pods(edited.id)


def test_templates_by_reference_are_cached_behind_gates_as_well(
    cluster: Stack, argo: Argo, name: str
) -> None:
    found = library(name, name)
    argo.store_template(found)
    call = {"name": "whole", "templateRef": {"name": name, "template": TRAIN["spec"]["entrypoint"]}}
    manifest = workflow(
        entrypoint="outer",
        templates=[{"name": "outer", "steps": [[call]]}],
        **{
            field: TRAIN["spec"][field] for field in TRAIN["spec"] if field not in ("entrypoint", "templates")
        },
    )
    first = cluster.finish(manifest, image=argo.image)
    assert first.phase == step_pb2.RUN_PHASE_SUCCEEDED, first.message
    assert {step.path for step in first.steps} >= {"whole.ingest", "whole.features", "whole.train(0)"}
    second = cluster.submit(manifest, image=argo.image)
    assert second.phase == step_pb2.RUN_PHASE_SUCCEEDED
    assert argo.workflow(second.run) is None
    argo.store_template(json.loads(json.dumps(found).replace("wrote", "has written")))
    changed = cluster.finish(manifest, image=argo.image)
    assert changed.phase == step_pb2.RUN_PHASE_SUCCEEDED, changed.message
    assert changed.cached_steps == 7
    assert len(argo.pods(changed.id)) == 1
