"""Every manifest that a real Argo was recorded with does the same on the local one."""

import json
import os
from typing import Any

import pytest
import yaml
from minio import Minio

from periplus_local.argo.executor.mount_namespace import probe
from periplus_local.argo.names import node_id
from periplus_local.argo.testing import Client

from .comparison import differences, essences, settled
from .contents import contents
from .recording import FOLDER, NAMES, made, manifest, recorded
from .refusal import missing

Recording = dict[str, Any]

SOONER: dict[str, str] = yaml.safe_load((FOLDER / "sooner.yaml").read_text())

# Their steps print paths. Without mount namespaces a step sees its files below the folder of its pod.
NEED_NAMESPACES = {"empty-volumes", "program-that-is-not-there", "working-directory-and-environment"}


@pytest.fixture(scope="session")
def no_namespaces(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Why the local Argo runs steps without mount namespaces here; empty if it uses them, or for a real Argo."""
    return "" if "ARGO_SERVER" in os.environ else probe(str(tmp_path_factory.mktemp("probe")), wanted=True)[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_does_what_it_did_on_a_real_argo(
    client: Client, held: tuple[Minio, str] | None, no_namespaces: str, name: str
) -> None:
    if no_namespaces and name in NEED_NAMESPACES:
        pytest.skip(f"no namespaces here: {no_namespaces}")
    then, now = recorded(name), made(client, name)
    if name in SOONER and "ARGO_SERVER" not in os.environ:
        assert f'"{SOONER[name]}: ' in now["refused"]
        return
    found = compared(then, now, manifest(name))
    if "contents" in then and "workflows" in now and held is not None:
        found += differences(then["contents"], contents(*held, now["workflows"]))
    assert not found, "\n".join(found)


def compared(then: Recording, now: Recording, sent: Recording) -> list[str]:
    """How what an Argo made of a manifest differs from the recording."""
    if "refused" in then or "refused" in now:
        return missing(then.get("refused"), now.get("refused"), sent)
    found: list[str] = []
    ends = [essences(each["workflows"]) for each in (then, now)]
    for before, after in zip(*ends, strict=True):
        if before and after:
            found += differences(*settled(before, after))
        elif before or after:
            found.append("one of the two was deleted")
    for asked, said in zip(then.get("deeds", ()), now.get("deeds", ()), strict=True):
        found += missing(asked, said, sent)
    return found


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
