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
KIND_LINE = re.compile(
    rf"""(?m)^\s*["']?kind["']?\s*:\s*["']?(?:{"|".join(KINDS)})["']?\s*[,}}]?\s*(?:#.*)?$"""
)
DOCUMENT_SEPARATOR = re.compile(r"(?m)^---(?:[ \t].*)?$")


@dataclass(frozen=True)
class Manifest:
    """One document; `parse_error` says why it has no body."""

    path: str
    body: dict[str, Any] = field(default_factory=dict)
    parse_error: str = ""

    @property
    def kind(self) -> str:
        """Which of Argo's objects it is."""
        return str(self.body.get("kind", ""))

    @property
    def labels(self) -> dict[str, Any]:
        """The labels of its metadata."""
        return (self.body.get("metadata") or {}).get("labels") or {}


def manifests(folder: Path) -> list[Manifest]:
    """All manifests below a folder, by path; the second and later ones of a file as "path#number"."""
    files = [path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file()]
    return [each for path in sorted(files) for each in _documents(path, str(path.relative_to(folder)))]


def _documents(path: Path, name: str) -> Iterator[Manifest]:
    text = path.read_text(encoding="utf-8", errors="replace")
    documents = [text] if path.suffix == ".json" else DOCUMENT_SEPARATOR.split(text)
    for number, document in enumerate(document for document in documents if KIND_LINE.search(document)):
        numbered = f"{name}#{number + 1}" if number else name
        try:
            body = read(document)
        except ManifestError as error:
            yield Manifest(numbered, parse_error=str(error))
            continue
        if body.get("kind") in KINDS:
            yield Manifest(numbered, body)
