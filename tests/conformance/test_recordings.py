"""Every manifest that a real Argo was recorded with does the same on the local one."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from periplus_local.argo.names import node_id
from periplus_local.argo.testing import Client, Refusal, nodes_of

from .comparison import differences, essence

RECORDINGS = Path(__file__).parent / "recordings"
NAMES = sorted(path.stem for path in (RECORDINGS / "manifests").glob("*.yaml"))

# The image that was recorded had no standard library, so that `import json` failed there. It says nothing
# of Argo; what the manifest does where Python is whole is asserted instead.
WITHOUT_LIBRARY = {"loop-param-from-step": ("sum", "30")}


def manifest(name: str) -> dict[str, Any]:
    """The manifest as a client sends it."""
    return yaml.safe_load((RECORDINGS / "manifests" / f"{name}.yaml").read_text())


def recording(name: str) -> dict[str, Any]:
    """What the real Argo made of it."""
    return json.loads((RECORDINGS / "out" / f"{name}.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_does_what_it_did_on_a_real_argo(client: Client, name: str) -> None:
    recorded = recording(name)
    if "refused" in recorded:
        with pytest.raises(Refusal) as refusal:
            client.create(manifest(name))
        assert same_refusal(recorded["refused"], refusal.value)
        return
    made = client.create(manifest(name))
    workflow = client.ended(made, recorded.get("answers"))
    if name in WITHOUT_LIBRARY:
        parameter, value = WITHOUT_LIBRARY[name]
        assert {"name": parameter, "value": value} in nodes_of(workflow)[made]["outputs"]["parameters"]
        return
    found = differences(essence(recorded["workflow"]), essence(workflow))
    assert not found, "\n".join(found)


def same_refusal(recorded: str, refusal: Refusal) -> bool:
    """Whether the refusal has the same status and code, and names what the recorded one names."""
    status, _, body = recorded.partition(" ")
    words = {word.strip("'\"{}") for word in json.loads(body)["message"].replace(".", " ").split()}
    said = json.loads(refusal.body)
    names = words & {"a", "b", "c", "need", "nowhere", "cycle", "depends", "dependencies"}
    return (
        refusal.status == int(status)
        and said["code"] == json.loads(body)["code"]
        and all(name in said["message"] for name in names)
    )


@pytest.mark.parametrize("name", [name for name in NAMES if "workflow" in recording(name)])
def test_the_recorded_ids_are_those_that_we_compute(name: str) -> None:
    workflow = recording(name)["workflow"]
    for found, node in workflow["status"]["nodes"].items():
        assert found == node["id"] == node_id(workflow["metadata"]["name"], node["name"])
