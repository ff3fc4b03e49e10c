"""The tables of docs/operations.md are those of the services' settings, and every setting says what it is."""

from pathlib import Path

from periplus_common.settings_table import with_tables

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"
MODULES = [f"periplus_{name}.settings" for name in ("dispatcher", "cache", "snapshotter", "lineage")]


def test_the_tables_are_current() -> None:
    text = DOCUMENT.read_text()
    assert text == with_tables(text, MODULES), "run: make settings"
