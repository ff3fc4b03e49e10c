"""Workflows that others submit to the stack's Argo: their runs in lineage, the shadow report, and adopted history."""

import json
import time
from collections.abc import Iterator

import httpx
import pytest
from stack import FINAL_PHASES, WAIT_SECONDS, Stack, up

from periplus.lineage.v1 import lineage_pb2
from periplus.types.v1 import step_pb2
from periplus_local.stack.home import Home

MANIFEST = {
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "Workflow",
    # The stack's Argo stores outputs below the prefix of the project that this label names.
    "metadata": {"generateName": "others-", "labels": {"periplus.dev/project": "default"}},
    "spec": {
        "entrypoint": "main",
        "templates": [
            {"name": "main", "dag": {"tasks": [
                {"name": "make", "template": "make"},
                {"name": "use", "template": "use", "depends": "make",
                 "arguments": {"artifacts": [{"name": "f", "from": "{{tasks.make.outputs.artifacts.f}}"}]}},
            ]}},
            {"name": "make", "container": {"image": "a", "command": ["sh", "-c", "echo data > /tmp/f"]},
             "outputs": {"artifacts": [{"name": "f", "path": "/tmp/f"}]}},
            {"name": "use", "inputs": {"artifacts": [{"name": "f", "path": "/tmp/f"}]},
             "container": {"image": "a", "command": ["sh", "-c", "cat /tmp/f > /tmp/o"]},
             "outputs": {"parameters": [{"name": "o", "valueFrom": {"path": "/tmp/o"}}]}},
        ],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def observing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose dispatcher observes the namespace of its Argo."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISPATCHER_OBSERVE", "argo=default")
        with up(tmp_path_factory.mktemp("observing") / "home") as running:
            yield running


def submitted(stack: Stack) -> str:
    """The name of a Workflow that was submitted to Argo alone."""
    home = Home(stack.home)
    transport = httpx.HTTPTransport(uds=str(home.run / "argo.sock"))
    token = f"Bearer {(home.secrets / 'argo-token').read_text().strip()}"
    with httpx.Client(
        transport=transport, base_url="http://localhost", headers={"Authorization": token}
    ) as argo:
        answer = argo.post("/api/v1/workflows/argo", json={"workflow": MANIFEST})
    name: str = answer.raise_for_status().json()["metadata"]["name"]
    return name


def run_of(stack: Stack, name: str) -> str:
    """The id of the run of a Workflow, once it has finished and its events were received."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        found = json.loads(stack.periplus("runs", "-o", "json").stdout)["runs"]
        run = next((each["id"] for each in found if each["id"].startswith(f"{name}@")), None)
        if run and stack.run(run).phase in FINAL_PHASES:
            stack.wait_for_cache(stack.wait_for_run(run))
            return str(run)
        time.sleep(0.2)
    raise TimeoutError(f"{name} has no run that has finished")


def with_digests(stack: Stack, run: str) -> lineage_pb2.Run:
    """A finished run once lineage has the digests of its artifacts, which come from the cache."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        found = stack.run(run)
        if all(a.digest for step in found.steps for a in (*step.inputs.artifacts, *step.outputs.artifacts)):
            return found
        time.sleep(0.1)
    raise TimeoutError(f"{run} has artifacts without digests")


def test_runs_that_others_submit_have_lineage_and_the_report_says_what_a_cache_would_save(
    observing: Stack,
) -> None:
    first = with_digests(observing, run_of(observing, submitted(observing)))
    assert (first.pipeline, first.observed.namespace) == ("others", "argo")
    steps = {step.path: step for step in first.steps}
    assert {path: step.phase for path, step in steps.items()} == dict.fromkeys(
        ("make", "use"), step_pb2.STEP_PHASE_SUCCEEDED
    )
    assert steps["use"].outputs.parameters[0].value == "data"
    assert steps["use"].depends_on == ["make"]
    (made,), (used,) = steps["make"].outputs.artifacts, steps["use"].inputs.artifacts
    assert made.digest == used.digest != ""
    assert json.loads(observing.periplus("cache", "ls", "-o", "json").stdout)["entries"] == []
    reproduced = json.loads(observing.periplus("reproduce", first.id, "-o", "json").stdout)
    assert (reproduced["grade"], observing.run(reproduced["run"]).reproduces) == ("IDENTICAL", first.id)
    (before,) = json.loads(observing.periplus("shadow", "-o", "json").stdout)["pipelines"]
    assert (before["pipeline"], before.get("hits", 0)) == ("others", 0)

    observing.kill("dispatcher")  # what happens meanwhile is recorded afterwards
    second = run_of(observing, submitted(observing))
    (after,) = json.loads(observing.periplus("shadow", "-o", "json").stdout)["pipelines"]
    assert [int(after[key]) for key in ("runs", "steps", "hits", "saved_pods")] == [2, 4, 2, 2]
    assert "2 of 4 steps would have been cached" in observing.periplus("shadow").stdout
    assert "no steps of observed runs" in observing.periplus("shadow", "--project", "other").stdout
    assert "only observes" in observing.periplus("why", second, "make").stdout
    assert "observed:" in observing.periplus("runs", second).stdout
    assert "0 Workflows would be adopted" in observing.periplus("adopt", "--dry-run").stdout
    refused = observing.periplus("adopt", "--namespace", "ml", check=False)
    assert refused.returncode == 6
    assert "DISPATCHER_OBSERVE=ml=default" in refused.stderr
