"""Every manifest that a real Argo was recorded with does the same on the local one."""

import json
from typing import Any

import pytest

from periplus_local.argo.names import node_id
from periplus_local.argo.testing import Client

from .comparison import differences, essence
from .recording import NAMES, made, recorded

# What a refusal is about, where the recorded one says it.
NAMED = {"a", "b", "c", "need", "nowhere", "cycle", "depends", "dependencies"}


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_does_what_it_did_on_a_real_argo(client: Client, name: str) -> None:
    then, now = recorded(name), made(client, name)
    found = differences(summary(then, then), summary(now, then))
    assert not found, "\n".join(found)


def summary(recording: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    """What of a recording must be the same on every Argo; `then` is the one it is compared with."""
    if "refused" in recording:
        return {"refused": refusal(recording["refused"], then.get("refused"))}
    ends = [essence(end) if end else None for end in recording["workflows"]]
    deeds = zip(recording.get("deeds", ()), then.get("deeds", ()), strict=True)
    told = [refusal(said, expected) if said else None for said, expected in deeds]
    return {"workflows": dict(enumerate(ends)), "deeds": dict(enumerate(told))}


def refusal(said: str, expected: str | None) -> dict[str, Any]:
    """The status and the code of a refusal, and which names it has of those that are expected."""
    status, _, body = said.partition(" ")
    names = NAMED & words(json.loads((expected or "0 {}").partition(" ")[2]).get("message", ""))
    answer = json.loads(body)
    return {
        "status": status,
        "code": answer["code"],
        "names": sorted(name for name in names if name in answer["message"]),
    }


def words(message: str) -> set[str]:
    """The words of a message."""
    return {word.strip("'\"{}") for word in message.replace(".", " ").split()}


ENDS = [(name, end) for name in NAMES for end in recorded(name).get("workflows", ()) if end]


@pytest.mark.parametrize(("name", "workflow"), ENDS)
def test_the_recorded_ids_are_those_that_we_compute(name: str, workflow: dict[str, Any]) -> None:
    for found, node in workflow["status"]["nodes"].items():
        assert found == node["id"] == node_id(workflow["metadata"]["name"], node["name"])
