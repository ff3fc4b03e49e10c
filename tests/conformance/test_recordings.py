"""Every manifest of the recordings does on the local Argo what it did on the real one."""

import json
import os
from typing import Any

import pytest
import yaml
from minio import Minio

from periplus_local.argo.executor import support
from periplus_local.argo.names import node_id
from periplus_local.argo.testing import Client

from .artifact_contents import artifact_contents
from .comparison import comparable, differences, without_abandoned_nodes
from .recording import FOLDER, NAMES, manifest, play, recorded
from .refusal_comparison import missing_words

Recording = dict[str, Any]

REFUSED_EARLIER: dict[str, str] = yaml.safe_load((FOLDER / "refused_earlier.yaml").read_text())

# Their steps print paths. Without mount namespaces a step sees its files below the folder of its pod.
NEED_NAMESPACES = {"empty-volumes", "program-that-is-not-there", "working-directory-and-environment"}


@pytest.fixture(scope="session")
def no_namespaces(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Why the local Argo runs steps without mount namespaces here; empty if it uses them, or for a real Argo."""
    return "" if "ARGO_SERVER" in os.environ else support.find().reason


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_does_what_it_did_on_a_real_argo(
    client: Client, repository: tuple[Minio, str] | None, no_namespaces: str, name: str
) -> None:
    if no_namespaces and name in NEED_NAMESPACES:
        pytest.skip(f"no namespaces here: {no_namespaces}")
    recording, actual = recorded(name), play(client, name)
    if name in REFUSED_EARLIER and "ARGO_SERVER" not in os.environ:
        assert f'"{REFUSED_EARLIER[name]}: ' in actual["refused"]
        return
    found = compared(recording, actual, manifest(name))
    if "contents" in recording and "workflows" in actual and repository is not None:
        contents = artifact_contents(*repository, actual["workflows"])
        found += differences(recording["contents"], contents)
    assert not found, "\n".join(found)


def compared(recording: Recording, actual: Recording, body: Recording) -> list[str]:
    """How what an Argo made of a manifest differs from the recording."""
    if "refused" in recording or "refused" in actual:
        return missing_words(recording.get("refused"), actual.get("refused"), body)
    found: list[str] = []
    ends = [comparable(each["workflows"]) for each in (recording, actual)]
    for recorded_end, actual_end in zip(*ends, strict=True):
        if recorded_end and actual_end:
            found += differences(*without_abandoned_nodes(recorded_end, actual_end))
        elif recorded_end or actual_end:
            found.append("one of the two was deleted")
    refusals = zip(recording.get("actions", ()), actual.get("actions", ()), strict=True)
    for recorded_refusal, actual_refusal in refusals:
        found += missing_words(recorded_refusal, actual_refusal, body)
    return found


RECORDED = sorted(path.stem for path in (FOLDER / "out").glob("*.json"))
ENDS = [(name, end) for name in RECORDED for end in recorded(name).get("workflows", ()) if end]


@pytest.mark.parametrize(("name", "workflow"), ENDS)
def test_recorded_node_ids_are_those_that_we_compute(name: str, workflow: Recording) -> None:
    for found, node in workflow["status"]["nodes"].items():
        assert found == node["id"] == node_id(workflow["metadata"]["name"], node["name"])


def test_a_refusal_that_names_another_task_is_not_the_same() -> None:
    asked = '400 {"code":3,"message":"templates.main.tasks.b dependency \'ghost\' not defined"}'
    tasks = [{"name": "a"}, {"name": "b", "depends": "ghost"}]
    sent = {"spec": {"templates": [{"name": "main", "dag": {"tasks": tasks}}]}}
    said = "spec.templates[0].dag.tasks[{}].depends: 'ghost' is not there"
    bodies = [json.dumps({"code": 3, "message": said.format(at)}) for at in (0, 1)]
    assert [missing_words(asked, f"400 {body}", sent) for body in bodies] == [["b"], []]
