"""Parallelism, mutexes, fail-fast, stop and suspend; and large numbers of steps and workflows."""

import time
from collections.abc import Iterator

import pytest

from periplus_local.argo.samples import (
    BAD,
    OK,
    Body,
    dag,
    node,
    run,
    say,
    sh,
    start,
    steps,
    task,
)
from periplus_local.argo.testing import Client, local_argo, nodes_of, phases_of


@pytest.fixture(scope="module")
def argo() -> Iterator[Client]:
    with local_argo(slots=4, grace_seconds=1) as client:
        yield client


def at_once(workflow: Body, prefix: str) -> int:
    """How many steps whose names begin so printed that they ran while others did."""
    marks = []
    for name, item in nodes_of(workflow).items():
        if prefix in name and item["type"] == "Pod":
            began, ended = item["outputs"]["parameters"][0]["value"].split()
            marks += [(float(began), 1), (float(ended), -1)]
    most = count = 0
    for _, change in sorted(marks):
        count += change
        most = max(most, count)
    return most


CLOCK = say("", "clock", inputs={"parameters": [{"name": "i", "default": ""}]})
CLOCK["container"]["args"] = ["a=$(date +%s.%N); sleep 0.4; echo $a $(date +%s.%N) > /tmp/o"]


@pytest.mark.parametrize(
    ("spec", "template", "most"), [({"parallelism": 2}, {}, 2), ({}, {"parallelism": 1}, 1)]
)
def test_parallelism_of_a_workflow_or_a_template_limits_its_steps(
    argo: Client, spec: Body, template: Body, most: int
) -> None:
    main = dag(task("c", "clock", withItems=[1, 2, 3, 4], given={"i": "{{item}}"}), **template)
    assert at_once(run(argo, main, CLOCK, **spec), ".c(") == most


def test_a_mutex_is_held_by_one_step_at_a_time_across_workflows(argo: Client) -> None:
    locked = CLOCK | {"synchronization": {"mutexes": [{"name": "door"}]}}
    main = dag(task("c", "clock", withItems=[1, 2, 3]))
    names = [start(argo, main, locked) for _ in range(2)]
    both = [argo.ended(name) for name in names]
    joined = {"metadata": {"name": "x"}, "status": {"nodes": {}}}
    for ended in both:
        joined["status"]["nodes"] |= ended["status"]["nodes"]
    assert at_once(joined, ".c(") == 1
    assert all("synchronizationStatus" not in item for item in joined["status"]["nodes"].values())


def test_a_step_that_waits_for_a_mutex_is_pending_and_can_be_stopped(argo: Client) -> None:
    hold = sh("main", "sleep 30", synchronization={"mutexes": [{"name": "held"}]})
    first = start(argo, hold)
    argo.until(first, lambda w: phases_of(w).get("$") == "Running")
    second = start(argo, hold)
    waiting = argo.until(second, lambda w: phases_of(w).get("$") == "Pending")
    assert "held lock" in node(waiting)["message"]
    argo.do(second, "stop")
    assert argo.ended(second)["status"]["phase"] == "Failed"
    argo.do(first, "terminate")
    assert argo.ended(first)["status"]["phase"] == "Failed"


def test_a_failing_fast_template_starts_no_further_step(argo: Client) -> None:
    main = dag(task("w", "bad", withItems=[1, 2, 3]), failFast=True, parallelism=1)
    ended = run(argo, main, BAD)
    assert sorted(phases_of(ended)) == ["$", "$.w", "$.w(0:1)"]
    assert "failFast" in ended["status"]["message"]


def test_recursion_ends_at_the_maximal_depth(argo: Client) -> None:
    ended = run(argo, steps([task("again", "main")]))
    assert ended["status"]["phase"] in {"Failed", "Error"}
    assert any("recursion depth" in item.get("message", "") for item in nodes_of(ended).values())


def test_stop_runs_the_exit_handler_and_terminate_does_not(argo: Client) -> None:
    for deed, expected in (("stop", "Succeeded"), ("terminate", None)):
        name = start(
            argo, dag(task("a", "slow"), task("b", depends="a")), OK, sh("slow", "sleep 60"), onExit="ok"
        )
        argo.until(name, lambda w: phases_of(w).get("$.a") == "Running")
        argo.do(name, deed)
        ended = argo.ended(name)
        strategy = deed.capitalize()
        assert ended["status"]["message"] == f"Stopped with strategy '{strategy}'"
        assert node(ended, ".a")["message"] == f"workflow shutdown with strategy:  {strategy}"
        assert phases_of(ended).get("$.onExit") == expected


def test_a_suspended_workflow_starts_nothing_until_it_is_resumed(argo: Client) -> None:
    name = start(argo, OK, suspend=True)
    time.sleep(0.2)
    assert phases_of(argo.get(name)) == {}
    argo.do(name, "resume")
    assert argo.ended(name)["status"]["phase"] == "Succeeded"


def test_two_hundred_workflows_at_once_all_end(argo: Client) -> None:
    gate = {"name": "main", "suspend": {"duration": "0"}}
    names = [start(argo, gate) for _ in range(200)]
    assert {argo.ended(name)["status"]["phase"] for name in names} == {"Succeeded"}


def test_two_thousand_steps_in_one_workflow_end(argo: Client) -> None:
    tasks = [task("t0", "ok", when="1 == 2")]
    tasks += [task(f"t{i}", "ok", when="1 == 2", depends=f"t{i - 1}") for i in range(1, 2000)]
    ended = run(argo, dag(*tasks), OK)
    assert len(nodes_of(ended)) == 2001
    assert ended["status"]["phase"] == "Succeeded"
