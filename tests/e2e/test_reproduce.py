"""Reproductions and rollbacks on the real Argo that ARGO_SERVER names, or else on the local one."""

import json
import time
import uuid
from typing import Any

import pytest
import yaml
from cluster import Argo
from stack import ROOT, WAIT_SECONDS, Stack

from periplus.lineage.v1 import lineage_pb2
from periplus.types.v1 import step_pb2

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

Json = dict[str, Any]
TRAIN: Json = yaml.safe_load((ROOT / "examples" / "yaml" / "train.yaml").read_text())


def library(name: str, salt: str) -> Json:
    """The example as a WorkflowTemplate without an entry in the cache."""
    templates = json.dumps(TRAIN["spec"]["templates"]).replace("import ", f"# {salt}\\nimport ")
    spec = {**TRAIN["spec"], "templates": json.loads(templates)}
    return {**TRAIN, "kind": "WorkflowTemplate", "metadata": {"name": name}, "spec": spec}


def by_reference(name: str) -> str:
    """A workflow of the template, which is a run of the pipeline of its name."""
    return json.dumps(
        {**TRAIN, "metadata": {"generateName": f"{name}-"}, "spec": {"workflowTemplateRef": {"name": name}}}
    )


def finish(cluster: Stack, manifest: str, **parameters: str) -> lineage_pb2.Run:
    """Run a manifest until lineage has the digests of all its artifacts."""
    run = cluster.finish(manifest, **parameters)
    assert run.phase == step_pb2.RUN_PHASE_SUCCEEDED, run.message
    deadline = time.monotonic() + WAIT_SECONDS
    while not all(a.digest for step in run.steps for a in (*step.inputs.artifacts, *step.outputs.artifacts)):
        assert time.monotonic() < deadline, run
        time.sleep(0.1)
        run = cluster.run(run.id)
    return run


def command(cluster: Stack, *arguments: str) -> tuple[int, Json]:
    done = cluster.periplus(*arguments, "-o", "json", check=False)
    return done.returncode, json.loads(done.stdout)


@pytest.fixture
def name() -> str:
    return f"rings-{uuid.uuid4().hex[:8]}"


def test_a_run_is_reproduced_with_the_template_of_then_and_rolled_back_to_with_its_spec(
    cluster: Stack, argo: Argo, name: str
) -> None:
    argo.store_template(library(name, name))
    first = finish(cluster, by_reference(name), image=argo.image)
    edited = json.loads(json.dumps(library(name, name)).replace("draw.gauss(0,", "draw.gauss(0.5,"))
    argo.store_template(edited)
    second = finish(cluster, by_reference(name), image=argo.image)
    assert second.cached_steps < len(second.steps)

    code, found = command(cluster, "reproduce", first.id)
    assert (code, found["grade"], found["different"]) == (0, "IDENTICAL", 0)
    assert len(argo.pods(found["run"])) == 8

    code, found = command(cluster, "reproduce", first.id, "--step", "train(1)")
    assert (code, found["grade"], {each["step"] for each in found["outputs"]}) == (
        0,
        "IDENTICAL",
        {"train(1)"},
    )
    assert len(argo.pods(found["run"])) == 1

    code, found = command(cluster, "rollback", name, "--to", first.id, "--dry-run")
    assert (code, found["run"], found["template"]["kept_reason"]) == (0, "", "")
    assert "draw.gauss(0.5," in found["template"]["current"]
    code, found = command(cluster, "rollback", name, "--to", first.id, "--yes")
    assert code == 0
    assert argo.workflow(found["run"]) is None
    now = cluster.wait_for_run(found["run"])
    assert (now.outputs, now.cached_steps) == (first.outputs, len(first.steps))
    replaced = cluster.periplus(
        "snapshot", "show", found["template"]["replaced_snapshot"], "--content", "-o", "json"
    )
    assert "draw.gauss(0.5," in replaced.stdout

    again = cluster.submit(by_reference(name), image=argo.image)
    assert again.phase == step_pb2.RUN_PHASE_SUCCEEDED
    assert {step.producer_run for step in again.plan.steps} == {first.id}
    assert (
        command(cluster, "rollback", name, "--to", first.id, "--yes")[1]["template"]["kept_reason"]
        == "it is as it was"
    )


def one_step(image: str, source: str, *, inputs: list[Json] | None = None, outputs: list[Json]) -> str:
    template = {
        "name": "main",
        "inputs": {"artifacts": inputs or []},
        "script": {"image": image, "command": ["python3"], "source": source},
        "outputs": {"artifacts": outputs},
    }
    return json.dumps(
        {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"generateName": "overwritten-"},
            "spec": {"entrypoint": "main", "templates": [template]},
        }
    )


def test_an_input_that_was_overwritten_is_named_and_nothing_runs(cluster: Stack, argo: Argo) -> None:
    key = f"projects/default/e2e-{uuid.uuid4().hex}/data"
    data = {"name": "data", "path": "/tmp/data", "s3": {"key": key}}

    def write(text: str) -> lineage_pb2.Run:
        source = f"open('/tmp/data', 'w').write({text!r})"
        return finish(cluster, one_step(argo.image, source, outputs=[data]))

    written = write("then")
    copy = {"name": "copy", "path": "/tmp/copy"}
    source = f"open('/tmp/copy', 'w').write(open('/tmp/data').read())  # {key}"
    first = finish(cluster, one_step(argo.image, source, inputs=[data], outputs=[copy]))
    code, found = command(cluster, "reproduce", first.id)
    assert (code, found["grade"]) == (0, "IDENTICAL")
    write("now")
    code, found = command(cluster, "reproduce", first.id)
    (needed,) = [each for each in found["requirements"] if each["kind"] == "INPUT"]
    assert (code, found["run"], needed["name"], needed["state"]) == (6, "", key, "CHANGED")
    assert needed["expected_digest"] == written.steps[0].outputs.artifacts[0].digest
    code, found = command(cluster, "reproduce", first.id, "--anyway")
    assert (code, found["grade"], found["outputs"][0]["output"]) == (1, "DIFFERENT", "outputs.copy")
    # What would overwrite what others use is not run again either.
    code, found = command(cluster, "reproduce", written.id, "--dry-run")
    assert (code, found["requirements"][0]["state"]) == (6, "UNSAFE")
