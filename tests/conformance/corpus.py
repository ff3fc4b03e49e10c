"""The manifests below a folder: every document that is Argo's, in files of YAML and JSON."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from periplus_manifest.errors import ManifestError
from periplus_manifest.read import read

KINDS = ("Workflow", "WorkflowTemplate", "ClusterWorkflowTemplate", "CronWorkflow")
SUFFIXES = {".yaml", ".yml", ".json"}
OURS = re.compile(rf"""(?m)^\s*["']?kind["']?\s*:\s*["']?(?:{"|".join(KINDS)})["']?\s*[,}}]?\s*(?:#.*)?$""")
BETWEEN = re.compile(r"(?m)^---(?:[ \t].*)?$")


@dataclass(frozen=True)
class Manifest:
    """One document; `unreadable` says why there is no body."""

    path: str
    body: dict[str, Any] = field(default_factory=dict)
    unreadable: str = ""

    @property
    def kind(self) -> str:
        """Which of Argo's objects it is."""
        return str(self.body.get("kind", ""))

    @property
    def labels(self) -> dict[str, Any]:
        """The labels of its metadata."""
        return (self.body.get("metadata") or {}).get("labels") or {}


def manifests(folder: Path) -> list[Manifest]:
    """All that is Argo's below a folder, by path; documents of a file beyond the first by their number, too."""
    files = [path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file()]
    return [made for path in sorted(files) for made in _documents(path, str(path.relative_to(folder)))]


def _documents(path: Path, name: str) -> Iterator[Manifest]:
    text = path.read_text(encoding="utf-8", errors="replace")
    pieces = [text] if path.suffix == ".json" else BETWEEN.split(text)
    for number, piece in enumerate(piece for piece in pieces if OURS.search(piece)):
        shown = f"{name}#{number + 1}" if number else name
        try:
            body = read(piece)
        except ManifestError as error:
            yield Manifest(shown, unreadable=str(error))
            continue
        if body.get("kind") in KINDS:
            yield Manifest(shown, body)
