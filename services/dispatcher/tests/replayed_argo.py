"""An Argo in memory that goes through the recorded states of one Workflow, as an observer sees them."""

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]
OUT = Path(__file__).parents[3] / "tests" / "conformance" / "recordings" / "out"


def recorded(name: str) -> Json:
    """The Workflow of a recording as the real Argo left it."""
    found: Json = json.loads((OUT / f"{name}.json").read_text())["workflows"][0]
    return found


def states(name: str, uid: str) -> list[Json]:
    """The states that a recorded Workflow has gone through, by the times of its nodes; the first is without a status.

    A pod's node ends before Argo has its outputs.
    """
    final = recorded(name)
    final["metadata"] |= {"uid": uid, "namespace": "ml"}
    nodes: list[Json] = list(final["status"]["nodes"].values())
    repository = final["status"].get("artifactRepositoryRef") or {}
    times = sorted({node[key] for node in nodes for key in ("startedAt", "finishedAt") if node.get(key)})
    found = [{**final, "status": {}}]
    for at in times:
        present = {node["id"]: node for node in nodes if node["startedAt"] <= at}
        for is_synced in (False, True):
            status = {
                "artifactRepositoryRef": repository,
                "phase": "Running",
                "nodes": {k: _at(n, at, is_synced) for k, n in present.items()},
            }
            found.append({**final, "status": status})
    found.append(final)
    for version, state in enumerate(found, start=1):
        state["metadata"] = {**final["metadata"], "resourceVersion": str(version)}
    return found


def _at(node: Json, at: str, is_synced: bool) -> Json:
    """A node at a time."""
    if node.get("finishedAt") and node["finishedAt"] < at:
        return node
    left_out = {"outputs"} if node.get("finishedAt") == at else {"outputs", "finishedAt"}
    without = {key: value for key, value in node.items() if key not in left_out}
    if node.get("finishedAt") != at:
        return {**without, "phase": "Running"}
    if node["type"] == "Pod":
        return node if is_synced else {**without, "taskResultSynced": False}
    return node


class ReplayedArgo:
    """One Workflow that goes from state to state while it is watched, or by `advance`. `is_deleted`: Argo has it no more."""

    namespace = "ml"

    def __init__(self, states: list[Json]) -> None:
        self.states, self.position = states, 0
        self.is_deleted = False
        self.archived: Json | None = None

    @property
    def state(self) -> Json:
        return copy.deepcopy(self.states[self.position])

    def advance(self, steps: int) -> None:
        self.position = min(self.position + steps, len(self.states) - 1)

    async def watch(self, selector: str) -> AsyncIterator[Json | None]:
        yield None
        while not self.is_deleted and selector.startswith("!"):
            yield self.state
            if self.position == len(self.states) - 1:
                break
            await asyncio.sleep(0.01)
            self.advance(1)
        await asyncio.Event().wait()

    async def list(self, selector: str, *, archived: bool) -> AsyncIterator[tuple[str, str]]:
        found = self.archived if archived else None if self.is_deleted else self.state
        if found is not None:
            yield found["metadata"]["name"], found["metadata"]["uid"]

    async def get(self, name: str) -> Json | None:
        return None if self.is_deleted else self.state

    async def get_archived(self, uid: str) -> Json | None:
        return copy.deepcopy(self.archived)

    async def logs(self, name: str, *, follow: bool) -> AsyncIterator[tuple[str, str]]:
        return
        yield
