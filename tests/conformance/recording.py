"""The manifests of the suite, what a real Argo made of each, and how to have an Argo make it again."""

import json
import os
from pathlib import Path
from typing import Any

import yaml

from periplus_local.argo.testing import Client, Refusal

from .deeds import Script

Body = dict[str, Any]
FOLDER = Path(__file__).parent / "recordings"
NAMES = sorted(path.stem for path in (FOLDER / "manifests").glob("*.yaml"))


def manifest(name: str) -> Body:
    """The manifest as a client sends it.

    ARGO_SPEC may hold a JSON object that is merged into the spec, for what a cluster needs (an account).
    """
    sent: Body = yaml.safe_load((FOLDER / "manifests" / f"{name}.yaml").read_text())
    sent["spec"] |= json.loads(os.environ.get("ARGO_SPEC", "{}"))
    return sent


def recorded(name: str) -> Body:
    """What the real Argo made of a manifest."""
    return dict(json.loads((FOLDER / "out" / f"{name}.json").read_text()))


def write(name: str, made: Body) -> None:
    """Keep what the real Argo made of a manifest."""
    path = FOLDER / "out" / f"{name}.json"
    path.write_text(json.dumps(made, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def made(client: Client, name: str, seconds: float = 60) -> Body:
    """What the server makes of a manifest and its deeds: the workflows as they ended, or the refusal."""
    script = Script.read(FOLDER / "deeds" / f"{name}.yaml", FOLDER / "templates")
    try:
        return {"manifest": f"{name}.yaml", **script.play(client, manifest(name), seconds)}
    except Refusal as refusal:
        return {"manifest": f"{name}.yaml", "refused": str(refusal)}
