"""Argo's own client against the local Argo: every command that makes sense on a laptop, and clear words for the rest."""

import re
import shutil
import subprocess

import pytest
from argo_server import ArgoServer, served

__all__ = ["served"]
GATE = """
apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata: {name: gated, labels: {of: client}}
spec:
  entrypoint: main
  templates:
  - name: main
    steps: [[{name: gate, template: gate}], [{name: work, template: work}]]
  - name: gate
    suspend: {}
    outputs: {parameters: [{name: x, valueFrom: {supplied: {}}}]}
  - name: work
    container: {image: any, command: [sh, -c], args: ["echo bytes > /tmp/o; echo failing; exit 3"]}
    outputs: {artifacts: [{name: o, path: /tmp/o, archive: {none: {}}}]}
"""
KEPT = """
apiVersion: argoproj.io/v1alpha1
kind: WorkflowTemplate
metadata: {name: kept}
spec:
  entrypoint: main
  arguments: {parameters: [{name: m, value: d}]}
  templates:
  - {name: main, container: {image: any, command: [echo], args: ["{{workflow.parameters.m}}"]}}
"""
# Of Argo's own client: the command, its exit code, and what it says.
CLIENT = (
    ("argo version", 0, r"argo-server: v4.1.2\+periplus.local"),
    ("argo lint gate.yaml --no-color", 0, "no linting errors found"),
    ("argo submit gate.yaml --dry-run -o name", 0, "gated"),
    ("argo submit gate.yaml -o name", 0, "gated"),
    ("argo submit gate.yaml", 1, "already exists"),
    ("argo list --running -l of=client -o name", 0, "gated"),
    (
        "sleep 1; argo node set gated --node-field-selector displayName=nope --phase Succeeded",
        1,
        "no suspend nodes",
    ),
    ("argo node set gated --node-field-selector displayName=gate -p x=7 --phase Succeeded", 0, "values set"),
    ("argo wait gated", 1, "gated Failed"),
    ("argo get gated --no-color", 0, "work +work +gated-work-"),
    ("argo logs gated --no-color", 0, "failing"),
    ("argo logs gated --no-color --timestamps", 1, "logOptions.timestamps"),
    ("argo logs gated -f --no-color --grep '^f.*g$' --tail 1", 0, "failing"),
    ("argo cp gated out && cat $(find out -name o -type f)", 0, "bytes"),
    ("argo retry gated -o name && argo wait gated", 1, "gated Failed"),
    ("argo stop gated", 1, "cannot shutdown a completed workflow"),
    ("argo resubmit gated -o name", 0, "gated-"),
    ("argo suspend @latest && argo terminate @latest", 0, "terminated"),
    ("argo template create kept.yaml -o name && argo template update kept.yaml -o name", 0, "kept"),
    ("argo template list && argo template lint kept.yaml", 0, "no linting errors"),
    ("argo submit --from workflowtemplate/kept -p m=hi --log", 0, "hi"),
    ("argo template delete kept && argo template get kept", 1, '"kept" not found'),
    ("argo list --completed --prefix gated -o wide", 0, "gated +Failed"),
    ("argo cron list", 1, "no cron workflows"),
    ("argo archive list", 0, "No workflows found"),
    ("argo watch nope", 1, '"nope" not found'),
    ("argo delete gated && argo get gated", 1, '"gated" not found'),
    ("ARGO_TOKEN='Bearer no' argo list", 1, "token not valid"),
)


pytestmark = pytest.mark.skipif(not shutil.which("argo"), reason="argo is not on the PATH")


@pytest.fixture(scope="module", autouse=True)
def manifests(served: ArgoServer) -> None:
    """The files that the commands name."""
    (served.folder / "gate.yaml").write_text(GATE)
    (served.folder / "kept.yaml").write_text(KEPT)


@pytest.mark.parametrize(("command", "code", "said"), CLIENT, ids=[command for command, _, _ in CLIENT])
def test_argos_own_client_is_answered(served: ArgoServer, command: str, code: int, said: str) -> None:
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=served.folder,
        env=served.env(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == code, printed
    assert re.search(said, printed), printed
