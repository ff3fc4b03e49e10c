"""Every manifest that a real Argo was recorded with does the same on the local one."""

import json
import os
from typing import Any

import pytest

from periplus_local.argo.names import node_id
from periplus_local.argo.testing import Client

from .comparison import differences, essence
from .recording import FOLDER, NAMES, made, manifest, recorded
from .refusal import missing

Recording = dict[str, Any]

# What can never work, and what Argo finds out only when it comes to it, is refused here at submit by its field.
SOONER = {
    "depends-that-does-not-parse": "spec.templates[0].dag.tasks[1].depends",
    "retry-expression-that-does-not-parse": "spec.templates[0].retryStrategy.expression",
    "sequence-of-words": "spec.templates[0].dag.tasks[0].withSequence.count",
    "sequence-without-count-or-end": "spec.templates[0].dag.tasks[0].withSequence",
    "when-that-does-not-parse": "spec.templates[0].dag.tasks[0].when",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_does_what_it_did_on_a_real_argo(client: Client, name: str) -> None:
    then, now = recorded(name), made(client, name)
    if name in SOONER and "ARGO_SERVER" not in os.environ:
        assert f'"{SOONER[name]}: ' in now["refused"]
        return
    found = compared(then, now, manifest(name))
    assert not found, "\n".join(found)


def compared(then: Recording, now: Recording, sent: Recording) -> list[str]:
    """How what an Argo made of a manifest differs from the recording."""
    if "refused" in then or "refused" in now:
        return missing(then.get("refused"), now.get("refused"), sent)
    ends = [dict(enumerate(map(ended, each["workflows"]))) for each in (then, now)]
    deeds = zip(then.get("deeds", ()), now.get("deeds", ()), strict=True)
    return differences(*ends) + [word for asked, said in deeds for word in missing(asked, said, sent)]


def ended(workflow: Recording | None) -> Recording | None:
    """What of a workflow must be the same; one that was deleted is none."""
    return essence(workflow) if workflow else None


RECORDED = sorted(path.stem for path in (FOLDER / "out").glob("*.json"))
ENDS = [(name, end) for name in RECORDED for end in recorded(name).get("workflows", ()) if end]


@pytest.mark.parametrize(("name", "workflow"), ENDS)
def test_the_recorded_ids_are_those_that_we_compute(name: str, workflow: Recording) -> None:
    for found, node in workflow["status"]["nodes"].items():
        assert found == node["id"] == node_id(workflow["metadata"]["name"], node["name"])


def test_a_refusal_that_names_another_task_is_not_the_same() -> None:
    asked = '400 {"code":3,"message":"templates.main.tasks.b dependency \'ghost\' not defined"}'
    tasks = [{"name": "a"}, {"name": "b", "depends": "ghost"}]
    sent = {"spec": {"templates": [{"name": "main", "dag": {"tasks": tasks}}]}}
    said = "spec.templates[0].dag.tasks[{}].depends: 'ghost' is not there"
    bodies = [json.dumps({"code": 3, "message": said.format(at)}) for at in (0, 1)]
    assert [missing(asked, f"400 {body}", sent) for body in bodies] == [["b"], []]
