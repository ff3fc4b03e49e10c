"""Run every workflow of a folder on an Argo and print, per manifest, what became of it.

    python -m tests.conformance.folder DIR [--seconds N] [-v]

Templates in the folder are created first. A manifest ran as expected when it succeeded, or ended in any way
where its own label says that it may fail. One that is refused is printed with the field that keeps it out. The
command ends with 1 when some manifest differs.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from periplus_local.argo.testing import Client, Refusal, Serving, has_ended, nodes_of

from .deeds import TEMPLATES
from .stores import settings, store
from .theirs import theirs

# How the examples of Argo itself say what is to become of them.
LABEL = "workflows.argoproj.io/no-test"
AT_ONCE = 12


@dataclass
class Manifest:
    """One workflow of the folder, and what became of it so far."""

    path: str
    body: dict[str, Any]
    name: str = ""
    refused: str = ""
    phase: str = ""
    said: list[str] = field(default_factory=list)
    resumed: float = 0.0

    @property
    def expected(self) -> set[str]:
        """The phases that it may end with."""
        why = ((self.body.get("metadata") or {}).get("labels") or {}).get(LABEL, "")
        open_end = why in {"expected-failure", "flaky"}
        return {"Succeeded", "Failed", "Error"} if open_end else {"Succeeded"}

    @property
    def verdict(self) -> str:
        """What to print."""
        if self.refused:
            return f"refused   {self.refused}"
        if self.phase in self.expected:
            return f"as expected   {self.phase}"
        return f"differs   {self.phase or 'has not ended'} {'; '.join(self.said)}"


def read(folder: Path) -> tuple[list[dict[str, Any]], list[Manifest]]:
    """The templates and the workflows below a folder."""
    templates, workflows = [], []
    for path in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")]):
        for body in yaml.safe_load_all(path.read_text()):
            kind = body.get("kind") if isinstance(body, dict) else None
            if kind in TEMPLATES:
                templates.append(body)
            elif kind == "Workflow":
                workflows.append(Manifest(str(path.relative_to(folder)), body))
    return templates, workflows


def keep(client: Client, templates: list[dict[str, Any]]) -> None:
    """Create the templates; one that is refused keeps out the workflows that need it, which say so."""
    for template in templates:
        path = TEMPLATES[template["kind"]].format(client.namespace)
        with contextlib.suppress(Refusal):
            client.call("POST", path, {"template": template})


def run(client: Client, manifests: list[Manifest], seconds: float) -> Iterator[Manifest]:
    """Run the workflows, some at once, and give each as it comes to its end."""
    waiting, under_way = list(reversed(manifests)), dict[str, tuple[Manifest, float]]()
    while waiting or under_way:
        while waiting and len(under_way) < AT_ONCE:
            manifest = waiting.pop()
            try:
                manifest.name = client.create(manifest.body)
            except Refusal as refusal:
                manifest.refused = refusal.body
                yield manifest
                continue
            under_way[manifest.path] = (manifest, time.monotonic() + seconds)
        for path, (manifest, end) in list(under_way.items()):
            if looked_at(client, manifest, last=time.monotonic() > end):
                del under_way[path]
                yield manifest
        time.sleep(0.1)


def looked_at(client: Client, manifest: Manifest, *, last: bool) -> bool:
    """Whether the workflow has ended, or is ended because its time is over."""
    workflow = client.get(manifest.name)
    nodes = nodes_of(workflow).values()
    if has_ended(workflow):
        manifest.phase = workflow["status"]["phase"]
        bad = [node for node in nodes if node["phase"] in {"Failed", "Error"} and "message" in node]
        manifest.said = sorted({node["message"] for node in bad})[:3]
        return True
    if last:
        with contextlib.suppress(Refusal):
            client.do(manifest.name, "terminate")
        return True
    waits = any(node["type"] == "Suspend" and node["phase"] == "Running" for node in nodes)
    if waits and time.monotonic() - manifest.resumed > 5:
        manifest.resumed = time.monotonic()
        with contextlib.suppress(Refusal):
            client.do(manifest.name, "resume")
    return False


@contextlib.contextmanager
def argo() -> Iterator[Client]:
    """The server that ARGO_SERVER names, else a local one on a fresh store."""
    if "ARGO_SERVER" in os.environ:
        yield theirs()
        return
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp", prefix="conformance-") as home,
        store(Path(home) / "s3") as s3,
        Serving(settings(Path(home) / "argo", s3, slots=32)) as client,
    ):
        yield client


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=60, help="how long a workflow may take")
    options = parser.parse_args()
    templates, manifests = read(options.folder)
    counts: Counter[str] = Counter()
    with argo() as client:
        keep(client, templates)
        for manifest in run(client, manifests, options.seconds):
            counts[manifest.verdict.split("   ")[0]] += 1
            sys.stdout.write(f"{manifest.path}: {manifest.verdict}\n")
            sys.stdout.flush()
    sys.stdout.write(", ".join(f"{count} {what}" for what, count in sorted(counts.items())) + "\n")
    return 1 if counts["differs"] else 0


if __name__ == "__main__":
    sys.exit(main())
