"""Every file and every name in the tables of docs/architecture.md exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text()
ROWS = re.findall(r"^\| `(\S+\.py)` \| `([\w.]+)` \|", TEXT, re.MULTILINE)


@cache
def names(file: str) -> set[str]:
    """Functions, classes and their methods, as `name` and `Class.method`."""
    found = set()
    for node in ast.parse((ROOT / file).read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (ast.FunctionDef, ast.AsyncFunctionDef)
            found |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, methods)}
    return found


def test_the_tables_are_read() -> None:
    assert 2 * len(ROWS) == TEXT.count("| `") > 40


@pytest.mark.parametrize(("file", "name"), ROWS)
def test_a_file_has_the_name_that_the_table_gives(file: str, name: str) -> None:
    assert name in names(file)


@pytest.mark.parametrize("path", re.findall(r"`((?:libs|services|tests)/\S+?)`", TEXT))
def test_a_path_exists(path: str) -> None:
    assert (ROOT / path).exists()
