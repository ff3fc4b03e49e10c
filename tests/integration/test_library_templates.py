"""Templates by reference, files of templates and hera's workflows on the real stack, by the command."""

import asyncio
import json
import uuid
from pathlib import Path
from textwrap import dedent
from typing import Any

import yaml
from stack import ROOT, Stack

from periplus_dispatcher.argo import client as argo
from periplus_local.stack.home import Home

Json = dict[str, Any]
TRAIN: Json = yaml.safe_load((ROOT / "examples" / "yaml" / "train.yaml").read_text())
HERA = """
    from hera.workflows import DAG, Parameter, Workflow, script


    @script(image="python", command=["python3"], outputs=Parameter(name="o", value_from={{"path": "/tmp/o"}}))
    def double(x: int):
        "{salt}"
        open("/tmp/o", "w").write(str(2 * x))


    with Workflow(generate_name="hera-", entrypoint="main", arguments=[Parameter(name="x", value="4")]) as flow:
        with DAG(name="main"):
            a = double(name="a", arguments={{"x": "{{{{workflow.parameters.x}}}}"}})
            b = double(name="b", arguments={{"x": a.get_parameter("o")}})
            a >> b
"""


def library(name: str, salt: str) -> Json:
    """The example as a WorkflowTemplate without an entry in the cache."""
    templates = json.dumps(TRAIN["spec"]["templates"]).replace("import ", f"# {salt}\\nimport ")
    spec = {**TRAIN["spec"], "templates": json.loads(templates)}
    return {**TRAIN, "kind": "WorkflowTemplate", "metadata": {"name": name}, "spec": spec}


def run_document(stack: Stack, file: Path, *arguments: str) -> Json:
    done = stack.periplus("run", str(file), "-o", "json", *arguments)
    found: Json = json.loads(done.stdout)
    return found


def counts(run: Json) -> tuple[int, int]:
    return run["steps_run"], run["steps_cached"]


async def store(stack: Stack, template: Json) -> None:
    """Create or replace a WorkflowTemplate in the stack's Argo."""
    home = Home(stack.home)
    token = (home.secrets / "argo-token").read_text()
    name = template["metadata"]["name"]
    async with argo.connect(f"unix:{home.run / 'argo.sock'}", token, "argo") as client:
        exists = await client.get_template(name, cluster_scope=False) is not None
        method, path = ("PUT", f"/{name}") if exists else ("POST", "")
        await client._connection.request(
            method, f"workflow-templates/argo{path}", json={"template": template}
        )


def test_a_file_of_a_template_is_run_and_then_cached(stack: Stack, tmp_path: Path) -> None:
    name = f"lib-{uuid.uuid4().hex[:8]}"
    file = tmp_path / "lib.yaml"
    file.write_text(yaml.safe_dump(library(name, "one")))
    first, second = run_document(stack, file), run_document(stack, file)
    assert first["phase"] == second["phase"] == "SUCCEEDED"
    assert first["run"].startswith(f"{name}-")
    assert counts(first)[0] == counts(second)[1] > 5
    assert counts(second)[0] == 0
    assert first["outputs"] == second["outputs"]
    file.write_text(yaml.safe_dump(library(name, "two")))
    edited = run_document(stack, file)
    assert counts(edited)[0] > 0
    difference = stack.periplus("diff", second["run"], edited["run"]).stdout
    assert f"template.WorkflowTemplate/{name}" in difference


def test_a_hera_file_is_run_and_then_cached(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "flow.py"
    file.write_text(dedent(HERA.format(salt=uuid.uuid4())))
    assert counts(run_document(stack, file)) == (2, 0)
    assert counts(run_document(stack, file)) == (0, 2)
    assert counts(run_document(stack, file, "-p", "x=8")) == (1, 1)


def test_the_rewrite_of_a_workflow_with_references_is_shown(stack: Stack, tmp_path: Path) -> None:
    name = f"lib-{uuid.uuid4().hex[:8]}"
    reference = {"name": "whole", "templateRef": {"name": name, "template": TRAIN["spec"]["entrypoint"]}}
    flow = {
        **TRAIN,
        "spec": {**TRAIN["spec"], "entrypoint": "m", "templates": [{"name": "m", "steps": [[reference]]}]},
    }
    file = tmp_path / "flow.yaml"
    file.write_text(yaml.safe_dump_all([flow, library(name, "shown")]))
    shown = stack.periplus("plan", str(file), "--show-rewrite").stdout
    assert "-    - name: whole\n" not in shown
    assert f"template: {name}--{TRAIN['spec']['entrypoint']}\n" in shown
    assert "periplus.dev/managed: 'true'" in shown


def test_a_reference_to_a_template_of_argo_is_cached_until_it_is_edited(stack: Stack, tmp_path: Path) -> None:
    name = f"lib-{uuid.uuid4().hex[:8]}"
    asyncio.run(store(stack, library(name, "a")))
    file = tmp_path / "ref.yaml"
    metadata = {"generateName": "by-ref-"}
    file.write_text(
        yaml.safe_dump({**TRAIN, "metadata": metadata, "spec": {"workflowTemplateRef": {"name": name}}})
    )
    assert counts(run_document(stack, file))[1] == 0
    assert counts(run_document(stack, file))[0] == 0
    asyncio.run(store(stack, library(name, "b")))
    assert counts(run_document(stack, file))[0] > 0
