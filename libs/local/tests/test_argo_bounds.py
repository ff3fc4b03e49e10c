"""What one workflow may hold, how it shares the event loop, and that acting on a large one takes no minutes."""

import asyncio
import time
from typing import Any

import pytest

from periplus_local.argo.controller import workflow_retry
from periplus_local.argo.controller.nodes import Node, Nodes, TooLargeError
from periplus_local.argo.controller.synchronization import Mutexes
from periplus_local.argo.controller.turns import STEPS_PER_TURN, Turns
from periplus_local.argo.controller.workflow_run import ControllerContext, WorkflowRun
from periplus_local.argo.scalars import now, timestamp
from periplus_manifest.bounds import MAX_NODES, RunBounds


def nodes_of(bounds: RunBounds) -> tuple[Nodes, list[str]]:
    """Nodes, and the reasons that they report."""
    reasons: list[str] = []
    return Nodes("w", lambda: None, reasons.append, bounds), reasons


def connect(nodes: Nodes, parent: Node, children: int) -> None:
    for number in range(children):
        nodes.connect(parent, f"w.{number}")


def test_no_more_nodes_start_than_allowed() -> None:
    nodes, reasons = nodes_of(RunBounds(nodes=2))
    for name in ("w", "w.a"):
        nodes.start(name, "Pod", "Pending")
    with pytest.raises(TooLargeError):
        nodes.start("w.b", "Pod", "Pending")
    assert (reasons, len(nodes.by_id)) == (["the workflow has more than 2 nodes"], 2)
    nodes.remove(nodes.id_of("w.a"))
    nodes.start("w.b", "Pod", "Pending")


@pytest.mark.parametrize("part", ["inputs", "children", "outputs"])
def test_nodes_larger_than_allowed_are_reported(part: str) -> None:
    nodes, reasons = nodes_of(RunBounds(status_bytes=10_000))
    node = nodes.start("w", "DAG", "Running")
    if part == "outputs":  # they are seen when the node is written
        node["outputs"] = {"result": "x" * 10_000}
        nodes.mark_dirty(node)
        nodes.node_json(node["id"])
    elif part == "inputs":
        with pytest.raises(TooLargeError):
            nodes.start(
                "w.a", "Pod", "Pending", inputs={"parameters": [{"name": "a", "value": "x" * 10_000}]}
            )
    else:
        with pytest.raises(TooLargeError):
            connect(nodes, node, 1_000)
    assert reasons[0] == "status.nodes of the workflow has more than 10000 bytes"


def test_the_size_of_the_nodes_is_that_of_their_json() -> None:
    nodes, _ = nodes_of(RunBounds())
    for number in range(10):
        nodes.connect(
            nodes.start(f"w.{number}", "Pod", "Pending", inputs={"a": "b" * number}), f"w.{number + 1}"
        )
    for node in nodes:
        nodes.node_json(node["id"])
    assert nodes.bytes == sum(len(nodes.node_json(node["id"])) for node in nodes)
    for node in list(nodes):
        nodes.remove(node["id"])
    assert nodes.bytes == 0


async def test_others_have_their_turn_between_the_steps_of_a_large_workflow() -> None:
    turns, taken = Turns(), list[int]()
    in_this_iteration, done = 0, 0

    async def step() -> None:
        nonlocal in_this_iteration, done
        await turns.take()
        in_this_iteration += 1
        done += 1

    steps = [asyncio.create_task(step()) for _ in range(20 * STEPS_PER_TURN)]
    while done < len(steps):
        in_this_iteration = 0
        await asyncio.sleep(0)
        taken.append(in_this_iteration)
    assert max(taken) <= STEPS_PER_TURN
    assert len([count for count in taken if count]) == 20


async def test_a_step_that_is_cancelled_while_it_waits_gives_its_turn_away() -> None:
    turns = Turns()
    steps = [asyncio.create_task(turns.take()) for _ in range(3 * STEPS_PER_TURN)]
    await asyncio.sleep(0)
    for each in steps[STEPS_PER_TURN : 2 * STEPS_PER_TURN]:
        each.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert all(each.done() for each in steps)


def large_failed_run(groups: int) -> WorkflowRun:
    """A run of as many nodes as allowed, all of which failed, in loops within one DAG."""
    context = ControllerContext(None, None, Mutexes(), {})  # type: ignore[arg-type]
    metadata: dict[str, Any] = {
        "name": "w",
        "namespace": "argo",
        "uid": "u",
        "creationTimestamp": timestamp(now()),
    }
    run = WorkflowRun(context, metadata, {"entrypoint": "main", "templates": []}, {"phase": "Failed"})
    root = run.nodes.start("w", "DAG", "Failed")
    for group in range(groups):
        run.nodes.connect(root, f"w.{group}")
        loop = run.nodes.start(f"w.{group}", "TaskGroup", "Failed", boundaryID=root["id"])
        for item in range((MAX_NODES - 1) // groups - 1):
            run.nodes.connect(loop, f"w.{group}({item})")
            run.nodes.start(f"w.{group}({item})", "Pod", "Failed", boundaryID=root["id"])
    return run


@pytest.mark.parametrize("groups", [1, 5_000])
def test_retrying_a_run_as_large_as_allowed_takes_seconds(groups: int) -> None:
    run = large_failed_run(groups)
    began = time.process_time()
    workflow_retry.prepare(run, restart_successful=False, selector="", parameters=["a=b"])
    assert time.process_time() - began < 30
    assert {node["phase"] for node in run.nodes} == {"Running"}
