"""The bounds that docs/limits.md publishes are those of the code."""

import re
from pathlib import Path

from periplus.sdk import runner
from periplus.sdk.compiler.archive import MAX_ARCHIVE_BYTES
from periplus.sdk.snapshots import claim, collection, repository, working_tree
from periplus.sdk.values.parameters import MAX_PARAMETER_BYTES
from periplus_dispatcher.reproduce import requirements
from periplus_manifest import bounds

DOCUMENT = Path(__file__).parents[2] / "docs" / "limits.md"
ROW = re.compile(r"^\|[^|]*\|[^|\d]*([\d,]+)[^|]*\| `(MAX_[A-Z_]+)` \|([^|]*)\|$", re.MULTILINE)


def test_the_bounds_of_manifests_are_published_with_their_values_and_errors() -> None:
    rows = ROW.findall(DOCUMENT.read_text())
    published = {name: int(value.replace(",", "")) for value, name, _ in rows}
    assert published == {name: value for name, value in vars(bounds).items() if name.startswith("MAX_")}
    assert all(str(published[name]) in error for _, name, error in rows if name != "MAX_DEPTH")


def test_the_bounds_of_sdk_steps_are_published_with_their_values() -> None:
    section = DOCUMENT.read_text().partition("## SDK steps")[2].partition("\n## ")[0]
    rows = re.findall(r"^\|[^|]*\| ([\d,]+) [^|]*\|", section, re.MULTILINE)
    bounds_of_steps = [MAX_ARCHIVE_BYTES, MAX_PARAMETER_BYTES, runner.MAX_MESSAGE_CHARACTERS]
    assert [int(row.replace(",", "")) for row in rows] == bounds_of_steps


def test_the_bounds_of_snapshots_are_published_with_their_values() -> None:
    section = DOCUMENT.read_text().partition("## Snapshots")[2].partition("\n## ")[0]
    rows = re.findall(r"^\|[^|]*\| ([\d,]+)[^|]*\| `([\w.]+)` \|", section, re.MULTILINE)
    modules = {
        "claim": claim,
        "repository": repository,
        "working_tree": working_tree,
        "requirements": requirements,
    }
    for value, path in rows:
        module, _, name = path.rpartition(".")
        found = getattr(modules[module] if module else collection.SnapshotLimits(), name)
        assert int(value.replace(",", "")) == found, path
    assert len(rows) == 11
