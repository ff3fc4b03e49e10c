"""The manifests of the suite, the recordings of what a real Argo made of them, and playing them on an Argo."""

import json
import os
from pathlib import Path
from typing import Any

import yaml

from periplus_local.argo.testing import Client, Refusal

from .scenario import Scenario

Body = dict[str, Any]
FOLDER = Path(__file__).parent / "recordings"
NAMES = sorted(path.stem for path in (FOLDER / "manifests").glob("*.yaml"))


def manifest(name: str) -> Body:
    """The manifest as a client sends it.

    ARGO_SPEC may hold a JSON object that is merged into the spec, for what a cluster needs (a service account).
    """
    body: Body = yaml.safe_load((FOLDER / "manifests" / f"{name}.yaml").read_text())
    body["spec"] |= json.loads(os.environ.get("ARGO_SPEC", "{}"))
    return body


def recorded(name: str) -> Body:
    """The recording of a manifest."""
    return dict(json.loads((FOLDER / "out" / f"{name}.json").read_text()))


def write(name: str, recording: Body) -> None:
    """Write the recording of a manifest."""
    path = FOLDER / "out" / f"{name}.json"
    path.write_text(json.dumps(recording, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def play(client: Client, name: str, seconds: float = 60) -> Body:
    """Run a manifest with its scenario: the workflows as they ended, or the refusal, in the form of a recording."""
    scenario = Scenario.read(FOLDER / "scenarios" / f"{name}.yaml", FOLDER / "templates")
    try:
        return {"manifest": f"{name}.yaml", **scenario.play(client, manifest(name), seconds)}
    except Refusal as refusal:
        return {"manifest": f"{name}.yaml", "refused": str(refusal)}
