"""From a Workflow's status to statuses of steps: Workflows as a real Argo recorded them, with the state of their run."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from periplus_dispatcher.domain import (
    ContainerTemplate,
    FanOut,
    GateAnswer,
    GeneratedTemplate,
    RunState,
    TemplateRole,
    plan_path,
)
from periplus_dispatcher.follow.nodes import ArtifactRepository
from periplus_dispatcher.follow.observe import WorkflowStatus
from periplus_model.queries import StepVerdict
from periplus_model.steps import ObjectRef, Outputs, RunPhase, StepPhase, StepTemplate, Verdict

Json = dict[str, Any]
OUT = Path(__file__).parents[3] / "tests" / "conformance" / "recordings" / "out"
REPOSITORY = ArtifactRepository("", "")
GENERATED = {
    "train--cached": GeneratedTemplate(TemplateRole.GATED, "train"),
    "train--gate": GeneratedTemplate(TemplateRole.GATE, "train", ("periplus-hit",)),
    "train--sel": GeneratedTemplate(TemplateRole.SELECTION, "train"),
    "train--fan": GeneratedTemplate(TemplateRole.FAN_OUT, "train"),
    "train--fangate": GeneratedTemplate(TemplateRole.FAN_OUT_GATE, "train", ("periplus-todo",)),
}
HIT = StepVerdict(
    "", Verdict.HIT, "hit", "sha256:1", Outputs({"acc": "known"}), "earlier", "train", timedelta(seconds=2)
)
MISS = StepVerdict("", Verdict.MISS)


def recorded(name: str) -> Json:
    found: Json = json.loads((OUT / f"{name}.json").read_text())["workflows"][0]
    return found


def view(workflow: Json, answers: dict[str, GateAnswer] | None = None, **record: Any) -> WorkflowStatus:
    names = {node.get("templateName", "") for node in workflow["status"]["nodes"].values()}
    generated = {k: v for k, v in GENERATED.items() if k in names}
    known = {"train": ContainerTemplate(StepTemplate("train", "{}"), parameters=("acc",))}
    return WorkflowStatus(workflow, RunState(known, generated, **record), answers or {}, REPOSITORY)


def phases(status: WorkflowStatus) -> dict[str, str]:
    return {step.path: step.phase.label for step in status.steps()}


def node(workflow: Json, display: str) -> Json:
    found: Json = next(n for n in workflow["status"]["nodes"].values() if n["displayName"] == display)
    return found


def test_a_gate_that_was_answered_with_a_hit_is_a_cached_step() -> None:
    workflow = recorded("gate-hit")
    gate = node(workflow, "gate")
    answer = GateAnswer({p["name"]: p["value"] for p in gate["outputs"]["parameters"]}, HIT)
    status = view(workflow, {gate["id"]: answer})
    assert phases(status) == {"prep": "succeeded", "train": "cached", "use": "succeeded"}
    train = next(step for step in status.steps() if step.path == "train")
    assert (train.outputs, train.verdict, train.template) == (HIT.outputs, HIT, "train")
    assert train.started_at == train.finished_at


@pytest.mark.parametrize("name", ["gate-miss", "gate-timeout"])
def test_behind_a_gate_without_a_hit_the_step_that_ran_is_reported(name: str) -> None:
    workflow = recorded(name)
    gate = node(workflow, "gate")
    for answers in ({gate["id"]: GateAnswer({}, HIT)}, {gate["id"]: GateAnswer({}, MISS)}, {}):
        assert phases(view(workflow, answers))["train"] == "succeeded"


def test_the_items_of_a_fan_out_have_their_indices_of_the_plan() -> None:
    workflow = recorded("gate-fan-mixed")
    gate = node(workflow, "gate")
    items = (HIT, MISS, HIT, MISS)
    answer = GateAnswer({"periplus-todo": "x"}, StepVerdict("", Verdict.MISS, items=items), (1, 3))
    status = view(workflow, {gate["id"]: answer}, fan_outs={"train": FanOut({})})
    found = phases(status)
    assert {path: found[path] for path in found if path.startswith("train")} == {
        "train(0)": "cached", "train(1)": "succeeded", "train(2)": "cached", "train(3)": "succeeded",
    }  # fmt: skip
    assert node(workflow, "run(0:a:1)")["id"] in {
        step.node for step in status.steps() if step.path == "train(1)"
    }


def test_a_fan_out_whose_gate_was_not_answered_runs_all_its_items() -> None:
    workflow = recorded("gate-fan-timeout")
    found = phases(view(workflow, fan_outs={"train": FanOut({})}))
    ran = {path for path in found if path.startswith("train(")}
    assert ran
    assert {found[path] for path in ran} == {"succeeded"}


def test_an_open_gate_has_the_inputs_of_its_step() -> None:
    workflow = recorded("gate-hit")
    gate = node(workflow, "gate")
    assert view(workflow).open_gates() == []
    gate["phase"] = "Running"
    (found,) = view(workflow).open_gates()
    assert (found.node, found.path, found.template, found.is_fan_out) == (gate["id"], "train", "train", False)
    assert found.parameters == {p["name"]: p["value"] for p in gate["inputs"]["parameters"]}
    assert set(found.artifacts) == {a["name"] for a in gate["inputs"].get("artifacts", ())}


def test_steps_that_are_seen_together_have_the_order_of_the_plan() -> None:
    workflow = recorded("gate-hit")
    nodes = workflow["status"]["nodes"]
    workflow["status"]["nodes"] = {key: nodes[key] for key in sorted(nodes, reverse=True)}
    for order in (["prep", "use"], ["use", "prep"]):
        status = view(workflow, verdicts=dict.fromkeys(order, Verdict.MISS))
        assert [step.path for step in status.steps()] == order


def test_the_gate_of_a_stretch_is_no_step_also_if_it_is_not_reached() -> None:
    workflow = recorded("gate-hit")
    generated = {"periplus-gate": GeneratedTemplate(TemplateRole.STRETCH_GATE, "periplus-gate")}
    node(workflow, "use").update({"templateName": "periplus-gate", "type": "Skipped", "phase": "Omitted"})
    status = WorkflowStatus(workflow, RunState({}, GENERATED | generated), {}, REPOSITORY)
    assert "use" not in phases(status)


def test_a_step_that_fails_before_it_starts_has_failed_with_its_message() -> None:
    workflow = recorded("gate-hit")
    node(workflow, "use").update({"type": "Skipped", "phase": "Error", "message": "invalid 'when'"})
    (use,) = (step for step in view(workflow).steps() if step.path == "use")
    assert (use.phase, use.message) == (StepPhase.ERROR, "invalid 'when'")


TREES: dict[str, dict[str, str]] = {
    "one-container": {},
    "dag-diamond-parameters": {},
    "loop-items-strings-and-maps": {},
    "loop-over-nested-dag": {
        **{f"each({n}).{leaf}": "succeeded" for n in range(3) for leaf in "pq"}, "all": "succeeded",
    },
    "nested-dags-and-steps": {},
    "retry-until-success": {},
    "retry-exhausted": {},
    "recursion": {},
    "steps-continue-on-failed": {},
    "depends-on-failure": {},
    "on-exit-handler": {},
    "task-hook-exit": {},
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_of_a_workflow_that_was_not_rewritten_each_step_is_reported_once_and_no_attempt(name: str) -> None:
    workflow = recorded(name)
    status = view(workflow)
    steps = list(status.steps())
    paths = [step.path for step in steps]
    assert len(set(paths)) == len(paths)
    attempts = {
        n["id"] for n in workflow["status"]["nodes"].values() if (n.get("nodeFlag") or {}).get("retried")
    }
    assert not attempts & {step.node for step in steps}
    leaves = [
        n
        for n in workflow["status"]["nodes"].values()
        if n["type"] in ("Pod", "Skipped", "Suspend") and n["id"] not in attempts
    ]
    retries = [n for n in workflow["status"]["nodes"].values() if n["type"] == "Retry"]
    assert len(steps) == len(leaves) + len(retries)
    if TREES[name]:
        assert phases(status) == TREES[name]


def test_a_retried_step_has_the_number_of_attempts_and_the_phase_of_the_last() -> None:
    (step,) = view(recorded("retry-exhausted")).steps()
    assert (step.phase, step.attempts > 1) == (StepPhase.FAILED, True)


def pod(name: str, phase: str, message: str = "", started: str = "2026-01-02T03:04:05Z", **more: Any) -> Json:
    """A node of the root DAG."""
    node = {"id": name, "displayName": name, "type": "Pod", "templateName": "t", "boundaryID": "w"}
    return {**node, "phase": phase, "message": message, "startedAt": started, **more}


def delayed(*nodes: Json, seconds: float = 1) -> dict[str, str]:
    """What delays each step, some seconds after it began."""
    root = {"id": "w", "displayName": "w", "type": "DAG", "phase": "Running", "templateName": "main"}
    status = {"phase": "Running", "nodes": {node["id"]: node for node in (root, *nodes)}}
    now = datetime.fromisoformat("2026-01-02T03:04:05Z") + timedelta(seconds=seconds)
    return {
        delay.path: delay.reason for delay in view({"metadata": {"name": "w"}, "status": status}).delays(now)
    }


@pytest.mark.parametrize(
    "message",
    [
        'ImagePullBackOff: Back-off pulling image "nope:1"',
        "ErrImagePull: not found",
        "Unschedulable: 0/1 nodes are available: 1 Insufficient memory.",
        "Waiting for argo/Mutex/m lock. Lock status: 0/1",
    ],
)
def test_a_pending_step_is_delayed_by_what_argo_says_of_its_pod(message: str) -> None:
    assert delayed(pod("a", "Pending", message), pod("b", "Running", "old"), pod("c", "Failed", "no")) == {
        "a": message,
        "b": "",
    }


def test_a_pod_that_is_being_made_is_delayed_once_that_takes_unusually_long() -> None:
    made = [
        pod("a", "Pending", "PodInitializing"),
        pod("b", "Pending", "ContainerCreating: mount"),
        pod("c", "Pending"),
    ]
    assert delayed(*made, seconds=29) == {"a": "", "b": "", "c": ""}
    assert delayed(*made, seconds=30) == {"a": "PodInitializing", "b": "ContainerCreating: mount", "c": ""}


def test_what_delays_a_step_is_a_text_that_can_be_stored() -> None:
    (reason,) = delayed(pod("a", "Pending", "x\0" * 600)).values()
    assert (len(reason), "\0" in reason) == (1000, False)


def test_a_retried_step_is_delayed_by_its_pending_attempt_or_else_by_the_last_that_failed() -> None:
    def step(*attempts: Json) -> Json:
        return pod("a", "Running", "Backoff", type="Retry", children=[each["id"] for each in attempts])

    def attempt(number: int, phase: str, message: str = "") -> Json:
        return pod(f"a({number})", phase, message, nodeFlag={"retried": True})

    def reason(*attempts: Json) -> str:
        (found,) = delayed(step(*attempts), *attempts).values()
        return found

    killed = attempt(0, "Failed", "main: OOMKilled (exit code 137)")
    assert reason(attempt(0, "Pending", "ErrImagePull: no")) == "ErrImagePull: no"
    assert reason(attempt(0, "Running")) == ""
    assert reason(killed) == "attempt 1 failed: main: OOMKilled (exit code 137)"
    assert reason(killed, attempt(1, "Pending", "Unschedulable: x")) == "attempt 2: Unschedulable: x"
    assert reason(killed, attempt(1, "Running")) == "attempt 1 failed: main: OOMKilled (exit code 137)"
    assert reason(killed, attempt(1, "Error"), attempt(2, "Running")) == "attempt 2 failed: Error"


def test_a_retried_step_has_not_started_while_its_first_attempt_is_pending() -> None:
    def started(*phases: str) -> list[str]:
        attempts = [pod(f"a({n})", phase, nodeFlag={"retried": True}) for n, phase in enumerate(phases)]
        retry = pod("a", "Running", type="Retry", children=[each["id"] for each in attempts])
        nodes = {each["id"]: each for each in (retry, *attempts)}
        return [step.path for step in view({"metadata": {"name": "w"}, "status": {"nodes": nodes}}).steps()]

    assert started("Pending") == []
    assert started("Running") == started("Failed", "Pending") == ["t"]


def test_a_failed_run_has_a_message_and_a_finish_time() -> None:
    status = view(recorded("fails-exit-code"))
    assert status.phase is RunPhase.FAILED
    assert status.message
    assert status.finished_at
    assert "exit code" in next(iter(status.steps())).message


def test_a_workflow_that_has_no_status_yet_is_pending_and_has_no_steps() -> None:
    status = WorkflowStatus({"metadata": {"name": "w"}}, RunState({}), {}, REPOSITORY)
    assert (status.phase, list(status.steps()), status.open_gates(), status.outputs) == (
        RunPhase.PENDING,
        [],
        [],
        Outputs(),
    )


def test_an_artifact_in_the_default_repository_has_a_key_only() -> None:
    workflow = recorded("artifact-file-and-directory")
    places = [a.object for step in view(workflow).steps() for a in step.outputs.artifacts]
    assert places
    assert all(place.bucket for place in places), "another store than ours"
    s3 = workflow["status"]["artifactRepositoryRef"]["artifactRepository"]["s3"]
    ours = WorkflowStatus(
        workflow, RunState({}), {}, ArtifactRepository(s3.get("endpoint", ""), s3["bucket"])
    )
    assert [a.object for step in ours.steps() for a in step.outputs.artifacts] == [
        ObjectRef(place.key) for place in places
    ]


def test_the_path_of_a_run_has_a_path_in_the_plan() -> None:
    assert plan_path("train(3)") == "train"
    assert plan_path("a(0).b(1).c(2)") == "a(*).b(*).c"
    assert plan_path("a.b") == "a.b"
