"""Running a folder of manifests gives the outcome of each."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from periplus_local.argo.samples import OK, sh, workflow
from periplus_local.argo.testing import Client

from .folder_run import run_manifests
from .manifest_files import manifests
from .outcome import MAY_FAIL_LABEL, Outcome

WAITS = {
    "name": "waits",
    "suspend": {},
    "inputs": {"parameters": [{"name": "go", "default": "no", "enum": ["no", "yes"]}]},
    "outputs": {"parameters": [{"name": "go", "valueFrom": {"supplied": {}}}]},
}


def put(folder: Path, name: str, *bodies: Any) -> None:
    """Write manifests into one file, as JSON, which YAML is too."""
    (folder / name).write_text("\n---\n".join(json.dumps(body, indent=1) for body in bodies))


def outcomes(client: Client, folder: Path, seconds: float = 60) -> dict[str, Outcome]:
    return {outcome.path: outcome for outcome in run_manifests(client, manifests(folder), seconds)}


def test_each_manifest_has_the_outcome_that_its_run_gives(client: Client, tmp_path: Path) -> None:
    put(tmp_path, "ok.yaml", workflow(OK), workflow(sh("lacks", "sh -c no-such-program-here")))
    put(
        tmp_path, "absent.yaml", workflow({**OK, "container": {"image": "i", "command": ["no-such-program"]}})
    )
    put(tmp_path, "image.yaml", workflow({**OK, "container": {"image": "maker/thing:2"}}))
    put(tmp_path, "refused.yaml", workflow({"name": "web", "http": {"url": "http://127.0.0.1"}}))
    put(tmp_path, "differs.yaml", workflow(sh("bad", "exit 3")))
    allowed = workflow(sh("bad", "exit 3"))
    allowed["metadata"]["labels"] = {MAY_FAIL_LABEL: "expected-failure"}
    put(tmp_path, "allowed.yaml", allowed)
    put(tmp_path, "waits.yaml", workflow(WAITS))
    put(tmp_path, "nightly.yaml", {"kind": "CronWorkflow", "metadata": {"name": "n"}, "spec": {}})
    (tmp_path / "broken.yaml").write_text("kind: Workflow\nspec: [\n")
    (tmp_path / "other.yaml").write_text("kind: Deployment\n")
    found = outcomes(client, tmp_path)
    assert {path: outcome.kind for path, outcome in found.items()} == {
        "ok.yaml": "expected",
        "ok.yaml#2": "needs",
        "absent.yaml": "needs",
        "image.yaml": "needs",
        "refused.yaml": "refused",
        "differs.yaml": "differs",
        "allowed.yaml": "expected",
        "waits.yaml": "expected",
        "nightly.yaml": "refused",
        "broken.yaml": "refused",
    }
    assert str(found["ok.yaml#2"]) == "ok.yaml#2: needs: no-such-program-here"
    assert str(found["absent.yaml"]) == "absent.yaml: needs: no-such-program"
    assert "maker/thing:2" in found["image.yaml"].why
    assert found["refused.yaml"].why.startswith("spec.templates[0].http: ")
    assert found["differs.yaml"].why == "Failed: main: Error (exit code 3)"


def test_a_workflow_that_exceeds_the_time_limit_is_stopped(client: Client, tmp_path: Path) -> None:
    put(tmp_path, "sleeps.yaml", workflow(sh("sleeps", "sleep 1000")))
    found = outcomes(client, tmp_path, seconds=1)
    assert str(found["sleeps.yaml"]) == "sleeps.yaml: runs long: Running after 1 s, then stopped"


def test_templates_that_refer_to_each_other_are_created_in_whatever_order_their_files_have(
    client: Client, tmp_path: Path
) -> None:
    ref = {"name": "folder-inner", "template": "ok"}
    caller = {"name": "main", "steps": [[{"name": "a", "templateRef": ref}]]}
    for file, name, template in (("a.yaml", "folder-outer", caller), ("b.yaml", "folder-inner", OK)):
        spec = {"templates": [template]}
        put(tmp_path, file, {"kind": "WorkflowTemplate", "metadata": {"name": name}, "spec": spec})
    put(tmp_path, "c.yaml", workflow(caller))
    assert {path: each.kind for path, each in outcomes(client, tmp_path).items()} == {"c.yaml": "expected"}


@pytest.mark.skipif("ARGO_SERVER" in os.environ, reason="the command runs a local Argo")
def test_the_command_prints_json_and_its_exit_code_says_whether_a_manifest_differs(tmp_path: Path) -> None:
    put(tmp_path, "differs.yaml", workflow(sh("bad", "exit 3")))
    command = [sys.executable, "-m", "tests.conformance.folder", "-o", "json"]
    ended = subprocess.run([*command, str(tmp_path)], stdout=subprocess.PIPE, check=False)
    assert ended.returncode == 1
    printed = json.loads(ended.stdout)
    assert printed["counts"] == {"differs": 1}
    assert printed["manifests"][0]["path"] == "differs.yaml"
    nothing = subprocess.run([*command, str(tmp_path / "none")], stderr=subprocess.PIPE, check=False)
    assert nothing.returncode == 2
