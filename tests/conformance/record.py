"""Record what an Argo makes of the manifests, as data for the suite.

    ARGO_SERVER=https://… ARGO_TOKEN=… python -m tests.conformance.record [NAME…]

Writes recordings/out/NAME.json for each manifest, or for those that are named: the events, the final
workflow, the answers that its suspend nodes were given, or the refusal. ARGO_SPEC may hold a JSON object
that is merged into each spec, for what a cluster needs (a service account).
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import yaml

from periplus_local.argo.testing import Client, Refusal

from .folder import argo

RECORDINGS = Path(__file__).parent / "recordings"
SECONDS = 120


def record(client: Client, name: str) -> dict[str, Any]:
    """What the server makes of one manifest."""
    manifest = yaml.safe_load((RECORDINGS / "manifests" / f"{name}.yaml").read_text())
    manifest["spec"] |= json.loads(os.environ.get("ARGO_SPEC", "{}"))
    label = f"{name}-{int(time.time())}"
    manifest["metadata"].setdefault("labels", {})["rec"] = label
    path = RECORDINGS / "manifests" / f"{name}.answers.json"
    answers = json.loads(path.read_text()) if path.exists() else None
    made: dict[str, Any] = {"manifest": f"{name}.yaml"}
    events: list[dict[str, Any]] = []
    watching = threading.Thread(target=watch, args=(client, label, events), daemon=True)
    watching.start()
    try:
        workflow = client.ended(client.create(manifest), answers, SECONDS)
    except Refusal as refusal:
        return made | {"refused": str(refusal)}
    watching.join(5)
    return made | {"events": events, "workflow": workflow} | ({"answers": answers} if answers else {})


def watch(client: Client, label: str, events: list[dict[str, Any]]) -> None:
    """Note the phases in each event of the workflows with the label, until one has ended."""
    query = f"workflow-events/{client.namespace}?listOptions.labelSelector=rec%3D{label}"
    with client.open("GET", query, headers={"Accept": "text/event-stream"}, seconds=SECONDS) as stream:
        for line in stream:
            if not line.startswith(b"data: "):
                continue
            event = json.loads(line[6:])["result"]
            status = event["object"].get("status") or {}
            nodes = {key: node["phase"] for key, node in (status.get("nodes") or {}).items()}
            phase, version = status.get("phase", ""), event["object"]["metadata"]["resourceVersion"]
            events.append({"nodes": nodes, "phase": phase, "resourceVersion": version, "type": event["type"]})
            if phase in {"Succeeded", "Failed", "Error"}:
                return


def main() -> int:
    """The command."""
    if "ARGO_SERVER" not in os.environ:
        sys.stderr.write("ARGO_SERVER is not set: recordings are made of a real Argo only\n")
        return 2
    names = sys.argv[1:] or sorted(path.stem for path in (RECORDINGS / "manifests").glob("*.yaml"))
    with argo() as client:
        for name in names:
            made = record(client, name)
            path = RECORDINGS / "out" / f"{name}.json"
            path.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")
            phase = made.get("refused") or made["workflow"]["status"]["phase"]
            sys.stdout.write(f"{name}: {phase}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
