"""What the documents refer to exists: make targets, files, links, settings of commands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *ROOT.glob("[a-z]*/README.md"),
    *ROOT.glob("*/*/README.md"),
]
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_refers_to_exists(document: Path) -> None:
    text = document.read_text()
    targets = set(re.findall(r"(?:`|^\$ )make ([a-z0-9-]+)", text, re.MULTILINE))
    assert targets <= TARGETS
    paths = re.findall(r"`((?:libs|services|tests|proto|bench|docs|examples)/[\w./*-]+)`", text)
    missing = [
        path for path in paths if not [*ROOT.glob(path.rstrip("/")), *document.parent.glob(path.rstrip("/"))]
    ]
    links = [link for link in re.findall(r"\]\(([^)#:]+)\)", text) if not (document.parent / link).exists()]
    assert not missing + links
